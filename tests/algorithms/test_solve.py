from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.solve import solve
from hessmx.errors import InputError
from tests.algorithms.support import counted, dense, rotated

P = 80
B = np.random.default_rng(4).standard_normal(P)
CASES = [
    ("cg", np.linspace(0.1, 5, P), 0.0),
    ("cg", np.r_[np.ones(5), np.zeros(P - 5)], 0.5),
    ("cg", np.linspace(0, 1e4, P), 1.0),
    ("minres", np.linspace(-3, 5, P), 0.01),
    ("minres", np.linspace(0.1, 5, P), 0.0),
    ("minres", np.linspace(-1e-6, 2e-6, P), 1e-8),
]


@pytest.mark.parametrize(("method", "spectrum", "damping"), CASES)
def test_against_dense_solve(method: str, spectrum: np.ndarray, damping: float) -> None:
    matrix = dense(spectrum)
    found = solve(matrix, B, damping, method, rtol=1e-9, max_products=5000)
    damped = matrix + damping * np.eye(P)
    np.testing.assert_allclose(found.x, np.linalg.solve(damped, B), rtol=1e-5, atol=1e-6 * np.abs(found.x).max())
    np.testing.assert_allclose(found.residual, np.linalg.norm(B - damped @ found.x) / np.linalg.norm(B), atol=1e-12)
    assert found.converged
    assert not found.notes


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_budgets_are_kept_and_failure_is_said(method: str) -> None:
    operator, columns = counted(rotated(np.linspace(0.001, 5, P)))
    found = solve(operator, B, method=method, rtol=1e-10, max_products=12)
    assert found.products == sum(columns) <= 12
    assert not found.converged
    assert "more products" in found.notes[0]
    assert found.residual < 1


def test_cg_on_an_indefinite_matrix_points_to_minres() -> None:
    found = solve(dense(np.r_[np.ones(5), -np.ones(5) * 0.3, np.zeros(P - 10)]), B)
    assert not found.converged
    assert "minres" in found.notes[0]
    assert found.residual <= 1


def test_zero_right_side_costs_nothing() -> None:
    found = solve(np.eye(3), np.zeros(3))
    assert (found.converged, found.products, found.x.tolist()) == (True, 0, [0, 0, 0])


BAD = [
    ({"b": np.ones(2)}, "b must be a vector of shape"),
    ({"b": np.array([1, np.nan, 0])}, "b must be finite"),
    ({"damping": -1}, "damping must be"),
    ({"method": "minre"}, "did you mean 'minres'"),
    ({"rtol": 0}, "rtol must be"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(np.eye(3), **{"b": np.ones(3), **options})
