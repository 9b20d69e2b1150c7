"""Resizing and resampling, and layers that are replaced by simpler ones."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site, Tangent
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.kernels import count, count_like, moved, over_columns, over_rows
from hessmx.rules.kinds import ALL, Rule, bilinear, custom, linear

F = mx.sym

_LINEAR, _BILINEAR = linear(ALL), bilinear()


def _up_sampling(s: Site) -> Sequence[Tangent]:
    return (_BILINEAR if s.attr("sample_type") == "bilinear" else _LINEAR).push(s)


RULES: dict[str, Rule] = {
    "UpSampling": custom(_up_sampling),
    "_contrib_ROIAlign": linear(0),
}

REASONS: dict[str, str] = {
    "ROIPooling": "which pixels its maxima stand at is known to its own backward only",
}


@lowers("SoftmaxActivation")
def _softmax_activation(s: Site, context: Lowering) -> Sequence[Symbol]:
    """Over the channels of each pixel, or over all that a sample has."""
    if s.attr("mode", "instance") == "channel":
        return [F.softmax(s.x, axis=1)]
    shape = s.x_shapes[0]
    return [F.reshape(F.softmax(F.reshape(s.x, shape=(shape[0], prod(shape[1:])))), shape=shape)]


@lowers("Convolution_v1")
def _convolution_v1(s: Site, context: Lowering) -> Sequence[Symbol]:
    return call("Convolution", s.xs, s.node.raw)


@lowers("Deconvolution")
def _deconvolution(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """A product with the kernel at each pixel, added up by col2im.

    In float32 MXNet cannot run the backward pass of two transposed convolutions of one shape: it raises or crashes.
    Those of volumes have no other way.
    """
    (n, inputs, *size), kernel = s.x_shapes[0], s.attr("kernel")
    rank, groups = len(kernel), s.attr("num_group", 1)
    if rank > 2:
        return s.again([s.x, s.xs[1] * 1, *s.xs[2:]])  # a copy: the weight's memory may be re-ordered in place
    stride, dilate = s.attr("stride") or (1,) * rank, s.attr("dilate") or (1,) * rank
    pad, target = s.attr("pad") or (0,) * rank, s.attr("target_shape")
    if target and any(target):
        pad = [((i - 1) * q + d * (k - 1) + 2 - o) // 2 for i, q, d, k, o in zip(size, stride, dilate, kernel, target)]
    units = s.x_shapes[1][1] * groups * prod(kernel)
    weight = F.transpose(F.reshape(s.xs[1], shape=(groups, inputs // groups, -1)), axes=(0, 2, 1))
    weight = F.reshape(weight, shape=(units, inputs // groups, 1, 1))
    line = rank == 1  # col2im knows images only
    x = F.expand_dims(s.x, axis=2) if line else s.x
    each = F.Convolution(x, weight, kernel=(1, 1), num_filter=units, num_group=groups, no_bias=True)
    out = s.y_shapes[0]
    image = dict(output_size=out[2:], kernel=kernel, stride=stride, dilate=dilate, pad=tuple(pad))
    if line:
        image = {key: (int(key != "pad"), *value) for key, value in image.items()}
    y = F.reshape(F.col2im(F.reshape(each, shape=(n, units, prod(size))), **image), shape=out)
    if s.attr("no_bias", True):
        return [y]
    return [F.broadcast_add(y, F.reshape(s.xs[2], shape=(1, out[1]) + (1,) * rank))]


@lowers("Embedding")
def _embedding(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """A gradient of the table in rows that were looked up only has no place in a flat vector."""
    return s.again(s.xs, sparse_grad=None) if s.attr("sparse_grad", False) else None


@lowers("GridGenerator")
def _grid_generator(s: Site, context: Lowering) -> Sequence[Symbol]:
    """MXNet's own knows float32 only."""
    shape = s.y_shapes[0]
    if s.attr("transform_type") == "affine":
        return [_affine_grid(s.x, shape)]
    scale = [F.reshape(count(1, s.x, 4) * 0 + 2 / (size - 1), shape=(1, 1, 1, 1)) for size in (shape[3], shape[2])]
    pixels = F.reshape(_pixels(s.x, 4, *shape[2:]), shape=(1, 2, *shape[2:]))
    return [F.broadcast_mul(F.broadcast_add(s.x, pixels), F.concat(*scale, dim=1)) - 1]


def _affine_grid(matrix: Symbol, shape: Sequence[int]) -> Symbol:
    """Affine maps (N, 6) of the regular grid in [-1, 1]: (N, 2, h, w)."""
    pixels = _pixels(matrix, 2, *shape[2:])
    x, y = (
        F.slice_axis(pixels, axis=0, begin=k, end=k + 1) * (2 / (size - 1)) - 1
        for k, size in ((0, shape[3]), (1, shape[2]))
    )
    points = F.concat(x, y, F.ones_like(x), dim=0)
    return F.reshape(F.dot(F.reshape(matrix, shape=(-1, 3)), points), shape=shape)


def _pixels(like: Symbol, ndim: int, height: int, width: int) -> Symbol:
    """Column and row of each pixel: (2, h w)."""
    columns, rows = count(width, like, ndim), F.reshape(count(height, like, ndim), shape=(height, 1))
    both = F.stack(over_rows(columns, rows), over_columns(rows, columns), axis=0)
    return F.reshape(both, shape=(2, height * width))


@lowers("SpatialTransformer")
def _spatial_transformer(s: Site, context: Lowering) -> Sequence[Symbol]:
    """Jaderberg et al. 2015, section 3: an affine grid, bilinear sampling."""
    shape = (s.x_shapes[0][0], 2, *s.attr("target_shape"))
    grid = _affine_grid(F.reshape(s.xs[1], shape=(0, 6)), shape)
    return [_sampled(s.x, grid, s.x_shapes[0], shape)]


@lowers("BilinearSampler")
def _bilinear_sampler(s: Site, context: Lowering) -> Sequence[Symbol]:
    return [_sampled(*s.xs, *s.x_shapes)]


def _sampled(data: Symbol, grid: Symbol, shape: Sequence[int], grid_shape: Sequence[int]) -> Symbol:
    """Bilinear interpolation of images (N, C, H, W) at points (N, 2, h, w) in [-1, 1], x before y; zero outside."""
    (n, c, height, width), points = shape, prod(grid_shape[2:])
    x, y = ((F.reshape(F.slice_axis(grid, axis=1, begin=k, end=k + 1), shape=(n, points)) + 1) * ((size - 1) / 2)
            for k, size in ((0, width), (1, height)))  # fmt: skip
    left, top = F.floor(x), F.floor(y)
    pixels = F.reshape(moved(data, 4, 1, 3), shape=(n * height * width, c))
    first = over_columns(F.reshape(count_like(F.slice_axis(x, axis=1, begin=0, end=1)), shape=(n, 1)), x)
    result = None
    for right, below in product((0, 1), (0, 1)):
        column, row = left + right, top + below
        weight = (x - left if right else 1 - x + left) * (y - top if below else 1 - y + top)
        inside = (column >= 0) * (column <= width - 1) * (row >= 0) * (row <= height - 1)
        place = first * (height * width) + F.clip(row, 0, height - 1) * width + F.clip(column, 0, width - 1)
        values = F.take(pixels, F.reshape(place, shape=(-1,)))
        term = values * over_columns(F.reshape(weight * inside, shape=(-1, 1)), values)
        result = term if result is None else result + term
    return moved(F.reshape(result, shape=(n, *grid_shape[2:], c)), 4, 3, 1)
