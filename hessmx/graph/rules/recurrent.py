"""Tangents of one recurrent layer in one direction: a fused operator (fused_rnn.py reduces every `RNN` to such)."""

from __future__ import annotations

from math import prod
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.fused import fused
from hessmx.graph.fused.gru import GRU
from hessmx.graph.fused.lstm import LSTM
from hessmx.graph.fused.plain import Relu, Tanh
from hessmx.graph.rules.kinds import Rule, joint
from hessmx.graph.site import Site, Tangent
from hessmx.graph.symbols import Symbol, call

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


def _layer(s: Site) -> tuple[Sequence[Symbol], Sequence[Tangent]]:
    if s.attr("num_layers") != 1 or s.attr("bidirectional", False):
        raise GraphError(f"RNN at {s.node.name} was not lowered to single layers")
    moves = [s.moves(i) for i in range(len(s.xs))]
    moving = [i for i, each in enumerate(moves) if each]
    inputs, shapes = [*s.xs, *(s.dense(i) for i in moving)], [*s.x_shapes, *(s.x_shapes[i] for i in moving)]
    ys = fused(CELLS[s.attr("mode")], inputs, shapes, moves=moves)
    half = len(ys) // 2
    return ys[: len(s.ys)], ys[half : half + len(s.ys)]


RULES: dict[str, Rule] = {"RNN": joint(_layer)}
