"""GRU (Cho et al. 2014, in cuDNN's form; gates r, z, n).

    r, z = sigmoid(into + back)        n = tanh(into_n + r back_n)        h_t = n + z (h_{t-1} - n)

Tangents: th_t = sum k t_into + sum l t_back + z th_{t-1}, with k = (k_n back_n r', (h_{t-1} - n) z', (1 - z) n'), where
r' = r (1 - r), z' = z (1 - z), n' = 1 - n^2; l is k but for l_n = r k_n.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from hessmx.rules.fused.operator import Array, kernel
from hessmx.rules.fused.recurrent import Adjoint, Recurrent


@kernel
class GRU(Recurrent):
    name = "gru"
    gates = 3

    def run(self, r: Array, into: Array, br: Array, states: Sequence[Array]) -> list[Array]:
        self._s, self.h, rt = into, self.chain("h", states[0]), np.ascontiguousarray(r.T)
        self._back, both = self.over_rows("back", r), 2 * self.units
        for s, h, h1, back in zip(into, self.h, self.h[1:], self._back):
            np.matmul(h, rt, out=back)
            back += br
            s[:, :both] += back[:, :both]
            s[:, :both] *= 0.5  # the sigmoid is tanh(x / 2) / 2 + 1 / 2
            np.tanh(s[:, :both], out=s[:, :both])
            s[:, :both] *= 0.5
            s[:, :both] += 0.5
            reset, z, n = self.split(s)
            n += reset * back[:, both:]
            np.tanh(n, out=n)
            np.subtract(h, n, out=h1)
            h1 *= z
            h1 += n
        return [self.h[1:], self.h[-1]]

    def prepare(self, r: Array) -> None:
        (reset, z, n), back_n = self.split(self._s), self.split(self._back)[2]
        self._slopes = (reset * (1 - reset), z * (1 - z), 1 - n * n)
        kn = (1 - z) * self._slopes[2]
        self._k, self._l = self.over_rows("k", r), self.over_rows("l", r)
        np.concatenate([kn * back_n * self._slopes[0], (self.past - n) * self._slopes[1], kn], axis=2, out=self._k)
        self._l[...] = self._k
        self.split(self._l)[2][...] *= reset

    def push(self, r: Array, t_into: Array, t_back: Array, t_states: Sequence[Array]) -> list[Array]:
        self._t_into, self._t_back, rt = t_into, t_back, np.ascontiguousarray(r.T)
        z = self.split(self._s)[1]
        self.th = self.chain("th", t_states[0])
        fixed = np.add.reduce(self.split(np.multiply(self._k, t_into, out=self.over_rows("scratch", r))))
        moved = np.empty_like(t_back[0])
        for a, coefficient, rest, keep, th, th1 in zip(t_back, self._l, fixed, z, self.th, self.th[1:]):
            a += np.matmul(th, rt, out=moved)
            np.multiply(keep, th, out=th1)
            th1 += rest
            for part in self.split(np.multiply(coefficient, a, out=moved)):
                th1 += part
        return [self.th[1:], self.th[-1]]

    def pull_tangents(self, r: Array, gs: Sequence[Array]) -> Adjoint:
        self._gh = self.over_units("linear gh", r)
        back, first = self._reverse("linear", r, gs, self._gh)
        return Adjoint(self._of_into("linear into", self._gh), back, [first])

    def pull_values(self, r: Array, gs: Sequence[Array], linear: Adjoint | None) -> Adjoint:
        gh = self.over_units("gh", r)
        if linear is None:
            back, first = self._reverse("values", r, gs, gh)
            return Adjoint(self._of_into("into", gh), back, [first])
        from_into, from_back, from_past = self._curvature(r)
        back, first = self._reverse("values", r, gs, gh, from_back, from_past)
        from_into += self._of_into("scratch", gh)
        return Adjoint(from_into, back, [first])

    def _reverse(
        self, name: str, r: Array, gs: Sequence[Array], keep: Array,
        from_back: Array | None = None, from_past: Array | None = None,
    ) -> tuple[Array, Array]:  # fmt: skip
        """Cotangents of h (all) and last h, and sources for `back` and h_{t-1} -> those of `back` and of the first h.

        Those of h_t are kept.
        """
        pulled, z, gh = self.over_rows(name, r), self.split(self._s)[1], gs[1][0].copy()
        back = np.empty_like(gh)
        for t in range(self.steps - 1, -1, -1):
            gh += gs[0][t]
            keep[t] = gh
            np.multiply(self.apart(self._l[t]), gh[:, None], out=self.apart(pulled[t]))
            if from_back is not None:
                pulled[t] += from_back[t]
            gh *= z[t]
            gh += np.matmul(pulled[t], r, out=back)
            if from_past is not None:
                gh += from_past[t]
        return pulled, gh

    def _curvature(self, r: Array) -> tuple[Array, Array, Array]:
        """What k, l and z owe to the values, under cotangents gh of the tangents' steps.

        Gradients by `into` and `back` (T, N, rows), and by h_{t-1} (T, N, H).
        """
        gh, (reset, z, n), (r1, z1, n1) = self._gh, self.split(self._s), self._slopes
        back_n, kn = self.split(self._back)[2], self.split(self._k)[2]
        (a_r, a_z, a_n), (b_r, b_z, b_n) = self.split(self._t_into), self.split(self._t_back)
        by_kr, by_kz = gh * (a_r + b_r), gh * (a_z + b_z)
        by_kn = gh * (a_n + reset * b_n) + by_kr * back_n * r1
        by_n = n1 * (-2 * n * (1 - z) * by_kn - by_kz * z1)
        by_r = r1 * (by_kr * kn * back_n * (1 - 2 * reset) + gh * kn * b_n + by_n * back_n)
        by_z = z1 * (gh * self.t_past - by_kn * n1 + by_kz * (self.past - n) * (1 - 2 * z))
        into, back = self.over_rows("from into", r), self.over_rows("from back", r)
        np.concatenate([by_r, by_z, by_n], axis=2, out=into)
        np.concatenate([by_r, by_z, reset * by_n + by_kr * kn * r1], axis=2, out=back)
        return into, back, by_kz * z1

    def _of_into(self, name: str, gh: Array) -> Array:
        """k gh, (T, N, rows): what h_t owes to `into`."""
        result = self.over_rows(name, gh)
        for target, k in zip(self.split(result), self.split(self._k)):
            np.multiply(k, gh, out=target)
        return result
