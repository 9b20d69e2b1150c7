"""The checker itself: right rules pass, and every way of being wrong that we could think of is found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import hessmx.trust.testing
from hessmx._mxnet import mx
from hessmx.errors import HessmxError, InputError, RuleError
from hessmx.graph.site import total
from hessmx.rules import RULES
from hessmx.rules.kinds import custom, elementwise, linear, same, zero
from hessmx.trust.testing import check_rule

F = mx.sym
RNG = np.random.default_rng(3)
X, W, B = RNG.uniform(0.3, 1.4, (2, 3)), RNG.standard_normal((4, 3)), RNG.standard_normal(4)
DENSE = ("FullyConnected", [X, W, B], {"num_hidden": 4})


def _without_bias(s):
    return [total([s.again([s.dense(0), s.xs[1]], no_bias=True)[0], s.again([s.x, s.dense(1)], no_bias=True)[0]])]


WRONG = {  # name: (operator, inputs, attributes, rule, what must be found)
    "factor": ("tanh", [X], {}, elementwise(lambda s: 2 * (1 - F.square(s.y))), "tangent"),
    "factor off by 1e-5": ("exp", [X], {}, elementwise(lambda s: s.y * (1 + 1e-5)), "tangent"),
    "sign": ("cos", [X], {}, elementwise(lambda s: F.sin(s.x)), "tangent"),
    "another function": ("sigmoid", [X], {}, elementwise(lambda s: s.y), "tangent"),
    "zero": ("square", [X], {}, zero(), "tangent"),
    "identity": ("_mul_scalar", [X], {"scalar": 3.0}, same(), "tangent"),
    "missing term": ("elemwise_mul", [X, X + 1], {}, linear(0), "tangent"),
    "missing input": (*DENSE, custom(_without_bias), "tangent"),
    "constant kept": ("_plus_scalar", [X], {"scalar": 3.0}, linear(), "tangent"),
    "second order cut": ("exp", [X], {}, elementwise(lambda s: F.BlockGrad(s.y)), "product"),
    "second order cut in one factor": (
        "broadcast_mul",
        [X, X[:1]],
        {},
        custom(lambda s: [F.broadcast_mul(s.dense(0), F.BlockGrad(s.xs[1])) + F.broadcast_mul(s.x, s.dense(1))]),
        "product",
    ),
    "an operator with a wrong gradient inside": (
        "square",
        [X],
        {},
        custom(lambda s: [2 * F.make_loss(s.x) * s.dense(0)]),
        "product",
    ),
    "not a number": ("sqrt", [X], {}, elementwise(lambda s: 0.5 / s.y * F.sqrt(-s.x)), "tangent"),
    "right to float32 only": ("log", [X], {}, elementwise(lambda s: 1 / s.x * (1 + 6e-8)), "tangent"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_rules_are_found(name):
    op, inputs, attrs, rule, part = WRONG[name]
    before = RULES[op]
    with pytest.raises(RuleError, match=f"{op} is wrong: .*{part}"):
        check_rule(op, inputs, attrs, rule=rule)
    assert RULES[op] is before


def test_wrong_only_in_float32_is_found():
    """1e-9 is lost beside 1 in float32."""
    rule = elementwise(lambda s: ((s.x + 1e9) - 1e9) * 2)
    found = check_rule("square", [np.arange(1.0, 4.0)], rule=rule, tolerance=1e-5, tolerance32=None)
    assert found.tangent < 1e-5
    with pytest.raises(RuleError, match="float32"):
        check_rule("square", [np.arange(1.0, 4.0)], rule=rule, tolerance=1e-5)


@pytest.mark.parametrize(
    "op, inputs, attrs",
    [
        ("tanh", [X], {}),
        ("elemwise_mul", [X, X + 1], {}),
        DENSE,
        ("dot", [X, W], {"transpose_b": True}),
        ("_linalg_inverse", [np.eye(3) * 2 + 0.1], {}),
        ("_npi_multiply", [X, np.asarray(1.5)], {}),
        ("take", [X, np.array([1, 0, 1], dtype="int32")], {}),
    ],
)
def test_right_rules_pass_with_small_errors(op, inputs, attrs):
    found = check_rule(op, inputs, attrs)
    assert max(found.tangent, found.product) < 1e-9
    assert found.adjoint < 1e-12
    assert found.float32 < 1e-5


def test_errors_do_not_grow_with_size():
    small, large = (check_rule("tanh", [RNG.standard_normal(n)]) for n in (3, 3000))
    assert large.tangent < 1e-10 and large.product < 1e-9
    assert small.tangent < 1e-10


def test_at_kinks_the_rule_must_be_the_adjoint_of_mxnets_backward():
    kinks = [np.array([-1.0, 0.0, 1.0])]
    found = check_rule("relu", kinks, kink=True)
    assert np.isnan(found.tangent) and found.adjoint < 1e-14
    with pytest.raises(RuleError, match="adjoint"):
        check_rule("relu", kinks, kink=True, rule=elementwise(lambda s: s.x >= 0))
    with pytest.raises(RuleError, match="tangent"):
        check_rule("relu", kinks)


def test_at_ties_max_pays_every_entry_in_full():
    tied = [np.array([[1.0, 1.0, 0.0]])]
    assert check_rule("max", tied, {"axis": 1}, kink=True).adjoint < 1e-14
    first = custom(lambda s: [F.pick(s.t, F.argmax(s.x, axis=1), axis=1)])
    with pytest.raises(RuleError, match="adjoint"):
        check_rule("max", tied, {"axis": 1}, kink=True, rule=first)


def test_forward_differences_stand_in_for_a_wrong_gradient():
    """MXNet's gradient of np.std is zero; its second differences are not."""
    found = check_rule("_npi_std", [X], {"axis": 1}, own_gradient=False)
    assert np.isnan(found.adjoint) and found.product < 1e-7
    with pytest.raises(RuleError, match="adjoint"):
        check_rule("_npi_std", [X], {"axis": 1})
    cut = elementwise(lambda s: F.BlockGrad(s.y))
    with pytest.raises(RuleError, match="product"):
        check_rule("exp", [X], rule=cut, own_gradient=False)


def test_symmetric_inputs_move_along_symmetric_directions():
    matrix = np.diag([1.0, 2.0, 3.0]) + 0.1
    assert check_rule("_linalg_potrf", [matrix], symmetric=(0,)).product < 1e-9


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: check_rule("Custom", [X], {"op_type": "nothing"}), RuleError, "no tangent rule to check .*user code"),
        (lambda: check_rule("no_such_operator", [X]), RuleError, "no tangent rule to check"),
        (lambda: check_rule("exp", [X], wrt=(1,)), InputError, "floating inputs"),
        (lambda: check_rule("exp", [np.array([1, 2])]), InputError, "floating inputs"),
        (lambda: check_rule("shape_array", [X]), InputError, "no floating output"),
        (lambda: check_rule("Dropout", [X], {"p": 0.5}, train=True), InputError, "draws random numbers"),
    ],
)
def test_bad_calls_say_what_is_wrong(call, error, text):
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, HessmxError) and "\n" not in str(caught.value)


def test_result_is_frozen_and_public():
    found = check_rule("exp", [X])
    assert dataclasses.is_dataclass(found) and found.op == "exp"
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.op = "log"
    assert "second" in hessmx.trust.testing.check_rule.__doc__
