"""Results changed by hand: what no result of its kind holds is named, not believed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pkgutil
import re

import numpy as np
import pytest

import hessmx
from hessmx import files
from hessmx.errors import FileError
from hessmx.results import Eigenpairs, LayerCurvature, Layers, Provenance, Result, Spectrum, _subclasses
from hessmx.uses.factored import Factored

WHERE = Provenance("reverse-over-forward", "hessian", "predict", "mean", "float64", 3, 70, 51)
PAIRS = Eigenpairs(np.ones(2), np.eye(5, 2), np.zeros(2), np.array([True, False]), 9, "lanczos", "LA", ("one",), WHERE)
LARGE = Eigenpairs(np.ones(2), np.eye(900, 2), np.zeros(2), np.array([True, True]), 9, "lanczos", "LA")
SPECTRUM = Spectrum(np.ones((4, 3)), np.full((4, 3), 1 / 3), 51, 12, 3, seed=4, provenance=WHERE)
LAYERS = Layers((LayerCurvature("dense0", 12, 0.5, 1.5, 0.1, 1.0),), WHERE)
FACTORED = Factored("kfac", ("a",), np.ones((1, 2)), np.ones(1), np.ones(1), 0.0, 0.0, 0.0, 1, 0.1, 0.1, 3, 2)


def put(*path):
    """Put the last of `path` where the others lead."""
    *steps, key, value = path

    def change(data):
        for step in steps:
            data = data[step]
        data[key] = value

    return change


def drop(key):
    return lambda data: data.pop(key)


EDITS = [
    (PAIRS, put("values", "abc"), "Eigenpairs.values must be an array of numbers, not 'abc'"),
    (PAIRS, put("values", None), "Eigenpairs.values must be an array of numbers, not None"),
    (PAIRS, put("values", 3), "Eigenpairs.values must be an array of numbers, not 3"),
    (PAIRS, put("values", [1, "x"]), "Eigenpairs.values must be an array of numbers"),
    (PAIRS, put("values", [1, None]), "Eigenpairs.values must be an array of numbers"),
    (PAIRS, put("values", [[1], [1, 2]]), "Eigenpairs.values must be an array of numbers"),
    (PAIRS, put("values", [10**400, 1]), "Eigenpairs.values must be an array of numbers"),
    (PAIRS, put("values", {"a": 1}), "Eigenpairs.values must be an array of numbers"),
    (PAIRS, put("values", [1.0, 2.0, 3.0]), "which does not fit values: k = 3"),
    (PAIRS, put("vectors", [1.0, 2.0]), "Eigenpairs.vectors must have the axes (P, k), not shape (2,)"),
    (PAIRS, put("products", "many"), "Eigenpairs.products must be a whole number, not 'many'"),
    (PAIRS, put("products", 1.5), "Eigenpairs.products must be a whole number, not 1.5"),
    (PAIRS, put("products", True), "Eigenpairs.products must be a whole number, not True"),
    (PAIRS, put("method", 3), "Eigenpairs.method must be a text, not 3"),
    (PAIRS, put("notes", "one"), "Eigenpairs.notes must be a list, not 'one'"),
    (PAIRS, put("notes", [1]), "Eigenpairs.notes[0] must be a text, not 1"),
    (PAIRS, put("provenance", 3), "expected a saved result, got 3"),
    (PAIRS, put("provenance", {"type": "Layers", "rows": []}), "Eigenpairs.provenance must be of type Provenance"),
    (PAIRS, put("provenance", "seed", "x"), "Provenance.seed must be a whole number, not 'x'"),
    (PAIRS, put("type", ["Eigenpairs"]), "got type ['Eigenpairs']"),
    (PAIRS, put("type", "Eigenpair"), "got type 'Eigenpair'"),
    (PAIRS, put("valuse", []), "Eigenpairs has no field 'valuse'"),
    (PAIRS, drop("values"), "Eigenpairs lacks 'values'"),
    (PAIRS, drop("type"), "it has no 'type'"),
    (FACTORED, put("converged", [True]), "Factored.converged must hold 2 entries, not 1"),
    (FACTORED, put("converged", [True, 3]), "Factored.converged[1] must be true or false, not 3"),
    (SPECTRUM, put("nodes", [[1.0, 2.0, 3.0]]), "which does not fit nodes: probes = 1"),
    (SPECTRUM, put("bounds", [1.0]), "Spectrum.bounds must have the axes"),
    (LAYERS, put("rows", 0, 7), "expected a saved result, got 7"),
    (LAYERS, put("rows", 0, "trace", "much"), "LayerCurvature.trace must be a number, not 'much'"),
    (LARGE, put("arrays", 3), "'arrays' must name a file beside it"),
    (LARGE, put("arrays", {}), "'arrays' must name a file beside it"),
    (LARGE, put("arrays", "file", 3), "'arrays' must name a file beside it"),
    (LARGE, put("arrays", "file", "../r.npz"), "'arrays' must name a file beside it"),
    (LARGE, put("arrays", "file", "none.npz"), "needs none.npz beside it"),
    (LARGE, put("arrays", "names", ["values"]), "'arrays' names values, and r.npz holds vectors"),
    (LARGE, put("arrays", "sha256", 3), "is damaged or belongs to another result"),
    (LARGE, drop("arrays"), "Eigenpairs.vectors must be an array of numbers, not None"),
]


@pytest.mark.parametrize(("result", "edit", "said"), EDITS, ids=[row[2] for row in EDITS])
def test_edited_results_are_one_clear_line(tmp_path, result, edit, said):
    path = files.save(result, tmp_path / "r.json")
    data = json.loads(path.read_text())
    edit(data)
    path.write_text(json.dumps(data))
    with pytest.raises(FileError) as caught:
        files.load(path)
    assert said in str(caught.value)
    assert str(path.name) in str(caught.value) or "npz" in str(caught.value)
    assert "\n" not in str(caught.value)


PLAIN = r"int|float|str|bool|np\.ndarray"


def test_every_field_of_every_result_is_of_a_kind_that_is_checked():
    for module in pkgutil.walk_packages(hessmx.__path__, "hessmx."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    results = [Provenance, *_subclasses(Result)]
    one = rf"({PLAIN}|{'|'.join(kind.__name__ for kind in results)})"
    known = re.compile(rf"{one}( \| None)?|tuple\[{one}(, {one})*(, \.\.\.)?\]")
    for kind in results:
        for f in dataclasses.fields(kind):
            assert known.fullmatch(str(f.type)), f"{kind.__name__}.{f.name}: {f.type}"


def test_nested_without_end(tmp_path):
    (tmp_path / "r.json").write_text('{"type": ' + "[" * 100_000)
    with pytest.raises(FileError, match="nested too deeply"):
        files.load(tmp_path / "r.json")


def test_whole_numbers_serve_as_numbers(tmp_path):
    path = files.save(LAYERS, tmp_path / "r.json")
    path.write_text(path.read_text().replace("1.5", "2"))
    assert files.load(path).rows[0].trace == 2


def test_a_failed_write_of_one_file_leaves_both_old_ones(tmp_path, monkeypatch):
    path = files.save(LARGE, tmp_path / "r.json")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    monkeypatch.setattr("hessmx.files.json.dumps", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        files.save(Eigenpairs(**{**vars(LARGE), "vectors": np.zeros((900, 2))}), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
