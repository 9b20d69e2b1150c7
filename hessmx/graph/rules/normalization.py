"""Normalisation layers: over a batch, over rows, to unit length."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.kernels import Channels
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.rules.kinds import Rule, custom
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol, call

F = mx.sym


def _eps(s: Site, default: float) -> float:
    """As the operator has it: in float32."""
    return float(np.float32(s.attr("eps", default)))


@lowers("BatchNorm", "_contrib_SyncBatchNorm", "BatchNorm_v1", "_contrib_BatchNormWithReLU")
def _lower_batch_norm(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """Running statistics: an affine map. Batch statistics: BatchNorm with momentum 1, which holds the running ones.

    fix_gamma becomes a gamma of ones: MXNet would write ones into the user's parameter.
    """
    x, gamma, beta, mean, variance = s.xs
    if s.attr("fix_gamma", True):
        gamma = F.ones_like(gamma)
    eps = _eps(s, 1e-3)
    if context.train and not s.attr("use_global_stats", False):
        attrs = dict(eps=eps, momentum=1.0, fix_gamma=False, output_mean_var=True, axis=s.attr("axis", 1))
        ys = call("BatchNorm", [x, gamma, beta, mean, variance], attrs, s.node.name)
    else:
        r = F.rsqrt(variance + eps)
        shape = s.x_shapes[0]
        y = Channels(shape, s.attr("axis", 1) % len(shape)).affine(x, gamma * r, beta - gamma * r * mean)
        ys = [y, mean, r]
    return [F.relu(ys[0]), *ys[1:]] if s.node.op == "_contrib_BatchNormWithReLU" else ys


def _batch_norm(s: Site) -> Sequence[Tangent]:
    """Over batch statistics; what uses running statistics has been lowered to an affine map.

    y = gamma r (x - mu) + beta, r = (var + eps)^(-1/2), per channel. With m entries per channel, c = <x - mu, t> / m:
    gamma r (t - mean t) + (tgamma r - gamma r^3 c) (x - mu) + tbeta, collected to A t + B x + D.
    The operator's own r has no gradient; dr = -r^3 <x - mu, dx> / m is put beside its value.
    """
    x, gamma = s.xs[:2]
    channels = Channels(s.x_shapes[0], s.attr("axis", 1) % len(s.x_shapes[0]))
    mean0, r0 = (F.BlockGrad(y) for y in s.ys[1:3])
    share = 1 / channels.size
    mean = channels.sum(x) * share
    r = r0 - r0 * r0 * r0 * _no_value(channels.sum(F.BlockGrad(x) * x) * share - mean0 * mean)
    slope: list[Tangent] = [s.dense(1) * r] if s.moves(1) else []
    shift: list[Tangent] = [s.dense(2)] if s.moves(2) else []
    terms: list[Tangent] = []
    if s.moves(0):
        mean_t = channels.sum(s.t) * share
        slope.append(-gamma * r * r * r * (channels.sum(x * s.t) * share - mean * mean_t))
        shift.append(-gamma * r * mean_t)
        terms.append(channels.affine(s.t, gamma * r))
    if slope:
        b = total(slope)
        terms.append(channels.affine(x, b, total([*shift, -b * mean])))
    else:
        terms.append(channels.affine(F.zeros_like(x), F.zeros_like(gamma), total(shift)))
    return [total(terms), ZERO, ZERO]


def _no_value(x: Symbol) -> Symbol:
    """Zero with the gradient of x."""
    return x - F.BlockGrad(x)


RULES: dict[str, Rule] = {
    "BatchNorm": custom(_batch_norm),
}
