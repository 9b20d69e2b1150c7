"""Tangents with values as constants: every node's, from what it read and wrote and from the tangents that reach it.

Where a node's own tangent is differentiated (a *local pass*), the tangents that reach it are stopped: its backward pass
ends at the values and parameters that this one node read. A node whose tangent does not depend on them (a sum, a
convolution of data, a ReLU but for its mask) needs no local pass, and hands its tangent on as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Mapping, Sequence

from hessmx._mxnet import mx
from hessmx.engines.products import LOSS, NET, Product
from hessmx.engines.tangents import push_node, tangent_name
from hessmx.engines.whole import Whole
from hessmx.graph.node import Entry, Node, Shape, parse
from hessmx.graph.site import ZERO, Site, Tangent, Zero
from hessmx.graph.symbols import Symbol, call
from hessmx.rules import RULES

_PLACEHOLDER = "hessmx_reaching"


@dataclass(frozen=True)
class Local:
    """Tangents of one graph as Symbols over values, tangents of the variables that move, and variables."""

    curved: Mapping[Entry, Symbol]  # tangents of the nodes that need a local pass
    ends: tuple[Tangent, ...]
    read: Mapping[str, Entry]  # name of a value -> the entry it is the value of
    injected: frozenset[str]  # the values that local passes give something
    own: frozenset[str]  # the variables that local passes give something


def value_name(entry: Entry) -> str:
    return f"hessmx_value{entry[0]}_{entry[1]}"


def push_locally(
    whole: Whole, product: Product, shapes: Mapping[str, Shape], moving: Sequence[str], wrt: Sequence[str]
) -> Local:
    """Tangents of the ends and of the curved nodes along the variables `moving`, to be differentiated by `wrt`."""
    builder = _Builder(whole, product, shapes, set(moving), set(wrt))
    for index in sorted(whole.needed):
        builder.add(index)
    return builder.result()


class _Builder:
    def __init__(self, whole: Whole, product: Product, shapes: Mapping[str, Shape], moving: set[str], wrt: set[str]):
        self.whole, self.product, self.shapes = whole, product, shapes
        self.moving, self.wrt = moving, wrt
        self.depends = whole.reached_by(wrt)
        self.values: dict[Entry, Symbol] = {}
        self.tangents: dict[Entry, Tangent] = {}
        self.curved: dict[Entry, Symbol] = {}
        self.found: set[str] = set()  # values and variables that some tangent depends on

    def add(self, index: int) -> None:
        node = self.whole.nodes[index]
        if node.op is None:
            name = node.name
            moves = name in self.moving
            self.tangents[index, 0] = mx.sym.Variable(tangent_name(name), shape=self.shapes[name]) if moves else ZERO
            return
        count = _output_count(node.op, tuple(node.raw.items()), len(node.inputs))
        entries = [(index, j) for j in range(count)]
        ts = [self.tangents[entry] for entry in node.inputs]
        if all(t is ZERO for t in ts) or not self._pushed(index):
            self.tangents.update(dict.fromkeys(entries, ZERO))
            return
        found = self._differentiable(index, node, ts, entries) if self._is_local(index) else set()
        if found:
            ts = [t if isinstance(t, Zero) else mx.sym.BlockGrad(t) for t in ts]
        new = push_node(node, self._site(node, ts, entries))
        self.tangents.update(zip(entries, new))
        if found:
            self.found |= found
            used = self.whole.used
            self.curved.update((e, t) for e, t in zip(entries, new) if e in used and not isinstance(t, Zero))

    def result(self) -> Local:
        ends = tuple(self.tangents[entry] for entry in self.whole.ends)
        heads = [*self.curved.values(), *(t for t in ends if not isinstance(t, Zero))]
        if self.product.local:
            heads = list(self.curved.values())
        names = set(mx.sym.Group(heads).list_inputs()) if heads else set()
        read = {symbol.name: entry for entry, symbol in self.values.items() if symbol.name in names}
        read = {name: entry for name, entry in read.items() if self.whole.nodes[entry[0]].op is not None}
        return Local(self.curved, ends, read, frozenset(self.found & set(read)), frozenset(self.found & self.wrt))

    def _pushed(self, index: int) -> bool:
        """Residual products hold the losses' derivative by the outputs fixed: nothing moves in the loss."""
        return index < self.whole.boundary or not self.product.local or LOSS in self.product.local

    def _is_local(self, index: int) -> bool:
        return (NET if index < self.whole.boundary else LOSS) in self.product.local

    def _site(self, node: Node, ts: Sequence[Tangent], entries: Sequence[Entry]) -> Site:
        shapes = self.whole.shapes
        xs, ys = [self._value(entry) for entry in node.inputs], [self._value(entry) for entry in entries]
        x_shapes = [shapes[entry] for entry in node.inputs]
        return Site(node, xs, ys, ts, x_shapes, [shapes.get(entry, ()) for entry in entries])

    def _value(self, entry: Entry) -> Symbol:
        if entry not in self.values:
            node = self.whole.nodes[entry[0]]
            name = node.name if node.op is None else value_name(entry)
            shape = self.shapes.get(name) if node.op is None else self.whole.shapes.get(entry)
            self.values[entry] = mx.sym.Variable(name, shape=shape)
        return self.values[entry]

    def _differentiable(self, index: int, node: Node, ts: Sequence[Tangent], entries: Sequence[Entry]) -> set[str]:
        """Values and variables that move with `wrt` and that the node's tangents have a derivative by."""
        live = {self._value(entry).name for entry in (*node.inputs, *entries) if entry[0] in self.depends}
        if not live:
            return set()
        held = [
            t if isinstance(t, Zero) else mx.sym.Variable(f"{_PLACEHOLDER}{k}", shape=self.whole.shapes[entry])
            for k, (t, entry) in enumerate(zip(ts, node.inputs))
        ]
        new = push_node(node, self._site(node, held, entries))
        return live & _variables_behind([t for t in new if not isinstance(t, Zero)])


def _variables_behind(heads: Sequence[Symbol]) -> set[str]:
    """Variables that some head has a derivative by, other than zero everywhere."""
    if not heads:
        return set()
    graph = parse(mx.sym.Group(list(heads)))
    reached = {i for i, _ in graph.heads}
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        rule = RULES.get(node.op or "")
        if index in reached and (rule is None or rule.kind != "zero"):
            reached.update(i for i, _ in node.inputs)
    return {graph.nodes[i].name for i in reached if graph.nodes[i].op is None}


@cache
def _output_count(op: str, raw: tuple, inputs: int) -> int:
    variables: list[Any] = [mx.sym.Variable(f"x{i}") for i in range(inputs)]
    return len(call(op, variables, dict(raw)))
