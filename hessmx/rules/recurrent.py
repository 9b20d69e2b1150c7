"""Tangents of one recurrent layer in one direction: a fused operator (fused_rnn.py reduces every `RNN` to such)."""

from __future__ import annotations

from math import prod
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.fused import fused
from hessmx.rules.fused.gru import GRU
from hessmx.rules.fused.lstm import LSTM
from hessmx.rules.fused.plain import Relu, Tanh
from hessmx.rules.kinds import Rule, custom

F = mx.sym

CELLS = {"rnn_relu": Relu, "rnn_tanh": Tanh, "lstm": LSTM, "gru": GRU}


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


def _layer(s: Site) -> Sequence[Tangent]:
    """The kernel gets R, br and the states, and the part W x + bw of all steps, which is one product of matrices."""
    if s.attr("num_layers") != 1 or s.attr("bidirectional", False):
        raise GraphError(f"RNN at {s.node.name} was not lowered to single layers")
    cell, units, width = CELLS[s.attr("mode")], s.attr("state_size"), s.x_shapes[0][2]
    rows = cell.gates * units
    shapes = [(rows, width), (rows, units), (rows,), (rows,)]
    w, r, bw, br = unpack(s.xs[1], shapes, units)
    tw, tr, tbw, tbr = unpack(s.dense(1), shapes, units) if s.moves(1) else [ZERO] * 4

    def product(x: Symbol, weight: Symbol, *bias: Symbol) -> Symbol:
        return F.FullyConnected(x, weight, *bias, num_hidden=rows, no_bias=not bias, flatten=False)

    moved = [product(s.dense(0), w)] if s.moves(0) else []
    moved += [product(s.x, tw, tbw)] if s.moves(1) else []
    values = [product(s.x, w, bw), r, br, *s.xs[2:]]
    tangents = [total(moved), tr, tbr, *s.ts[2:]]
    moving = [i for i, t in enumerate(tangents) if t is not ZERO]
    shapes = [(*s.x_shapes[0][:2], rows), *shapes[1:4:2], *s.x_shapes[2:]]
    ys = fused(
        cell, [*values, *(tangents[i] for i in moving)], [*shapes, *(shapes[i] for i in moving)],
        moves=[i in moving for i in range(len(values))],
    )  # fmt: skip
    half = len(ys) // 2
    return ys[half : half + len(s.ys)]


RULES: dict[str, Rule] = {"RNN": custom(_layer)}
