"""Whether data is what it is taken for: the same samples in every pass, and losses that belong to one sample each."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any, Callable, Sequence

import numpy as np

from hessmx._mxnet import memory, mx
from hessmx.errors import DataError
from hessmx.graph.trace import flatten

_ROWS = 8  # samples that are computed whole and in halves
_TOLERANCE = {"float32": 1e-4, "float64": 1e-7}


class Pass:
    """What one pass over the data has brought: the samples in any order, or, with `ordered`, batch by batch.

    A checksum of 32 bits for each sample (zlib's crc32 of its inputs and labels): other samples are taken for the same
    ones by chance once in 4e9.
    """

    def __init__(self, ordered: bool):
        self.ordered, self.samples, self.sum = ordered, 0, 0

    def add(self, batch: Any) -> None:
        arrays = [memory(array) for array in [*batch.inputs, *flatten(batch.labels)]]
        sums = _checksums(arrays)
        self.samples += len(sums)
        if self.ordered:
            self.sum = zlib.crc32(np.array(sums, np.uint32).data, self.sum)
        else:
            self.sum = (self.sum + sum(sums)) % 2**64

    def check_same(self, first: Pass) -> None:
        if (self.samples, self.sum) != (first.samples, first.sum):
            what = "the same data in the same batches" if self.ordered else "the same data"
            counts = f" ({first.samples} and then {self.samples})" if self.samples != first.samples else ""
            raise DataError(
                f"two passes over the data must give {what}, but they differ{counts}: turn off random augmentation, "
                "and keep last batches (shuffling is fine in mode='predict'; mode='train' needs the same batches in "
                "every pass)"
            )


def _checksums(arrays: Sequence[np.ndarray]) -> list[int]:
    """One for each row of all arrays, or one for all where they have no rows in common."""
    lengths = {array.shape[0] if array.ndim else 0 for array in arrays}
    sums = [0] * (lengths.pop() if len(lengths) == 1 else 1)
    for array in arrays:
        data = np.ascontiguousarray(array).reshape(len(sums), -1).view(np.uint8)
        sums = [zlib.crc32(row.data, before) for row, before in zip(data, sums)]
    return sums


def check_apart(batch: Any, axis: int, loss: Callable[[Any], tuple[float, int]], dtype: Any) -> str | None:
    """What is wrong if the losses of a few samples are not those of their halves; None if nothing is.

    Costs two small forward passes. Nets that take batches of one size only cannot be asked.
    """
    arrays = [*batch.inputs, *flatten(batch.labels)]
    if any(len(array.shape) <= axis for array in arrays) or len({array.shape[axis] for array in arrays}) != 1:
        return None
    half = min(_ROWS, arrays[0].shape[axis]) // 2
    if not half:
        return None
    try:
        parts = [loss(_part(batch, axis, *ends)) for ends in ((0, 2 * half), (0, half), (half, 2 * half))]
    except Exception:  # what is wrong with the batch itself is said when it is computed
        return None
    (whole, count), (first, one), (second, two) = parts
    if count != one + two:
        return f"{2 * half} of them have {count} losses, but in halves {one} and {two}"
    if abs(whole - first - second) > _TOLERANCE[str(np.dtype(dtype))] * (abs(whole) + abs(first) + abs(second)):
        return f"the losses of {2 * half} of them add up to {whole:.6g}, but in halves to {first + second:.6g}"
    return None


def _part(batch: Any, axis: int, start: int, stop: int) -> Any:
    inputs = [cut(array, axis, start, stop) for array in batch.inputs]
    labels = [cut(array, axis, start, stop) for array in flatten(batch.labels)]
    return replace(batch, inputs=inputs, labels=labels if isinstance(batch.labels, list) else labels[0], kept=False)


def cut(array: Any, axis: int, start: int, stop: int) -> Any:
    """Entries start to stop along an axis, as an array of its own."""
    if (start, stop) == (0, array.shape[axis]):
        return array
    return array[start:stop].copy() if axis == 0 else mx.nd.slice_axis(array, axis=axis, begin=start, end=stop)
