"""Lowerings of activations whose first gradient MXNet has wrong, or has in float32 only: sums and products instead."""

from __future__ import annotations

import math
from typing import Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol

ERF_GRADIENT = 2 / float(np.sqrt(np.float32(np.pi)))  # MXNet's factor of exp(-x^2): 2 / sqrt(pi) to float32

_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14


@lowers("LeakyReLU")
def _leaky_relu(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """prelu: in a static graph the slope's gradient is read from memory that the data's gradient has overwritten.

    selu: MXNet's gradient is 1.05 (1.67 + y) for 1.05 * 1.67 + y. leaky, gelu: in float32 whatever the dtype.
    """
    kind = s.attr("act_type", "leaky")
    if kind == "prelu":
        slope = mx.sym.reshape(s.xs[1], shape=(1, -1) + (1,) * (len(s.x_shapes[0]) - 2))
        return [s.x * (s.x > 0) + mx.sym.broadcast_mul(s.x * (s.x <= 0), slope)]
    if kind == "selu":
        elu = mx.sym.LeakyReLU(s.x, act_type="elu", slope=1)
        return [elu * (_SCALE * _ALPHA) + s.x * (s.x > 0) * (_SCALE * (1 - _ALPHA))]
    if kind == "rrelu":
        return [s.x * (s.x > 0) + s.x * (s.x <= 0) * _random_slope(s, context)]
    if kind == "leaky" and context.double:
        return [s.x * ((s.x > 0) + (s.x <= 0) * s.attr("slope", 0.25))]
    if kind == "gelu" and context.double:
        return [0.5 * s.x * (1 + _exact_erf(s.x / math.sqrt(2)))]
    return None


def _random_slope(s: Site, context: Lowering) -> Symbol | float:
    low, high, shape = s.attr("lower_bound", 0.125), s.attr("upper_bound", 0.334), s.x_shapes[0]
    if not context.train:
        return (low + high) / 2
    return context.draw(s.node.name, shape, lambda generator: generator.uniform(low, high, shape))


@lowers("relu", "tanh", "sigmoid", "_npx_relu", "_npx_sigmoid", "_npi_tanh")
def _through_activation(s: Site, context: Lowering) -> Sequence[Symbol]:
    """The same functions in MXNet's fast kernel: in float32 tanh takes a fiftieth, sigmoid a fifteenth of the time."""
    return [mx.sym.Activation(s.x, act_type=(s.node.op or "").rpartition("_")[2])]


@lowers("erf")
def _erf(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    return [_exact_erf(s.x)] if context.double else None


def _exact_erf(x: Symbol) -> Symbol:
    """erf with a gradient that is exact in float64: the same value, MXNet's factor corrected."""
    y, share = mx.sym.erf(x), 2 / math.sqrt(math.pi) / ERF_GRADIENT
    return y * share + mx.sym.BlockGrad(y) * (1 - share)
