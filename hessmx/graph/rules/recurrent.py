"""Tangents of one recurrent layer in one direction (fused_rnn.py reduces every fused `RNN` to such layers).

The fused operator gives the states h_t of all steps. With them the gates of all steps are one matrix product, their
derivatives are arrays over all steps, and what is left step by step is the linear recurrence of the tangents alone:

    th_t = K_t * (R th_{t-1}) + what does not depend on th_{t-1}         (K_t * summed over the gates)

so that a product costs a handful of operators per step. Names: W, R and two biases bw, br are the layer's parameters;
`past` is h_{t-1} for all t; T steps, N samples, H units.
"""

from __future__ import annotations

from functools import cached_property
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.rules.kinds import Rule, custom
from hessmx.graph.site import ZERO, Site, Tangent, Zero, total
from hessmx.graph.symbols import Symbol, call

F = mx.sym

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}


def split(value: Symbol, count: int, axis: int, squeeze: bool = False) -> list[Symbol]:
    return call("SliceChannel", [value], {"num_outputs": count, "axis": axis, "squeeze_axis": squeeze})


def unpack(flat: Symbol, shapes: Sequence[tuple]) -> list[Symbol]:
    """The arrays that a flat vector holds one after the other."""
    starts = [0]
    for shape in shapes[:-1]:
        starts.append(starts[-1] + shape[0] * (shape[1] if len(shape) > 1 else 1))
    parts = call("_split_v2", [flat], {"indices": tuple(starts), "axis": 0, "squeeze_axis": False, "sections": 0})
    return [part if len(shape) == 1 else F.reshape(part, shape=shape) for part, shape in zip(parts, shapes)]


class _Layer:
    """The parts of the layer at a Site, and its products over all steps."""

    def __init__(self, s: Site):
        if s.attr("num_layers") != 1 or s.attr("bidirectional", False):
            raise GraphError(f"RNN at {s.node.name} was not lowered to single layers")
        self.steps, _, width = s.x_shapes[0]
        hidden, self.gates = s.attr("state_size"), GATES[s.attr("mode")]
        self.rows = self.gates * hidden
        shapes = [(self.rows, width), (self.rows, hidden), (self.rows,), (self.rows,)]
        self.x, self.tx = s.x, s.t
        self.w, self.r, self.bw, self.br = unpack(s.xs[1], shapes)
        self.tw, self.tr, self.tbw, self.tbr = unpack(s.dense(1), shapes) if s.moves(1) else [ZERO] * 4
        self.states = s.y
        self.h0, self.th0 = s.xs[2], _state(s, 2)

    @cached_property
    def past(self) -> Symbol:
        """h_{t-1}, (T, N, H)."""
        if self.steps == 1:
            return self.h0
        return F.concat(self.h0, F.slice_axis(self.states, axis=0, begin=0, end=-1), dim=0)

    def _times(self, x: Symbol, weight: Symbol, bias: Symbol | None = None) -> Symbol:
        more = () if bias is None else (bias,)
        return F.FullyConnected(x, weight, *more, num_hidden=self.rows, no_bias=bias is None, flatten=False)

    @cached_property
    def into(self) -> Symbol:
        """W x_t + bw, (T, N, gates H)."""
        return self._times(self.x, self.w, self.bw)

    @cached_property
    def back(self) -> Symbol:
        """R h_{t-1} + br, (T, N, gates H)."""
        return self._times(self.past, self.r, self.br)

    @cached_property
    def t_into(self) -> Tangent:
        """Tangent of `into`."""
        terms: list[Tangent] = [] if isinstance(self.tx, Zero) else [self._times(self.tx, self.w)]
        return total(terms if self.tw is ZERO else [*terms, self._times(self.x, self.tw, self.tbw)])

    @cached_property
    def t_back(self) -> Tangent:
        """Tangent of `back`, but for R th_{t-1}."""
        return ZERO if self.tr is ZERO else self._times(self.past, self.tr, self.tbr)

    def again(self, th: Tangent, factor: Symbol) -> list[Tangent]:
        """factor * (R th), gate by gate, (N, H) each."""
        return [] if isinstance(th, Zero) else split(factor * self._times(th, self.r), self.gates, 1)

    def gate(self, value: Symbol) -> list[Symbol]:
        """(T, N, gates H) -> one (T, N, H) for each gate."""
        return split(value, self.gates, 2)

    def step(self, value: Tangent) -> list[Tangent]:
        """(T, N, ...) -> one (N, ...) for each step."""
        return [ZERO] * self.steps if isinstance(value, Zero) else split(value, self.steps, 0, squeeze=True)


def _state(s: Site, index: int) -> Tangent:
    """Tangent (N, H) of an initial state (1, N, H)."""
    return F.reshape(s.dense(index), shape=(-3, 0)) if s.moves(index) else ZERO


def _scaled(factor: Symbol, tangent: Tangent) -> Tangent:
    return ZERO if isinstance(tangent, Zero) else factor * tangent


def _sum(terms: Sequence[Tangent]) -> Tangent:
    """Sum in one operator."""
    present = [term for term in terms if not isinstance(term, Zero)]
    return F.add_n(*present) if len(present) > 2 else total(present)


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
    slopes, fixed = layer.step(slope), layer.step(_scaled(slope, total([layer.t_into, layer.t_back])))
    th, tangents = layer.th0, []
    for k, rest in zip(slopes, fixed):
        th = total([*layer.again(th, k), rest])
        tangents.append(th)
    return _outputs(s, tangents, th)


def _lstm(s: Site) -> Sequence[Tangent]:
    """c = f c' + i g, h = o tanh(c), with gates i, f, g, o in this order."""
    layer = _Layer(s)
    i, f, g, o = layer.gate(layer.into + layer.back)
    i, f, g, o = F.sigmoid(i), F.sigmoid(f), F.tanh(g), F.sigmoid(o)
    cells = [F.reshape(s.xs[3], shape=(-3, 0))]
    forget = layer.step(f)
    for keep, new in zip(forget, layer.step(i * g)):
        cells.append(keep * cells[-1] + new)
    end = F.tanh(F.stack(*cells[1:], axis=0))
    before = F.stack(*cells[:-1], axis=0)
    k = F.concat(g * (i - i * i), before * (f - f * f), i * (1 - F.square(g)), end * (o - o * o), dim=2)
    fixed = _scaled(k, total([layer.t_into, layer.t_back]))
    into_c, into_h = ZERO, ZERO
    if fixed is not ZERO:
        *three, into_h = layer.gate(fixed)
        into_c = F.add_n(*three)
    th, tc, tangents = layer.th0, _state(s, 3), []
    steps = zip(layer.step(k), forget, layer.step(o * (1 - F.square(end))), layer.step(into_c), layer.step(into_h))
    for factor, keep, out, rest_c, rest_h in steps:
        *three, last = layer.again(th, factor) or [ZERO] * 4
        tc = _sum([*three, _scaled(keep, tc), rest_c])
        th = _sum([last, _scaled(out, tc), rest_h])
        tangents.append(th)
    return _outputs(s, tangents, th, tc)


def _gru(s: Site) -> Sequence[Tangent]:
    """n = tanh(W x + bw + r (R h' + br)), h = (1 - z) n + z h', with gates r, z, n in this order."""
    layer = _Layer(s)
    (xr, xz, xn), (hr, hz, hn) = layer.gate(layer.into), layer.gate(layer.back)
    r, z = F.sigmoid(xr + hr), F.sigmoid(xz + hz)
    n = F.tanh(xn + r * hn)
    kn = (1 - z) * (1 - F.square(n))
    kr, kz = kn * hn * (r - r * r), (layer.past - n) * (z - z * z)
    k = F.concat(kr, kz, kn * r, dim=2)
    parts = [_scaled(F.concat(kr, kz, kn, dim=2), layer.t_into), _scaled(k, layer.t_back)]
    fixed = total(parts)
    rests = layer.step(fixed if fixed is ZERO else F.add_n(*layer.gate(fixed)))
    th, tangents = layer.th0, []
    for factor, keep, rest in zip(layer.step(k), layer.step(z), rests):
        th = _sum([*layer.again(th, factor), _scaled(keep, th), rest])
        tangents.append(th)
    return _outputs(s, tangents, th)


_MODES = {"rnn_relu": _plain, "rnn_tanh": _plain, "lstm": _lstm, "gru": _gru}

RULES: dict[str, Rule] = {"RNN": custom(lambda s: _MODES[s.attr("mode")](s))}
