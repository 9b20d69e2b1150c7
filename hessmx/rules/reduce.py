"""Products, extrema, norms, sorting along axes."""

from __future__ import annotations

import math
from typing import Any, Sequence

from hessmx._mxnet import mx
from hessmx.graph.site import ZERO, Site, Tangent
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.kinds import Rule, custom, zero

F = mx.sym


def reduced(s: Site, value: Symbol, keepdims: Any = None) -> Symbol:
    """Sum over the axes that the operator reduces, in the shape of its output."""
    where = {name: s.node.raw[name] for name in ("axis", "exclude") if name in s.node.raw}
    keep = s.attr("keepdims", False) if keepdims is None else keepdims
    numpy = (s.node.op or "").startswith("_np")
    return call("_np_sum" if numpy else "sum", [value], {**where, "keepdims": keep})[0]


def _extremum(s: Site) -> Sequence[Tangent]:
    """Sum of the tangents of all tied entries: the adjoint of MXNet's backward, which pays every tie in full."""
    peak = s.y if s.attr("keepdims", False) else s.again([s.x], keepdims=True)[0]
    chosen = F.BlockGrad(F.broadcast_equal(s.x, peak))
    return [reduced(s, F.elemwise_mul(s.dense(0), chosen))]


def _norm(s: Site) -> Sequence[Tangent]:
    """<x, t> / |x| for the 2-norm, <sign x, t> for the 1-norm."""
    if s.attr("ord", 2) == 1:
        return [reduced(s, F.sign(s.x) * s.dense(0))]
    return [F.elemwise_div(reduced(s, s.x * s.dense(0)), s.y)]


def _prod(s: Site) -> Sequence[Tangent]:
    """y sum(t / x), as MXNet's own backward: undefined where an entry is zero."""
    return [F.elemwise_mul(s.y, reduced(s, F.elemwise_div(s.dense(0), s.x)))]


def _nanprod(s: Site) -> Sequence[Tangent]:
    present = s.x == s.x
    return [F.elemwise_mul(s.y, reduced(s, F.where(present, s.dense(0) / s.x, F.zeros_like(s.x))))]


def _nansum(s: Site) -> Sequence[Tangent]:
    return [reduced(s, s.dense(0) * (s.x == s.x))]


def _along(value: Symbol, shape: Sequence[int], axis: int, order: Symbol, count: int) -> Symbol:
    """value[..., order[..., k], ...] along `axis`, taken from the flat array (MXNet has no take_along_axis)."""
    last = len(shape) - 1
    rows, size = math.prod(shape) // shape[axis], shape[axis]
    flat = F.reshape(F.SwapAxis(value, dim1=axis, dim2=last) if axis != last else value, shape=(-1,))
    order = F.reshape(F.SwapAxis(order, dim1=axis, dim2=last) if axis != last else order, shape=(rows, count))
    starts = F.reshape(F.arange(0, rows * size, size, dtype="int64"), shape=(rows, 1))
    turned = list(shape)
    turned[axis], turned[last] = turned[last], count
    taken = F.reshape(F.take(flat, F.broadcast_add(F.BlockGrad(order), starts)), shape=tuple(turned))
    return F.SwapAxis(taken, dim1=axis, dim2=last) if axis != last else taken


def _topk(s: Site) -> Sequence[Tangent]:
    """The tangents of the entries that were chosen, in their order (`sort` is the top n)."""
    kind = "value" if s.node.op == "sort" else s.attr("ret_typ", "indices")
    if kind in ("indices", "mask"):
        return [ZERO]
    axis, shape = s.attr("axis", -1), tuple(s.x_shapes[0])
    t, x = s.dense(0), s.x
    if axis is None:
        shape, axis = (math.prod(shape),), 0
        t, x = F.reshape(t, shape=shape), F.reshape(x, shape=shape)
    axis %= len(shape)
    count = (s.attr("k", 1) or shape[axis]) if s.node.op == "topk" else shape[axis]
    ascending = s.attr("is_ascend", s.node.op == "sort")
    order = F.topk(x, axis=axis, k=count, ret_typ="indices", is_ascend=ascending, dtype="int64")
    return [F.reshape(_along(t, shape, axis, order, count), shape=s.y_shapes[0]), ZERO][: len(s.ys)]


RULES: dict[str, Rule] = {
    **dict.fromkeys(("max", "min", "_np_max", "_np_min"), custom(_extremum)),
    **dict.fromkeys(("prod", "_np_prod"), custom(_prod)),
    "nanprod": custom(_nanprod),
    "nansum": custom(_nansum),
    "norm": custom(_norm),
    "sort": custom(_topk),
    "topk": custom(_topk),
    "_npi_argmax": zero(),
    "_npi_argmin": zero(),
    "_np_all": zero(),
    "_np_any": zero(),
}
