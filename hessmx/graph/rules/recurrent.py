"""Tangents of one recurrent layer in one direction (fused_rnn.py reduces every fused `RNN` to such layers).

The fused operator gives the states h_t of all steps. With them the gates of all steps are one matrix product, their
derivatives are arrays over all steps, and what is left step by step is the linear recurrence of the tangents alone:

    th_t = sum over gates K_t * (R th_{t-1}) + what does not depend on th_{t-1}

Gates are kept apart from the start (rows of the parameters), as splitting along a later axis is slow.
Names: W, R and two biases bw, br are the layer's parameters; `past` is h_{t-1} for all t; T steps, N samples, H units.
"""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.rules.kinds import Rule, custom
from hessmx.graph.site import ZERO, Site, Tangent, Zero, total
from hessmx.graph.symbols import Symbol, call

F = mx.sym

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}


def split(value: Symbol, count: int, squeeze: bool = False) -> list[Symbol]:
    """Equal parts along axis 0; along any other axis MXNet is ten times slower."""
    return call("SliceChannel", [value], {"num_outputs": count, "axis": 0, "squeeze_axis": squeeze})


def unpack(flat: Symbol, shapes: Sequence[tuple], unit: int) -> list[Symbol]:
    """The arrays that a flat vector holds one after the other; their sizes are multiples of `unit`.

    Slices of rows: a vector is copied entry by entry, a matrix row by row.
    """
    table, start, parts = F.reshape(flat, shape=(-1, unit)), 0, []
    for shape in shapes:
        end = start + prod(shape) // unit
        parts.append(F.reshape(F.slice_axis(table, axis=0, begin=start, end=end), shape=shape))
        start = end
    return parts


class _Layer:
    """The parts of the layer at a Site, gate by gate, and its products over all steps."""

    def __init__(self, s: Site):
        if s.attr("num_layers") != 1 or s.attr("bidirectional", False):
            raise GraphError(f"RNN at {s.node.name} was not lowered to single layers")
        self.steps, _, self.width = s.x_shapes[0]
        self.units, self.gates = s.attr("state_size"), GATES[s.attr("mode")]
        self.x, self.tx = F.identity(s.x), s.t  # the backward of RNN cannot add to the gradient of its data
        self.w, self.r, self.bw, self.br = self._parameters(s.xs[1])
        self.tw, self.tr, self.tbw, self.tbr = self._parameters(s.dense(1)) if s.moves(1) else [[ZERO] * self.gates] * 4
        self.states = s.y
        self.h0, self.th0 = s.xs[2], _state(s, 2)

    def _parameters(self, flat: Symbol) -> list[list[Symbol]]:
        """W, R, bw, br, each split into its gates."""
        rows = self.gates * self.units
        parts = unpack(flat, [(rows, self.width), (rows, self.units), (rows,), (rows,)], self.units)
        return [split(part, self.gates) for part in parts]

    @cached_property
    def past(self) -> Symbol:
        """h_{t-1}, (T, N, H)."""
        if self.steps == 1:
            return self.h0
        return F.concat(self.h0, F.slice_axis(self.states, axis=0, begin=0, end=-1), dim=0)

    def _times(self, x: Symbol, weight: Symbol, bias: Symbol | None = None) -> Symbol:
        more = () if bias is None else (bias,)
        return F.FullyConnected(x, weight, *more, num_hidden=self.units, no_bias=bias is None, flatten=False)

    def into(self) -> list[Symbol]:
        """W x_t + bw, (T, N, H) for each gate."""
        return [self._times(self.x, w, b) for w, b in zip(self.w, self.bw)]

    def back(self) -> list[Symbol]:
        """R h_{t-1} + br, (T, N, H) for each gate."""
        return [self._times(self.past, r, b) for r, b in zip(self.r, self.br)]

    def t_into(self) -> list[Tangent]:
        """Tangents of `into`."""
        moved = [ZERO if isinstance(self.tx, Zero) else self._times(self.tx, w) for w in self.w]
        return [
            total([first, ZERO if isinstance(tw, Zero) else self._times(self.x, tw, tb)])
            for first, tw, tb in zip(moved, self.tw, self.tbw)
        ]

    def t_back(self) -> list[Tangent]:
        """Tangents of `back`, but for R th_{t-1}."""
        return [ZERO if isinstance(tr, Zero) else self._times(self.past, tr, tb) for tr, tb in zip(self.tr, self.tbr)]

    def again(self, th: Tangent, factors: Sequence[Symbol]) -> list[Tangent]:
        """factor * (R th), (N, H) for each gate."""
        if isinstance(th, Zero):
            return [ZERO] * self.gates
        return [factor * self._times(th, r) for factor, r in zip(factors, self.r)]

    def step(self, value: Tangent) -> list[Tangent]:
        """(T, N, H) -> one (N, H) for each step."""
        return [ZERO] * self.steps if isinstance(value, Zero) else split(value, self.steps, squeeze=True)


def _state(s: Site, index: int) -> Tangent:
    """Tangent (N, H) of an initial state (1, N, H)."""
    return F.reshape(s.dense(index), shape=(-3, 0)) if s.moves(index) else ZERO


def _scaled(factor: Symbol, tangent: Tangent) -> Tangent:
    return ZERO if isinstance(tangent, Zero) else factor * tangent


def _sum(terms: Sequence[Tangent]) -> Tangent:
    """Sum in one operator."""
    present = [term for term in terms if not isinstance(term, Zero)]
    return F.add_n(*present) if len(present) > 2 else total(present)


def _plus(first: Tangent, second: Tangent) -> Tangent:
    return total([first, second])


def _sigmoid(x: Symbol) -> Symbol:
    """Through the fast kernel: F.sigmoid takes four times as long."""
    return F.Activation(x, act_type="sigmoid")


def _tanh(x: Symbol) -> Symbol:
    return F.Activation(x, act_type="tanh")


def _outputs(s: Site, tangents: list[Tangent], *last: Tangent) -> list[Tangent]:
    """Tangents of all states (T, N, H), and of the last ones (1, N, H) where the operator returns them."""
    if all(t is ZERO for t in tangents):
        return [ZERO] * len(s.ys)
    zeros = F.zeros_like(next(t for t in tangents if t is not ZERO))
    every = F.stack(*[zeros if t is ZERO else t for t in tangents], axis=0)
    ends = [t if t is ZERO else F.expand_dims(t, axis=0) for t in last]
    return [every, *ends][: len(s.ys)]


def _plain(s: Site) -> Sequence[Tangent]:
    """h = f(W x + bw + R h' + br)."""
    layer = _Layer(s)
    slope = layer.states > 0 if s.attr("mode") == "rnn_relu" else 1 - F.square(layer.states)
    fixed = _scaled(slope, total([*layer.t_into(), *layer.t_back()]))
    th, tangents = layer.th0, []
    for k, rest in zip(layer.step(slope), layer.step(fixed)):
        th = total([*layer.again(th, [k]), rest])
        tangents.append(th)
    return _outputs(s, tangents, th)


def _lstm(s: Site) -> Sequence[Tangent]:
    """c = f c' + i g, h = o tanh(c), with gates i, f, g, o in this order."""
    layer = _Layer(s)
    i, f, g, o = (x + h for x, h in zip(layer.into(), layer.back()))
    i, f, g, o = _sigmoid(i), _sigmoid(f), _tanh(g), _sigmoid(o)
    new = i * g
    cells = [F.reshape(s.xs[3], shape=(-3, 0))]
    forget = layer.step(f)
    for keep, add in zip(forget, layer.step(new)):
        cells.append(keep * cells[-1] + add)
    end, kept = _tanh(F.stack(*cells[1:], axis=0)), f * F.stack(*cells[:-1], axis=0)
    # dc/di, dc/df, dc/dg, dh/do times the slopes of the gates' activations; h = o tanh(c) is known
    k = [new - new * i, kept - kept * f, i - new * g, layer.states - layer.states * o]
    *three, into_h = map(_scaled, k, map(_plus, layer.t_into(), layer.t_back()))
    factors = zip(*map(layer.step, k))
    rest = zip(layer.step(_sum(three)), layer.step(into_h))
    th, tc, tangents = layer.th0, _state(s, 3), []
    for factor, keep, out, (rest_c, rest_h) in zip(factors, forget, layer.step(o - layer.states * end), rest):
        *three, last = layer.again(th, factor)
        tc = _sum([*three, _scaled(keep, tc), rest_c])
        th = _sum([last, _scaled(out, tc), rest_h])
        tangents.append(th)
    return _outputs(s, tangents, th, tc)


def _gru(s: Site) -> Sequence[Tangent]:
    """n = tanh(W x + bw + r (R h' + br)), h = (1 - z) n + z h', with gates r, z, n in this order."""
    layer = _Layer(s)
    (xr, xz, xn), (hr, hz, hn) = layer.into(), layer.back()
    r, z = _sigmoid(xr + hr), _sigmoid(xz + hz)
    n = _tanh(xn + r * hn)
    kn = (1 - z) * (1 - F.square(n))
    kr, kz = kn * hn * (r - r * r), (layer.past - n) * (z - z * z)
    k = [kr, kz, kn * r]
    fixed = _sum([*map(_scaled, [kr, kz, kn], layer.t_into()), *map(_scaled, k, layer.t_back())])
    th, tangents = layer.th0, []
    for factor, keep, rest in zip(zip(*map(layer.step, k)), layer.step(z), layer.step(fixed)):
        th = _sum([*layer.again(th, factor), _scaled(keep, th), rest])
        tangents.append(th)
    return _outputs(s, tangents, th)


_MODES = {"rnn_relu": _plain, "rnn_tanh": _plain, "lstm": _lstm, "gru": _gru}

RULES: dict[str, Rule] = {"RNN": custom(lambda s: _MODES[s.attr("mode")](s))}
