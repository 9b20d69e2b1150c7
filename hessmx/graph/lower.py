"""Lowering: operators replaced by others before the tangents are added.

What depends on the mode is decided here, once, so that the compiled graph means the same in every run: Dropout
becomes the identity (predict) or a product with a mask that is drawn outside the graph (train), BatchNorm
is pinned to its running or its batch statistics. Composite operators (RNN) become the steps they consist of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Callable, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.node import Graph, Shape, infer_shapes, parse
from hessmx.graph.site import ZERO, Site
from hessmx.graph.symbols import Symbol, call


@dataclass(frozen=True)
class Draw:
    """A random input of the graph, drawn outside it: its name, its shape, and how a Generator makes it."""

    name: str
    shape: Shape
    sample: Callable[[np.random.Generator], np.ndarray]


@dataclass
class Lowering:
    """What a lowering rule may ask for: the mode, whether the arithmetic is float64, and random inputs."""

    train: bool
    double: bool = False
    draws: list[Draw] = field(default_factory=list)

    def draw(self, name: str, shape: Shape, sample: Callable[[np.random.Generator], np.ndarray]) -> Symbol:
        """A new variable, filled from `sample(generator)` before the graph runs."""
        unique = f"{name}__draw{len(self.draws)}"
        self.draws.append(Draw(unique, shape, sample))
        return mx.sym.Variable(unique, shape=shape)


Rule = Callable[[Site, Lowering], "Sequence[Symbol] | None"]
LOWERINGS: dict[str, Rule] = {}


def lowers(*ops: str) -> Callable[[Rule], Rule]:
    """Register a lowering; it returns the new outputs, or None to leave the node as it is."""

    def add(rule: Rule) -> Rule:
        LOWERINGS.update(dict.fromkeys(ops, rule))
        return rule

    return add


def lower(
    graph: Graph, shapes: Mapping[str, Shape], train: bool, double: bool = False, table: Mapping[str, Rule] = LOWERINGS
) -> tuple[Graph, tuple[Draw, ...]]:
    """The graph without the operators of `table`, and the random inputs it has gained."""
    if not any(node.op in table for node in graph.nodes):
        return graph, ()
    entry_shapes = infer_shapes(graph, shapes)
    context = Lowering(train, double)
    outputs: list[list[Symbol]] = []
    for index, node in enumerate(graph.nodes):
        if node.op is None:
            outputs.append([mx.sym.Variable(node.name, shape=shapes.get(node.name))])
            continue
        xs = [outputs[i][j] for i, j in node.inputs]
        rule = table.get(node.op)
        new = None
        if rule is not None:
            x_shapes = [entry_shapes[entry] for entry in node.inputs]
            y_shapes = [entry_shapes[index, j] for j in graph.used_outputs.get(index, ())]
            new = rule(Site(node, xs, (), [ZERO] * len(xs), x_shapes, y_shapes), context)
        outputs.append(list(new) if new is not None else call(node.op, xs, node.raw, node.name))
    return parse(mx.sym.Group([outputs[i][j] for i, j in graph.heads])), tuple(context.draws)


@lowers("Dropout")
def _dropout(s: Site, context: Lowering) -> Sequence[Symbol]:
    keep = 1 - float(s.attr("p", 0.5))
    if not (context.train or s.attr("mode", "training") == "always") or keep == 1:
        return [s.x]
    axes = s.attr("axes", ())
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(s.x_shapes[0]))
    mask = context.draw(s.node.name, shape, lambda generator: (generator.random(shape) < keep) / keep)
    return [mx.sym.broadcast_mul(s.x, mask) if axes else mx.sym.elemwise_mul(s.x, mask)]


@lowers("_zeros", "_ones", "_full")
def _constant(s: Site, context: Lowering) -> Sequence[Symbol]:
    """Initial states made as Symbols have shape (layers, 0, units): 0 is what the operators around them settle."""
    shape = s.y_shapes[0] if 0 in (s.attr("shape") or ()) else s.attr("shape")
    return s.again([], shape=shape, dtype=_computed(str(s.attr("dtype", "float32")), context))


@lowers("Cast", "amp_cast")
def _cast(s: Site, context: Lowering) -> Sequence[Symbol]:
    """To whole numbers it is a step function: its derivative is zero, while MXNet hands the gradient on."""
    dtype = str(s.attr("dtype"))
    xs = s.xs if dtype.startswith("float") else [mx.sym.BlockGrad(s.x)]
    return s.again(xs, dtype=_computed(dtype, context))


def _computed(dtype: str, context: Lowering) -> str:
    """What `dtype` becomes where float16 is computed as float32, or everything in float64."""
    if not dtype.startswith("float"):
        return dtype
    return "float64" if context.double else "float32" if dtype == "float16" else dtype
