"""BatchNorm over batch statistics with its tangent (Ioffe and Szegedy 2015, algorithm 1).

Per channel of m entries, with n = (x - mean x) r, r = (var x + eps)^(-1/2), and J = r (1 - mean - n <n, .> / m), which
is the derivative of n and its own adjoint:

    y = gamma n + beta        ty = gamma u + tgamma n + tbeta,  u = J t

Everything is a few inner products per channel, and linear combinations of arrays with a coefficient per channel.
"""

from __future__ import annotations

from math import prod
from typing import Iterator, Sequence

import numpy as np

from hessmx.graph.fused.operator import Array, Kernel, kernel
from hessmx.graph.node import Shape

_BLOCK = 1 << 16  # entries that are worked on at once: they stay in the cache
_LONG = 256  # entries from which a product of matrices beats einsum


@kernel
class BatchNorm(Kernel):
    """(x, gamma, beta, tangents of those that move) -> (y, ty)."""

    name = "batch_norm"

    def __init__(self, x_shapes: Sequence[Shape], axis: int, eps: float, moves: Sequence[bool]):
        super().__init__(x_shapes)
        shape = x_shapes[0]
        self.y_shapes = [shape, shape]
        self.outer, self.channels, self.inner = prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])
        self.size, self.eps, self.moves = self.outer * self.inner, eps, tuple(moves)

    def forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        (x, gamma, beta), (t, tgamma, tbeta) = self._sorted(xs)
        self._mean = self._sum(x) / self.size
        squares, in_t = self._inner_with_centred(x, [x] if t is None else [x, t])
        r = self._r = 1 / np.sqrt(squares / self.size + self.eps)
        self._combine(ys[0], [(gamma * r, x)], beta - gamma * r * self._mean)
        self._mean_t, self._mean_nt = (0.0 if t is None else self._sum(t) / self.size), r * in_t / self.size
        slope = _or_zero(tgamma) - gamma * r * self._mean_nt
        shift = _or_zero(tbeta) - gamma * r * self._mean_t
        terms = [] if t is None else [(gamma * r, t)]
        self._combine(ys[1], [*terms, (slope * r, x)], shift - slope * r * self._mean)

    def adjoint(
        self, gs: Sequence[Array], xs: Sequence[Array], ys: Sequence[Array], dxs: Sequence[Array | None]
    ) -> None:
        """For cotangents h of y and g of ty, with p = gamma h + tgamma g and q = gamma g:

        dt = J q,  dx = J p - r (<q, u> n / m + mean(n q) u + mean(n t) J q): the last from dJ/dx.
        """
        (x, gamma, _), (t, tgamma, _) = self._sorted(xs)
        (dx, dgamma, dbeta), (dt, dtgamma, dtbeta) = self._sorted(dxs)
        (h, g), r, m, nt, tgamma = gs, self._r, self.size, self._mean_nt, _or_zero(tgamma)
        sum_h, sum_g = self._sum(h), self._sum(g)
        in_h, in_g = (r * inner for inner in self._inner_with_centred(x, [h, g]))
        in_u = 0.0 if t is None else r * (self._inner(g, t) - self._mean_t * sum_g - nt * in_g)  # <g, u>
        mean_q, mean_nq = gamma * sum_g / m, gamma * in_g / m
        if dx is not None:
            mean_p, mean_np = (gamma * sum_h + tgamma * sum_g) / m, (gamma * in_h + tgamma * in_g) / m
            terms = [(r * gamma, h), (r * tgamma - r * r * nt * gamma, g)]
            terms += [] if t is None else [(-r * r * mean_nq, t)]
            slope = 2 * r * r * mean_nq * nt - r * gamma * in_u / m - r * mean_np
            shift = r * r * (mean_nq * self._mean_t + nt * mean_q) - r * mean_p
            self._combine(dx, [*terms, (slope * r, x)], shift - slope * r * self._mean)
        if dt is not None:
            self._combine(dt, [(r * gamma, g), (-r * r * mean_nq, x)], r * r * mean_nq * self._mean - r * mean_q)
        sums = ((dgamma, in_h + in_u), (dbeta, sum_h), (dtgamma, in_g), (dtbeta, sum_g))
        for target, value in sums:
            if target is not None:
                target[...] = value

    def _sorted(self, xs: Sequence[Array | None]) -> tuple[list, list]:
        given = iter(xs[3:])
        return list(xs[:3]), [next(given) if moves else None for moves in self.moves]

    # -- per channel; numbers per channel are float64

    def _sum(self, a: Array) -> Array:
        """(C,)."""
        if self.inner == 1:
            return a.reshape(self.outer, self.channels).sum(0, dtype=np.float64)
        rows = a.reshape(-1, self.inner) @ np.ones(self.inner, a.dtype)  # BLAS: faster than sum
        return rows.reshape(self.outer, self.channels).sum(0, dtype=np.float64)

    def _inner(self, a: Array, b: Array) -> Array:
        """<a, b>, (C,), of arrays of any number of outer entries."""
        a, b = (v.reshape(-1, self.channels, self.inner) for v in (a, b))
        if self.inner < _LONG:
            products = np.einsum("oci,oci->oc", a, b)
        else:
            products = np.matmul(a[..., None, :], b[..., None])[..., 0, 0]
        return products.sum(0, dtype=np.float64)

    def _inner_with_centred(self, x: Array, others: Sequence[Array]) -> list[Array | float]:
        """<x - mean x, b> for each b, (C,); for b = x the square of x - mean x. Two numbers: 0 where there is no b."""
        mean = self._spread(self._mean, x.dtype)
        found: list[Array | float] = [0.0, 0.0]
        arrays = [self._rows(b) for b in others]
        for block, a, centred in self._blocks(self._rows(x)):
            np.subtract(a, mean, out=centred)
            for k, b in enumerate(arrays):
                found[k] = found[k] + self._inner(centred, centred if others[k] is x else b[block])
        return found

    def _combine(self, out: Array, terms: Sequence[tuple[Array, Array]], shift: Array | float) -> None:
        """out = sum_k c_k a_k + shift, with c_k and shift (C,)."""
        coefficients, arrays = [self._spread(c, out.dtype) for c, _ in terms], [self._rows(a) for _, a in terms]
        shifts = self._spread(shift, out.dtype)
        for block, part, scratch in self._blocks(self._rows(out)):
            np.multiply(arrays[0][block], coefficients[0], out=part)
            for a, c in zip(arrays[1:], coefficients[1:]):
                part += np.multiply(a[block], c, out=scratch)
            part += shifts

    def _rows(self, a: Array) -> Array:
        """(outer, C inner)."""
        return a.reshape(self.outer, self.channels * self.inner)

    def _spread(self, value: Array | float, dtype: np.dtype) -> Array:
        """(C,) -> (C inner,), so that a row is one loop of NumPy's."""
        return np.repeat(np.broadcast_to(value, self.channels), self.inner).astype(dtype)

    def _blocks(self, a: Array) -> Iterator[tuple[slice, Array, Array]]:
        """Rows of a few at a time: where, the part of `a`, and scratch of its shape."""
        count = max(1, _BLOCK // a.shape[1])
        scratch = np.empty((min(count, self.outer), a.shape[1]), a.dtype)
        for start in range(0, self.outer, count):
            block = slice(start, min(start + count, self.outer))
            yield block, a[block], scratch[: block.stop - start]


def _or_zero(a: Array | None) -> Array | float:
    return 0.0 if a is None else a
