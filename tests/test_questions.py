"""The pages in docs/questions: scripts run, tables are what the scripts wrote, snippets can be pasted."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import hessmx  # noqa: F401  (so that no snippet is charged with its import)

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "questions").glob("*.md"))
SCRIPTS = sorted(path for path in (ROOT / "scripts" / "questions").glob("*.py") if path.stem != "common")
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
SNIPPETS = [pytest.param(code, id=f"{page.stem}-{i}") for page in PAGES
            for i, code in enumerate(SNIPPET.findall(page.read_text()))]
PICTURE = re.compile(r"!\[[^\]]+\]\((\.\./images/questions/[\w.-]+\.png)\)")
def maxout_claims(numbers):
    """One curve in NumPy and Gluon; H - G is zero within the layers of piecewise linear nets, and only there."""
    assert numbers["training"]["largest difference"]["float64"] < 1e-13
    for name, found in numbers["curvature"].items():
        residual = np.array(found["residual"])
        assert (np.diag(residual) == 0).all() == (not name.startswith("tanh"))
        assert (residual[~np.eye(3, dtype=bool)] > 0).all()


def quadratic_form_claims(numbers):
    """As many zero eigenvalues as rotations; A is found, and is half the second derivative of f at 0."""
    for found in numbers["freedoms"].values():
        assert found["zeros"] == found["rotations"]
        assert found["error of A"] < 1e-9
    left = numbers["directions left"]
    assert (left["values"], left["values and gradients"]) == ([15, 14, 13, 12, 10, 6], [12, 9, 7, 6, 6, 6])
    assert numbers["origin"]["0"] < 1e-12 < numbers["origin"]["0.01"]


def bias_claims(numbers):
    """Folded nets are equal, Gluon decays biases, and without them in the penalty equal shifts of them stay flat."""
    assert all(found[row] < 1e-12 for found in numbers["folding"].values() for row in found if row != "parameters")
    assert [gap < 1e-12 for gaps in numbers["trainer"].values() for gap in gaps] == [False, True, True, True]
    shifts = {name: found["shift"] for name, found in numbers["one point"].items()}
    assert shifts == pytest.approx({"none": 0, "W": 0, "W and b": 2.0**-10}, abs=1e-12)


def quantisation_claims(numbers):
    """The prediction ranks all roundings, and is right where they are small; what is kept is what is excluded."""
    ranks = numbers["ranks"]
    assert ranks["all"]["predicted"] > 0.8
    assert ranks["12"]["error"] < 0.2 and ranks["10"]["predicted"] > 0.9
    assert all(plan["mean"] <= plan["budget"] + 1e-9 for plan in numbers["plans"].values())
    assert all(len(run["kept"]) == len(run["exclude"]) for run in numbers["int8"].values())


def pruning_claims(numbers):
    """Units of little weight are ranked as they are; the greedy sum is the cost of all that is gone."""
    assert numbers["alone"]["all"]["exact"] > 0.9
    greedy = numbers["units"]["greedy"]
    assert np.array(greedy["separate"], float) == pytest.approx(np.array(greedy["joint"]), rel=0.02, abs=1e-5)


def two_nets_claims(numbers):
    """Linear regressions merge exactly; a bent path is longer than the straight one."""
    assert numbers["regression"] < 1e-9
    lengths = {name: path["length"] for name, path in numbers["paths"].items()}
    assert lengths["straight"] <= min(lengths["bezier"], lengths["chain"])


def forgetting_claims(numbers):
    """With a head for each task the strongest penalty forgets least."""
    rise = {name: run["loss after"] - run["loss before"] for name, run in numbers["tasks"].items()}
    assert rise["two ggn 1000"] < rise["two ggn 0"] and rise["one ggn 1000"] < rise["one ggn 0"]


def influence_claims(numbers):
    """Scores are what leaving out and training again does."""
    assert numbers["regression"]["correlation"][0] > 0.99 and numbers["net"]["correlation"][0] > 0.99
    assert numbers["net"]["gradient"] < 1e-6


def gradient_noise_claims(numbers):
    """Predicted steps at a tenth of the best rate are the measured ones; probes find what the loop finds."""
    for row in numbers["steps"]:
        if row["share"] < 1:
            assert abs(row["predicted"] - row["measured"]) < 4 * row["error"] + 0.03 * abs(row["predicted"])
    for row in numbers["estimates"]:
        assert abs(row["critical"] - numbers["critical"]) <= 4 * row["critical error"] + 1e-9


def gradient_penalty_claims(numbers):
    """Against PyTorch to the digits stored; trained to the end, the critic's slope is near 1 with the penalty only."""
    assert numbers["largest difference from PyTorch"] < 1e-11
    games = numbers["games"]
    if games["gradient penalty"]["good"] > 0.1:  # not in short form
        assert games["gradient penalty"]["modes"] == 8 and games["gradient penalty"]["good"] > 0.6
        assert 0.5 < games["gradient penalty"]["slope"] < 1.2 and games["neither"]["slope"] > 10


def heat_equation_claims(numbers):
    """Solved to 1e-2, and the coefficient found to 5 %."""
    assert numbers["error"] < numbers["start"]
    if numbers["error"] < 0.1:  # not in short form
        assert numbers["error"] < 1e-2 and numbers["coefficient"] == pytest.approx(0.1, rel=0.05)


def stability_claims(numbers):
    """Both optimisers come to their own threshold and hover there; beyond it the loss rises."""
    for found in numbers["runs"]:
        factor = {"sgd": 2, "adam": 38}[found["optimizer"]]
        assert found["threshold"] == pytest.approx(factor / found["rate"])
    if numbers["runs"][-1]["loss"] < 0.1:  # not in short form
        assert all(0.9 < found["late"] < 1.1 for found in numbers["runs"])
        assert numbers["rises"]["0.95"] <= 1.01 and numbers["rises"]["1.2"] > 1.05


CLAIMS = {"maxout": maxout_claims, "quadratic_form": quadratic_form_claims, "bias": bias_claims,
          "influence": influence_claims, "gradient_noise": gradient_noise_claims,
          "quantisation": quantisation_claims, "pruning": pruning_claims, "two_nets": two_nets_claims,
          "forgetting": forgetting_claims,
          "gradient_penalty": gradient_penalty_claims, "heat_equation": heat_equation_claims,
          "stability": stability_claims}
LARGEST = 120_000  # bytes of a picture
SECONDS = 20


@pytest.fixture
def load(monkeypatch):
    """A script as a module; its `import common` finds the one beside it."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "questions"))
    monkeypatch.delitem(sys.modules, "common", raising=False)

    def load(path):
        spec = importlib.util.spec_from_file_location(f"questions_{path.stem}", path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


def published(page):
    return json.loads(page.with_suffix(".json").read_text())


def heads(results):
    """Heads of the tables; numbers in them, such as steps, may differ in short form."""
    return {title: [re.sub(r"\d+", "N", cell) for cell in rows["head"]] for title, rows in results["tables"].items()}


def test_every_page_has_a_script_and_every_script_a_page():
    assert [path.stem.replace("_", "-") for path in SCRIPTS] == [page.stem for page in PAGES if page.stem != "index"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_in_short_form_writes_the_tables_and_pictures_of_its_page(script, load, tmp_path):
    load(script).main(True, tmp_path)
    name = script.stem.replace("_", "-")
    page = ROOT / "docs" / "questions" / f"{name}.md"
    found, committed = json.loads((tmp_path / "questions" / f"{name}.json").read_text()), published(page)
    assert found["short"] and not committed["short"]
    assert set(found["numbers"]) == set(committed["numbers"])
    assert heads(found) == heads(committed)
    for numbers in (found["numbers"], committed["numbers"]):
        CLAIMS.get(script.stem, lambda numbers: None)(numbers)
    drawn = {path.name for path in (tmp_path / "images" / "questions").iterdir()}
    assert drawn == {Path(link).name for link in PICTURE.findall(page.read_text())}
    assert all(len(path.read_bytes()) < LARGEST for path in (tmp_path / "images" / "questions").iterdir())


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_a_page_shows_the_committed_tables_and_pictures(page, load):
    common = load(ROOT / "scripts" / "questions" / "common.py")
    text, tables = page.read_text(), published(page)["tables"]
    shown = {match["title"]: match["body"] for match in common.TABLE.finditer(text)}
    assert shown == {title: common.markdown(rows) for title, rows in tables.items()}
    assert text.count("<!-- table:") == text.count("<!-- end -->") == len(shown)
    pictures = [(page.parent / link).resolve() for link in PICTURE.findall(text)]
    assert pictures and all(path.stat().st_size < LARGEST for path in pictures)


@pytest.mark.parametrize("code", SNIPPETS)
def test_a_snippet_can_be_pasted(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    start = time.process_time()
    exec(compile(code, "snippet", "exec"), {"__name__": "__main__"})
    assert time.process_time() - start < SECONDS


MARKED = "a\n<!-- table: t -->\n{}<!-- end -->\nb"


@pytest.mark.parametrize("text, expected", [
    (MARKED.format("old\n"), MARKED.format("| h | k |\n| --- | ---: |\n| 1 | 2 |\n")),
    ("no table", "no table"),
])
def test_tables_are_put_between_their_markers(text, expected, load):
    common = load(ROOT / "scripts" / "questions" / "common.py")
    assert common.with_tables(text, {"t": common.table(["h", "k"], [[1, 2]])}) == expected
