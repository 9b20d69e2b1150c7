"""Fast building blocks for rules, chosen by measurement (float32, forward and backward).

Broadcasting and reducing are MXNet's slow operators (a product per channel of 1 M entries takes 44 ms forward and
backward, the same as a depthwise convolution 2.5 ms), matrix products with ones its fast ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hessmx._mxnet import mx
from hessmx.graph.node import Shape
from hessmx.graph.symbols import Symbol

F = mx.sym


def plain(x: Symbol, shape: Shape) -> Symbol:
    """x in rows, not in oneDNN's layout of blocks of channels; MXNet's own operators make a copy each of what is not.

    They hold on to their copies until they run again, besides: for images to be read more than once, or kept.
    """
    return F.reshape(x, shape=shape) if len(shape) > 3 else x


def moved(x: Symbol, ndim: int, source: int, destination: int) -> Symbol:
    """numpy.moveaxis."""
    axes = [axis for axis in range(ndim) if axis != source]
    axes.insert(destination, source)
    return F.transpose(x, axes=axes)


def count_like(x: Symbol) -> Symbol:
    """0, 1, 2 ... in the shape and dtype of x."""
    return F.contrib.arange_like(F.BlockGrad(x))


def count(size: int, like: Symbol, ndim: int) -> Symbol:
    """0, 1 ... size - 1 in the dtype of `like`, which has `ndim` axes: (1, size)."""
    one = F.reshape(F.slice(like, begin=(0,) * ndim, end=(1,) * ndim), shape=(1, 1))
    return count_like(F.broadcast_to(one, shape=(1, size)))


def ones_like_row(x: Symbol) -> Symbol:
    """(R, D) -> ones (1, D) of the same dtype."""
    return F.ones_like(F.BlockGrad(F.slice_axis(x, axis=0, begin=0, end=1)))


def ones_like_column(x: Symbol) -> Symbol:
    """(R, D) -> ones (R, 1) of the same dtype."""
    return F.ones_like(F.BlockGrad(F.slice_axis(x, axis=1, begin=0, end=1)))


def row_sum(x: Symbol) -> Symbol:
    """(R, D) -> (R, 1)."""
    return F.FullyConnected(x, ones_like_row(x), num_hidden=1, no_bias=True, flatten=False)


def column_sum(x: Symbol) -> Symbol:
    """(R, D) -> (1, D)."""
    return F.dot(ones_like_column(x), x, transpose_a=True)


def over_rows(value: Symbol, like: Symbol) -> Symbol:
    """(1, D) -> (R, D): the same row everywhere."""
    return F.dot(ones_like_column(like), value)


def over_columns(value: Symbol, like: Symbol) -> Symbol:
    """(R, 1) -> (R, D): the same column everywhere."""
    return F.dot(value, ones_like_row(like))


@dataclass(frozen=True)
class Channels:
    """Arrays of one shape, seen as (outer, C, inner): sums, inner products and affine maps per channel."""

    shape: Shape
    axis: int = 1

    @property
    def count(self) -> int:
        """C."""
        return self.shape[self.axis]

    @property
    def outer(self) -> int:
        return prod(self.shape[: self.axis % len(self.shape)])

    @property
    def inner(self) -> int:
        return prod(self.shape[self.axis % len(self.shape) + 1 :])

    @property
    def size(self) -> int:
        """Entries per channel."""
        return self.outer * self.inner

    def sum(self, x: Symbol) -> Symbol:
        """Sum over all axes but the channel's: (C,)."""
        if self.inner > 1:
            x = row_sum(F.reshape(x, shape=(self.outer * self.count, self.inner)))
        return F.reshape(column_sum(F.reshape(x, shape=(self.outer, self.count))), shape=(self.count,))

    def affine(self, x: Symbol, scale: Symbol, shift: Symbol | None = None) -> Symbol:
        """scale x + shift, both (C,)."""
        if self.inner == 1:
            return self._affine_rows(x, scale, shift)
        folded = self.axis != 1 or len(self.shape) > 5
        if folded:
            x = F.reshape(x, shape=(self.outer, self.count, self.inner))
        spatial = (1,) * (1 if folded else len(self.shape) - 2)
        weight = F.reshape(scale, shape=(self.count, 1, *spatial))
        inputs = [x, weight] if shift is None else [x, weight, shift]
        y = F.Convolution(*inputs, kernel=spatial, num_filter=self.count, num_group=self.count, no_bias=shift is None)
        return F.reshape(y, shape=self.shape) if folded else y

    def _affine_rows(self, x: Symbol, scale: Symbol, shift: Symbol | None) -> Symbol:
        rows = F.reshape(x, shape=(self.outer, self.count))
        y = rows * over_rows(F.reshape(scale, shape=(1, self.count)), rows)
        if shift is not None:
            y = y + over_rows(F.reshape(shift, shape=(1, self.count)), rows)
        return F.reshape(y, shape=self.shape)
