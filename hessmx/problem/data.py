"""Batches: arrays or any re-iterable of batches, checked once, in the shapes the tracers expect."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Iterator

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError
from hessmx.graph.trace import flatten
from hessmx.problem.samples import Pass, cut

DEFAULT_BATCH = 256  # tuned here: larger batches gain under 5 % on dense nets and cost memory in proportion
_EXACT = {"float32": 2**24, "float64": 2**53}  # whole numbers below are floats
_INDICES = 2**31  # operators read indices and class numbers as int32
_NO_BATCH = "the data holds no batch: expected at least one batch (x, y)"


@dataclass(frozen=True)
class Batch:
    """One batch: input arrays, labels in the caller's structure, and its place in the pass."""

    index: int
    inputs: list[Any]
    labels: Any
    kept: bool  # the same object comes again in every pass


class Batches:
    """Re-iterable batches from (x, y) arrays or from a loader.

    axis  of arrays along which samples follow each other

    `ordered` says whether every pass must give the same batches, and not only the same samples.
    """

    def __init__(
        self,
        data: Any,
        dtype: np.dtype,
        context: Any,
        batch_size: int | None = None,
        axis: int = 0,
    ):
        self.dtype, self.context, self.axis, self.ordered = dtype, context, axis, False
        self.cut = False  # whether arrays were cut here
        self._first: Pass | None = None
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

    @property
    def several(self) -> bool:
        """Whether there is, or may be, more than one batch."""
        return self._kept is None or len(self._kept) > 1

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            if not self._kept:
                raise DataError(_NO_BATCH)
            yield from self._kept
            return
        if hasattr(self._loader, "reset"):
            self._loader.reset()
        index, seen = -1, Pass(self.ordered)
        for index, item in enumerate(self._loader):
            batch = self._batch(index, item, kept=False)
            seen.add(batch)
            yield batch
        if index < 0:
            raise DataError(_NO_BATCH)
        self._first = self._first or seen
        seen.check_same(self._first)

    def _cut(self, data: Any, size: int) -> list[Batch]:
        x, y = data
        inputs, labels = [self.array(a, "x") for a in flatten(x)], [self.array(a, "y") for a in flatten(y)]
        axis = self.axis
        lengths = {a.shape[axis] if len(a.shape) > axis else 0 for a in inputs + labels}
        if len(lengths) != 1:
            shapes = ", ".join(str(tuple(a.shape)) for a in inputs + labels)
            where = "their first axis" if axis == 0 else f"axis {axis} (the loss's batch_axis)"
            raise DataError(
                f"x and y must have the same number of samples on {where}, but have {shapes}; "
                "arrays of other layouts: give batches of your own, [(x, y)]"
            )
        count = lengths.pop()
        if count == 0:
            raise DataError("the data holds no sample: x and y have length 0")
        ends = [(start, min(start + size, count)) for start in range(0, count, size)]
        self.cut = len(ends) > 1
        nested = isinstance(y, (list, tuple))
        batches = []
        for i, (start, stop) in enumerate(ends):
            x, y = ([cut(a, axis, start, stop) for a in arrays] for arrays in (inputs, labels))
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
        inputs = [self.array(a, f"x of batch {index}") for a in flatten(x)]
        labels = [self.array(a, f"y of batch {index}") for a in flatten(y)]
        return Batch(index, inputs, _labels(labels, isinstance(y, (list, tuple))), kept)

    def array(self, value: Any, role: str) -> Any:
        """An NDArray in the net's dtype; whole numbers too large for it keep theirs."""
        if isinstance(value, mx.nd.NDArray):
            array = value.as_nd_ndarray() if hasattr(value, "as_nd_ndarray") else value
            if np.issubdtype(array.dtype, np.floating) and array.dtype != self.dtype:
                array = array.astype(self.dtype)
            array = array.as_in_context(self.context).detach()
            host = array.asnumpy()
            if host.dtype.kind in "iu":
                _whole(host, role, np.dtype(np.float32))  # it stays what it is
        else:
            host = np.asarray(value)
            if host.dtype.kind not in "fiub":
                raise DataError(f"{role} must hold numbers, but has dtype {host.dtype}")
            if 0 in host.shape[1:]:  # for MXNet a length of 0 is one that is not known
                raise DataError(f"{role} has shape {host.shape}: samples without any entry")
            dtype = _whole(host, role, self.dtype) if host.dtype.kind in "iu" else self.dtype
            if host.dtype.kind == "f" and host.dtype.itemsize > np.dtype(dtype).itemsize and host.size:
                largest = np.abs(host).max()
                if np.finfo(dtype).max < largest < np.inf:
                    raise DataError(f"{role} holds {largest:g}, more than the net's {np.dtype(dtype)}: scale it")
            array = mx.nd.array(host, ctx=self.context, dtype=dtype)
        if not np.isfinite(host).all():
            bad = int((~np.isfinite(host)).sum())
            raise DataError(f"{role} holds {bad} NaN or infinite value(s), shape {host.shape}: remove those samples")
        return array


def batch_axis(loss: Any) -> int:
    """The axis of samples that a Gluon loss was told (1 for time-major arrays), else the first."""
    axis = getattr(loss, "_batch_axis", 0)
    return axis if isinstance(axis, int) and axis > 0 else 0


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


def _whole(host: np.ndarray, role: str, dtype: np.dtype) -> Any:
    """The dtype that holds whole numbers as they are: the net's own, or int32."""
    largest = max(abs(int(host.max())), abs(int(host.min()))) if host.size else 0
    exact = _EXACT[str(np.dtype(dtype))]
    if largest < exact and (largest < _INDICES or role.startswith("x")):
        return dtype
    if largest < _INDICES:
        return np.int32
    limit = f"{dtype} holds whole numbers below {exact} exactly, and int32 those below {_INDICES}"
    raise DataError(f"{role} holds the whole number {largest} (dtype {host.dtype}), but {limit}: is it wrapped around?")


def _labels(labels: list[Any], nested: bool) -> Any:
    return labels if nested else labels[0]


def _described(item: Any) -> str:
    return f"a {type(item).__name__}" + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
