"""The pages of docs/: their code runs as it stands, they are short, and the reference names all public names."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import hessmx
from hessmx import errors, figures
from hessmx.results import Result

DOCS = Path(__file__).parents[1] / "docs"
ELSEWHERE = {"adding-a-rule.md"}  # registers rules: tests/rules/test_adding_a_rule.py runs it and takes them back
GENERATED = {"operators.md"}
PAGES = sorted(page for page in DOCS.rglob("*.md") if page.name not in GENERATED)
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    """Code of a page, each block moved down to the lines where it stands, so that tracebacks name them."""
    text = page.read_text()
    return ["\n" * text.count("\n", 0, found.start(1)) + found[1] for found in BLOCK.finditer(text)]


RUN = [page for page in sorted(DOCS.glob("*.md")) if page.name not in ELSEWHERE and blocks(page)]


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_code_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scope: dict = {"__name__": "page"}
    for code in blocks(page):
        exec(compile(code, str(page), "exec"), scope)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_are_short(page):
    assert len(page.read_text().splitlines()) <= 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_is_in_the_index(page):
    index = (DOCS / "index.md").read_text()
    assert page.name == "index.md" or f"({page.relative_to(DOCS).as_posix()})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`((?:hessmx|tests|scripts|docs)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (DOCS.parent / name).exists()] == []


def public(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind) if not name.startswith("_")}


def results() -> set[str]:
    """Classes of results and their fields, the two that all have left out."""
    for _, name, _ in pkgutil.walk_packages(hessmx.__path__, "hessmx."):
        if not name.endswith("__main__"):
            importlib.import_module(name)
    kinds = _subclasses(Result)
    fields = {f.name for kind in kinds for f in dataclasses.fields(kind)}
    return {kind.__name__ for kind in kinds} | fields - {"provenance", "notes"}


def _subclasses(kind: type) -> set[type]:
    return {c for direct in kind.__subclasses__() for c in {direct, *_subclasses(direct)}
            if c.__module__.startswith("hessmx.")}


NAMES = {
    "results": results(),
    "hessmx": set(hessmx.__all__),
    "Curvature": public(hessmx.Curvature),
    "inputs": {name for name, f in vars(hessmx.inputs).items()
               if inspect.isfunction(f) and f.__module__ == "hessmx.inputs" and not name.startswith("_")},
    "blocks": set(hessmx.blocks.__all__),
    "figures": set(figures.__all__),
    "errors": {name for name, e in vars(errors).items() if inspect.isclass(e) and e.__module__ == "hessmx.errors"},
}


@pytest.mark.parametrize("group", NAMES)
def test_the_reference_names_everything_public(group):
    text = (DOCS / "reference.md").read_text()
    code = text if group == "results" else " ".join(re.findall(r"`[^`]+`", text))
    assert sorted(name for name in NAMES[group] if not re.search(rf"\b{name}\b", code)) == []
