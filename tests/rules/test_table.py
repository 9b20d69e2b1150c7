"""Every row of the operator case table against float64 differences, and the names in rules, cases and docs."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.engines.tangents import push
from hessmx.graph.node import parse
from hessmx.graph.symbols import call
from hessmx.rules import FAMILIES, RULES, UNSUPPORTED, covered
from hessmx.trust.testing import check_rule
from tests.cases import CASES, OPERATORS

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"

# Operators that compute in float32 inside whatever they are given (RNN with relu too): longer steps.
SINGLE_INSIDE = {
    "_contrib_SyncBatchNorm": {"step": 4e-3, "tolerance": 2e-3},
    "_contrib_BatchNormWithReLU": {"step": 4e-3, "tolerance": 2e-2},
    "BatchNorm_v1": {"step": 4e-3, "tolerance": 2e-3},
    "LeakyReLU": {"step": 4e-3, "tolerance": 1e-4},
    "_random_pdf_normal": {"tolerance": 1e-7},
    "_image_to_tensor": {"step": 0.05, "tolerance": 1e-3},
    "_image_flip_left_right": {"step": 0.05, "tolerance": 1e-4},
}

# Operators whose gradient MXNet computes in float32: second differences of the operator are the better evidence.
FORWARD_ONLY = {
    *"erf erfinv gamma gammaln _random_pdf_gamma _random_pdf_dirichlet _random_pdf_negative_binomial".split(),
    *"_random_pdf_generalized_negative_binomial _grad_add _npi_var _npi_std _image_to_tensor".split(),
    *"_image_flip_left_right".split(),
}

NOT_COMPARABLE = {
    "prod(1x3:literal;axis=1)_kink": "MXNet's own gradient is not a number: nothing that a rule could follow",
    "norm(3:literal)_kink": "the same",
    "_image_flip_top_bottom(3x4x3:positive)_float32": "MXNet leaves the middle row as it finds it; see test_flip",
    "_contrib_BatchNormWithReLU(2x3x2x1,3:positive,3,3,3:positive;fix_gamma=False)_float32_outputs=0": (
        "MXNet forgets the ReLU's mask, and the long steps that float32 needs cross its kink"
    ),
    "LeakyReLU(3x4:distinct;act_type=selu)": "a float32 forward and a wrong gradient leave nothing to compare with",
    "LeakyReLU(3x4:distinct;act_type=rrelu)_outputs=0": "the same",
    "_contrib_getnnz(3x2)": "sparse arrays only",
    "Correlation(1x2x4x4:unit,1x2x4x4:above_one;max_displacement=1,pad_size=1,is_multiply=False)": (
        "no rule, and it says so"
    ),
}

# MXNet's float32 Deconvolution fails in an Executor that holds it twice, and spoils the process.
NO_FLOAT32 = {"Deconvolution"}


def _options(case) -> dict:
    options: dict = {"step": 1e-3, "tolerance": 3e-3} if case.dtype == "float32" else {}
    options.update(SINGLE_INSIDE.get(case.op, {}))
    if case.attrs.get("mode") == "rnn_relu":
        options = {"step": 1e-3, "tolerance": 1e-3}
    if case.first or case.op in FORWARD_ONLY:
        options = {"tolerance": 1e-6, **options, "own_gradient": False}
    if case.op in NO_FLOAT32:
        options["tolerance32"] = None
    return options


def _can_move(case) -> bool:
    """BlockGrad is zero because it says so; kinks sit on jumps; integers do not move."""
    return case.op != "BlockGrad" and not case.kink and any(case.inputs[i].floating for i in case.moving)


def _is_zero(case) -> bool:
    return case.op in RULES and RULES[case.op].kind == "zero"


def _random_gradient(case) -> bool:
    """Max pooling in float32: MXNet's own gradient reads a workspace that may never have been filled."""
    return case.op == "Pooling" and case.dtype == "float32" and case.attrs["pool_type"] == "max"


def _checkable(case) -> bool:
    if case.op not in covered() or case.op in UNSUPPORTED or case.random or case.sparse or _is_zero(case):
        return False
    if case.name in NOT_COMPARABLE or _random_gradient(case) or case.note == "GPU only":
        return False
    return not (case.op in NO_FLOAT32 and case.dtype == "float32")


@pytest.mark.parametrize("case", [case for case in CASES if _checkable(case)], ids=lambda case: case.name)
def test_rule_against_differences(case):
    check_rule(
        case.op,
        case.draw(),
        case.attrs,
        wrt=case.moving,
        outputs=case.outputs,
        kink=case.kink,
        train=case.train,
        symmetric=case.symmetric,
        **_options(case),
    )


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if _is_zero(case) and _can_move(case) and case.name not in NOT_COMPARABLE],
    ids=lambda case: case.name,
)
def test_zero_rule_is_zero(case):
    """Where the output is floating: zero differences, away from jumps. BlockGrad is zero because it says so."""
    inputs = case.draw()
    with mx.util.np_shape(case.numpy_shapes):
        variables = [mx.sym.Variable(f"x{i}", shape=x.shape) for i, x in enumerate(inputs)]
        symbol = mx.sym.Group(call(case.op, variables, case.attributes))

        def run(shift: float) -> list:
            values = {
                f"x{i}": _array(x + shift * case.inputs[i].floating if x.dtype.kind == "f" else x)
                for i, x in enumerate(inputs)
            }
            return [y.asnumpy() for y in symbol.bind(mx.cpu(), values, grad_req="null").forward(is_train=False)]

        for ahead, behind in zip(run(1e-5), run(-1e-5)):
            np.testing.assert_array_equal(ahead, behind)


def _array(value: np.ndarray):
    return mx.np.array(value, dtype=value.dtype).as_nd_ndarray()


@pytest.mark.parametrize("shape", [(4, 2, 3), (3, 5, 1)])
@pytest.mark.parametrize("op, axis", [("_image_flip_left_right", -2), ("_image_flip_top_bottom", -3)])
def test_flip(op, axis, shape):
    """Closed form: MXNet leaves a middle row, where there is one, as it finds it."""
    t = np.random.default_rng(0).standard_normal(shape)
    moved = _tangent(op, [np.zeros(shape)], {}, t)
    np.testing.assert_array_equal(moved, np.flip(t, axis))


def _tangent(op: str, inputs: list, attrs: dict, t: np.ndarray) -> np.ndarray:
    from hessmx.graph.lower import lower

    shapes = {f"x{i}": x.shape for i, x in enumerate(inputs)}
    variables = {name: mx.sym.Variable(name, shape=shape) for name, shape in shapes.items()}
    graph, _ = lower(parse(mx.sym.Group(call(op, list(variables.values()), attrs))), shapes, False, double=True)
    _, tangents = push(graph, shapes, variables, {"x0": mx.sym.Variable("t", shape=t.shape)})
    values = {f"x{i}": _array(x) for i, x in enumerate(inputs)}
    arguments = {k: v for k, v in {**values, "t": _array(t)}.items() if k in tangents[0].list_arguments()}
    return tangents[0].bind(mx.cpu(), arguments, grad_req="null").forward(is_train=True)[0].asnumpy()


def test_every_case_is_covered_or_has_a_reason_or_is_listed():
    """Three different things: a rule (zero ones too), a reason against one, and no rule yet."""
    unknown = {op for op in OPERATORS if op not in covered() and op not in UNSUPPORTED}
    assert unknown <= NO_RULE_YET


NO_RULE_YET = {
    *"_contrib_box_nms _contrib_DeformableConvolution _contrib_hawkesll".split(),
}


def test_families_do_not_overlap():
    seen: dict = {}
    for name, family in FAMILIES.items():
        for op in getattr(family, "RULES", {}):
            assert op not in seen or op in _OVERRIDDEN, f"{op} is in {name} and in {seen[op]}"
            seen[op] = name


_OVERRIDDEN: set = set()


def test_a_rule_and_a_reason_against_one_exclude_each_other():
    assert not RULES.keys() & UNSUPPORTED.keys()
    assert all((reason and reason[0].islower()) or reason.startswith("MXNet") for reason in UNSUPPORTED.values())


def test_rules_cases_and_docs_name_the_same_operators():
    page = PAGE.read_text()
    listed = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+) \|", page, flags=re.M))
    ruled = {op for op, rule in listed.items() if not rule.startswith("finite differences")}
    assert ruled == covered() & listed.keys()
    assert set(OPERATORS) <= listed.keys()
