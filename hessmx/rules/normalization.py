"""Normalisation layers: over a batch, over rows, to unit length."""

from __future__ import annotations

from math import prod
from typing import Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.fused import fused
from hessmx.rules.fused.batchnorm import BatchNormTangent
from hessmx.rules.kernels import Channels, moved, ones_like_row, over_columns, row_sum
from hessmx.rules.kinds import Rule, custom

F = mx.sym


def _eps(s: Site, default: float) -> float:
    """As the operators but BatchNorm have it: in float32, whatever the dtype."""
    return float(np.float32(s.attr("eps", default)))


@lowers("BatchNorm", "_contrib_SyncBatchNorm", "BatchNorm_v1", "_contrib_BatchNormWithReLU")
def _lower_batch_norm(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """Running statistics: an affine map. Batch statistics: BatchNorm with momentum 1, which holds the running ones.

    fix_gamma becomes a gamma of ones: MXNet would write ones into the user's parameter.
    """
    x, gamma, beta, mean, variance = s.xs
    if s.attr("fix_gamma", True):
        gamma = F.ones_like(gamma)
    eps = float(s.attr("eps", 1e-3))  # a double, in both modes
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
    """Over batch statistics, by a kernel; what uses running statistics has been lowered to an affine map."""
    values = [s.x, s.xs[1], F.BlockGrad(s.ys[1]), F.BlockGrad(s.ys[2])]
    moves = [s.moves(i) for i in range(3)]
    moving, shape = [i for i in range(3) if moves[i]], s.x_shapes[0]
    row = s.x_shapes[1]
    shapes = [shape, row, row, row, *(s.x_shapes[i] for i in moving)]
    axis = s.attr("axis", 1) % len(shape)
    tangents = fused(BatchNormTangent, [*values, *(s.dense(i) for i in moving)], shapes, axis=axis, moves=moves)
    return [tangents[0], ZERO, ZERO]


def _layer_norm(s: Site) -> Sequence[Tangent]:
    """gamma r (t - mean t - xhat <xhat, t> / D) + tgamma xhat + tbeta over rows of D entries."""
    shape = s.x_shapes[0]
    last = len(shape) - 1
    axis = s.attr("axis", -1) % len(shape)
    rows = Channels((prod(shape) // shape[axis], shape[axis]))

    def as_rows(a: Symbol) -> Symbol:
        return F.reshape(a if axis == last else moved(a, len(shape), axis, last), shape=rows.shape)

    x = as_rows(s.x)
    x = x - over_columns(row_sum(x) / shape[axis], x)
    r = over_columns(F.rsqrt(row_sum(F.square(x)) / shape[axis] + _eps(s, 1e-5)), x)
    x = x * r
    terms: list[Tangent] = []
    if s.moves(0):
        t = as_rows(s.dense(0))
        inner = over_columns(row_sum(x * t) / shape[axis], t)
        terms.append(rows.affine(r * (t - over_columns(row_sum(t) / shape[axis], t) - x * inner), s.xs[1]))
    if s.moves(1) or s.moves(2):
        terms.append(rows.affine(x, s.dense(1), s.dense(2)))
    result = F.reshape(total(terms), shape=(*shape[:axis], *shape[axis + 1 :], shape[axis]))
    return [result if axis == last else moved(result, len(shape), last, axis), ZERO, ZERO]


@lowers("InstanceNorm", "GroupNorm")
def _lower_group_norm(s: Site, context: Lowering) -> Sequence[Symbol]:
    """LayerNorm of one row a group (InstanceNorm: a channel), then gamma and beta of the group.

    MXNet's InstanceNorm computes in float32 whatever the dtype.
    """
    shape = s.x_shapes[0]
    grouped = s.node.op == "GroupNorm"
    groups = s.attr("num_groups", 1) if grouped else shape[1]
    channels = Channels((shape[0], groups, prod(shape[1:]) // groups))
    rows = F.reshape(s.x, shape=(-1, channels.inner))
    ones = F.reshape(ones_like_row(rows), shape=(-1,))
    attrs = dict(eps=_eps(s, 1e-5 if grouped else 1e-3), output_mean_var=True)
    y, *statistics = call("LayerNorm", [rows, ones, F.zeros_like(ones)], attrs)
    y = channels.affine(F.reshape(y, shape=channels.shape), *s.xs[1:])
    return [F.reshape(y, shape=shape), *(F.reshape(a, shape=(-1, groups)) for a in statistics)]


def _l2_normalization(s: Site) -> Sequence[Tangent]:
    """(t - y <y, t>) / |x| along a sample, along its channels, or along its pixels."""
    mode, shape = s.attr("mode", "instance"), s.x_shapes[0]
    across, last = mode == "channel", len(shape) - 1
    size = {"instance": prod(shape[1:]), "channel": shape[1], "spatial": prod(shape[2:])}[mode]
    x, t = (F.reshape(moved(a, last + 1, 1, last) if across else a, shape=(-1, size)) for a in (s.x, s.t))
    r = over_columns(F.rsqrt(row_sum(F.square(x)) + _eps(s, 1e-10)), x)
    y = x * r
    result = r * (t - y * over_columns(row_sum(y * t), t))
    if not across:
        return [F.reshape(result, shape=shape)]
    return [moved(F.reshape(result, shape=(shape[0], *shape[2:], shape[1])), last + 1, last, 1)]


@lowers("LRN")
def _lower_lrn(s: Site, context: Lowering) -> Sequence[Symbol]:
    """x b^-beta, b = knorm + alpha / n sum x^2 over n neighbouring channels (Krizhevsky et al. 2012, section 3.3).

    MXNet's own computes in float32 whatever the dtype.
    """
    n, shape = s.attr("nsize"), s.x_shapes[0]
    alpha, beta, knorm = (float(np.float32(s.attr(k, d))) for k, d in (("alpha", 1e-4), ("beta", 0.75), ("knorm", 2)))
    image = F.reshape(F.square(s.x), shape=(shape[0], 1, shape[1], prod(shape[2:])))
    sums = F.Pooling(image, kernel=(n, 1), pad=(n // 2, 0), pool_type="sum")
    b = knorm + alpha / n * F.reshape(sums, shape=shape)
    return [s.x * b**-beta, b]


RULES: dict[str, Rule] = {
    "BatchNorm": custom(_batch_norm),
    "LayerNorm": custom(_layer_norm),
    "L2Normalization": custom(_l2_normalization),
}
