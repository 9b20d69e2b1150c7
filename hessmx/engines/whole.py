"""The net's graph and the loss's, joined: the per-sample losses as one graph of everything below them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Iterable, Mapping

from hessmx._mxnet import mx
from hessmx.engines.plan import Plan
from hessmx.engines.tangents import reached
from hessmx.graph.node import Entry, Graph, Node, Shape, infer_shapes
from hessmx.graph.symbols import Symbol, call, scope
from hessmx.graph.trace import names


@dataclass(frozen=True)
class Whole:
    """Nodes of the net, then those of the loss; what does not lead to an end is left out where it is used."""

    nodes: tuple[Node, ...]
    boundary: int  # nodes before it are the net's
    outputs: tuple[Entry, ...]  # of the net
    losses: Entry | None
    shapes: Mapping[Entry, Shape]

    @property
    def ends(self) -> tuple[Entry, ...]:
        return self.outputs if self.losses is None else (self.losses,)

    @cached_property
    def needed(self) -> frozenset[int]:
        """Nodes that the ends are computed from."""
        return ancestors(self.nodes, [i for i, _ in self.ends])

    @cached_property
    def used(self) -> frozenset[Entry]:
        """Entries that lead to an end."""
        return frozenset([entry for i in self.needed for entry in self.nodes[i].inputs] + list(self.ends))

    def reached_by(self, variables: Iterable[str]) -> frozenset[int]:
        """Nodes whose values have a derivative by some of the variables."""
        return reached(self.nodes, variables)


def ancestors(nodes: tuple[Node, ...], ends: Iterable[int]) -> frozenset[int]:
    """Indices of the nodes that the ends are computed from, themselves included."""
    found = set(ends)
    for index in range(len(nodes) - 1, -1, -1):
        if index in found:
            found.update(i for i, _ in nodes[index].inputs)
    return frozenset(found)


def join(plan: Plan, loss: bool) -> Whole:
    """The net alone, or the net and the loss, of a plan."""
    with scope():
        shapes = dict(infer_shapes(plan.net, plan.shapes))
        if not loss or plan.loss is None:
            return Whole(plan.net.nodes, len(plan.net.nodes), plan.net.heads, None, shapes)
        shift = len(plan.net.nodes)
        shapes.update({(i + shift, j): s for (i, j), s in infer_shapes(plan.loss, plan.shapes).items()})
    nodes, losses = _appended(plan.net, plan.loss)
    return Whole(nodes, shift, plan.net.heads, losses, shapes)


def _appended(net: Graph, loss: Graph) -> tuple[tuple[Node, ...], Entry]:
    """The loss's nodes behind the net's; where the loss reads an output, it reads the net's entry."""
    outputs, shift = dict(zip(names("output", len(net.heads)), net.heads)), len(net.nodes)
    place = {(k, 0): outputs[n.name] for k, n in enumerate(loss.nodes) if n.op is None and n.name in outputs}

    def moved(entry: Entry) -> Entry:
        return place.get(tuple(entry), (entry[0] + shift, entry[1]))

    nodes = tuple(Node(node.op, node.name, tuple(map(moved, node.inputs)), node.raw) for node in loss.nodes)
    return (*net.nodes, *nodes), moved(loss.heads[0])


def end_symbols(whole: Whole, shapes: Mapping[str, Shape]) -> list[Symbol]:
    """The ends as Symbols over the variables."""
    values: dict[Entry, Symbol] = {}
    for index in sorted(whole.needed):
        node = whole.nodes[index]
        if node.op is None:
            ys = [mx.sym.Variable(node.name, shape=shapes.get(node.name))]
        else:
            ys = call(node.op, [values[entry] for entry in node.inputs], node.raw, node.name)
        values.update({(index, j): y for j, y in enumerate(ys)})
    return [values[entry] for entry in whole.ends]
