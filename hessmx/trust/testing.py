"""Is a tangent rule right? `check_rule` compares it with float64 differences of the operator itself.

The comparison is that of node.py, at values that the caller chooses. At a kink differences mean nothing: there the
tangent must be the adjoint of MXNet's own backward, and the product must be finite.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields, replace
from typing import Any, Mapping, Sequence
from unittest import mock

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import InputError, RuleError
from hessmx.graph.lower import LOWERINGS
from hessmx.rules import RULES, UNSUPPORTED, covered, register
from hessmx.rules.kinds import Rule
from hessmx.trust.node import STEP, Call, RuleCheck, check_node


def check_rule(
    op: str,
    inputs: Sequence[Any],
    attrs: Mapping[str, Any] | None = None,
    wrt: Sequence[int] | None = None,
    outputs: Sequence[int] | None = None,
    kink: bool = False,
    train: bool = False,
    symmetric: Sequence[int] = (),
    own_gradient: bool = True,
    rule: Rule | None = None,
    seed: int = 0,
    step: float = STEP,
    tolerance: float = 1e-8,
    tolerance32: float | None = 1e-3,
) -> RuleCheck:
    """Check the tangent rule of operator `op` (named as in Symbol JSON) on one call; RuleError where it is wrong.

    inputs        arrays in the order of Symbol JSON, auxiliary states last; float64 for sharp figures
    wrt           indices of the inputs to move (default: all floating ones); each is moved alone too
    outputs       indices of the outputs that carry gradients (default: all floating ones)
    kink          the inputs sit where the derivative jumps
    symmetric     indices of inputs that are symmetric matrices: they move along symmetric directions only
    own_gradient  False if MXNet's own gradient is wrong or missing: second differences of the forward then stand in
    rule          a rule to check instead of the registered one
    tolerance32   None leaves float32 out
    step          of the differences; 4e-3 (and a tolerance of 1e-4) suits operators that compute in float32 inside
    """
    arrays = tuple(np.asarray(x) for x in inputs)
    moving = tuple(i for i, x in enumerate(arrays) if x.dtype.kind == "f") if wrt is None else tuple(wrt)
    if not moving or any(not 0 <= i < len(arrays) or arrays[i].dtype.kind != "f" for i in moving):
        kinds = [str(a.dtype) for a in arrays]
        raise InputError(f"expected wrt to name floating inputs of {op}, got {moving} of {kinds}")
    raw = {key: str(value) for key, value in (attrs or {}).items()}
    flags = (train, tuple(symmetric), kink, own_gradient, seed, step, tolerance32 is not None)
    case = Call(op, arrays, raw, moving, moving, None if outputs is None else tuple(outputs), *flags)
    with ExitStack() as stack:
        stack.enter_context(mx.util.np_shape(case.numpy or mx.util.is_np_shape()))
        if rule is not None:
            stack.enter_context(mock.patch.dict(RULES))
            stack.enter_context(mock.patch.dict(LOWERINGS))
            register(op, rule)
        elif op not in covered():
            raise RuleError(f"operator {op} has no tangent rule to check ({UNSUPPORTED.get(op, 'none is registered')})")
        alone = [replace(case, wrt=(i,), single=False) for i in moving] if len(moving) > 1 else []
        results = [check_node(one) for one in [case, *alone]]
    worst = RuleCheck(op, *(_worst([getattr(r, f.name) for r in results]) for f in fields(RuleCheck)[1:]))
    _judge(worst, tolerance, tolerance32)
    return worst


def _worst(values: Sequence[float]) -> float:
    """The largest of those that were measured."""
    return max([v for v in values if not np.isnan(v)], default=float("nan"))


def _judge(found: RuleCheck, tolerance: float, tolerance32: float | None) -> None:
    single = tolerance32 or np.inf
    allowed = {"tangent": tolerance, "adjoint": tolerance, "product": tolerance, "float32": single}
    wrong = [
        f"{name} off by {getattr(found, name):.1e}" for name, most in allowed.items() if getattr(found, name) > most
    ]
    if wrong:
        raise RuleError(
            f"the tangent rule of {found.op} is wrong: {', '.join(wrong)} (relative; allowed {tolerance:.0e}, in "
            f"float32 {single:.0e}); compare its formula with the operator's derivative"
        )
