"""y = f(x): one line per operator, the derivative in ordinary operators (see kinds.py, site.py).

At kinks the derivative is the one that MXNet's own backward takes.
"""

from __future__ import annotations

import math

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol
from hessmx.rules.activations import ERF_GRADIENT
from hessmx.rules.kernels import plain
from hessmx.rules.kinds import Rule, elementwise

F = mx.sym

RULES: dict[str, Rule] = {
    op: elementwise(formula)
    for op, formula in {
        "exp": lambda s: s.y,
        "expm1": lambda s: s.y + 1,
        "log": lambda s: 1 / s.x,
        "log2": lambda s: 1 / (math.log(2) * s.x),
        "log10": lambda s: 1 / (math.log(10) * s.x),
        "log1p": lambda s: 1 / (1 + s.x),
        "sqrt": lambda s: 0.5 / s.y,
        "rsqrt": lambda s: -0.5 * s.y / s.x,
        "cbrt": lambda s: 1 / (3 * F.square(s.y)),
        "rcbrt": lambda s: -s.y / (3 * s.x),
        "square": lambda s: 2 * s.x,
        "reciprocal": lambda s: -F.square(s.y),
        "abs": lambda s: F.sign(s.x),
        "relu": lambda s: plain(s.y, s.y_shapes[0]) > 0,
        "sigmoid": lambda s: s.y - F.square(s.y),
        "tanh": lambda s: 1 - F.square(s.y),
        "softsign": lambda s: F.square(1 - F.abs(s.y)),
        "hard_sigmoid": lambda s: _single(s, "alpha", 0.2) * ((s.y > 0) * (s.y < 1)),
        "erf": lambda s: ERF_GRADIENT * F.exp(-F.square(s.x)),
        "erfinv": lambda s: math.sqrt(math.pi) / 2 * F.exp(F.square(s.y)),
        "sin": lambda s: F.cos(s.x),
        "cos": lambda s: -F.sin(s.x),
        "tan": lambda s: 1 + F.square(s.y),
        "arcsin": lambda s: F.rsqrt(1 - F.square(s.x)),
        "arccos": lambda s: -F.rsqrt(1 - F.square(s.x)),
        "arctan": lambda s: 1 / (1 + F.square(s.x)),
        "sinh": lambda s: F.cosh(s.x),
        "cosh": lambda s: F.sinh(s.x),
        "arcsinh": lambda s: F.rsqrt(1 + F.square(s.x)),
        "arccosh": lambda s: F.rsqrt(F.square(s.x) - 1),
        "arctanh": lambda s: 1 / (1 - F.square(s.x)),
        "clip": lambda s: (s.x >= s.attr("a_min")) * (s.x <= s.attr("a_max")),
        "smooth_l1": lambda s: _smooth_l1(s),
        "_power_scalar": lambda s: s.attr("scalar") * s.x ** (s.attr("scalar") - 1),
        "_rpower_scalar": lambda s: math.log(s.attr("scalar")) * s.y,
        "_rdiv_scalar": lambda s: -s.attr("scalar") / F.square(s.x),
        "_mod_scalar": lambda s: F.ones_like(s.x),
        "_rmod_scalar": lambda s: -F.floor(s.attr("scalar") / s.x),
        "_maximum_scalar": lambda s: s.x >= s.attr("scalar"),
        "_minimum_scalar": lambda s: s.x <= s.attr("scalar"),
        "_hypot_scalar": lambda s: s.x / s.y,
        "_contrib_quadratic": lambda s: 2 * _single(s, "a", 0.0) * s.x + _single(s, "b", 0.0),
    }.items()
}

_ACTIVATIONS = {
    "relu": RULES["relu"],
    "sigmoid": RULES["sigmoid"],
    "tanh": RULES["tanh"],
    "softsign": RULES["softsign"],
    "softrelu": elementwise(lambda s: F.Activation(s.x, act_type="sigmoid")),  # F.sigmoid takes 15 times as long
    "log_sigmoid": elementwise(lambda s: 1 - F.exp(s.y)),
    "mish": elementwise(lambda s: _mish(s.x)),
}

RULES["Activation"] = Rule("elementwise", lambda s: _ACTIVATIONS[s.attr("act_type")].push(s))

# two inputs of one shape, and the same with broadcasting
for _op, _partials in {
    "div": (lambda s: 1 / s.xs[1], lambda s: -_ratio(s, s.y, s.xs[1])),
    "power": (lambda s: _power0(s), lambda s: _power1(s)),
    "mod": (lambda s: F.ones_like(s.y), lambda s: -F.floor(_ratio(s, s.xs[0], s.xs[1]))),
    "maximum": (lambda s: F.broadcast_greater_equal(*s.xs), lambda s: F.broadcast_lesser(*s.xs)),
    "minimum": (lambda s: F.broadcast_lesser_equal(*s.xs), lambda s: F.broadcast_greater(*s.xs)),
    "hypot": (lambda s: _ratio(s, s.xs[0], s.y), lambda s: _ratio(s, s.xs[1], s.y)),
}.items():
    for _prefix in ("elemwise_" if _op == "div" else "_", "broadcast_"):
        RULES[_prefix + _op] = elementwise(*_partials)

RULES["_scatter_elemwise_div"] = RULES["elemwise_div"]


def _single(s: Site, name: str, default: float) -> float:
    """An attribute that MXNet rounds to float32."""
    return float(np.float32(s.attr(name, default)))


def _ratio(s: Site, a: Symbol, b: Symbol) -> Symbol:
    return F.broadcast_div(a, b)


def _power0(s: Site) -> Symbol:
    """d x^p / dx = p x^(p-1)."""
    return F.broadcast_mul(s.xs[1], F.broadcast_power(s.xs[0], s.xs[1] - 1))


def _power1(s: Site) -> Symbol:
    """d x^p / dp = x^p log x."""
    return F.broadcast_mul(s.y, F.log(s.xs[0]))


def _smooth_l1(s: Site) -> Symbol:
    """sigma^2 x inside |x| < 1/sigma^2, the sign outside: the clipped line."""
    sigma2 = float(s.attr("scalar", 1.0)) ** 2
    return F.clip(sigma2 * s.x, -1, 1)


def _mish(x: Symbol) -> Symbol:
    soft = F.Activation(F.Activation(x, act_type="softrelu"), act_type="tanh")
    return soft + x * F.Activation(x, act_type="sigmoid") * (1 - F.square(soft))
