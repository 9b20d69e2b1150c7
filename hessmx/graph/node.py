"""The node table: Symbol JSON, parsed once into frozen typed objects, and rebuilt into Symbols."""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Callable, Mapping, Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.stacks import STACKS, stacked_shape
from hessmx.graph.symbols import Symbol, call

Entry = tuple  # (node index, output index)
Shape = tuple


def _typed(text: str) -> Any:
    """'(2, 2)' -> (2, 2), 'True' -> True, '0.5' -> 0.5, 'relu' -> 'relu'."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


@dataclass(frozen=True)
class Node:
    """One operator (or variable, where `op` is None) of a graph."""

    op: str | None
    name: str
    inputs: tuple[Entry, ...]
    raw: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))  # what MXNet is given back

    @cached_property
    def attrs(self) -> Mapping[str, Any]:
        return MappingProxyType({key: _typed(value) for key, value in self.raw.items()})


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order; `heads` are the outputs."""

    nodes: tuple[Node, ...]
    heads: tuple[Entry, ...]

    @cached_property
    def variables(self) -> tuple[str, ...]:
        return tuple(node.name for node in self.nodes if node.op is None)

    @cached_property
    def ops(self) -> dict[str, tuple[str, ...]]:
        """Operator name -> names of the nodes that apply it."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.op is not None:
                found.setdefault(node.op, []).append(node.name)
        return {op: tuple(names) for op, names in found.items()}

    @cached_property
    def digest(self) -> str:
        """The same text for graphs that compute the same; names of operators are counters and do not count."""
        table = [(node.op or node.name, node.inputs, sorted(node.raw.items())) for node in self.nodes]
        return hashlib.sha1(json.dumps([table, self.heads]).encode()).hexdigest()

    @cached_property
    def used_outputs(self) -> dict[int, tuple[int, ...]]:
        """Node index -> the outputs that anything reads (MXNet hides some, e.g. BatchNorm's mean)."""
        used: dict[int, set[int]] = {}
        for index, output in [entry for node in self.nodes for entry in node.inputs] + list(self.heads):
            used.setdefault(index, set()).add(output)
        return {index: tuple(sorted(outputs)) for index, outputs in used.items()}


def parse(symbol: Symbol) -> Graph:
    """The node table of a Symbol."""
    data = json.loads(symbol.tojson(remove_amp_cast=False))  # removing makes a Symbol that is never freed
    nodes = tuple(
        Node(
            op=None if item["op"] == "null" else item["op"],
            name=item["name"],
            inputs=tuple((entry[0], entry[1]) for entry in item["inputs"]),
            raw=MappingProxyType(_operator_attrs(item)),
        )
        for item in data["nodes"]
    )
    return Graph(nodes, tuple((head[0], head[1]) for head in data["heads"]))


def _operator_attrs(item: Mapping[str, Any]) -> dict[str, str]:
    """Attributes of the operator itself; Gluon's hints on variables (`__init__`, `__shape__`) are left out."""
    attrs = item.get("attrs", item.get("param", {}))
    return {key: value for key, value in attrs.items() if not key.startswith("__") and key != "ctx_group"}


Lower = Callable[[Node, Sequence[Symbol], Sequence[Shape]], "Sequence[Symbol] | None"]


def build(graph: Graph, variables: Mapping[str, Symbol]) -> list[list[Symbol]]:
    """Outputs of every node, as Symbols over the given variables."""
    outputs: list[list[Symbol]] = []
    for node in graph.nodes:
        if node.op is None:
            outputs.append([variables[node.name]])
        else:
            outputs.append(call(node.op, [outputs[i][j] for i, j in node.inputs], node.raw, node.name))
    return outputs


def infer_shapes(graph: Graph, known: Mapping[str, Shape]) -> dict[Entry, Shape]:
    """Shapes of every entry that is read, from the shapes of the variables."""
    if graph.ops.keys() & STACKS:
        return _infer_node_by_node(graph, known)
    variables = {name: mx.sym.Variable(name, shape=known.get(name)) for name in graph.variables}
    outputs = build(graph, variables)
    entries = [(i, j) for i, used in sorted(graph.used_outputs.items()) for j in used]
    _, shapes, _ = mx.sym.Group([outputs[i][j] for i, j in entries]).infer_shape()
    if shapes is None:
        raise GraphError("MXNet cannot infer the shapes of this graph; make every shape known")
    return dict(zip(entries, shapes))


def _infer_node_by_node(graph: Graph, known: Mapping[str, Shape]) -> dict[Entry, Shape]:
    """The same where some operators break MXNet's own inference; all variables must have a shape."""
    shapes: dict[Entry, Shape] = {}
    for index, node in enumerate(graph.nodes):
        inputs = [shapes[entry] for entry in node.inputs]
        if node.op is None:
            shapes[index, 0] = tuple(known[node.name])
        elif node.op in STACKS:
            shapes[index, 0] = stacked_shape(node.op, inputs)
        else:
            variables = [mx.sym.Variable(f"x{i}", shape=shape) for i, shape in enumerate(inputs)]
            found = mx.sym.Group(call(node.op, variables, node.raw)).infer_shape()[1]
            shapes.update({(index, j): shape for j, shape in enumerate(found)})
    return shapes
