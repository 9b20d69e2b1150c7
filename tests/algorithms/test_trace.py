from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.trace import METHODS, hutchinson, trace
from hessmx.errors import InputError
from hessmx.operators import Identity, Outer, SymmetricOperator
from tests.algorithms.support import counted, dense, rotated

RNG = np.random.default_rng(13)
P = 100
SPECTRA = {
    "flat": np.linspace(1, 2, P),
    "decay": 0.9 ** np.arange(P),
    "net": np.r_[np.geomspace(30, 1, 8), np.abs(RNG.standard_normal(P - 8)) * 0.2],
    "one": np.r_[5.0, np.zeros(P - 1)],
    "indefinite": RNG.standard_normal(P) + 0.3,
}


def coverage(matrix: np.ndarray, seeds: int, **options) -> tuple[float, float]:
    """Share of 95 % intervals that hold the truth, and root mean squared error over root mean squared stderr."""
    runs = [trace(matrix, seed=s, **options) for s in range(seeds)]
    true = np.trace(matrix)
    hits = [low <= true <= high for low, high in (r.interval() for r in runs)]
    ratio = np.mean([(r.value - true) ** 2 for r in runs]) / np.mean([r.stderr**2 for r in runs])
    return float(np.mean(hits)), float(np.sqrt(ratio))


@pytest.mark.parametrize("budget", [6, 40])
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("method", METHODS)
def test_intervals_hold_the_truth_and_standard_errors_are_true(method: str, name: str, budget: int) -> None:
    """60 seeds; the script scripts/estimators.py runs 400 on larger matrices (docs/estimators.md)."""
    if (method, name) == ("xnystrace", "indefinite"):
        with pytest.raises(InputError, match="needs a positive semidefinite matrix"):
            trace(dense(SPECTRA[name]), method, 40)  # of six test vectors, none may show it
        return
    rate, ratio = coverage(dense(SPECTRA[name]), 60, method=method, budget=budget)
    assert rate >= 0.88
    assert 0.6 < ratio < 1.5 or (name == "one" and method != "hutchinson")  # rank one is known, but for rounding


class Known(SymmetricOperator):
    """A matrix that says whether it is positive, and counts its columns."""

    def __init__(self, matrix: np.ndarray, positive: bool | None = None):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.known, self.columns = matrix, positive, 0

    @property
    def positive(self) -> bool | None:
        return self.known

    def _products(self, block: np.ndarray) -> np.ndarray:
        self.columns += block.shape[1]
        return self.matrix @ block

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self._products(vector[:, None])[:, 0]


@pytest.mark.parametrize(("known", "method"), [(True, "xnystrace"), (None, "xtrace"), (False, "xtrace")])
def test_what_is_known_chooses_the_method(known: bool | None, method: str) -> None:
    assert trace(Known(dense(SPECTRA["decay"]), known), budget=20).method == method
    assert trace(Known(dense(SPECTRA["decay"])), budget=21).method == "hutch++"


def test_parts_whose_trace_is_known_are_taken_apart() -> None:
    """2 A + 3 I - g g': only A is multiplied, and the rest adds no scatter."""
    matrix, g = Known(dense(SPECTRA["decay"]), True), np.random.default_rng(1).standard_normal(P)
    alone, whole = trace(matrix, budget=20), trace((2 * matrix).shift(3) - Outer(g), budget=20)
    np.testing.assert_allclose(whole.value, 2 * alone.value + 3 * P - g @ g)
    np.testing.assert_allclose(whole.stderr, 2 * alone.stderr)
    assert (whole.method, whole.products, matrix.columns) == ("xnystrace", 20, 40)
    free = trace(Outer(g) + Identity(float, P))
    assert (free.products, free.stderr, free.interval()[0]) == (0, 0, free.value)
    np.testing.assert_allclose(free.value, g @ g + P)


@pytest.mark.parametrize(("method", "held"), [("hutch++", 10), ("xtrace", 10), ("xnystrace", 10), ("auto", 0)])
def test_what_does_not_fit_into_memory_is_said(method: str, held: int) -> None:
    result = trace(dense(SPECTRA["net"]), method, 40, memory=held * 8 * P)
    assert (result.method, result.products) == ("hutch++", 40)
    assert f"memory of {held * 8 * P} bytes holds" in result.notes[0]
    low, high = result.interval(0.999)
    assert low <= SPECTRA["net"].sum() <= high


def test_blocks_of_vectors_reach_the_operator_together() -> None:
    for method in METHODS:
        operator, columns = counted(dense(SPECTRA["decay"]))
        trace(operator, method, 40)
        assert len(columns) <= 32 and sum(columns) == 40, method


@pytest.mark.parametrize("budget", [4, 10, 40, 100])
@pytest.mark.parametrize("method", METHODS)
def test_budgets_are_kept_exactly(method: str, budget: int) -> None:
    operator, columns = counted(rotated(SPECTRA["net"]))
    assert trace(operator, method, budget).products == sum(columns) == budget


@pytest.mark.parametrize("budget", [5, 11, 41, 101])
@pytest.mark.parametrize("method", ["hutchinson", "hutch++"])
def test_odd_budgets_are_kept_exactly(method: str, budget: int) -> None:
    assert trace(rotated(SPECTRA["net"]), method, budget).products == budget


@pytest.mark.parametrize("method", METHODS)
def test_a_requested_relative_error_is_met(method: str) -> None:
    matrix = dense(SPECTRA["decay"])
    runs = [trace(matrix, method, rtol=0.05, seed=s) for s in range(40)]
    errors = np.array([abs(r.value / np.trace(matrix) - 1) for r in runs])
    assert all(r.half_width() <= 0.05 * abs(r.value) for r in runs)
    assert np.mean(errors <= 0.05) >= 0.88
    assert not runs[0].notes


def test_an_unreachable_error_stops_at_the_budget_and_says_so() -> None:
    operator, columns = counted(rotated(SPECTRA["indefinite"]))
    result = trace(operator, "hutchinson", budget=50, rtol=1e-6)
    assert result.products == sum(columns) == 50
    assert "did not reach" in result.notes[0]


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_low_rank_is_exact(method: str) -> None:
    spectrum = np.r_[5.0, 3, -1, np.zeros(P - 3)]
    result = trace(dense(spectrum), method, 40)
    np.testing.assert_allclose(result.value, 7, rtol=1e-12)
    assert result.stderr < 1e-12


def test_sketches_beat_hutchinson_where_the_spectrum_decays() -> None:
    matrix = dense(0.7 ** np.arange(P))
    plain, better, best = (trace(matrix, m, 60).stderr for m in ("hutchinson", "hutch++", "xtrace"))
    assert plain > 50 * better > 50 * best


@pytest.mark.parametrize("method", METHODS)
def test_tiny_matrices(method: str) -> None:
    for matrix in (np.array([[2.0]]), np.diag([1.0, 2, 3]), np.zeros((3, 3))):
        np.testing.assert_allclose(trace(matrix, method, 12).value, np.trace(matrix), atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_seeds(method: str) -> None:
    matrix = dense(SPECTRA["net"])
    assert np.array_equal(trace(matrix, method, 20, seed=1).samples, trace(matrix, method, 20, seed=1).samples)
    assert not np.isclose(trace(matrix, method, 20, seed=1).value, trace(matrix, method, 20, seed=2).value, rtol=1e-12)


def test_float32_error_bars_do_not_claim_more_than_float32() -> None:
    result = trace(np.eye(50, dtype=np.float32), "hutchinson", 10)
    assert result.stderr >= 50 * np.finfo(np.float32).eps


BAD = [
    ({"method": "hutch"}, "did you mean 'hutch"),
    ({"budget": 1, "method": "hutchinson"}, "budget must be a whole number of at least 2"),
    ({"budget": 11, "method": "xtrace"}, "budget must be even for 'xtrace'"),
    ({"rtol": 0}, "rtol must be"),
    ({"method": "xnystrace", "budget": 2}, "budget must be a whole number of at least 3"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        trace(np.eye(200), **options)


def test_nan_names_the_product() -> None:
    with pytest.raises(InputError, match="product 1 contains NaN"):
        hutchinson(np.full((4, 4), np.nan), 10)
