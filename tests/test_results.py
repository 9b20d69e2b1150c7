from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from hessmx import results
from hessmx.errors import InputError
from hessmx.results import Eigenpairs, Estimate, LayerCurvature, Layers, Provenance, Spectrum, from_dict

PROVENANCE = Provenance("reverse-over-forward", "hessian", "predict", "mean", "float32", 3, 100, 5)
ESTIMATE = Estimate(2.0, 0.5, np.array([1.0, 2.0, 3.0]), 3, "hutchinson", provenance=PROVENANCE)
SPECTRUM = Spectrum(np.array([[0.0, 1.0], [0.0, 2.0]]), np.array([[0.5, 0.5], [0.25, 0.75]]), 10, 4, 2, 0)
PAIRS = Eigenpairs(np.array([2.0]), np.ones((3, 1)), np.zeros(1), np.array([True]), 9, "lanczos", "LA", ("a note",))
LAYERS = Layers((LayerCurvature("dense0", 4, 2.0, 3.0, 0.1, 0.6), LayerCurvature("dense1", 2, 1.0, 2.0, 0.1, 0.4)))


@pytest.mark.parametrize("result", [ESTIMATE, SPECTRUM, PAIRS, LAYERS, PROVENANCE])
def test_json_and_back(result) -> None:
    plain = result.to_dict() if result is not PROVENANCE else ESTIMATE.to_dict()["provenance"]
    again = from_dict(json.loads(json.dumps(plain)))
    assert type(again) is type(result)
    for f in dataclasses.fields(result):
        before, after = getattr(result, f.name), getattr(again, f.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before)
            assert after.dtype == before.dtype
        elif not (isinstance(before, float) and np.isnan(before)):
            assert after == before


def test_results_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ESTIMATE.value = 1.0  # type: ignore[misc]


def test_interval_is_students() -> None:
    low, high = ESTIMATE.interval(0.9)
    np.testing.assert_allclose([low, high], stats.t.interval(0.9, 2, loc=2.0, scale=0.5))
    assert Estimate(1.0, 0.1, np.array([1.0]), 1, "one sample").interval() == (-np.inf, np.inf)


@pytest.mark.parametrize("level", [0, 1, 95])
def test_bad_level(level: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        ESTIMATE.interval(level)


@pytest.mark.parametrize("data", [{}, {"type": "Nothing"}, [1], None])
def test_unknown_saved_results(data) -> None:
    with pytest.raises(InputError, match="expected a saved result"):
        from_dict(data)


def test_distribution_function_of_two_probes_by_hand() -> None:
    """Without bounds a node holds half of its weight on each side and the function is linear between nodes."""
    found = SPECTRUM.cdf(np.array([-1.0, 0.5, 0.75, 3.0]))
    np.testing.assert_allclose(found, [0, (0.5 + 0.25) / 2, (0.625 + 0.3125) / 2, 1], atol=1e-9)


def test_nodes_that_are_eigenvalues_are_jumps() -> None:
    exact = dataclasses.replace(SPECTRUM, bounds=np.zeros((2, 2)))
    found = exact.cdf(np.array([-1e-9, 0.0, 0.9, 1.0, 1.9, 2.0]))
    np.testing.assert_allclose(found, [0, 0.375, 0.375, 0.625, 0.625, 1])


def test_density_by_hand() -> None:
    grid = np.array([0.0, 1.0])
    normal = stats.norm(scale=0.3)
    first = 0.5 * normal.pdf(grid) + 0.5 * normal.pdf(grid - 1)
    second = 0.25 * normal.pdf(grid) + 0.75 * normal.pdf(grid - 2)
    np.testing.assert_allclose(SPECTRUM.density(grid, 0.3), (first + second) / 2)
    np.testing.assert_allclose(SPECTRUM.density_stderr(grid, 0.3), np.abs(first - second) / 2)


def test_every_result_has_provenance() -> None:
    kinds = [c for c in vars(results).values() if isinstance(c, type) and issubclass(c, results.Result)]
    for kind in kinds:
        if kind not in (results.Result, LayerCurvature):
            assert "provenance" in {f.name for f in dataclasses.fields(kind)}
