"""Tangents of tangents: derivatives of a net's output by entries of an input, of any order, as heads of one graph.

Rules are written in operators that have rules themselves, so the rewrite can be applied to its own result: u, then u_x,
then u_xx. One ordinary backward pass over such a head gives its exact gradient by the parameters.
"""

from __future__ import annotations

from typing import Callable, Mapping, Sequence

from hessmx._mxnet import mx
from hessmx.engines.plan import Plan
from hessmx.engines.tangents import missing_rules, push
from hessmx.errors import UnsupportedOps
from hessmx.graph.lower import LOWERINGS, lower
from hessmx.graph.node import Graph, Node, Shape, infer_shapes, parse
from hessmx.graph.site import ZERO, Site, Tangent, Zero
from hessmx.graph.symbols import Symbol, call
from hessmx.rules import RULES

Order = tuple  # entries by which is differentiated, one after the other; () is the output itself


def unit_name(source: str, entry: int) -> str:
    return f"{source}__unit{entry}"


class Repeated:
    """Heads for one plan; `source` is the input by which is differentiated, train and double those of the plan."""

    def __init__(self, plan: Plan, source: str, train: bool, double: bool):
        self.plan, self.source, self.train, self.double = plan, source, train, double
        self.shapes: dict[str, Shape] = dict(plan.shapes)
        self.variables: dict[str, Symbol] = {}
        self._known = {node.name for node in plan.net.nodes}
        self._found: dict[Order, Tangent] = {}

    def head(self, order: Order) -> Tangent:
        """The derivative, of the output's shape; ZERO where it is identically zero."""
        if order not in self._found:
            self._found[order] = self._head(order)
        return self._found[order]

    def _head(self, order: Order) -> Tangent:
        if not order:
            return push(self.plan.net, self.shapes, self._primals(self.plan.net), {})[0][0]
        before = self.head(order[:-1])
        if isinstance(before, Zero):
            return before
        graph = self.plan.net if len(order) == 1 else self._graph_of(before)
        if self.source not in graph.variables:
            return ZERO
        name = unit_name(self.source, order[-1])
        self.shapes[name] = self.shapes[self.source]
        seed = self.variables.setdefault(name, mx.sym.Variable(name, shape=self.shapes[name]))
        return push(graph, self.shapes, self._primals(graph), {self.source: seed})[1][0]

    def _graph_of(self, head: Symbol) -> Graph:
        """A head as a graph that can be pushed through again, or an error that names what cannot."""

        def only_new(rule: Callable) -> Callable:
            return lambda s, context: None if s.node.name in self._known else rule(s, context)

        table = {op: only_new(rule) for op, rule in LOWERINGS.items()}
        graph, draws = lower(parse(head), self.shapes, self.train, self.double, table)
        assert not draws, "a rule asked for random numbers"
        missing = missing_rules(graph, [self.source])
        for node in _hidden(graph, self.source, self._known):
            for op in _stopping(self.plan.net, self.shapes) or ["BlockGrad"]:
                missing[op] = ("its rule holds for first derivatives by the input only", (node.name,))
        if missing:
            advice = "Derivatives of second and higher order need rules of rules: take another layer or activation"
            raise UnsupportedOps("reverse-over-forward, repeated", missing, advice)
        self._known |= {node.name for node in graph.nodes}
        return graph

    def _primals(self, graph: Graph) -> Mapping[str, Symbol]:
        """One Symbol for each variable, whatever the graph: a name must not stand for two in one Executor."""
        for name in graph.variables:
            self.variables.setdefault(name, mx.sym.Variable(name, shape=self.shapes.get(name)))
        return self.variables


def _hidden(graph: Graph, source: str, known: set[str]) -> list[Node]:
    """BlockGrads that a rule has brought in, whose value moves with the input and counts."""
    moving: set[int] = set()
    stopped: dict[int, Node] = {}
    found: dict[str, Node] = {}
    for index, node in enumerate(graph.nodes):
        reached = [i for i, _ in node.inputs if i in moving]
        if node.op is None:
            moves = node.name == source
        elif node.op == "BlockGrad" and reached and node.name not in known:
            stopped[index] = node
            moves = False
        else:
            rule = RULES.get(node.op)
            moves = bool(reached) and (rule is None or rule.kind != "zero")
        if moves:
            moving.add(index)
        if node.op == "BlockGrad" or node.op not in RULES or RULES[node.op].kind != "zero":
            found.update({stopped[i].name: stopped[i] for i, _ in node.inputs if i in stopped})
    found.update({stopped[i].name: stopped[i] for i, _ in graph.heads if i in stopped})
    return list(found.values())


def _stopping(graph: Graph, shapes: Mapping[str, Shape]) -> list[str]:
    """Operators of the net whose rules bring in BlockGrad."""
    entries, found = infer_shapes(graph, shapes), []
    for index, node in enumerate(graph.nodes):
        if node.op is None or node.op not in RULES or node.op in found:
            continue
        x_shapes = [entries[entry] for entry in node.inputs]
        xs = [mx.sym.Variable(f"x{i}", shape=shape) for i, shape in enumerate(x_shapes)]
        ts = [mx.sym.Variable(f"t{i}", shape=shape) for i, shape in enumerate(x_shapes)]
        ys = call(node.op, xs, node.raw)
        y_shapes = [entries.get((index, j), ()) for j in range(len(ys))]
        pushed = RULES[node.op].push(Site(node, xs, ys, ts, x_shapes, y_shapes))
        heads = [t for t in _flat(pushed) if not isinstance(t, Zero)]
        if heads and _hidden_in(heads):
            found.append(node.op)
    return found


def _hidden_in(heads: Sequence[Symbol]) -> bool:
    graph = parse(mx.sym.Group(list(heads)))
    return any(_hidden(graph, name, set()) for name in graph.variables if name.startswith("x"))


def _flat(value: Sequence) -> list:
    return [leaf for item in value for leaf in (_flat(item) if isinstance(item, (list, tuple)) else [item])]
