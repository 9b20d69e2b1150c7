"""The rule table: operator name (as in Symbol JSON) -> Rule. One file per family of operators.

Where a new rule goes: `elementwise.py` if it is a formula, `linear.py` / `bilinear.py` if it is one word,
`custom.py` and its neighbours if it needs a function; then a row in tests/cases/ and `scripts/operators/table.py`.
"""

from __future__ import annotations

from hessmx.graph.rules import bilinear, custom, elementwise, linear, nondiff
from hessmx.graph.rules.kinds import Rule

_FAMILIES = (linear, bilinear, elementwise, custom)

RULES: dict[str, Rule] = {}
for _family in _FAMILIES:
    _twice = RULES.keys() & _family.RULES.keys()
    assert not _twice, f"two rules for {_twice}"
    RULES.update(_family.RULES)

UNSUPPORTED: dict[str, str] = dict(nondiff.REASONS)


def register(op: str, rule: Rule) -> None:
    """Add or replace the rule of an operator of one's own."""
    RULES[op] = rule
