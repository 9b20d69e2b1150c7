from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.diagonal import diagonal
from hessmx.errors import InputError
from tests.algorithms.support import counted, dense, rotated

P = 60
SPECTRA = {"decay": 0.9 ** np.arange(P), "indefinite": np.random.default_rng(1).standard_normal(P), "flat": np.ones(P)}


@pytest.mark.parametrize("name", ["decay", "indefinite"])
@pytest.mark.parametrize("method", ["hutchinson", "xdiag"])
def test_unbiased_with_honest_errors_in_every_entry(method: str, name: str) -> None:
    matrix = dense(SPECTRA[name])
    runs = [diagonal(matrix, method, 20, seed=s) for s in range(80)]
    errors = np.array([r.value - np.diag(matrix) for r in runs])
    variances = np.array([r.stderr**2 for r in runs]).mean(axis=0)
    assert 0.9 < np.sqrt((errors**2).mean() / variances.mean()) < 1.1
    z = errors.mean(axis=0) / np.sqrt(variances / len(runs))
    assert np.abs(z).max() < 4.5


def test_xdiag_beats_hutchinson_where_the_spectrum_decays() -> None:
    matrix = dense(0.8 ** np.arange(P))
    plain, better = (np.abs(diagonal(matrix, m, 40).value - np.diag(matrix)).max() for m in ("hutchinson", "xdiag"))
    assert better < plain / 10


@pytest.mark.parametrize("method", ["hutchinson", "xdiag"])
def test_exact_cases(method: str) -> None:
    np.testing.assert_allclose(diagonal(np.diag([1.0, -2, 3]), method, 6).value, [1, -2, 3])
    np.testing.assert_allclose(diagonal(np.array([[2.0]]), method, 4).value, [2])


def test_xdiag_is_exact_on_low_rank() -> None:
    matrix = dense(np.r_[3, 2, -1, np.zeros(57)])
    np.testing.assert_allclose(diagonal(matrix, "xdiag", 20).value, np.diag(matrix), atol=1e-12)


@pytest.mark.parametrize(("method", "budget"), [("hutchinson", 17), ("xdiag", 18)])
def test_budgets_and_seeds(method: str, budget: int) -> None:
    operator, columns = counted(rotated(SPECTRA["indefinite"]))
    first = diagonal(operator, method, budget, seed=1)
    assert first.products == sum(columns) == budget
    assert np.array_equal(first.value, diagonal(operator, method, budget, seed=1).value)
    assert not np.allclose(first.value, diagonal(operator, method, budget, seed=2).value)


BAD = [("xtrace", 10, "method must be"), ("xdiag", 11, "even"), ("hutchinson", 1, "at least 2")]


@pytest.mark.parametrize(("method", "budget", "message"), BAD)
def test_bad_input(method: str, budget: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        diagonal(np.eye(9), method, budget)
