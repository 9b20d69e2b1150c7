"""Threads of three libraries on the same cores: MXNet's, the calling thread's, and those of NumPy's BLAS.

MXNet computes in a thread of its own with a team of OpenMP threads, which wait for the next operator awake (they spin,
for some milliseconds) while all OpenMP threads of the process fit on the cores, and are put to sleep at once otherwise.
Measured on 2 cores, with a dense net: products take 1.4 times as long with sleeping threads, with many small batches 5
times; and Lanczos steps in NumPy's two BLAS threads take twice as long beside threads that spin as in one.
"""

from __future__ import annotations

import ctypes
import os
import threading
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any, Callable, Iterator, TypeVar

from threadpoolctl import ThreadpoolController

import hessmx._mxnet  # noqa: F401  (the libgomp that counts is the one that MXNet has loaded)

_SOFT = 1  # omp_pause_soft: the threads end, settings stay
ours = threading.RLock()
Wrapped = TypeVar("Wrapped", bound=Callable[..., Any])
_LONG = 1 << 20  # entries from which work on a vector outlasts the spinning, and more threads of BLAS pay


def alone(function: Wrapped) -> Wrapped:
    """A function that only one thread is in at a time; the same thread may come in again.

    One lock for the process, `ours`: tracing swaps the arrays of a net and replaces functions of MXNet, and a program
    has one set of buffers. Passes over the data are guarded and not algorithms, so that threads take turns.
    """

    @wraps(function)
    def guarded(*args: Any, **options: Any) -> Any:
        with ours:
            return function(*args, **options)

    return guarded  # type: ignore[return-value]


def end_own_team() -> None:
    """End the OpenMP threads that the calling thread has gathered, so that MXNet's are alone and stay awake.

    A copy between NumPy and MXNet of more than 200 k entries is enough to gather them, and they stay for good.
    """
    if _gomp is not None:
        _gomp.omp_pause_resource_all(_SOFT)


@contextmanager
def one_blas_thread(size: int = 0) -> Iterator[None]:
    """Within, NumPy's and SciPy's BLAS use one thread, unless vectors of `size` entries are long enough for more.

    The number is the whole process's: whoever comes first sets it, whoever leaves last puts it back. For Python's
    threads only: threadpoolctl lets the first thread that asks rule over the others, and MXNet's never end.
    """
    global _holders, _limit
    if size >= _LONG:
        yield
        return
    with _lock:
        _limit = _limit if _holders else _blas().limit(limits=1)
        _holders += 1
    try:
        yield
    finally:
        with _lock:
            _holders -= 1
            if not _holders:
                _limit.restore_original_limits()


@cache
def _blas() -> Any:
    """BLAS libraries with threads of their own; MXNet's is built on OpenMP and shares its team."""
    found = ThreadpoolController()
    own = [library.filepath for library in found.lib_controllers
           if library.user_api == "blas" and getattr(library, "threading_layer", "") != "openmp"]  # fmt: skip
    return found.select(filepath=own)


def _find_gomp() -> Any:
    """The libgomp that MXNet has loaded; None where it uses another, or one older than OpenMP 5."""
    try:
        gomp = ctypes.CDLL("libgomp.so.1")
        return gomp if gomp.omp_pause_resource_all else None
    except (OSError, AttributeError):
        return None


def _forget_threads() -> None:
    """In a forked child all other threads are gone: one that may have held the lock, and those of a team, for which
    libgomp would wait for ever (MXNet uses none there)."""
    global _gomp
    _gomp = None
    ours._at_fork_reinit()  # type: ignore[attr-defined]


_lock, _holders = threading.Lock(), 0
_limit: Any = None
_gomp = _find_gomp()
os.register_at_fork(after_in_child=_forget_threads)
