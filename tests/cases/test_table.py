"""The case table, the survey, the rule table and docs/operators.md speak of the same operators."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np

from hessmx.rules import UNSUPPORTED, covered
from scripts.operators import table
from tests.cases import CASES, OPERATORS
from tests.cases.case import FIRST

SURVEY = json.loads(table.SURVEY.read_text())
FINE = {"right", "right to float32", "zero", "kink", "random", None}  # None: integer outputs
DECLARED = {"fake": "wrong", "scaled": "wrong", "straight": "wrong"}  # what differences say of these


def test_row_names_are_unique():
    twice = [name for name, count in Counter(case.name for case in CASES).items() if count > 1]
    assert not twice


def test_draws_repeat_and_are_finite():
    for case in CASES:
        first, second = case.draw(), case.draw()
        assert all(np.array_equal(a, b) and np.isfinite(a).all() for a, b in zip(first, second)), case.name


def test_survey_has_every_row_and_no_other():
    assert set(SURVEY["rows"]) == {case.name for case in CASES}


def test_operators_are_canonical_registry_names():
    assert set(OPERATORS) <= set(SURVEY["registry"])
    assert covered() | set(UNSUPPORTED) <= set(SURVEY["registry"])


def test_every_rule_has_a_case():
    constants = {name for name, entry in SURVEY["registry"].items() if entry["gradient"] == "no inputs"}
    constants.add("_linspace")  # the probe cannot guess its attributes
    assert not covered() - set(OPERATORS) - constants


def test_no_operator_has_both_a_rule_and_a_reason():
    assert not covered() & set(UNSUPPORTED)


def _agrees(case, record) -> bool:
    measured = record.get("first", "raises" if record["forward"] in ("raises", "crashes") else None)
    if case.op == "SequenceLast" and case.first == "wrong":
        return measured in ("wrong", "crashes")  # it writes out of bounds: wrong one day, a dead process another
    return measured in FINE if case.first == "" else measured == DECLARED.get(case.first, case.first)


def test_declared_gradients_are_the_measured_ones():
    assert {case.first for case in CASES} - {""} <= set(FIRST)
    assert not [case.name for case in CASES if not _agrees(case, SURVEY["rows"][case.name])]


def test_page_is_up_to_date():
    assert Path(table.PAGE).read_text() == table.render(table.read())


def test_nine_in_ten_differentiable_operators_have_a_rule():
    able = [row for row in table.read() if row.differentiable]
    assert sum(row.covered for row in able) >= 0.9 * len(able)
