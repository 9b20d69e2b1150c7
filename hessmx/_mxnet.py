"""The only place for MXNet's quirks: import it from here, never directly.

MXNet 1.9.1 reads `np.bool` and friends, which NumPy 1.24 removed, and reads OMP_NUM_THREADS once, while
it is imported. Both must be settled before the import, so every module says `from hessmx._mxnet import mx`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import warnings
from math import prod
from typing import Any

import numpy as np

from hessmx._command import in_command, leave
from hessmx.errors import ImportFailure, InputError

_REMOVED_ALIASES = {"bool": bool, "int": int, "float": float, "object": object, "str": str, "complex": complex}


def _restore_numpy_aliases() -> None:
    for name, builtin in _REMOVED_ALIASES.items():
        if name not in np.__dict__:
            setattr(np, name, builtin)


def _cores() -> int:
    """Cores this process may use (an affinity mask counts, where the system has one)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _explain(error: BaseException) -> str:
    """One line that says what to install, for the ways the import is known to fail."""
    text = " ".join(str(error).split())
    if sys.version_info[:2] > (3, 12) or sys.version_info[:2] < (3, 9):
        return f"MXNet 1.9.1 needs Python 3.9 to 3.12, not {platform.python_version()}: make an environment with one"
    if isinstance(error, ModuleNotFoundError) and error.name == "distutils":
        return "MXNet needs distutils, which Python 3.12 no longer carries: run 'pip install setuptools'"
    if isinstance(error, ModuleNotFoundError) and error.name == "mxnet":
        if platform.system() == "Linux" and platform.machine() != "x86_64":
            return f"MXNet 1.9.1 has no wheel for {platform.machine()}: use an x86_64 machine or build it from source"
        return "MXNet is not installed: run 'pip install mxnet==1.9.1'"
    if "cannot open shared object file" in text:
        library = text.split(":")[0]
        package = {"libgomp.so.1": "libgomp1", "libquadmath.so.0": "libquadmath0", "libgfortran.so.4": "libgfortran4"}
        hint = package.get(library.split()[-1], f"the system package that holds {library}")
        return f"MXNet needs the system library {library}: install {hint} (Debian: apt-get install {hint})"
    if tuple(map(int, np.__version__.split(".")[:1])) >= (2,):
        return f"MXNet 1.9.1 needs numpy below 2, this is {np.__version__}: run 'pip install \"numpy<2\"'"
    failure = f"importing MXNet failed with {type(error).__name__}: {text}"
    return f"{failure}; try 'pip install --force-reinstall mxnet==1.9.1'"


def _import():
    _restore_numpy_aliases()
    os.environ.setdefault("OMP_NUM_THREADS", str(_cores()))
    os.environ.setdefault("MXNET_SUBGRAPH_VERBOSE", "0")  # or every compiled graph prints a line
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mxnet
    except (ImportError, OSError, AttributeError) as error:
        if in_command():  # which cannot catch what importing its own package raises
            leave(_explain(error), 2)
        raise ImportFailure(_explain(error)) from error
    return mxnet


mx = _import()


def memory(array: Any) -> np.ndarray:
    """The memory of a dense NDArray as NumPy array, once nothing in MXNet's queue reads or writes it any more.

    It is the NDArray's: to be used while that lives. Unlike `asnumpy` it starts no OpenMP threads in the calling thread
    (see `hessmx/_threads.py`).
    """
    if array.context.device_type != "cpu":
        raise InputError(f"hessmx computes on CPUs, not on {array.context}: move the net with reset_ctx(mx.cpu())")
    mx.base.check_call(mx.base._LIB.MXNDArrayWaitToWrite(array.handle))
    return ready_memory(array)


def ready_memory(array: Any) -> np.ndarray:
    """The same for an array that is known to be ready, as those that a CustomOp is given."""
    address = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    dtype, shape = np.dtype(array.dtype), array.shape
    raw = (ctypes.c_char * (prod(shape) * dtype.itemsize)).from_address(address.value or 0)
    return np.frombuffer(raw, dtype).reshape(shape)


_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def same_bytes(first: Any, second: Any, size: int) -> bool:
    """Whether memory at two addresses holds the same: a third of the time that NumPy takes."""
    return bool(_memcmp(first, second, size) == 0)
