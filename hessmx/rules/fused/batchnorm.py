"""BatchNorm over batch statistics: its tangent, and the local pass of that, each a pass of sums and a combination.

    y = gamma r c + beta,  c = x - mean,  r = (var + eps)^(-1/2),  <.> the mean over the k entries of a channel
    tangent   gamma r (t - <t>) - gamma r^3 <c t> c + t_gamma r c + t_beta

With A = <c t>, B = <c u>, D = <u t> - <u> <t>, for a cotangent u of the tangent:
    by x        -r^3 (gamma D - 3 gamma r^2 A B + t_gamma B) c - gamma r^3 B (t - <t>)
                + (t_gamma r - gamma r^3 A) (u - <u>)
    by t        gamma r (u - <u>) - gamma r^3 B c
    by gamma    k (r D - r^3 A B)          by t_gamma   k r B          by t_beta   k <u>
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple, Sequence

import numpy as np

from hessmx.graph.node import Shape
from hessmx.rules.fused.loops import combine, combine_three, compiled, products, sums
from hessmx.rules.fused.operator import Array, Kernel, kernel


class _Inputs(NamedTuple):
    x: Array
    gamma: Array
    mean: Array
    r: Array
    t: Array | None
    t_gamma: Array | None
    t_beta: Array | None


@kernel
class BatchNormTangent(Kernel):
    """(x, gamma, mean, r, then those of t, t_gamma, t_beta that move) -> the tangent of y.

    `mean` and `r` belong to x: the gradient by x holds what comes through them, theirs are zero.
    """

    name = "batchnorm"

    def __init__(self, x_shapes: Sequence[Shape], axis: int, moves: Sequence[bool]):
        super().__init__(x_shapes)
        self.moves, shape = tuple(moves), x_shapes[0]
        self.y_shapes = [shape]
        self.flat = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
        self.count = self.flat[0] * self.flat[2]

    def forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        p = self._sorted(xs)
        c, r = self._images(p.x), p.r.astype(np.float64)
        by_c, shift = np.zeros(self.flat[1]), np.zeros(self.flat[1])
        by_t = np.zeros(self.flat[1])
        if p.t is not None:
            mean_t, inner = self._moments(p, p.t)
            by_t = p.gamma * r
            by_c -= p.gamma * r**3 * inner
            shift -= by_t * mean_t
        if p.t_gamma is not None:
            by_c += p.t_gamma * r
        if p.t_beta is not None:
            shift += p.t_beta
        self._combine(p, [(c if p.t is None else p.t, by_t)], by_c, shift, ys[0])

    def adjoint(self, gs: Sequence[Array], xs: Sequence[Array], dxs: Sequence[Array | None]) -> None:
        p, u, k = self._sorted(xs), gs[0], self.count
        r, zero = p.r.astype(np.float64), np.zeros(self.flat[1])
        mean_u, b = self._moments(p, u)
        mean_t, a, d = zero, zero, zero
        if p.t is not None:
            mean_t, a = self._moments(p, p.t)
            d = zero.copy()
            compiled(products)(self._images(p.t), self._images(u), d)
            d = d / k - mean_u * mean_t
        gamma, t_gamma = p.gamma.astype(np.float64), zero if p.t_gamma is None else p.t_gamma
        found = _Inputs(*dxs[:4], *self._moved(dxs[4:]))
        if found.x is not None:
            by_c = -(r**3) * (gamma * d - 3 * gamma * r**2 * a * b + t_gamma * b)
            by_t, by_u = -gamma * r**3 * b, t_gamma * r - gamma * r**3 * a
            terms = [(u, by_u)] if p.t is None else [(p.t, by_t), (u, by_u)]
            self._combine(p, terms, by_c, -by_t * mean_t - by_u * mean_u, found.x)
        if found.t is not None:
            self._combine(p, [(u, gamma * r)], -gamma * r**3 * b, -gamma * r * mean_u, found.t)
        values = {"gamma": k * (r * d - r**3 * a * b), "t_gamma": k * r * b, "t_beta": k * mean_u, "mean": 0, "r": 0}
        for name, value in values.items():
            target = getattr(found, name)
            if target is not None:
                target[...] = value

    def _moments(self, p: _Inputs, t: Array) -> tuple[Array, Array]:
        """<t> and <c t> per channel."""
        total, inner = np.zeros(self.flat[1]), np.zeros(self.flat[1])
        compiled(sums)(self._images(p.x), self._images(t), p.mean, total, inner)
        return total / self.count, inner / self.count

    def _combine(self, p: _Inputs, terms: list, by_c: Array, shift: Array, out: Array) -> None:
        """by_c c + sum of factor times array + shift, in the dtype of x."""
        dtype, x = p.x.dtype, self._images(p.x)
        whole = [(factor, self._images(array)) for array, factor in terms]
        factors = [by_c, *(factor for factor, _ in whole), shift - by_c * p.mean]
        cast = [factor.astype(dtype) for factor in factors]
        loop = combine if len(whole) == 1 else combine_three
        compiled(loop)(x, *(array for _, array in whole), *cast, self._images(out))

    def _images(self, a: Array) -> Array:
        return a.reshape(self.flat)

    def _sorted(self, xs: Sequence[Array]) -> _Inputs:
        return _Inputs(*xs[:4], *self._moved(xs[4:]))

    def _moved(self, given: Sequence[Array | None]) -> list:
        """One for t, t_gamma, t_beta each; None for what does not move."""
        each = iter(given)
        return [next(each) if moves else None for moves in self.moves]
