"""Batches: arrays or any re-iterable of batches, checked once, in the shapes the tracers expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError
from hessmx.graph.trace import flatten

DEFAULT_BATCH = 256  # tuned here: larger batches gain under 5 % on dense nets and cost memory in proportion
_EXACT_FLOAT32 = 2**24
_NO_BATCH = "the data holds no batch: expected at least one batch (x, y)"


@dataclass(frozen=True)
class Batch:
    """One batch: input arrays, labels in the caller's structure, and its place in the pass."""

    index: int
    inputs: list[Any]
    labels: Any
    kept: bool  # the same object comes again in every pass


class Batches:
    """Re-iterable batches from (x, y) arrays or from a loader."""

    def __init__(self, data: Any, dtype: np.dtype, context: Any, batch_size: int | None = None):
        self.dtype, self.context = dtype, context
        self._kept: list[Batch] | None = None
        self._loader: Any = None
        if batch_size is not None and (not isinstance(batch_size, (int, np.integer)) or batch_size < 1):
            raise InputError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        if _is_arrays(data):
            self._kept = self._cut(data, batch_size or DEFAULT_BATCH)
        elif isinstance(data, (list, tuple)):
            self._kept = [self._batch(i, item, kept=True) for i, item in enumerate(data)]
        elif hasattr(data, "__iter__") and not isinstance(data, (str, bytes, dict, np.ndarray, mx.nd.NDArray)):
            if iter(data) is data and not hasattr(data, "reset"):
                raise DataError(
                    "data is a one-shot iterator, but every product needs a new pass over the data: "
                    "pass a list, a DataLoader, or arrays (x, y)"
                )
            self._loader = data
        else:
            raise DataError(f"data must be arrays (x, y) or a re-iterable of batches (x, y), not {type(data).__name__}")

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            if not self._kept:
                raise DataError(_NO_BATCH)
            yield from self._kept
            return
        if hasattr(self._loader, "reset"):
            self._loader.reset()
        index = -1
        for index, item in enumerate(self._loader):
            yield self._batch(index, item, kept=False)
        if index < 0:
            raise DataError(_NO_BATCH)

    def _cut(self, data: Any, size: int) -> list[Batch]:
        x, y = data
        inputs, labels = [self.array(a, "x") for a in flatten(x)], [self.array(a, "y") for a in flatten(y)]
        lengths = {a.shape[0] if a.shape else 0 for a in inputs + labels}
        if len(lengths) != 1:
            shapes = ", ".join(str(tuple(a.shape)) for a in inputs + labels)
            raise DataError(f"x and y must have the same number of samples on their first axis, but have {shapes}")
        count = lengths.pop()
        if count == 0:
            raise DataError("the data holds no sample: x and y have length 0")
        cuts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
        nested = isinstance(y, (list, tuple))
        batches = []
        for i, cut in enumerate(cuts):
            x, y = ([_cut_array(a, cut, count) for a in arrays] for arrays in (inputs, labels))
            batches.append(Batch(i, x, _labels(y, nested), kept=True))
        return batches

    def _batch(self, index: int, item: Any, kept: bool) -> Batch:
        if hasattr(item, "data") and hasattr(item, "label"):  # mx.io.DataBatch
            if item.pad:
                raise DataError(
                    f"batch {index} of the DataIter is padded with {item.pad} repeated samples: "
                    "use last_batch_handle='discard'"
                )
            item = (list(item.data), item.label[0] if len(item.label) == 1 else list(item.label))
        if not isinstance(item, (list, tuple)) or len(item) < 2:
            raise DataError(f"batch {index} must be (x, y), but is {_described(item)}")
        x, y = (item[0] if len(item) == 2 else list(item[:-1])), item[-1]
        inputs = [self.array(a, "x") for a in flatten(x)]
        labels = [self.array(a, "y") for a in flatten(y)]
        return Batch(index, inputs, _labels(labels, isinstance(y, (list, tuple))), kept)

    def array(self, value: Any, role: str) -> Any:
        """An NDArray in the net's dtype; whole numbers too large for it keep theirs."""
        if isinstance(value, mx.nd.NDArray):
            array = value.as_nd_ndarray() if hasattr(value, "as_nd_ndarray") else value
            if np.issubdtype(array.dtype, np.floating) and array.dtype != self.dtype:
                array = array.astype(self.dtype)
            array = array.as_in_context(self.context).detach()
            host = array.asnumpy()
        else:
            host = np.asarray(value)
            if host.dtype.kind not in "fiub":
                raise DataError(f"{role} must hold numbers, but has dtype {host.dtype}")
            if 0 in host.shape[1:]:  # for MXNet a length of 0 is one that is not known
                raise DataError(f"{role} has shape {host.shape}: samples without any entry")
            large = host.dtype.kind in "iu" and host.size and np.abs(host).max() >= _EXACT_FLOAT32
            dtype = np.int32 if large and self.dtype != np.float64 else self.dtype
            array = mx.nd.array(host, ctx=self.context, dtype=dtype)
        if not np.isfinite(host).all():
            bad = int((~np.isfinite(host)).sum())
            raise DataError(f"{role} holds {bad} NaN or infinite value(s), shape {host.shape}: remove those samples")
        return array


def _is_arrays(data: Any) -> bool:
    """(x, y): two arrays, or several inputs and one label."""
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        return False
    first, second = data
    if _is_array(first):
        return _is_array(second) or isinstance(second, (list, tuple))
    if not (isinstance(data, tuple) and isinstance(first, (list, tuple)) and first):
        return False
    return all(map(_is_array, [*first, second])) and len({len(a) for a in [*first, second]}) == 1


def _is_array(value: Any) -> bool:
    return isinstance(value, (np.ndarray, mx.nd.NDArray))


def _cut_array(array: Any, cut: slice, count: int) -> Any:
    return array if cut == slice(0, count) else array[cut.start : cut.stop].copy()


def _labels(labels: list[Any], nested: bool) -> Any:
    return labels if nested else labels[0]


def _described(item: Any) -> str:
    return f"a {type(item).__name__}" + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
