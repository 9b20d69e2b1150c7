"""Copies of a net's parameters, compared with the user's own before they are relied on: nothing stale, ever."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Mapping

import numpy as np

from hessmx._mxnet import memory, mx
from hessmx.problem.net import Net, is_sparse

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def same(a: Any, b: Any) -> bool:
    """Whether two arrays of one shape and dtype hold the same bits: a third of the time that NumPy takes."""
    return _memcmp(_address(a), _address(b), b.size * np.dtype(b.dtype).itemsize) == 0


def _address(array: Any) -> Any:
    mx.base.check_call(mx.base._LIB.MXNDArrayWaitToRead(array.handle))
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return address


class Frozen:
    """The values of all parameters of a net, trained or not, at the last `refresh`.

    arrays  name -> NDArray in the dtype of the arithmetic; the same arrays for good, whatever the user does
    epoch   counts how often they have changed
    """

    def __init__(self, net: Net, wanted: Callable[[Any], Any]):
        self._net, self._wanted = net, wanted
        self.arrays: dict[str, Any] = {}
        self.epoch = 0
        self._originals: dict[str, Any] = {}  # in the user's dtype, where it is another

    def refresh(self) -> Mapping[str, Any]:
        changed = False
        for name, parameter in self._net.all.items():
            own = self._net.array(name) if is_sparse(parameter) else parameter._data[0]
            changed |= self._take(name, own)
        self.epoch += changed
        return self.arrays

    def _take(self, name: str, own: Any) -> bool:
        """Whether a parameter's array differs from what was last seen, which is replaced."""
        dtype = self._wanted(own.dtype)
        known = self._originals if own.dtype != dtype else self.arrays
        seen = known.get(name)
        if seen is not None and seen.shape == own.shape and seen.dtype == own.dtype and same(own, seen):
            return False
        if seen is None or seen.shape != own.shape or seen.dtype != own.dtype:
            known[name] = mx.nd.empty(own.shape, ctx=own.context, dtype=own.dtype)
        memory(known[name])[...] = memory(own)
        if known is self._originals:
            cast = memory(own).astype(dtype)
            if name not in self.arrays or self.arrays[name].shape != own.shape:
                self.arrays[name] = mx.nd.empty(own.shape, ctx=own.context, dtype=dtype)
            memory(self.arrays[name])[...] = cast
        return True
