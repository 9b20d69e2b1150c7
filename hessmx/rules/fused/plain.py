"""Plain recurrent layers (Elman 1990): h_t = f(into + back), f = tanh or relu. th_t = f' (t_into + t_back)."""

from __future__ import annotations

from typing import Sequence

import numpy as np

from hessmx.rules.fused.operator import Array, kernel
from hessmx.rules.fused.recurrent import Adjoint, Recurrent


class _Plain(Recurrent):
    gates = 1

    @staticmethod
    def activate(a: Array) -> Array:
        """f, in place."""
        raise NotImplementedError

    @staticmethod
    def slope(h: Array) -> Array:
        """f' where f is h."""
        raise NotImplementedError

    def bend(self) -> Array | float:
        """f'' / f' (T, N, H)."""
        raise NotImplementedError

    def run(self, r: Array, into: Array, br: Array, states: Sequence[Array]) -> list[Array]:
        self.h, rt = self.chain("h", states[0]), np.ascontiguousarray(r.T)
        into += br
        for a, h, h1 in zip(into, self.h, self.h[1:]):
            np.matmul(h, rt, out=h1)
            h1 += a
            self.activate(h1)
        return [self.h[1:], self.h[-1]]

    def prepare(self, r: Array) -> None:
        self._k = self.slope(self.h[1:])

    def push(self, r: Array, t_into: Array, t_back: Array, t_states: Sequence[Array]) -> list[Array]:
        t_into += t_back
        self._a, rt = t_into, np.ascontiguousarray(r.T)
        self.th, back = self.chain("th", t_states[0]), np.empty_like(t_into[0])
        for a, k, th, th1 in zip(self._a, self._k, self.th, self.th[1:]):
            a += np.matmul(th, rt, out=back)
            np.multiply(k, a, out=th1)
        return [self.th[1:], self.th[-1]]

    def pull_tangents(self, r: Array, gs: Sequence[Array]) -> Adjoint:
        return self._reverse(r, gs, None)

    def pull_values(self, r: Array, gs: Sequence[Array], linear: Adjoint | None) -> Adjoint:
        return self._reverse(r, gs, None if linear is None else linear.into * self._a * self.bend())

    def _reverse(self, r: Array, gs: Sequence[Array], source: Array | None) -> Adjoint:
        pulled, gh = np.empty_like(self._a), gs[1][0].copy()
        for t in range(self.steps - 1, -1, -1):
            gh += gs[0][t]
            np.multiply(self._k[t], gh, out=pulled[t])
            if source is not None:
                pulled[t] += source[t]
            np.matmul(pulled[t], r, out=gh)
        return Adjoint(pulled, pulled, [gh])


@kernel
class Tanh(_Plain):
    name = "rnn_tanh"

    @staticmethod
    def activate(a: Array) -> Array:
        return np.tanh(a, out=a)

    @staticmethod
    def slope(h: Array) -> Array:
        return 1 - h * h

    def bend(self) -> Array:
        return -2 * self.h[1:]


@kernel
class Relu(_Plain):
    name = "rnn_relu"

    @staticmethod
    def activate(a: Array) -> Array:
        return np.maximum(a, 0, out=a)

    @staticmethod
    def slope(h: Array) -> Array:
        return (h > 0).astype(h.dtype)

    def bend(self) -> float:
        return 0.0
