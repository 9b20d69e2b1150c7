"""Writes docs/operators.md from survey.json (what MXNet does) and the rule table (what hessmx does).

python scripts/operators/table.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hessmx.graph.lower import LOWERINGS  # noqa: E402
from hessmx.rules import RULES, UNSUPPORTED, covered  # noqa: E402
from tests.cases import CASES  # noqa: E402

SURVEY = Path(__file__).with_name("survey.json")
PAGE = ROOT / "docs" / "operators.md"

# Worst first: an operator is called what its worst row is called.
FIRST = (
    "crashes",
    "wrong",
    "dropped",
    "fake",
    "scaled",
    "straight",
    "raises",
    "right",
    "right to float32",
    "zero",
    "runs",
)
SECOND = ("crashes", "wrong", "dropped", "raises", "right", "right to float32", "zero", "runs")
RUNS = frozenset(FIRST) - {"crashes", "raises"}

NO_RULE = "finite differences"


@dataclass(frozen=True)
class Row:
    """One operator of the registry."""

    name: str
    aliases: tuple
    registered: str  # is a gradient registered: yes, no, no inputs, unknown: why
    first: tuple  # verdicts on MXNet's gradient, one for each case
    second: tuple  # verdicts on MXNet's double backward, one for each case that got so far
    refused: str  # why no case ran, if none did

    @property
    def differentiable(self) -> bool:
        """Whether MXNet differentiates it once on the CPU, measured on a case."""
        return any(v in RUNS for v in self.first)

    @property
    def covered(self) -> bool:
        return self.name in covered()

    @property
    def kind(self) -> str:
        """The kind of rule of a covered operator."""
        return RULES[self.name].kind if self.name in RULES else "lowered"

    @property
    def rule(self) -> str:
        if self.covered:
            also = self.name in RULES and self.name in LOWERINGS
            return self.kind + (" (some cases lowered)" if also else "")
        return f"{NO_RULE}: {UNSUPPORTED[self.name]}" if self.name in UNSUPPORTED else NO_RULE


def _first(record: Mapping, declared: str) -> str | None:
    """Layers whose gradient differs by design are called by the design, not "wrong"."""
    verdict = {"kink": "runs", "random": "runs"}.get(record.get("first"), record.get("first"))
    return declared if verdict == "wrong" and declared in ("fake", "scaled", "straight") else verdict


def _second(record: Mapping) -> str | None:
    """A process that is of no use afterwards counts as dead; zero of a dropped gradient is dropped, too."""
    if record.get("after") == "crashes":
        return "crashes"
    verdict = record.get("second")
    return "dropped" if verdict == "zero" and record["first"] == "dropped" else verdict


def read() -> list[Row]:
    """The registry in alphabetical order."""
    survey = json.loads(SURVEY.read_text())
    by_operator: dict[str, list] = {}
    for case in CASES:
        by_operator.setdefault(case.op, []).append((case, survey["rows"].get(case.name, {})))
    rows = []
    for name, entry in survey["registry"].items():
        records = by_operator.get(name, [])
        refused = [r["why"] for _, r in records if r.get("forward") in ("raises", "crashes")]
        integer = any(r.get("forward") == "no floating output" for _, r in records)
        rows.append(
            Row(
                name,
                tuple(entry["aliases"]),
                entry["gradient"],
                tuple(v for v in (_first(r, case.first) for case, r in records) if v),
                tuple(v for v in (_second(r) for _, r in records) if v),
                refused[0] if len(refused) == len(records) and refused else "integer output" if integer else "",
            )
        )
    return rows


def _verdict(found: Iterable[str], order: tuple) -> str:
    """The worst verdict, with its share of the cases where they differ."""
    count = Counter(v for v in found if v in order)
    if not count:
        return ""
    if len(count) > 1:
        del count["runs"]  # kinks and random draws: nothing to compare with
    worst = min(count, key=order.index)
    same = {"right", "right to float32", "zero"}
    uniform = len(count) == 1 or set(count) <= same
    text = "right" if worst in same and worst != "zero" and uniform else worst
    return text if uniform else f"{text} ({count[worst]} of {sum(count.values())} cases)"


def _mxnet(row: Row) -> tuple[str, str]:
    if row.refused:
        return row.refused, ""
    if not row.first:
        return "not tried", ""
    return _verdict(row.first, FIRST), _verdict(row.second, SECOND) or "not reached"


def _line(row: Row) -> str:
    aliases = ", ".join(f"`{a}`" for a in row.aliases)
    first, second = _mxnet(row)
    bold = f"**{second}**" if second.startswith(("wrong", "crashes")) else second
    return f"| `{row.name}` | {aliases} | {row.rule} | {first} | {bold} |"


def _names(rows: Iterable[Row]) -> str:
    return ", ".join(f"`{row.name}`" for row in rows) or "none"


def _worst(row: Row) -> str:
    return _verdict(row.second, SECOND).split(" (")[0]


def render(rows: list[Row]) -> str:
    able = [row for row in rows if row.differentiable]
    ruled = [row for row in able if row.covered]
    second = Counter(_worst(row) for row in able if row.second)
    untried = [row for row in rows if row.registered == "yes" and not row.first]
    kinds = Counter(row.kind for row in ruled)
    listed = [row for row in rows if row.registered == "yes" or row.covered or row.first or row.refused]
    bug = [row for row in able if _verdict(row.first, FIRST).startswith(("wrong", "crashes"))]
    dropped = [row for row in able if _verdict(row.first, FIRST).startswith("dropped")]
    return TEMPLATE.format(
        total=len(rows),
        aliases=sum(len(row.aliases) for row in rows),
        able=len(able),
        ruled=len(ruled),
        percent=100 * len(ruled) / len(able),
        untried=len(untried),
        untried_ruled=sum(row.covered for row in untried),
        untried_names=_names(untried),
        kinds=", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())),
        cases=len(CASES),
        tried=sum(second.values()),
        right=second["right"],
        runs=second["runs"],
        zero=second["zero"],
        wrong=second["wrong"],
        lost=second["dropped"],
        raises=second["raises"],
        crashes=second["crashes"],
        right_names=_names(row for row in able if _worst(row) == "right"),
        wrong_names=_names(row for row in able if _worst(row) == "wrong"),
        crash_names=_names(row for row in rows if _worst(row) == "crashes"),
        bug_names=_names(bug),
        dropped_names=_names(dropped),
        without=_names(row for row in able if not row.covered),
        table="\n".join(_line(row) for row in listed),
        rest=_names(row for row in rows if row not in listed),
    )


TEMPLATE = """# Operators

Generated by `scripts/operators/table.py` from the rule table and from `scripts/operators/survey.json`, which
`scripts/operators/survey.py` measured on MXNet 1.9.1 (CPU). Do not edit by hand.

- Registry: {total} operators under their own names, {aliases} aliases; backward operators are not counted.
- MXNet differentiates **{able}** of them once, zero gradients included. hessmx has a tangent rule for **{ruled}**
  ({percent:.1f} %): {kinds}.
- {untried} more register a gradient that was not tried: no floating result (integers, int8), GPU only, or no case
  (random pictures, box matching). {untried_ruled} of them have a rule: {untried_names}.
- For every other one the engine `auto` takes finite differences and says the operator's name.
- {cases} cases (`tests/cases/`), float64 where MXNet's kernel takes it, each against central differences of order six.

## What MXNet's own double backward does

`autograd.grad(create_graph=True)` and a second `backward`, with a sigmoid after the operator so that its head gradient
varies; head gradients are given, since summing would raise by itself. Of {tried} operators whose first gradient runs:

| verdict | operators |
|---|---|
| right | {right} |
| right, because both derivatives are zero | {zero} |
| runs, nothing to compare with (random draws, straight-through) | {runs} |
| **silently wrong** | {wrong} |
| silently zero, as the first gradient is | {lost} |
| raises | {raises} |
| kills or spoils the process | {crashes} |

Right: {right_names}.

Silently wrong: {wrong_names}.

Kills the process, or leaves it unable to run what ran before: {crash_names}.

## Where MXNet's first gradient is not the derivative

A bug in MXNet 1.9.1, in at least one case: {bug_names}.

Zero although the output depends on the input: {dropped_names}.

Loss layers ("fake") return one function and send back the gradient of another, by design.

## Differentiable without a rule

{without}.

## Every operator

*Rule*: how hessmx pushes tangents through it; lowered: replaced by operators with rules first.
*Gradient*, *double backward*: MXNet's own, the worst case counts.
right: equal to differences; zero: zero, and the derivative is zero; dropped: zero, and the derivative is not;
fake, scaled, straight: another gradient by design; raises: MXNet refuses.

| operator | aliases | rule | MXNet's gradient | MXNet's double backward |
|---|---|---|---|---|
{table}

Not differentiable in MXNet, or without array inputs, and without a case: {rest}.
"""


def main() -> None:
    text = render(read())
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == text else "docs/operators.md is out of date: run scripts/operators/table.py")
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
