"""A plan: the lowered graphs of one net and one loss for one batch shape, and the programs compiled from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, Iterable, Mapping

from hessmx.engines.program import Program
from hessmx.engines.tangents import missing_rules
from hessmx.errors import DataError
from hessmx.graph.lower import Draw, lower
from hessmx.graph.node import Graph, Node, Shape, infer_shapes
from hessmx.graph.symbols import scope
from hessmx.graph.trace import names
from hessmx.problem.labels import Slot, slots


@dataclass
class Plan:
    """What is known of a net and a loss once the shapes are."""

    net: Graph
    loss: Graph | None
    shapes: dict[str, Shape]
    draws: tuple[Draw, ...]
    output_shapes: tuple[Shape, ...]
    samples: int  # number of per-sample losses (of rows of the first output, without a loss)
    loss_shape: Shape = ()
    programs: dict[Any, Program] = field(default_factory=dict)
    linearised: dict[Any, Any] = field(default_factory=dict)

    @cached_property
    def classes(self) -> tuple[Slot, ...]:
        """Labels that are class numbers."""
        return () if self.loss is None else slots(self.loss, self.shapes, "hessmx_label")

    def missing_rules(self, moving: Iterable[str]) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Operators without a rule that tangents of the net's variables `moving` reach, in the net and in the loss."""
        missing = missing_rules(self.net, moving)
        if self.loss is not None:
            missing.update(missing_rules(self.loss, names("output", len(self.output_shapes))))
        return missing


def make_plan(net: Graph, loss: Graph | None, shapes: Mapping[str, Shape], train: bool, double: bool = False) -> Plan:
    """Lower both graphs and infer all shapes; `shapes` holds those of parameters, data, labels and constants."""
    with scope():
        net, net_draws = lower(net, shapes, train, double)
        known = {**shapes, **{draw.name: draw.shape for draw in net_draws}}
        entries = infer_shapes(net, known)
        outputs = tuple(entries[head] for head in net.heads)
        if loss is None:
            return Plan(net, None, known, net_draws, outputs, outputs[0][0] if outputs[0] else 1)
        known.update(zip(names("output", len(outputs)), outputs))
        loss, loss_draws = lower(loss, known, train, double)
        known.update({draw.name: draw.shape for draw in loss_draws})
        loss = _per_sample(loss, outputs)
        losses = infer_shapes(loss, known)[loss.heads[0]]
    samples = _samples(losses, loss, outputs)
    return Plan(net, loss, known, net_draws + loss_draws, outputs, samples, losses)


def _per_sample(loss: Graph, outputs: tuple[Shape, ...]) -> Graph:
    """Undo a mean or sum over everything at the very end of the loss (Gluon's PoissonNLLLoss, many lambdas).

    mean(l) over (N, ...) is the mean over samples of mean(l_i), so nothing changes but the shape: (N,).
    """
    index, _ = loss.heads[0]
    node = loss.nodes[index]
    rows = outputs[0][0] if outputs and outputs[0] else 1
    over_all = node.attrs.get("axis") in (None, ()) and not node.attrs.get("exclude")
    if rows == 1 or node.op not in ("mean", "sum") or not over_all:
        return loss
    batched = Node(node.op, node.name, node.inputs, MappingProxyType({"axis": "0", "exclude": "True"}))
    return Graph((*loss.nodes[:index], batched, *loss.nodes[index + 1 :]), loss.heads)


def _samples(losses: Shape, loss: Graph, outputs: tuple[Shape, ...]) -> int:
    rows = outputs[0][0] if outputs and outputs[0] else 1
    if len(loss.heads) != 1:
        raise DataError(f"the loss must return one array of per-sample losses, not {len(loss.heads)}: add them up")
    if rows > 1 and (not losses or losses == (1,)):
        raise averaged(rows)
    return losses[0] if losses else 1


def averaged(rows: int) -> DataError:
    """What to say of a loss that is one number for a batch of `rows` samples."""
    return DataError(
        f"the loss returned one value for {rows} samples, expected one value per sample, shape ({rows},): "
        "do not average over the batch inside the loss, hessmx does that (reduction='mean')"
    )
