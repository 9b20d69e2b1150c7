"""Pooling of all kinds."""

from __future__ import annotations

from math import prod
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import DataError
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.node import Shape
from hessmx.graph.site import Site, Tangent
from hessmx.graph.symbols import Symbol
from hessmx.rules.kernels import moved, over_rows, row_sum
from hessmx.rules.kinds import Rule, custom

F = mx.sym

_LOWEST = -3.0e38  # what max pooling sees outside of the image; -inf times 0 would be NaN


@lowers("Pooling")
def _average(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """Averages as sums.

    Over everything: a product with ones; MXNet's own backward is 30 times slower. With windows that hang over the
    edge ('full'): MXNet's own backward in float32 divides by the size of a whole window. One wholly outside gives 0.
    """
    shape, out = s.x_shapes[0], s.y_shapes[0]
    if s.attr("pool_type", "max") != "avg":
        return None
    _refuse_empty_windows(s)
    if str(s.attr("layout", "")).endswith("C"):
        return None
    if s.attr("global_pool", False):
        size = prod(shape[2:])
        return [F.reshape(row_sum(F.reshape(s.x, shape=(-1, size))) / size, shape=out)]
    if s.attr("pooling_convention", "valid") != "full":
        return None
    pad = s.attr("pad") or (0,) * (len(shape) - 2)
    sums = F.reshape(s.again([s.x], pool_type="sum")[0], shape=(-1, prod(out[2:])))
    one = F.ones_like(F.BlockGrad(F.slice(s.x, begin=(0, 0), end=(1, 1))))
    if any(pad) and s.attr("count_include_pad", True):
        one = _padded(F.reshape(one, shape=(1, 1, *shape[2:])), pad, pad, 1)
        sizes = s.again([one], pool_type="sum", pad=(0,) * len(pad))[0]
    else:
        sizes = s.again([one], pool_type="sum")[0]
    sizes = F.reshape(sizes, shape=(1, prod(out[2:])))
    sizes = sizes + (sizes == 0)
    return [F.reshape(sums / over_rows(sizes, sums), shape=out)]


def _refuse_empty_windows(s: Site) -> None:
    """In 3-D MXNet divides the empty sum of a window that lies wholly outside by its size, which may be 0."""
    kernel = s.attr("kernel") or ()
    if len(kernel) < 3 or s.attr("global_pool", False) or s.attr("pooling_convention", "valid") != "full":
        return
    last, whole = str(s.attr("layout", "")).endswith("C"), s.attr("count_include_pad", True)
    size, out = (_channels_first(a, last)[2:] for a in (s.x_shapes[0], s.y_shapes[0]))
    for n, k, q, p, o in zip(size, kernel, s.attr("stride") or (1,) * 3, s.attr("pad") or (0,) * 3, out):
        starts = [i * q - p for i in range(o)]
        lengths = [min(a + k, n + p) - a if whole else min(a + k, n) - max(a, 0) for a in starts]
        if 0 in lengths:
            raise DataError(
                f"average pooling {s.node.name} with ceil_mode on inputs of size {size} has a window wholly outside "
                "of them, where MXNet computes 0 / 0 = NaN: choose another size, stride or padding, or ceil_mode=False"
            )


def _padded(x: Symbol, below: Sequence[int], above: Sequence[int], fill: float) -> Symbol:
    """(N, 1, ...) with constant borders; Pad knows images and volumes only."""
    widths = [w for pair in zip(below, above) for w in pair]
    if len(below) > 1:
        return F.Pad(x, mode="constant", constant_value=fill, pad_width=(0, 0, 0, 0, *widths))
    image = F.Pad(F.expand_dims(x, axis=2), mode="constant", constant_value=fill, pad_width=(0,) * 6 + tuple(widths))
    return F.reshape(image, shape=(0, 0, -1))


def _pooling(s: Site) -> Sequence[Tangent]:
    kind = s.attr("pool_type", "max")
    if kind == "lp" and s.attr("p_value") != 1:
        return [_lp_pooling(s)]
    if kind == "max":
        return [_max_pooling(s)]
    return s.again([s.t])


def _lp_pooling(s: Site) -> Symbol:
    """y^(1-p) sum x^(p-1) t; zero where y is, as MXNet has it."""
    p = int(s.attr("p_value"))
    inner = s.again([s.t * s.x ** (p - 1)], pool_type="sum", p_value=None)[0]
    y = s.y + F.BlockGrad(s.y == 0)
    return inner / y ** (p - 1)


def _max_pooling(s: Site) -> Symbol:
    """The tangent of the entry that MXNet's backward pays: the first one of the window that is equal to the maximum."""
    last = str(s.attr("layout", "")).endswith("C")
    ndim = len(s.x_shapes[0])
    x, t = (moved(a, ndim, ndim - 1, 1) if last else a for a in (s.x, s.t))
    shape, out = (_channels_first(a, last) for a in (s.x_shapes[0], s.y_shapes[0]))
    windows = (_windows(s, a, shape, out, fill) for a, fill in ((F.BlockGrad(x), _LOWEST), (t, 0)))
    x, t = windows
    picked = F.reshape(F.pick(t, F.argmax(x, axis=1), axis=1), shape=out)
    return moved(picked, ndim, 1, ndim - 1) if last else picked


def _channels_first(shape: Shape, last: bool) -> Shape:
    return (shape[0], shape[-1], *shape[1:-1]) if last else tuple(shape)


def _windows(s: Site, x: Symbol, shape: Shape, out: Shape, fill: float) -> Symbol:
    """(N, C, ...) -> (N C, entries of a window, windows); in 3-D (N C depths, entries, windows of that depth)."""
    planes, spatial = prod(shape[:2]), shape[2:]
    if s.attr("global_pool", False):
        return F.reshape(x, shape=(planes, prod(spatial), 1))
    kernel = s.attr("kernel")
    rank = len(kernel)
    stride, pad = s.attr("stride") or (1,) * rank, s.attr("pad") or (0,) * rank
    if s.attr("pooling_convention") == "same":
        pad = tuple(max(0, (o - 1) * q + k - n) // 2 for o, q, k, n in zip(out[2:], stride, kernel, spatial))
    above = [max(0, (o - 1) * q + k - n - p) for o, q, k, n, p in zip(out[2:], stride, kernel, spatial, pad)]
    if rank == 1:  # Pad and im2col know images
        spatial, kernel, stride, pad, above = (1, *spatial), (1, *kernel), (1, *stride), (0, *pad), (0, *above)
    x = F.reshape(x, shape=(planes, 1, *spatial))
    if any(pad) or any(above):
        x = _padded(x, pad, above, fill)
    if rank < 3:
        return F.im2col(x, kernel=kernel, stride=stride)
    rest = [n + a + b for n, a, b in zip(spatial[1:], pad[1:], above[1:])]
    ends = [k + (out[2] - 1) * stride[0] + 1 for k in range(kernel[0])]
    slabs = [F.slice(x, begin=(0, 0, k), end=(None, None, e), step=(1, 1, stride[0])) for k, e in enumerate(ends)]
    images = [F.reshape(slab, shape=(planes * out[2], 1, *rest)) for slab in slabs]
    return F.concat(*[F.im2col(image, kernel=kernel[1:], stride=stride[1:]) for image in images], dim=1)


RULES: dict[str, Rule] = {op: custom(_pooling) for op in ("Pooling", "Pooling_v1")}
