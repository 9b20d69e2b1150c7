"""LSTM (Hochreiter and Schmidhuber 1997, with forget gates; gates i, f, g, o as in cuDNN).

    c_t = f c_{t-1} + i g        e = tanh(c_t)        h_t = o e        s = (i, f, g, o) = act(into + back)

A tangent of the pre-activations, a, moves c by k_i a_i + k_f a_f + k_g a_g and h by k_o a_o, where k = act'(s) partner
and partner = (g, c_{t-1}, i, e); c moves h by q = o (1 - e^2). The slopes act' are s (1 - s), for g 1 - g^2.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

from hessmx.graph.fused.operator import Array, kernel
from hessmx.graph.fused.recurrent import Adjoint, Recurrent


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
        self._h, self._c = self.chain(states[0]), self.chain(states[1])
        self._e, new = np.empty_like(self._h[1:]), np.empty_like(self._h[0])
        for s, h, c, e, h1, c1 in zip(into, self._h, self._c, self._e, self._h[1:], self._c[1:]):
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
        self.past = self._h[:-1]
        return [self._h[1:], self._h[-1], self._c[-1]]

    def push(self, r: Array, t_into: Array, t_back: Array, t_states: Sequence[Array]) -> list[Array]:
        t_into += t_back
        self._a, rt = t_into, np.ascontiguousarray(r.T)
        self._k = self._slopes()
        for k, partner in zip(self.split(self._k), self._partners()):
            k *= partner
        self._q = self.split(self._s)[3] * (1 - self._e * self._e)
        self._th, self._tc = self.chain(t_states[0]), self.chain(t_states[1])
        forget, moved, back = self.split(self._s)[1], np.empty_like(t_into[0]), np.empty_like(t_into[0])
        steps = zip(self._a, self._k, self._q, forget, self._th, self._tc, self._th[1:], self._tc[1:])
        for a, k, q, f, th, tc, th1, tc1 in steps:
            a += np.matmul(th, rt, out=back)
            i, fa, g, o = self.split(np.multiply(k, a, out=moved))
            np.multiply(f, tc, out=tc1)
            tc1 += i
            tc1 += fa
            tc1 += g
            np.multiply(q, tc1, out=th1)
            th1 += o
        self.t_past = self._th[:-1]
        return [self._th[1:], self._th[-1], self._tc[-1]]

    def pull_tangents(self, r: Array, gs: Sequence[Array]) -> Adjoint:
        self._lc = np.empty_like(self._q)
        self._lh = np.empty_like(self._q)
        return self._reverse(r, gs, None, None, (self._lh, self._lc))

    def pull_values(self, r: Array, gs: Sequence[Array], linear: Adjoint | None) -> Adjoint:
        if linear is None:
            return self._reverse(r, gs, None, None, None)
        into, into_c, first = self._curvature()
        result = self._reverse(r, gs, into, into_c, None)
        result.states[1] += first
        return result

    def _reverse(
        self, r: Array, gs: Sequence[Array], into: Array | None, into_c: Array | None,
        keep: tuple[Array, Array] | None,
    ) -> Adjoint:  # fmt: skip
        """Cotangents of h (all), last h, last c, and sources for pre-activations and c -> those of pre-activations."""
        pulled, forget = np.empty_like(self._s), self.split(self._s)[1]
        gh, gc, part = gs[1][0].copy(), gs[2][0].copy(), np.empty_like(self._q[0])
        for t in range(self.steps - 1, -1, -1):
            gh += gs[0][t]
            gc += np.multiply(self._q[t], gh, out=part)
            if into_c is not None:
                gc += into_c[t]
            if keep is not None:
                keep[0][t], keep[1][t] = gh, gc
            d, k = (a.reshape(self.samples, 4, self.units) for a in (pulled[t], self._k[t]))
            np.multiply(k[:, :3], gc[:, None], out=d[:, :3])
            np.multiply(k[:, 3], gh, out=d[:, 3])
            if into is not None:
                pulled[t] += into[t]
            np.matmul(pulled[t], r, out=gh)
            gc *= forget[t]
        return Adjoint(pulled, pulled, [gh, gc])

    def _curvature(self) -> tuple[Array, Array, Array]:
        """What k, f and q owe to the values, under cotangents lh, lc of the tangents' steps.

        Gradients by the pre-activations (T, N, rows), by c_t (T, N, H), and by the initial c.
        """
        slopes = self._slopes()
        by_k = np.empty_like(self._a)
        for target, cotangent in zip(self.split(by_k), (self._lc, self._lc, self._lc, self._lh)):
            target[...] = cotangent
        by_k *= self._a
        by_partner = self.split(by_k * slopes)
        by_q = self._lh * self._tc[1:]
        e_slope = 1 - self._e * self._e
        o = self.split(self._s)[3]
        # k = act' partner: act'' / act' is 1 - 2 s, for g -2 g
        bend = 1 - 2 * self._s
        self.split(bend)[2][...] -= 1
        by_k *= self._k
        by_k *= bend
        direct = (by_partner[2], self._lc * self._tc[:-1], by_partner[0], by_q * e_slope)
        for target, slope, term in zip(self.split(by_k), self.split(slopes), direct):
            target += slope * term
        by_c = (by_partner[3] - 2 * by_q * o * self._e) * e_slope
        by_c[:-1] += by_partner[1][1:]
        return by_k, by_c, by_partner[1][0]

    def _partners(self) -> tuple[Array, Array, Array, Array]:
        i, _, g, _ = self.split(self._s)
        return g, self._c[:-1], i, self._e

    def _slopes(self) -> Array:
        """act'(s), (T, N, rows)."""
        slopes = 1 - self._s
        slopes *= self._s
        g = self.split(self._s)[2]
        self.split(slopes)[2][...] = 1 - g * g
        return slopes
