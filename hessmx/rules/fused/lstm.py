"""LSTM (Hochreiter and Schmidhuber 1997, with forget gates; gates i, f, g, o as in cuDNN).

    c_t = f c_{t-1} + i g        e = tanh(c_t)        h_t = o e        s = (i, f, g, o) = act(into + back)

A tangent of the pre-activations, a, moves c by k_i a_i + k_f a_f + k_g a_g and h by k_o a_o, where k = act'(s) partner
and partner = (g, c_{t-1}, i, e); c moves h by q = o (1 - e^2). The slopes act' are s (1 - s), for g 1 - g^2.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from hessmx.rules.fused.operator import Array, kernel
from hessmx.rules.fused.recurrent import Adjoint, Recurrent


@kernel
class LSTM(Recurrent):
    name = "lstm"
    gates = 4
    states = 2

    def run(self, r: Array, into: Array, br: Array, states: Sequence[Array]) -> list[Array]:
        into += br
        self._s, rt = into, np.ascontiguousarray(r.T)
        half = np.full(self.rows, 0.5, r.dtype)  # the sigmoid is tanh(x / 2) / 2 + 1 / 2
        half[2 * self.units : 3 * self.units] = 1
        shift, back = 1 - half, np.empty_like(into[0])
        self.h, self._c = self.chain("h", states[0]), self.chain("c", states[1])
        self._e, new = self.over_units("e", r), np.empty_like(self.h[0])
        for s, h, c, e, h1, c1 in zip(into, self.h, self._c, self._e, self.h[1:], self._c[1:]):
            s += np.matmul(h, rt, out=back)
            s *= half
            np.tanh(s, out=s)
            s *= half
            s += shift
            i, f, g, o = self.split(s)
            np.multiply(f, c, out=c1)
            c1 += np.multiply(i, g, out=new)
            np.tanh(c1, out=e)
            np.multiply(o, e, out=h1)
        return [self.h[1:], self.h[-1], self._c[-1]]

    def prepare(self, r: Array) -> None:
        self._slopes = self._all_slopes()
        self._k, self._e_slope, self._q = self.over_rows("k", r), self.over_units("e'", r), self.over_units("q", r)
        i, _, g, o = self.split(self._s)
        partners = (g, self._c[:-1], i, self._e)
        for k, slope, partner in zip(self.split(self._k), self.split(self._slopes), partners):
            np.multiply(slope, partner, out=k)
        _one_minus_square(self._e, self._e_slope)
        np.multiply(o, self._e_slope, out=self._q)

    def push(self, r: Array, t_into: Array, t_back: Array, t_states: Sequence[Array]) -> list[Array]:
        t_into += t_back
        self._a, rt = t_into, np.ascontiguousarray(r.T)
        self.th, self._tc = self.chain("th", t_states[0]), self.chain("tc", t_states[1])
        forget, moved, back = self.split(self._s)[1], np.empty_like(t_into[0]), np.empty_like(t_into[0])
        steps = zip(self._a, self._k, self._q, forget, self.th, self._tc, self.th[1:], self._tc[1:])
        for a, k, q, f, th, tc, th1, tc1 in steps:
            a += np.matmul(th, rt, out=back)
            i, fa, g, o = self.split(np.multiply(k, a, out=moved))
            np.multiply(f, tc, out=tc1)
            tc1 += i
            tc1 += fa
            tc1 += g
            np.multiply(q, tc1, out=th1)
            th1 += o
        return [self.th[1:], self.th[-1], self._tc[-1]]

    def pull_tangents(self, r: Array, gs: Sequence[Array]) -> Adjoint:
        self._lh, self._lc = self.over_units("lh", r), self.over_units("lc", r)
        return self._reverse("linear", r, gs, keep=(self._lh, self._lc))

    def pull_values(self, r: Array, gs: Sequence[Array], linear: Adjoint | None) -> Adjoint:
        if linear is None:
            return self._reverse("values", r, gs)
        into, into_c, first = self._curvature(r)
        result = self._reverse("values", r, gs, into, into_c)
        result.states[1] += first
        return result

    def _reverse(
        self, name: str, r: Array, gs: Sequence[Array], into: Array | None = None, into_c: Array | None = None,
        keep: tuple[Array, Array] | None = None,
    ) -> Adjoint:  # fmt: skip
        """Cotangents of h (all), last h, last c, and sources for pre-activations and c -> those of pre-activations."""
        pulled, forget = self.over_rows(name, r), self.split(self._s)[1]
        gh, gc, part = gs[1][0].copy(), gs[2][0].copy(), np.empty_like(self._q[0])
        for t in range(self.steps - 1, -1, -1):
            gh += gs[0][t]
            gc += np.multiply(self._q[t], gh, out=part)
            if into_c is not None:
                gc += into_c[t]
            if keep is not None:
                keep[0][t], keep[1][t] = gh, gc
            d, k = self.apart(pulled[t]), self.apart(self._k[t])
            np.multiply(k[:, :3], gc[:, None], out=d[:, :3])
            np.multiply(k[:, 3], gh, out=d[:, 3])
            if into is not None:
                pulled[t] += into[t]
            np.matmul(pulled[t], r, out=gh)
            gc *= forget[t]
        return Adjoint(pulled, pulled, [gh, gc])

    def _curvature(self, r: Array) -> tuple[Array, Array, Array]:
        """What k, f and q owe to the values, under cotangents lh, lc of the tangents' steps.

        Gradients by the pre-activations (T, N, rows), by c_t (T, N, H), and by the initial c.
        """
        by_k, by_partner, bend = (self.over_rows(name, r) for name in ("by k", "by partner", "scratch"))
        by_q, by_c, term = (self.over_units(name, r) for name in ("by q", "by c", "term"))
        for target, a, cotangent in zip(self.split(by_k), self.split(self._a), (self._lc,) * 3 + (self._lh,)):
            np.multiply(a, cotangent, out=target)
        np.multiply(by_k, self._slopes, out=by_partner)
        np.multiply(self._lh, self._tc[1:], out=by_q)
        # k = act' partner: act'' / act' is 1 - 2 s, for g -2 g
        np.multiply(self._s, -2, out=bend)
        bend += 1
        self.split(bend)[2][...] -= 1
        by_k *= self._k
        by_k *= bend
        partner_i, partner_f, partner_g, partner_o = self.split(by_partner)
        direct = (partner_g, self._lc * self._tc[:-1], partner_i, by_q * self._e_slope)
        for target, slope, factor in zip(self.split(by_k), self.split(self._slopes), direct):
            target += np.multiply(slope, factor, out=term)
        # e stands in k_o as partner, in q as 1 - e^2
        np.multiply(by_q, self.split(self._s)[3], out=by_c)
        by_c *= self._e
        by_c *= -2
        by_c += partner_o
        by_c *= self._e_slope
        by_c[:-1] += partner_f[1:]
        return by_k, by_c, partner_f[0]

    def _all_slopes(self) -> Array:
        """act'(s), (T, N, rows)."""
        slopes = self.over_rows("slopes", self._s)
        np.subtract(1, self._s, out=slopes)
        slopes *= self._s
        _one_minus_square(self.split(self._s)[2], self.split(slopes)[2])
        return slopes


def _one_minus_square(a: Array, out: Array) -> None:
    np.multiply(a, a, out=out)
    np.subtract(1, out, out=out)
