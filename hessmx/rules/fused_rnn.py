"""Lowering of the fused `RNN` operator to one `RNN` for each layer and direction.

Single layers keep MXNet's fused kernel, so gradients stay as fast as they are; recurrent.py has their tangents.
In float64 GRU and plain layers become steps: there MXNet's kernel gives wrong gradients of the data and the states
where those of the parameters are not asked for, and rounds relu to float32.

The flat parameter vector holds, in cuDNN's order, (W, R) of every layer and direction, then (bw, br) of every layer and
direction; the directions of one layer follow each other.
"""

from __future__ import annotations

from math import gcd
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.recurrent import CELLS, split, unpack

F = mx.sym

# what MXNet's CPU kernel refuses as well
_GPU_ONLY = ("use_sequence_length", "projection_size", "lstm_state_clip_min", "lstm_state_clip_max")


@lowers("RNN")
def single_layers(s: Site, context: Lowering) -> Sequence[Symbol]:
    """Layer by layer; between layers Dropout in train mode."""
    asked = [name for name in _GPU_ONLY if s.attr(name) not in (None, False, "None")]
    if asked:
        raise GraphError(f"RNN at {s.node.name} has {', '.join(asked)}, which MXNet knows on GPUs only: use cells")
    layers, directions = s.attr("num_layers"), 2 if s.attr("bidirectional", False) else 1
    run = _fused if s.attr("mode") == "lstm" or not context.double else _steps
    units = s.attr("state_size")
    widths = [s.x_shapes[0][2]] + [units * directions] * (layers - 1)
    parameters = _parameters(s, [width for width in widths for _ in range(directions)])
    states = zip(*(_each(state, layers * directions) for state in s.xs[2:]))
    y, ends, places = s.x, [], zip(parameters, states)
    for layer, width in enumerate(widths):
        y = y if layer == 0 else _dropout(s, context, y, width)
        outputs = []
        for reverse in (False, True)[:directions]:
            own, state = next(places)
            # `identity`, as the backward of RNN cannot add to the gradient of its data: it must be the only reader
            out, *end = run(s, F.reverse(y, axis=0) if reverse else F.identity(y), own, state, width)
            outputs.append(F.reverse(out, axis=0) if reverse else out)
            ends.append(end)
        y = outputs[0] if directions == 1 else F.concat(*outputs, dim=2)
    return [y, *map(_joined, zip(*ends))] if s.attr("state_outputs", False) else [y]


def _parameters(s: Site, widths: Sequence[int]) -> list[Symbol]:
    """The flat vector of each layer and direction, whose inputs have `widths` features."""
    count, units, rows = len(widths), s.attr("state_size"), CELLS[s.attr("mode")].gates * s.attr("state_size")
    if count == 1:
        return [s.xs[1]]
    sizes = [(rows * (width + units),) for width in widths] + [(2 * rows,)] * count
    parts = unpack(s.xs[1], sizes, units)
    return [joined(pair, units) for pair in zip(parts[:count], parts[count:])]


def joined(parts: Sequence[Symbol], unit: int) -> Symbol:
    """Vectors one after the other, copied in rows of `unit` entries (entry by entry it takes 15 times as long)."""
    return F.reshape(F.concat(*[F.reshape(part, shape=(-1, unit)) for part in parts], dim=0), shape=(-1,))


@lowers("_rnn_param_concat")
def _param_concat(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    unit = gcd(*(shape[0] for shape in s.x_shapes))
    return None if unit == 1 or s.attr("dim", 1) != 0 else [joined(s.xs, unit)]


def _fused(s: Site, x: Symbol, parameters: Symbol, states: Sequence[Symbol], width: int) -> list[Symbol]:
    """Outputs (T, N, H) and last states (1, N, H) of one layer in one direction."""
    attrs = {"state_size": s.attr("state_size"), "num_layers": 1, "mode": s.attr("mode"), "state_outputs": True}
    return call("RNN", [x, parameters, *states], attrs)


def _steps(s: Site, x: Symbol, parameters: Symbol, states: Sequence[Symbol], width: int) -> list[Symbol]:
    """The same, step by step."""
    units, rows = s.attr("state_size"), CELLS[s.attr("mode")].gates * s.attr("state_size")
    w, r, bw, br = unpack(parameters, [(rows, width), (rows, units), (rows,), (rows,)], units)
    inputs = F.FullyConnected(x, w, bw, num_hidden=rows, flatten=False)
    h, outputs = F.reshape(states[0], shape=(-3, 0)), []
    for into in split(inputs, s.x_shapes[0][0], squeeze=True):
        h = _CELLS[s.attr("mode")](into, F.FullyConnected(h, r, br, num_hidden=rows), h)
        outputs.append(h)
    return [F.stack(*outputs, axis=0), F.expand_dims(h, axis=0)]


def _gru(into: Symbol, back: Symbol, h: Symbol) -> Symbol:
    (ri, zi, ni), (rh, zh, nh) = (F.SliceChannel(a, num_outputs=3, axis=1) for a in (into, back))
    z = F.sigmoid(zi + zh)
    new = F.tanh(ni + F.sigmoid(ri + rh) * nh)
    return new + z * (h - new)


_CELLS = {
    "rnn_relu": lambda into, back, h: F.relu(into + back),
    "rnn_tanh": lambda into, back, h: F.tanh(into + back),
    "gru": _gru,
}


def _dropout(s: Site, context: Lowering, y: Symbol, width: int) -> Symbol:
    """A mask over all steps, drawn outside the graph."""
    keep = 1 - float(s.attr("p", 0.0))
    if not context.train or keep == 1:
        return y
    shape = (*s.x_shapes[0][:2], width)
    mask = context.draw(s.node.name, shape, lambda generator: (generator.random(shape) < keep) / keep)
    return F.elemwise_mul(y, mask)


def _each(state: Symbol, count: int) -> list[Symbol]:
    """(count, N, H) -> count times (1, N, H)."""
    return [state] if count == 1 else split(state, count)


def _joined(ends: Sequence[Symbol]) -> Symbol:
    return ends[0] if len(ends) == 1 else F.concat(*ends, dim=0)
