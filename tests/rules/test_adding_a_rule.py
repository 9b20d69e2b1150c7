"""docs/adding-a-rule.md: its code runs as it stands and shows what it says; `register` adds and replaces."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from hessmx.errors import InputError
from hessmx.graph.lower import LOWERINGS
from hessmx.rules import RULES, kinds, register
from hessmx.rules.kinds import elementwise
from hessmx.trust.testing import check_rule

PAGE = Path(__file__).parents[2] / "docs" / "adding-a-rule.md"


@pytest.fixture(autouse=True)
def _rules_as_they_were():
    with mock.patch.dict(RULES), mock.patch.dict(LOWERINGS):
        yield


def test_the_page_runs(capsys):
    scope: dict = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
        exec(compile(block, str(PAGE), "exec"), scope)
    checked, product, refused = capsys.readouterr().out.strip().splitlines()
    assert checked.startswith("RuleCheck(op='Custom'")
    assert product.startswith("reverse-over-forward")
    assert scope["exact"].engine == "reverse-over-forward" and scope["differences"].engine == "finite-difference"
    assert np.abs(scope["exact"].hvp(scope["v"]) - scope["differences"].hvp(scope["v"])).max() < 1e-6
    assert "exp is wrong" in refused


def test_the_page_names_every_kind_of_rule():
    named = set(re.findall(r"^\| `(\w+)\(", PAGE.read_text(), flags=re.M))
    assert named == {"zero", "same", "linear", "bilinear", "elementwise", "custom"}
    assert all(callable(getattr(kinds, name)) for name in named)


def test_register_replaces_and_refuses_what_is_no_rule():
    register("square", elementwise(lambda s: s.x + s.x))
    assert check_rule("square", [np.arange(1.0, 4.0)]).product < 1e-9
    register("tanh", elementwise(lambda s: 1 - s.y * s.y))  # replaced by another operator until now
    assert "tanh" not in LOWERINGS and check_rule("tanh", [np.arange(1.0, 4.0)]).product < 1e-9
    with pytest.raises(InputError, match=r"expected a Rule for square, got function"):
        register("square", lambda s: [s.t])
