"""MXNet's own attention operators, in terms of batch_dot.

Their kernels are float32 only, and two leave the second input's gradient unwritten unless the first's is asked for.
T steps, N samples; queries, keys and values of all heads are interleaved on the last axis: (T, N, heads * parts * d).
"""

from __future__ import annotations

from math import sqrt
from typing import Sequence

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.node import Shape
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.kinds import Rule, linear

F = mx.sym

RULES: dict[str, Rule] = {"_contrib_div_sqrt_dim": linear()}


def _apart(x: Symbol, shape: Shape, heads: int, parts: int) -> list[Symbol]:
    """(T, N, heads parts d) -> one (N heads, T, d) for each part."""
    steps, samples, width = shape
    table = F.reshape(x, shape=(steps, samples * heads, parts, width // (heads * parts)))
    ordered = F.transpose(table, axes=(2, 1, 0, 3))
    return call("SliceChannel", [ordered], {"num_outputs": parts, "axis": 0, "squeeze_axis": True})


def _together(y: Symbol, samples: int) -> Symbol:
    """(N heads, T, d) -> (T, N, heads d)."""
    return F.reshape(F.transpose(y, axes=(1, 0, 2)), shape=(0, samples, -1))


def _scores(queries: Symbol, keys: Symbol, size: int) -> list[Symbol]:
    return [F.batch_dot(queries * (1 / sqrt(size)), keys, transpose_b=True)]


@lowers("_contrib_interleaved_matmul_selfatt_qk")
def _selfatt_qk(s: Site, context: Lowering) -> Sequence[Symbol]:
    heads = s.attr("heads")
    queries, keys, _ = _apart(s.x, s.x_shapes[0], heads, 3)
    return _scores(queries, keys, s.x_shapes[0][2] // (3 * heads))


@lowers("_contrib_interleaved_matmul_selfatt_valatt")
def _selfatt_valatt(s: Site, context: Lowering) -> Sequence[Symbol]:
    *_, values = _apart(s.x, s.x_shapes[0], s.attr("heads"), 3)
    return [_together(F.batch_dot(s.xs[1], values), s.x_shapes[0][1])]


@lowers("_contrib_interleaved_matmul_encdec_qk")
def _encdec_qk(s: Site, context: Lowering) -> Sequence[Symbol]:
    heads = s.attr("heads")
    (queries,) = _apart(s.x, s.x_shapes[0], heads, 1)
    keys, _ = _apart(s.xs[1], s.x_shapes[1], heads, 2)
    return _scores(queries, keys, s.x_shapes[0][2] // heads)


@lowers("_contrib_interleaved_matmul_encdec_valatt")
def _encdec_valatt(s: Site, context: Lowering) -> Sequence[Symbol]:
    _, values = _apart(s.x, s.x_shapes[0], s.attr("heads"), 2)
    return [_together(F.batch_dot(s.xs[1], values), s.x_shapes[0][1])]
