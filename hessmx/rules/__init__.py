"""The rule table: operator name (as in Symbol JSON) -> Rule. One file per family, each with a table `RULES`.

Where a new rule goes: `elementwise.py` if it is a formula, `linear.py` / `bilinear.py` if it is one word,
`custom.py` and its neighbours if it needs a function; `composite.py` if the operator is better replaced by others.
Then a row in tests/cases/ and in docs/operators.md.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from hessmx.errors import InputError
from hessmx.graph.lower import LOWERINGS
from hessmx.rules.kinds import Rule

FAMILIES = {name: import_module(f"{__name__}.{name}") for _, name, _ in iter_modules(__path__)}

RULES: dict[str, Rule] = {}
UNSUPPORTED: dict[str, str] = {}  # operators without a rule on purpose, each with its reason
for _family in FAMILIES.values():
    RULES.update(getattr(_family, "RULES", {}))
    UNSUPPORTED.update(getattr(_family, "REASONS", {}))


def register(op: str, rule: Rule) -> None:
    """Add or replace the rule of an operator; nets compiled before keep the old one. See docs/adding-a-rule.md.

    An operator that was replaced by others until now is left in place for the rule.
    """
    if not isinstance(rule, Rule):
        raise InputError(f"expected a Rule for {op}, got {type(rule).__name__}; make one with hessmx.rules.kinds")
    RULES[op] = rule
    LOWERINGS.pop(op, None)


def covered() -> set[str]:
    """Operators that the exact engine can take: those with a rule, and those replaced by operators with rules."""
    return set(RULES) | set(LOWERINGS)
