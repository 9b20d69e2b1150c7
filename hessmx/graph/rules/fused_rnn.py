"""Lowering of the fused `RNN` operator to one `RNN` for each layer and direction.

Single layers keep MXNet's fused kernel, so gradients stay as fast as they are; recurrent.py has their tangents.

The flat parameter vector holds, in cuDNN's order, (W, R) of every layer and direction, then (bw, br) of every layer and
direction; the directions of one layer follow each other.
"""

from __future__ import annotations

from math import gcd
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.rules.recurrent import GATES, split, unpack
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol, call

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
    parameters = _parameters(s, layers, directions)
    states = [_each(state, layers * directions) for state in s.xs[2:]]
    y, ends = s.x, []
    for layer in range(layers):
        y = y if layer == 0 else _dropout(s, context, y, directions)
        runs = []
        for direction in range(directions):
            place = layer * directions + direction
            runs.append(_run(s, y, parameters[place], [state[place] for state in states], backwards=direction == 1))
        ends += [run[1:] for run in runs]
        y = runs[0][0] if directions == 1 else F.concat(*[run[0] for run in runs], dim=2)
    if not s.attr("state_outputs", False):
        return [y]
    return [y, *(_joined(list(end)) for end in zip(*ends))]


def _parameters(s: Site, layers: int, directions: int) -> list[Symbol]:
    """The flat vector of each layer and direction."""
    hidden, rows, width = s.attr("state_size"), GATES[s.attr("mode")] * s.attr("state_size"), s.x_shapes[0][2]
    if layers * directions == 1:
        return [s.xs[1]]
    sizes: list[tuple] = []
    for layer in range(layers):
        sizes += [(rows * ((width if layer == 0 else hidden * directions) + hidden),)] * directions
    sizes += [(2 * rows,)] * (layers * directions)
    parts = unpack(s.xs[1], sizes, hidden)
    count = layers * directions
    return [joined([weights, biases], hidden) for weights, biases in zip(parts[:count], parts[count:])]


def joined(parts: Sequence[Symbol], unit: int) -> Symbol:
    """Vectors one after the other, copied in rows of `unit` entries (entry by entry it takes 15 times as long)."""
    return F.reshape(F.concat(*[F.reshape(part, shape=(-1, unit)) for part in parts], dim=0), shape=(-1,))


@lowers("_rnn_param_concat")
def _param_concat(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    unit = gcd(*(shape[0] for shape in s.x_shapes))
    return None if unit == 1 or s.attr("dim", 1) != 0 else [joined(s.xs, unit)]


def _run(s: Site, x: Symbol, parameters: Symbol, states: list[Symbol], backwards: bool) -> list[Symbol]:
    """Outputs and last states of one layer in one direction."""
    x = F.reverse(x, axis=0) if backwards else F.identity(x)  # see recurrent.py: RNN must be the only reader
    attrs = {"state_size": s.attr("state_size"), "num_layers": 1, "mode": s.attr("mode")}
    outputs = call("RNN", [x, parameters, *states], {**attrs, "state_outputs": s.attr("state_outputs", False)})
    return [F.reverse(outputs[0], axis=0), *outputs[1:]] if backwards else outputs


def _dropout(s: Site, context: Lowering, y: Symbol, directions: int) -> Symbol:
    keep = 1 - float(s.attr("p", 0.0))
    if not context.train or keep == 1:
        return y
    shape = (*s.x_shapes[0][:2], s.attr("state_size") * directions)
    mask = context.draw(s.node.name, shape, lambda generator: (generator.random(shape) < keep) / keep)
    return F.elemwise_mul(y, mask)


def _each(state: Symbol, count: int) -> list[Symbol]:
    """(count, N, H) -> count times (1, N, H)."""
    return [state] if count == 1 else split(state, count)


def _joined(ends: list[Symbol]) -> Symbol:
    return ends[0] if len(ends) == 1 else F.concat(*ends, dim=0)
