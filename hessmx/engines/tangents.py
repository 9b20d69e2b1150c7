"""The rewrite: every node once, its outputs and their tangents, by the rule of its operator."""

from __future__ import annotations

from typing import Iterable, Mapping, Sequence

from hessmx.errors import GraphError
from hessmx.graph.node import Graph, Node, Shape, infer_shapes
from hessmx.graph.site import ZERO, Site, Tangent
from hessmx.graph.symbols import Symbol, call
from hessmx.rules import RULES, UNSUPPORTED


def reached(nodes: Sequence[Node], variables: Iterable[str]) -> frozenset[int]:
    """Indices of the nodes whose values have a derivative by some of the variables, as far as rules tell."""
    found, names = set(), set(variables)
    for index, node in enumerate(nodes):
        if node.op is None:
            moves = node.name in names
        else:
            rule = RULES.get(node.op)
            moves = any(i in found for i, _ in node.inputs) and (rule is None or rule.kind != "zero")
        if moves:
            found.add(index)
    return frozenset(found)


def missing_rules(graph: Graph, moving: Iterable[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Operators without a rule that a tangent of the variables `moving` reaches: name -> (reason, node names), all."""
    found: dict[str, list[str]] = {}
    for index in sorted(reached(graph.nodes, moving)):
        node = graph.nodes[index]
        if node.op is not None and node.op not in RULES:
            found.setdefault(node.op, []).append(node.name)
    return {op: (UNSUPPORTED.get(op, "no tangent rule yet"), tuple(nodes)) for op, nodes in found.items()}


def push(
    graph: Graph,
    shapes: Mapping[str, Shape],
    primals: Mapping[str, Symbol],
    tangents: Mapping[str, Tangent],
) -> tuple[list[Symbol], list[Tangent]]:
    """Outputs of the graph over `primals`, and their tangents, given those of some variables (others are ZERO)."""
    entry_shapes = infer_shapes(graph, shapes)
    outputs: list[Sequence[Symbol]] = []
    moved: list[Sequence[Tangent]] = []
    for index, node in enumerate(graph.nodes):
        if node.op is None:
            outputs.append([primals[node.name]])
            moved.append([tangents.get(node.name, ZERO)])
            continue
        xs = [outputs[i][j] for i, j in node.inputs]
        ts = [moved[i][j] for i, j in node.inputs]
        ys = call(node.op, xs, node.raw, node.name)
        outputs.append(ys)
        y_shapes = [entry_shapes.get((index, j), ()) for j in range(len(ys))]
        x_shapes = [entry_shapes[entry] for entry in node.inputs]
        moved.append(push_node(node, Site(node, xs, ys, ts, x_shapes, y_shapes)))
    return [outputs[i][j] for i, j in graph.heads], [moved[i][j] for i, j in graph.heads]


def push_node(node: Node, site: Site) -> Sequence[Tangent]:
    """Tangents of the outputs of one node, by the rule of its operator."""
    if all(t is ZERO for t in site.ts):
        return [ZERO] * len(site.ys)
    rule = RULES.get(node.op or "")
    if rule is None:
        raise GraphError(f"operator {node.op} at {node.name} has no tangent rule; see docs/operators.md")
    found = rule.push(site)
    assert len(site.ys) <= len(found), f"rule of {node.op} gave {len(found)} tangents for {len(site.ys)} outputs"
    return found[: len(site.ys)]


def tangent_name(name: str) -> str:
    """The variable that holds the tangent of a variable."""
    return f"{name}__tangent"
