"""Loops over arrays, compiled by numba when they are first run: one pass where NumPy or MXNet would take ten.

Written for images (N, C, S) and, with S = 1, for rows (N, C): channels are not the outermost loop, so that memory is
read in its own order.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Callable

import numpy as np

Array = np.ndarray


@cache
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop of this module as machine code, kept on disk where there is a place for it."""
    import numba  # here, as it takes half a second that most nets need not spend

    try:
        function: Callable[..., Any] = numba.njit(fastmath={"reassoc", "contract"}, nogil=True, cache=True)(loop)
    except RuntimeError:  # no folder to keep it in
        function = numba.njit(fastmath={"reassoc", "contract"}, nogil=True)(loop)
    return function


def sums(x: Array, t: Array, mean: Array, total: Array, inner: Array) -> None:
    """Per channel: sum t and sum (x - mean) t."""
    samples, channels, size = x.shape
    for n in range(samples):
        for c in range(channels):
            m = mean[c]
            a = t[n, c, 0] - t[n, c, 0]
            b = a
            for s in range(size):
                a += t[n, c, s]
                b += t[n, c, s] * (x[n, c, s] - m)
            total[c] += a
            inner[c] += b


def products(t: Array, u: Array, total: Array) -> None:
    """Per channel: sum t u."""
    samples, channels, size = t.shape
    for n in range(samples):
        for c in range(channels):
            a = t[n, c, 0] - t[n, c, 0]
            for s in range(size):
                a += t[n, c, s] * u[n, c, s]
            total[c] += a


def combine(x: Array, t: Array, by_x: Array, by_t: Array, shift: Array, out: Array) -> None:
    """by_x x + by_t t + shift, the factors per channel."""
    samples, channels, size = x.shape
    for n in range(samples):
        for c in range(channels):
            a, b, d = by_x[c], by_t[c], shift[c]
            for s in range(size):
                out[n, c, s] = a * x[n, c, s] + b * t[n, c, s] + d


def combine_three(
    x: Array, t: Array, u: Array, by_x: Array, by_t: Array, by_u: Array, shift: Array, out: Array
) -> None:
    """by_x x + by_t t + by_u u + shift, the factors per channel."""
    samples, channels, size = x.shape
    for n in range(samples):
        for c in range(channels):
            a, b, e, d = by_x[c], by_t[c], by_u[c], shift[c]
            for s in range(size):
                out[n, c, s] = a * x[n, c, s] + b * t[n, c, s] + e * u[n, c, s] + d
