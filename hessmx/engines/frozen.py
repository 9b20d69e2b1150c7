"""Copies of a net's parameters, compared with the user's own before they are relied on: nothing stale, ever."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Mapping

import numpy as np

from hessmx._mxnet import memory, mx, same_bytes
from hessmx.problem.net import Net, is_sparse


def same(a: Any, b: Any, size: int | None = None) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits (`size` bytes)."""
    return same_bytes(_address(a), _address(b), _bytes(b) if size is None else size)


def _bytes(array: Any) -> int:
    return int(array.size * np.dtype(array.dtype).itemsize)


def _address(array: Any) -> Any:
    mx.base.check_call(mx.base._LIB.MXNDArrayWaitToRead(array.handle))
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address


class Frozen:
    """The values of all parameters of a net, trained or not, at the last `refresh`.

    arrays  name -> NDArray in the dtype of the arithmetic; the same arrays for good, whatever the user does
    epoch   counts how often they have changed
    layout  counts how often one had to be replaced, because its shape or dtype changed
    """

    def __init__(self, net: Net, wanted: Callable[[Any], Any]):
        self._net, self._wanted = net, wanted
        self.arrays: dict[str, Any] = {}
        self.epoch = self.layout = 0
        self._seen: dict[str, tuple[Any, Any, int]] = {}  # the user's array, a copy in its dtype, bytes

    def refresh(self) -> Mapping[str, Any]:
        changed = False
        for name, parameter in self._net.all.items():
            own = self._net.array(name) if is_sparse(parameter) else parameter._data[0]
            known = self._seen.get(name)
            if known is None or (known[0] is not own and not _alike(known[1], own)):
                self._replace(name, own)
            elif same(own, known[1], known[2]):
                continue
            else:
                self._copy(name, own)
            changed = True
        self.epoch += changed
        return self.arrays

    def _replace(self, name: str, own: Any) -> None:
        plain = own.as_nd_ndarray() if hasattr(own, "as_nd_ndarray") else own  # of a net with NumPy semantics
        copy = plain.copy()
        dtype = self._wanted(own.dtype)
        self.layout += name in self.arrays
        self.arrays[name] = copy if own.dtype == dtype else plain.astype(dtype)
        self._seen[name] = own, copy, _bytes(own)

    def _copy(self, name: str, own: Any) -> None:
        _, copy, size = self._seen[name]
        self._seen[name] = own, copy, size
        memory(copy)[...] = memory(own)
        if self.arrays[name] is not copy:
            memory(self.arrays[name])[...] = memory(own)


def _alike(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype)
