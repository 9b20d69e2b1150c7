"""Operators of mx.np and mx.npx (`_np_*`, `_npi_*`, `_npx_*`): most are twins of a classic operator and share its rule.

Operators that MXNet registers once under two names (`_npx_softmax` is `softmax`) need nothing here.
"""

from __future__ import annotations

import math

from hessmx._mxnet import mx
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol
from hessmx.rules import elementwise as classic
from hessmx.rules.kinds import (
    ALL,
    Rule,
    bilinear,
    elementwise,
    linear,
    same,
    zero,
)

F = mx.sym

RULES: dict[str, Rule] = {}

# one input, the same name without the prefix
for _op in """
    exp expm1 log log2 log10 log1p sqrt cbrt square reciprocal sin cos tan arcsin arccos arctan sinh cosh tanh arcsinh
    arccosh arctanh power_scalar rpower_scalar mod_scalar rmod_scalar
""".split():
    RULES[f"_npi_{_op}"] = classic.RULES[_op if _op in classic.RULES else f"_{_op}"]

# other names for classic operators
RULES.update(
    {
        "_npi_absolute": classic.RULES["abs"],
        "_npx_relu": classic.RULES["relu"],
        "_npx_sigmoid": classic.RULES["sigmoid"],
        "_npi_true_divide": classic.RULES["broadcast_div"],
        "_npi_rtrue_divide_scalar": classic.RULES["_rdiv_scalar"],
        "_npi_power": classic.RULES["broadcast_power"],
        "_npi_mod": classic.RULES["broadcast_mod"],
        "_npi_hypot": classic.RULES["broadcast_hypot"],
    }
)

# linear in the first input
for _op in """
    _npi_negative _npi_degrees _npi_radians _np_sum _npi_mean _np_reshape _npx_reshape _np_transpose
    _np_moveaxis _np_squeeze _np_roll _np_diag _np_diagflat _np_diagonal _np_trace _np_copy _np_cumsum
    _npi_broadcast_to _npi_flip _npi_rot90 _npi_tril _npi_diff _npi_hsplit _npi_dsplit _npi_multiply_scalar
    _npi_true_divide_scalar _npi_ldexp_scalar
""".split():
    RULES[_op] = linear()

# linear in all inputs together
for _op in """
    _npi_add _npi_subtract _npi_concatenate _npi_stack _npi_vstack
""".split():
    RULES[_op] = linear(ALL)

# the derivative is zero wherever it exists
for _op in """
    floor ceil rint fix trunc sign logical_not around isnan isinf isfinite isposinf isneginf equal not_equal greater
    greater_equal less less_equal equal_scalar not_equal_scalar greater_scalar greater_equal_scalar less_scalar
    less_equal_scalar full_like zeros ones arange eye identity indices logspace blackman hamming hanning
    bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_and_scalar bitwise_or_scalar bitwise_xor_scalar
    lcm lcm_scalar diag_indices_from
""".split():
    RULES[f"_npi_{_op}"] = zero()


def _log2(s: Site, power: Symbol) -> Symbol:
    return math.log(2) * power


def _polar(s: Site, i: int) -> Symbol:
    """d arctan2(a, b) = (b da - a db) / (a^2 + b^2)."""
    a, b = s.xs
    radius2 = F.broadcast_add(F.square(a), F.square(b))
    return F.broadcast_div(b if i == 0 else -a, radius2)


def _polar_scalar(s: Site) -> Symbol:
    scalar = s.attr("scalar")
    return scalar / (F.square(s.x) + scalar**2)


def _same_sign(s: Site) -> Symbol:
    """d copysign(a, b) / da: 1 where the signs agree."""
    return F.broadcast_equal(F.sign(s.xs[0]), F.sign(s.y))


def _not_nan(s: Site) -> Symbol:
    """1 where the entry is a finite number, which nan_to_num leaves as it is."""
    return (s.x == s.y) * 1.0


RULES.update(
    {
        "_npi_add_scalar": same(),
        "_npi_subtract_scalar": same(),
        "_npi_rsubtract_scalar": linear(scalar=0),
        "_npi_multiply": bilinear(),
        "_np_dot": bilinear(),
        "_npi_matmul": bilinear(),
        "_npi_tensordot": bilinear(),
        "_npi_tensordot_int_axes": bilinear(),
        "_npi_einsum": bilinear(ALL),
        "_npi_where": linear(1, 2),
        "_npi_pad": linear(constant_value=0),
        "_npi_arctan2": elementwise(lambda s: _polar(s, 0), lambda s: _polar(s, 1)),
        "_npi_arctan2_scalar": elementwise(_polar_scalar),
        "_npi_copysign": elementwise(lambda s: 2 * _same_sign(s) - 1),
        "_npi_ldexp": elementwise(lambda s: F.broadcast_power(F.ones_like(s.y) * 2, s.xs[1]), lambda s: _log2(s, s.y)),
        "_npi_rldexp_scalar": elementwise(lambda s: _log2(s, s.y)),
        "_npi_nan_to_num": elementwise(_not_nan),
    }
)
