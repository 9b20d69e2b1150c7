"""Which operator is wrong: every node of net and loss alone, at the values that it has on the user's data.

The nodes are those that the tracer saw, in their order. Each is run imperatively; its tangent and the backward pass of
that are compared with differences of its own outputs (node.py): in float64, and for float32 nets in float32 too, also
with inputs in oneDNN's blocked layout, where MXNet's max pooling goes wrong.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import HessmxError
from hessmx.graph.node import Entry, Graph, Node
from hessmx.graph.trace import flatten, names
from hessmx.results import Provenance, Result
from hessmx.rules import RULES, covered
from hessmx.trust.layouts import as_array, can_be_blocked, invoke
from hessmx.trust.node import Call, RuleCheck, check_node

TOLERANCES = {"float64": 1e-4, "float32": 1e-2}  # of an operator alone: a wrong one is off by much more
STEP = 2e-5  # relative to the size of the inputs: short, as a net's values come near kinks
MANY = 8  # readers of one tensor, from which on MXNet adds gradients in place


@dataclass(frozen=True)
class NodeRow(Result):
    """One node alone; errors relative to the largest entry, NaN where not compared."""

    name: str
    op: str
    where: str  # "net" or "loss"
    layout: str  # "plain" or "blocked"
    shapes: tuple[str, ...]  # of its inputs
    tangent: float
    product: float
    float32: float
    own_gradient: float  # how far MXNet's own gradient of this operator is off the tangent's adjoint

    @property
    def off(self) -> bool:
        double, single = TOLERANCES["float64"], TOLERANCES["float32"]
        return self.tangent > double or self.product > double or self.float32 > single


@dataclass(frozen=True, eq=False)
class Located(Result):
    """The first node that is off, and what was tried."""

    verdict: str
    first: NodeRow | None
    rows: tuple[NodeRow, ...]  # that are off
    checked: int
    skipped: tuple[str, ...]  # nodes that could not be run alone, and why
    provenance: Provenance = field(default_factory=Provenance)


def locate(curv: Any, seed: int = 0) -> Located:
    """Check every node that the parameters reach alone, on the first batch; EngineError for a net without a graph.

    Costs some 30 evaluations of every operator and its gradient.
    """
    rows: list[NodeRow] = []
    skipped: list[str] = []
    checked = 0
    single = curv.dtype == np.float32
    for where, graph, values, moving in _graphs(curv):
        for place, inputs in _reached(graph, values, moving):
            node = graph.nodes[place]
            try:
                found = _check(node, inputs, curv.mode == "train", single, seed)
            except (HessmxError, mx.base.MXNetError) as error:
                skipped.append(f"{node.name} ({node.op}): {str(error).strip().splitlines()[0][:120]}")
                continue
            checked += 1
            shapes = tuple(str(tuple(x.shape)) for x, _ in inputs)
            for layout, one in found.items():
                row = NodeRow(node.name, str(node.op), where, layout, shapes, one.tangent, one.product, one.float32,
                              one.adjoint)
                rows += [row] if row.off else []
    first = rows[0] if rows else None
    verdict = _verdict(first, checked, len(skipped), _most_read(curv))
    return Located(verdict, first, tuple(rows), checked, tuple(skipped), curv.provenance("hessian"))


def _check(node: Node, inputs: Sequence[tuple], train: bool, single: bool, seed: int) -> dict[str, RuleCheck]:
    """Errors by layout."""
    moving = tuple(i for i, (x, moves) in enumerate(inputs) if moves and x.dtype.kind == "f")
    call = Call(
        str(node.op), tuple(x for x, _ in inputs), node.raw, moving, moving, None, train, (), False, True, seed, STEP,
        single, own_values=True,
    )
    with ExitStack() as stack:
        stack.enter_context(mx.util.np_shape(call.numpy or mx.util.is_np_shape()))
        found = {"plain": check_node(call)}
        if not found["plain"].adjoint <= TOLERANCES["float64"]:  # then its differences mean nothing either
            again = check_node(replace(call, own_gradient=False, step=8 * STEP))
            found["plain"] = replace(again, adjoint=found["plain"].adjoint)
        if single and any(moves and can_be_blocked(x.shape) for x, moves in inputs):
            found["blocked"] = replace(check_node(replace(call, blocked=True)), tangent=np.nan, product=np.nan)
    return found


# -- what the nodes are, and their values


def _graphs(curv: Any) -> list[tuple[str, Graph, list[list[Any]], set[str]]]:
    """Net and loss: their graphs, the values of every output of every node (float64), and which variables move.

    The one place that knows where a Curvature keeps its graphs.
    """
    compiled, batch = curv._compiled("its operators"), next(iter(curv._batches))
    net, loss = compiled.pieces(batch)
    train = curv.mode == "train"
    arrays = {name: curv._net.array(name).asnumpy() for name in curv._net.all}
    arrays.update((name, x.asnumpy()) for name, x in zip(names("data", len(batch.inputs)), batch.inputs))
    arrays.update((name, a.asnumpy()) for name, a in net.constants.items())
    values = _values(net.graph, arrays, train)
    found = [("net", net.graph, values, set(curv._net.names))]
    if loss is not None:
        outputs = names("output", len(net.graph.heads))
        arrays = {name: values[i][j] for name, (i, j) in zip(outputs, net.graph.heads)}
        labels = flatten(batch.labels)
        arrays.update((name, y.asnumpy()) for name, y in zip(names("label", len(labels)), labels))
        arrays.update((name, a.asnumpy()) for name, a in loss.constants.items())
        found.append(("loss", loss.graph, _values(loss.graph, arrays, train), set(outputs)))
    return found


def _values(graph: Graph, arrays: Mapping[str, np.ndarray], train: bool) -> list[list[Any]]:
    """Outputs of every node, run one by one as MXNet runs them imperatively; Dropout is left out."""
    values: list[list[Any]] = []
    for node in graph.nodes:
        xs = [values[i][j] for i, j in node.inputs]
        if node.op is None:
            array = np.asarray(arrays[node.name])
            values.append([array.astype(np.float64) if array.dtype.kind == "f" else array])
        elif node.op == "Dropout":
            values.append([xs[0]])
        else:
            values.append(_run(node, xs, train))
    return values


def _run(node: Node, xs: Sequence[np.ndarray], train: bool) -> list[np.ndarray]:
    """In float64, or in float32 where the operator takes nothing else."""
    for dtype in (np.float64, np.float32):
        inputs = [as_array(x, dtype) for x in xs]
        numpy = str(node.op).startswith(("_np_", "_npi_", "_npx_"))
        try:
            with mx.util.np_shape(numpy or mx.util.is_np_shape()):
                ys = [y.asnumpy() for y in invoke(node, inputs, train)]
            return [y.astype(np.float64) if y.dtype.kind == "f" else y for y in ys]
        except mx.base.MXNetError:
            if dtype == np.float32:
                raise
    raise AssertionError


def _reached(graph: Graph, values: list[list[Any]], moving: set[str]) -> list[tuple[int, list[tuple[Any, bool]]]]:
    """Nodes with a rule that a tangent reaches, with their inputs and whether each moves."""
    reached: set[int] = set()
    found = []
    for place, node in enumerate(graph.nodes):
        rule = RULES.get(str(node.op))
        moves = node.name in moving if node.op is None else any(i in reached for i, _ in node.inputs)
        if not moves or (rule is not None and rule.kind == "zero"):
            continue
        reached.add(place)
        if node.op in covered() and node.op != "Dropout":
            found.append((place, [(values[i][j], i in reached) for i, j in node.inputs]))
    return found


def _most_read(curv: Any) -> tuple[str, int]:
    """The tensor with the most readers."""
    compiled = curv._compiled("its operators")
    best = ("", 0)
    for piece in compiled.pieces(next(iter(curv._batches))):
        counts: dict[Entry, int] = {}
        for node in piece.graph.nodes if piece is not None else ():
            for entry in node.inputs:
                counts[entry] = counts.get(entry, 0) + 1
        for (place, _), count in counts.items():
            best = max(best, (piece.graph.nodes[place].name, count), key=lambda pair: pair[1])
    return best


def _verdict(first: NodeRow | None, checked: int, skipped: int, most_read: tuple[str, int]) -> str:
    tried = f"{checked} nodes were checked alone" + (f", {skipped} could not be" if skipped else "")
    if first is not None:
        numbers = ", ".join(
            f"{what} off by {error:.1e}"
            for what, error in (("tangent", first.tangent), ("product", first.product), ("float32", first.float32))
            if error > 0 and not np.isnan(error)
        )
        inputs = ", ".join(first.shapes)
        place = f"{first.op} at {first.name} ({first.where}, {first.layout} layout, inputs {inputs})"
        return f"{place}: {numbers} ({tried})"
    crowd = f"; {most_read[0]} has {most_read[1]} readers: MXNet adds the gradients of {MANY} or more in place, and " \
            "several of its operators overwrite instead" if most_read[1] >= MANY // 2 else ""
    return f"every operator is right alone ({tried}): if products are wrong, it is by how they are put together{crowd}"
