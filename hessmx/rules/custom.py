"""Rules that need a function: softmax and its relatives, parametrised activations."""

from __future__ import annotations

import math
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol
from hessmx.rules.kinds import Formula, Rule, bilinear, custom, elementwise

F = mx.sym


def _sum_back(value: Symbol, axis: int) -> Symbol:
    return F.sum(value, axis=axis, keepdims=True)


def _softmax(s: Site) -> Sequence[Tangent]:
    """y (t - <y, t>) / temperature, the inner product along the axis."""
    if not s.moves(0):
        return [ZERO]
    axis = s.attr("axis", -1)
    inner = _sum_back(s.y * s.t, axis)
    sign = -1 if s.node.op == "softmin" else 1
    return [F.broadcast_sub(s.t, inner) * s.y * (sign / (s.attr("temperature") or 1.0))]


def _log_softmax(s: Site) -> Sequence[Tangent]:
    """t - <softmax, t>. In float32 MXNet's log_softmax is 4e-6 off, and so would be its exponential; softmax is not."""
    if not s.moves(0):
        return [ZERO]
    axis = s.attr("axis", -1)
    inner = _sum_back(F.softmax(s.x, axis=axis, temperature=s.attr("temperature")) * s.t, axis)
    return [F.broadcast_sub(s.t, inner) * (1 / (s.attr("temperature") or 1.0))]


def _leaky(slope: Formula) -> Formula:
    """x where positive, slope x elsewhere."""
    return lambda s: (s.x > 0) + (s.x <= 0) * slope(s)


_SELU_ALPHA, _SELU_LAMBDA = 1.6732632423543772, 1.0507009873554805

_LEAKY = {
    "leaky": elementwise(_leaky(lambda s: s.attr("slope", 0.25))),
    "elu": elementwise(lambda s: (s.x > 0) + (s.x <= 0) * (s.y + s.attr("slope", 0.25))),
    "selu": elementwise(lambda s: _SELU_LAMBDA * (s.x > 0) + (s.x <= 0) * (s.y + _SELU_LAMBDA * _SELU_ALPHA)),
    "gelu": elementwise(
        lambda s: 0.5 * (1 + F.erf(s.x / math.sqrt(2))) + s.x * F.exp(-0.5 * F.square(s.x)) / math.sqrt(2 * math.pi)
    ),
}


def _prelu(s: Site) -> Sequence[Tangent]:
    """y = x or slope x; the slope is one number, or one per channel (axis 1)."""
    slope = s.xs[1]
    negative = s.x <= 0
    terms: list[Tangent] = []
    if s.moves(0):
        terms.append(s.t * ((s.x > 0) + F.broadcast_mul(negative, _per_channel(s, slope))))
    if s.moves(1):
        terms.append(F.broadcast_mul(negative * s.x, _per_channel(s, s.dense(1))))
    return [total(terms)]


def _per_channel(s: Site, value: Symbol) -> Symbol:
    """(C,) or (1,) -> (1, C, 1, ...), ready to broadcast against the input."""
    ndim = len(s.x_shapes[0])
    return F.reshape(value, shape=(1, -1) + (1,) * (ndim - 2)) if ndim > 1 else value


def _leaky_relu(s: Site) -> Sequence[Tangent]:
    kind = s.attr("act_type", "leaky")
    return _prelu(s) if kind == "prelu" else _LEAKY[kind].push(s)


RULES: dict[str, Rule] = {
    "softmax": custom(_softmax),
    "softmin": custom(_softmax),
    "log_softmax": custom(_log_softmax),
    "LeakyReLU": custom(_leaky_relu),
    "softmax_cross_entropy": custom(lambda s: _softmax_cross_entropy(s)),
}


def _softmax_cross_entropy(s: Site) -> Sequence[Tangent]:
    """sum_i (<softmax_i, t_i> - t_i[label_i])."""
    if not s.moves(0):
        return [ZERO]
    inner = F.sum(F.softmax(s.x) * s.t)
    picked = F.sum(F.pick(s.t, s.xs[1]))
    return [F.reshape(inner - picked, shape=(1,))]


def _correlation(s: Site) -> Sequence[Tangent]:
    """Sums of products of patches; sums of absolute differences have no rule."""
    if not s.attr("is_multiply", True):
        raise GraphError(f"Correlation with is_multiply=False, at {s.node.name}, has no tangent rule: differences only")
    return bilinear().push(s)


RULES["Correlation"] = custom(_correlation)
