"""Recurrent layers with their tangents: what all cells have in common. One layer, one direction, all steps.

Names, as in MXNet's flat parameter vector: W (rows, I), R (rows, H), bw, br (rows,) with rows = gates * H, those of a
gate adjacent. T steps, N samples, I inputs, H units. `past` is h_{t-1} for all t. A step's pre-activations are

    into_t = W x_t + bw        back_t = R h_{t-1} + br        (T, N, rows)

What becomes of them is the cell's own business (a file each). Steps hold only what depends on the step before; all
else is done over all steps at once. The adjoint runs backwards twice: for the tangents, whose steps are linear, and for
the values, where what the tangents' coefficients owe to the values is a further source.
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple, Sequence

import numpy as np

from hessmx.graph.fused.operator import Array, Kernel
from hessmx.graph.node import Shape


class Parameters(NamedTuple):
    """A layer's parameters, views of the flat vector."""

    w: Array
    r: Array
    bw: Array
    br: Array


class Adjoint(NamedTuple):
    """Gradients by the pre-activations (T, N, rows), and by the initial states (N, H) each."""

    into: Array
    back: Array
    states: list[Array]


class Recurrent(Kernel):
    """(x, parameters, states..., tangents of those that move) -> (h of all steps, last states..., tangents of these).

    x (T, N, I), states (1, N, H); `moves` says which of x, parameters and states have a tangent.
    """

    gates: int
    states: int = 1
    past: Array  # kept by `run`
    t_past: Array  # kept by `push`

    def __init__(self, x_shapes: Sequence[Shape], moves: Sequence[bool]):
        (self.steps, self.samples, self.width), self.units = x_shapes[0], x_shapes[2][2]
        self.rows, self.moves = self.gates * self.units, tuple(moves)
        outputs = [(self.steps, self.samples, self.units)] + [(1, self.samples, self.units)] * self.states
        self.y_shapes = outputs * 2

    # -- what a cell gives

    def run(self, r: Array, into: Array, br: Array, states: Sequence[Array]) -> list[Array]:
        """h of all steps and the last states, given `into`, which it may overwrite."""
        raise NotImplementedError

    def push(self, r: Array, t_into: Array, t_back: Array, t_states: Sequence[Array]) -> list[Array]:
        """Tangents of what `run` gave; `t_back` is without R th_{t-1}. It may overwrite both."""
        raise NotImplementedError

    def pull_tangents(self, r: Array, gs: Sequence[Array]) -> Adjoint:
        """Adjoint of `push`, for cotangents of what it gave."""
        raise NotImplementedError

    def pull_values(self, r: Array, gs: Sequence[Array], linear: Adjoint | None) -> Adjoint:
        """Adjoint of `run`, and of `push` through its coefficients where `linear` is what `pull_tangents` gave."""
        raise NotImplementedError

    # -- the two passes

    def forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        (x, flat, *states), (tx, tflat, *t_states) = self._sorted(xs)
        p, tp = self._unpacked(flat), None if tflat is None else self._unpacked(tflat)
        found = self.run(p.r, self._product(x, p.w, p.bw), p.br, [state[0] for state in states])
        zeros = np.zeros((self.samples, self.units), x.dtype)
        t_into = self._zeros(x) if tp is None else self._product(x, tp.w, tp.bw)
        if tx is not None:
            t_into += self._product(tx, p.w)
        t_back = self._zeros(x) if tp is None else self._product(self.past, tp.r, tp.br)
        found += self.push(p.r, t_into, t_back, [zeros if t is None else t[0] for t in t_states])
        for y, value in zip(ys, found):
            y[...] = value

    def adjoint(
        self, gs: Sequence[Array], xs: Sequence[Array], ys: Sequence[Array], dxs: Sequence[Array | None]
    ) -> None:
        (x, flat, *_), (tx, tflat, *_) = self._sorted(xs)
        p, half = self._unpacked(flat), 1 + self.states
        value_gs, tangent_gs = list(gs[:half]), gs[half:]
        # Gauss-Newton products hold the tangents fixed: nothing comes back through them
        linear = self.pull_tangents(p.r, tangent_gs) if any(g.any() for g in tangent_gs) else None
        through_past = None
        if linear is not None and tflat is not None:
            through_past = self._matrix(linear.back) @ self._unpacked(tflat).r
            through_past = through_past.reshape(value_gs[0].shape)
            value_gs[0] = value_gs[0].copy()
            value_gs[0][:-1] += through_past[1:]
        value = self.pull_values(p.r, value_gs, linear)
        if through_past is not None:
            value.states[0] += through_past[0]
        (dx, dflat, *d_states), (dtx, dtflat, *dt_states) = self._sorted(dxs)
        self._write(dx, dflat, d_states, value, x, self.past, p.w)
        if linear is not None:
            self._write(dtx, dtflat, dt_states, linear, x, self.past, p.w)
            tw = None if tflat is None else self._unpacked(tflat).w
            self._add(None if tw is None else dx, dflat, linear, tx, self.t_past, tw)
        else:
            for target in (dtx, dtflat, *dt_states):
                if target is not None:
                    target[...] = 0

    # -- for cells

    def split(self, a: Array) -> list[Array]:
        """Views (..., H) of the gates of an array (..., rows)."""
        return [a[..., k * self.units : (k + 1) * self.units] for k in range(self.gates)]

    def chain(self, start: Array) -> Array:
        """(T + 1, N, H), the first one given."""
        chain = np.empty((self.steps + 1, self.samples, self.units), start.dtype)
        chain[0] = start
        return chain

    # -- products over all steps

    def _write(
        self, dx: Array | None, dflat: Array | None, d_states: Sequence[Array | None], a: Adjoint,
        x: Array, past: Array, w: Array,
    ) -> None:  # fmt: skip
        """Gradients of W x + bw and R past + br, and by the states."""
        if dx is not None:
            np.matmul(self._matrix(a.into), w, out=self._matrix(dx))
        if dflat is not None:
            d = self._unpacked(dflat)
            np.matmul(self._matrix(a.into).T, self._matrix(x), out=d.w)
            np.matmul(self._matrix(a.back).T, self._matrix(past), out=d.r)
            d.bw[...], d.br[...] = a.into.sum((0, 1)), a.back.sum((0, 1))
        for target, value in zip(d_states, a.states):
            if target is not None:
                target[0] = value

    def _add(
        self, dx: Array | None, dflat: Array | None, a: Adjoint, tx: Array | None, t_past: Array, tw: Array | None
    ) -> None:
        """Add the gradients of W tx + R t_past by W and R, and of tW x by x."""
        if dx is not None:
            matrix = self._matrix(dx)
            matrix += self._matrix(a.into) @ tw
        if dflat is not None:
            d = self._unpacked(dflat)
            d.r[...] += self._matrix(a.back).T @ self._matrix(t_past)
            if tx is not None:
                d.w[...] += self._matrix(a.into).T @ self._matrix(tx)

    def _sorted(self, xs: Sequence[Array | None]) -> tuple[list, list]:
        """What belongs to the values, and what to the tangents: None for what does not move."""
        count = 2 + self.states
        given = iter(xs[count:])
        return list(xs[:count]), [next(given) if moves else None for moves in self.moves]

    def _unpacked(self, flat: Array) -> Parameters:
        shapes = [(self.rows, self.width), (self.rows, self.units), (self.rows,), (self.rows,)]
        parts = np.split(flat, np.cumsum([prod(shape) for shape in shapes[:-1]]))
        return Parameters(*(part.reshape(shape) for part, shape in zip(parts, shapes)))

    def _matrix(self, a: Array) -> Array:
        """(T, N, D) -> (T N, D)."""
        return a.reshape(self.steps * self.samples, -1)

    def _product(self, a: Array, weight: Array, bias: Array | float = 0.0) -> Array:
        """a W' + b over all steps: (T, N, rows)."""
        result = (self._matrix(a) @ weight.T).reshape(self.steps, self.samples, self.rows)
        result += bias
        return result

    def _zeros(self, like: Array) -> Array:
        return np.zeros((self.steps, self.samples, self.rows), like.dtype)
