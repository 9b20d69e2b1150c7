"""Which operators a net and its loss contain, and which tangent rule each has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hessmx.errors import EngineError
from hessmx.graph.lower import LOWERINGS
from hessmx.results import Provenance, Result
from hessmx.rules import RULES, UNSUPPORTED, covered


@dataclass(frozen=True)
class OperatorRow(Result):
    """One operator: where it is applied, how often, and its kind of rule or the reason why it has none."""

    op: str
    where: str  # "net" or "loss"
    nodes: int
    exact: bool
    rule: str


@dataclass(frozen=True, eq=False)
class Operators(Result):
    """All operators of one net and loss."""

    rows: tuple[OperatorRow, ...]
    verdict: str
    provenance: Provenance = field(default_factory=Provenance)


def operators(curv: Any) -> Operators:
    """Operators as MXNet's graph names them, net first."""
    compiled = curv._compiled("the list of operators")
    net, loss = compiled.pieces(next(iter(curv._batches)))
    if loss is None:
        raise EngineError("the loss is not traced; its operators cannot be listed")
    exact = covered()
    rows = tuple(
        OperatorRow(op, where, len(nodes), op in exact, _rule(op))
        for where, graph in (("net", net.graph), ("loss", loss.graph))
        for op, nodes in sorted(graph.ops.items())
    )
    missing = sorted({row.op for row in rows if not row.exact})
    verdict = f"no rule for {', '.join(missing)}: products are finite differences" if missing else \
        "every operator has an exact tangent rule"
    return Operators(rows, verdict, curv.provenance())


def _rule(op: str) -> str:
    if op in LOWERINGS:
        return "replaced by operators with rules"
    return f"{RULES[op].kind} rule" if op in RULES else UNSUPPORTED.get(op, "no tangent rule yet")
