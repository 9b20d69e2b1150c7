"""`autograd.grad(create_graph=True)` over the graph lowered to operators whose second derivatives MXNet has right.

The net runs imperatively in lifted form (lifting.py). The loss is split into a nonlinear core, lifted too, and a linear
tail (means, picked entries, products with labels): the tail's cotangents do not depend on the parameters and come
from one ordinary backward pass per batch. log_softmax(z) with cotangent r is two heads: <r, z> - <sum_k r_k, lse(z)>.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.base import ByColumns
from hessmx.engines.compiled import Compiled, evaluate
from hessmx.engines.lifting import DIVIDE, LIFTS, SECOND_ORDER, Place, apply, guard, lift, log_sum_exp, refusal
from hessmx.engines.plan import Plan
from hessmx.errors import EngineError, UnsupportedOps
from hessmx.graph.node import Entry, Graph, Node, Shape, infer_shapes
from hessmx.graph.symbols import call, scope
from hessmx.graph.trace import names
from hessmx.problem.data import Batch
from hessmx.rules import RULES

__all__ = ["NAME", "SECOND_ORDER", "DoubleBackward"]

NAME = "double-backward"
_ONLY_SHAPE = {"reshape_like": (1,), "broadcast_like": (1,), "slice_like": (1,), "zeros_like": (0,), "ones_like": (0,)}
Refused = dict  # operator -> (reason, node names)


class DoubleBackward(ByColumns):
    """Cost of a product: one recorded gradient and one backward pass over it; memory for both graphs."""

    name = NAME
    exact = True

    def __init__(self, compiled: Compiled, batch: Batch):
        self.compiled = compiled
        self._splits: dict[int, tuple[Plan, Split]] = {}
        self._cotangents: dict[int, tuple[Batch, Split, list[Any]]] = {}
        self._split(compiled.plan(batch))  # what cannot be handled is said now, all of it

    def product(self, kind: str, vector: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        if kind != "hessian":
            raise EngineError(f"engine '{NAME}' gives products with the Hessian, not with '{kind}': use engine='auto'")
        plan = self.compiled.plan(batch)
        split = self._split(plan)
        cotangents = self._cotangents_of(split, batch, plan)
        held = self.compiled.parameters()
        moved = [name for name in which if name in split.reached]
        if not moved:
            return None, plan.samples
        variables = {name: lift(held[name].copy()) for name in moved}
        buffers = [mx.nd.zeros_like(variable) for variable in variables.values()]
        mx.autograd.mark_variables(list(variables.values()), buffers)
        directions = self._directions(vector, which, variables)
        arrays = {**held, **self.compiled.feeds(batch, plan)}
        with mx.autograd.record(train_mode=False):
            heads, head_grads = split.heads({**arrays, **variables}, set(variables), cotangents)
            gradients = mx.autograd.grad(
                heads, list(variables.values()), head_grads=head_grads, create_graph=True, retain_graph=True
            )
        mx.autograd.backward(gradients, head_grads=directions)
        rows = dict(zip(moved, buffers))
        return self._vector(rows, which), plan.samples

    def _directions(self, vector: np.ndarray, which: Sequence[str], variables: Mapping[str, Any]) -> list[Any]:
        sizes = self.compiled.net.sizes
        pieces = dict(zip(which, np.split(vector, np.cumsum([sizes[name] for name in which])[:-1])))
        return [
            mx.nd.array(pieces[name].reshape(variable.shape), ctx=variable.context, dtype=variable.dtype)
            for name, variable in variables.items()
        ]

    def _vector(self, rows: Mapping[str, Any], which: Sequence[str]) -> np.ndarray:
        """One vector over the parameters `which`; zeros where the loss does not reach."""
        sizes = self.compiled.net.sizes
        pieces = [rows[name].asnumpy().ravel() if name in rows else np.zeros(sizes[name]) for name in which]
        return np.concatenate(pieces)

    def _split(self, plan: Plan) -> Split:
        if id(plan) not in self._splits:
            self._splits[id(plan)] = (plan, split_plan(plan, set(self.compiled.net.names)))
        return self._splits[id(plan)][1]

    def _cotangents_of(self, split: Split, batch: Batch, plan: Plan) -> list[Any]:
        known = self._cotangents.get(batch.index)
        if known is not None and known[0] is batch and known[1] is split:
            return known[2]
        feeds = {**self.compiled.parameters(), **self.compiled.feeds(batch, plan)}
        found = split.cotangents(feeds, self.compiled)
        if batch.kept:
            self._cotangents[batch.index] = (batch, split, found)
        return found


@dataclass(frozen=True)
class Split:
    """A net and a loss, its core to be lifted and its tail to be summed up by cotangents."""

    plan: Plan
    net_shapes: Mapping[Entry, Shape]
    loss_shapes: Mapping[Entry, Shape]
    moving: frozenset[Entry]  # of the loss: depends on the net's outputs
    boundary: tuple[Entry, ...]  # of the loss: where the core ends
    reached: frozenset[str]  # parameters that the outputs depend on

    def cotangents(self, arrays: Mapping[str, Any], compiled: Compiled) -> list[Any]:
        """d (sum of losses) / d (boundary entry), by one backward pass through the tail, which is linear."""
        context, dtype = compiled.net.context, compiled.dtype or compiled.net.dtype

        def zeros(prefix: str, shapes: Sequence[Shape]) -> dict[str, Any]:
            arrays = [mx.nd.zeros(shape, ctx=context, dtype=dtype) for shape in shapes]
            return dict(zip(names(prefix, len(shapes)), arrays))

        shapes = [self.loss_shapes[entry] for entry in self.boundary]
        known = {**arrays, **zeros("output", self.plan.output_shapes), **zeros("boundary", shapes)}
        gradients = zeros("boundary", shapes)
        with scope():
            tail = self._tail()
            arguments = {name: known[name] for name in tail.list_arguments()}
            wanted = {name: gradient for name, gradient in gradients.items() if name in arguments}
            executor = tail.bind(context, arguments, args_grad=wanted)
            executor.forward(is_train=True)
            executor.backward([mx.nd.ones_like(executor.outputs[0])])
        return list(gradients.values())

    def _tail(self) -> Any:
        """The losses as a Symbol over the boundary."""
        loss = _loss(self.plan)
        ends = dict(zip(self.boundary, map(mx.sym.Variable, names("boundary", len(self.boundary)))))
        built: list[list[Any]] = []
        for node in loss.nodes:
            inputs = [ends[entry] if entry in ends else built[entry[0]][entry[1]] for entry in node.inputs]
            plain = node.op is None
            built.append([mx.sym.Variable(node.name)] if plain else call(node.op or "", inputs, node.raw, node.name))
        index, output = loss.heads[0]
        return mx.sym.identity(ends[index, output] if (index, output) in ends else built[index][output])

    def heads(
        self, arrays: Mapping[str, Any], variables: set[str], cotangents: Sequence[Any]
    ) -> tuple[list[Any], list[Any]]:
        """What is differentiated and with which head gradients, on the tape; no array is a head twice."""
        net, loss = self.plan.net, _loss(self.plan)
        reached = _dependent(net, variables)
        guards: list[tuple[Any, Any]] = []
        outputs = _run(net, arrays, reached, self.net_shapes, net.heads, guards)
        given = {**arrays, **dict(zip(names("output", len(outputs)), outputs))}
        wanted = [loss.nodes[i].inputs[0] if loss.nodes[i].op == "log_softmax" else (i, j) for i, j in self.boundary]
        values = _run(loss, given, self.moving, self.loss_shapes, wanted, guards)
        heads, head_grads = [head for head, _ in guards], [cotangent for _, cotangent in guards]
        for (index, _), value, cotangent in zip(self.boundary, values, cotangents):
            # The square with a cotangent of 0: where nothing behind a relu is curved, MXNet's second backward pass
            # meets symbolic zeros only, and ends in a segmentation fault or in "no inputs that require gradients".
            heads += [apply("square", value), apply("_copy", value)]
            head_grads += [mx.nd.zeros_like(value), lift(cotangent)]
            if loss.nodes[index].op == "log_softmax":
                heads.append(log_sum_exp(value))
                head_grads.append(-mx.nd.sum(head_grads[-1], axis=2, keepdims=True))
        return heads, head_grads


def _loss(plan: Plan) -> Graph:
    assert plan.loss is not None
    return plan.loss


def _dependent(graph: Graph, variables: set[str]) -> frozenset[Entry]:
    """Entries whose value (not only whose shape) depends on the variables."""
    found: set[Entry] = set()
    for index, node in enumerate(graph.nodes):
        ignored = _ONLY_SHAPE.get(node.op or "", ())
        moved = any(entry in found for place, entry in enumerate(node.inputs) if place not in ignored)
        if moved or (node.op is None and node.name in variables):
            found.update((index, output) for output in graph.used_outputs.get(index, (0,)))
    return frozenset(found)


def _run(
    graph: Graph,
    arrays: Mapping[str, Any],
    moving: frozenset[Entry],
    shapes: Mapping[Entry, Shape],
    wanted: Sequence[Entry],
    guards: list[tuple[Any, Any]],
) -> list[Any]:
    """Lifted values of the wanted entries; what does not move is computed at once, off the tape."""
    needed = _ancestors(graph, [entry for entry in wanted if entry in moving], moving)
    still = {entry for i, _ in needed for entry in graph.nodes[i].inputs if entry not in moving}
    still.update(entry for entry in wanted if entry not in moving)
    values = {entry: lift(array) for entry, array in _constants(graph, arrays, sorted(still), shapes)}
    for index, node in enumerate(graph.nodes):
        if (index, 0) not in needed:
            continue
        if node.op is None:
            values[index, 0] = arrays[node.name]
        else:
            x_shapes = [shapes[entry] for entry in node.inputs]
            values[index, 0] = LIFTS[node.op](Place(node, [values[e] for e in node.inputs], x_shapes, shapes[index, 0]))
            if DIVIDE & {node.op, node.attrs.get("act_type")}:
                guards.append(guard(values[index, 0]))
    return [values[entry] for entry in wanted]


def _constants(
    graph: Graph, arrays: Mapping[str, Any], entries: Sequence[Entry], shapes: Mapping[Entry, Shape]
) -> list[tuple[Entry, Any]]:
    """Values of entries that do not move; arrays that are read for their shape only may be lifted ones."""
    plain = {i: graph.nodes[i].name for i, _ in entries if graph.nodes[i].op is None}
    computed = [entry for entry in entries if entry[0] not in plain]
    found = [(entry, arrays[plain[entry[0]]]) for entry in entries if entry[0] in plain]
    if computed:
        context = next(iter(arrays.values())).context
        flat = {
            node.name: arrays[node.name].detach().reshape(shapes[i, 0]) if (i, 0) in shapes else arrays[node.name]
            for i, node in enumerate(graph.nodes) if node.op is None
        }
        with mx.autograd.pause():
            found += zip(computed, evaluate(Graph(graph.nodes, tuple(computed)), flat, context))
    return found


def _ancestors(graph: Graph, entries: Sequence[Entry], moving: frozenset[Entry]) -> set[Entry]:
    """The entries and all moving ones they are computed from."""
    found = set(entries)
    for index in range(len(graph.nodes) - 1, -1, -1):
        if any(i == index for i, _ in found):
            found.update(entry for entry in graph.nodes[index].inputs if entry in moving)
    return found


def split_plan(plan: Plan, parameters: set[str]) -> Split:
    """Where the core ends; UnsupportedOps with every operator that has no place in core or tail."""
    net, loss = plan.net, _loss(plan)
    refused: Refused = {}
    with scope():
        net_shapes, loss_shapes = infer_shapes(net, plan.shapes), infer_shapes(loss, plan.shapes)
    reached = _dependent(net, parameters)
    for index in sorted({i for i, _ in reached}):
        _note(refused, net.nodes[index], _why_not(net, index, net_shapes))
    moving = _dependent(loss, set(names("output", len(net.heads))))
    nonlinear = [(i, 0) for i in sorted({i for i, _ in moving}) if not _linear(loss.nodes[i], moving)]
    core = _ancestors(loss, nonlinear, moving)
    boundary = []
    for index in sorted({i for i, _ in moving}):
        consumers = [k for k, node in enumerate(loss.nodes) if (index, 0) in _read(node) and (k, 0) in moving]
        ends = (index, 0) in loss.heads or any((k, 0) not in core for k in consumers)
        if (index, 0) in core or loss.nodes[index].op is None:
            inside = any((k, 0) in core for k in consumers)
            _note(refused, loss.nodes[index], _why_not(loss, index, loss_shapes, last=not inside))
            if ends:
                boundary.append((index, 0))
    if refused:
        raise UnsupportedOps(NAME, refused, "Use engine='auto'")
    used = _ancestors(net, [head for head in net.heads if head in reached], reached)
    needed = frozenset(net.nodes[i].name for i, _ in used if net.nodes[i].op is None)
    return Split(plan, net_shapes, loss_shapes, moving, tuple(boundary), needed)


def _read(node: Node) -> list[Entry]:
    """Inputs that are read for more than their shape."""
    ignored = _ONLY_SHAPE.get(node.op or "", ())
    return [entry for place, entry in enumerate(node.inputs) if place not in ignored]


def _linear(node: Node, moving: frozenset[Entry]) -> bool:
    """Linear (or affine) in its moving inputs together."""
    if node.op is None:
        return True
    rule, moved = RULES.get(node.op), [entry in moving for entry in node.inputs]
    if rule is None:
        return False
    return rule.kind == "linear" or (rule.kind == "bilinear" and sum(moved[:2]) == 1) or (
        node.op in ("elemwise_div", "broadcast_div") and not moved[1]
    )


def _why_not(graph: Graph, index: int, shapes: Mapping[Entry, Shape], last: bool = False) -> str | None:
    node = graph.nodes[index]
    if node.op is None:
        return None
    x_shapes = [shapes[entry] for entry in node.inputs]
    if node.op == "log_softmax" and last:
        plain = node.attrs.get("axis", -1) in (-1, 1) and len(x_shapes[0]) == 2 and not node.attrs.get("temperature")
        return None if plain else "only over the last axis of (N, k), without temperature"
    return refusal(node, x_shapes, shapes[index, 0])


def _note(refused: Refused, node: Node, reason: str | None) -> None:
    if reason is not None:
        known = refused.get(node.op, (reason, ()))
        refused[node.op] = (known[0], (*known[1], node.name))
