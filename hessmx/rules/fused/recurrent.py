"""Recurrent layers with their tangents: what all cells have in common. One layer, one direction, all steps.

T steps, N samples, H units, rows = gates * H, those of a gate adjacent. `past` is h_{t-1} for all t. Pre-activations
that come from outside are given, those that come from the step before are made here:

    into_t = W x_t + bw        back_t = R h_{t-1} + br        (T, N, rows)

What becomes of them is the cell's own business (a file each). Steps hold only what depends on the step before; all
else is done over all steps at once. The adjoint runs backwards twice: for the tangents, whose steps are linear, and for
the values, where what the tangents' coefficients owe to the values is a further source.
"""

from __future__ import annotations

from typing import NamedTuple, Sequence

import numpy as np

from hessmx._mxnet import same_bytes
from hessmx.graph.node import Shape
from hessmx.rules.fused.operator import Array, Kernel


class Adjoint(NamedTuple):
    """Gradients by the pre-activations (T, N, rows), and by the initial states (N, H) each."""

    into: Array
    back: Array
    states: list[Array]


def _same(a: Array, b: Array) -> bool:
    """Bit for bit: both are contiguous."""
    return a.nbytes == b.nbytes and same_bytes(a.ctypes.data, b.ctypes.data, a.nbytes)


class Recurrent(Kernel):
    """(into, R, br, states..., tangents of those that move) -> (h of all steps, last states..., tangents of these).

    States are (1, N, H); `moves` says which of into, R, br and the states have a tangent.
    """

    gates: int
    states: int = 1
    h: Array  # h_t, (T + 1, N, H), the initial one first: `run` keeps it
    th: Array  # their tangents: `push` keeps them

    def __init__(self, x_shapes: Sequence[Shape], moves: Sequence[bool]):
        super().__init__(x_shapes)
        self.steps, self.samples, self.rows = x_shapes[0]
        self.units, self.moves = self.rows // self.gates, tuple(moves)
        self._seen: list[Array] | None = None
        outputs = [(self.steps, self.samples, self.units)] + [(1, self.samples, self.units)] * self.states
        self.y_shapes = outputs * 2

    # -- what a cell gives

    def run(self, r: Array, into: Array, br: Array, states: Sequence[Array]) -> list[Array]:
        """h of all steps and the last states; it may overwrite `into`."""
        raise NotImplementedError

    def prepare(self, r: Array) -> None:
        """Keep the tangents' coefficients, which depend on the values only."""

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
        values, (t_given, tr, tbr, *t_states) = self._sorted(xs)
        r, found = values[1], self._values(values)
        t_into, t_back = (self.over_rows(name, r) for name in ("t_into", "t_back"))
        t_into[...] = 0 if t_given is None else t_given
        if tr is None:
            t_back[...] = 0
        else:
            np.matmul(self._matrix(self.past), tr.T, out=self._matrix(t_back))
        if tbr is not None:
            t_back += tbr
        zeros = np.zeros((self.samples, self.units), r.dtype)
        found = found + self.push(r, t_into, t_back, [zeros if t is None else t[0] for t in t_states])
        for y, value in zip(ys, found):
            y[...] = value

    def _values(self, values: Sequence[Array]) -> list[Array]:
        """What `run` gives, and gates and coefficients beside it: those of the last call where the values are the same.

        Products at one point differ in their directions only; comparing costs a tenth of running.
        """
        if self._seen is None or not all(map(_same, self._seen, values)):
            self._seen = None
            given, r, br, *states = values
            into = self.over_rows("into", r)
            into[...] = given
            self._found = self.run(r, into, br, [state[0] for state in states])
            self.prepare(r)
            self._seen = [value.copy() for value in values]
        return self._found

    def adjoint(self, gs: Sequence[Array], xs: Sequence[Array], dxs: Sequence[Array | None]) -> None:
        (_, r, _, *_), (_, tr, _, *_) = self._sorted(xs)
        (d_given, dr, dbr, *d_states), dts = self._sorted(dxs)
        half = 1 + self.states
        value_gs, tangent_gs = list(gs[:half]), gs[half:]
        # Gauss-Newton products hold the tangents fixed: nothing comes back through them
        linear = self.pull_tangents(r, tangent_gs) if any(g.any() for g in tangent_gs) else None
        first = 0
        if linear is not None and tr is not None:
            through_past = (self._matrix(linear.back) @ tr).reshape(value_gs[0].shape)
            first, value_gs[0] = through_past[0], value_gs[0].copy()
            value_gs[0][:-1] += through_past[1:]
        value = self.pull_values(r, value_gs, linear)
        value.states[0] += first
        self._write([d_given, dr, dbr, *d_states], value)
        self._write(dts, linear)
        if linear is not None and dr is not None:
            dr += self._matrix(linear.back).T @ self._matrix(self.t_past)

    def _write(self, targets: Sequence[Array | None], a: Adjoint | None) -> None:
        """Gradients of <a.into, into> + <a.back, R past + br>, and by the states; zeros without an Adjoint."""
        into, dr, dbr, *states = targets
        if a is None:
            for target in targets:
                if target is not None:
                    target[...] = 0
            return
        if into is not None:
            into[...] = a.into
        if dr is not None:
            np.matmul(self._matrix(a.back).T, self._matrix(self.past), out=dr)
        if dbr is not None:
            dbr[...] = a.back.sum((0, 1))
        for target, state in zip(states, a.states):
            if target is not None:
                target[0] = state

    def _sorted(self, xs: Sequence[Array | None]) -> tuple[list, list]:
        """What belongs to the values, and what to the tangents: None for what does not move."""
        count = 3 + self.states
        given = iter(xs[count:])
        return list(xs[:count]), [next(given) if moves else None for moves in self.moves]

    def _matrix(self, a: Array) -> Array:
        """(T, N, D) -> (T N, D)."""
        return a.reshape(self.steps * self.samples, -1)

    @property
    def past(self) -> Array:
        return self.h[:-1]

    @property
    def t_past(self) -> Array:
        return self.th[:-1]

    # -- for cells

    def split(self, a: Array) -> list[Array]:
        """Views (..., H) of the gates of an array (..., rows)."""
        return [a[..., k * self.units : (k + 1) * self.units] for k in range(self.gates)]

    def apart(self, a: Array) -> Array:
        """(N, rows) of one step -> (N, gates, H), a view."""
        return a.reshape(self.samples, self.gates, self.units)

    def over_rows(self, name: str, like: Array) -> Array:
        """Memory (T, N, rows)."""
        return self.memory(name, (self.steps, self.samples, self.rows), like.dtype)

    def over_units(self, name: str, like: Array) -> Array:
        """Memory (T, N, H)."""
        return self.memory(name, (self.steps, self.samples, self.units), like.dtype)

    def chain(self, name: str, start: Array) -> Array:
        """Memory (T + 1, N, H), the first one given."""
        chain = self.memory(name, (self.steps + 1, self.samples, self.units), start.dtype)
        chain[0] = start
        return chain
