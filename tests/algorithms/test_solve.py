from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.solve import solve
from hessmx.errors import InputError
from hessmx.operators import SymmetricOperator
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
    matrix = dense(np.r_[np.ones(5), -np.ones(5) * 0.3, np.zeros(P - 10)])
    found = solve(matrix, B, method="cg")
    assert not found.converged
    assert "eigenvalue of about -0.3: use a damping above 0.33, or method='minres'" in found.notes[0]
    assert found.residual <= 1
    assert solve(matrix, B, 0.34, "cg").converged  # the advice helps


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_many_right_sides_share_products(method: str) -> None:
    """A block is solved as accurately as its columns alone; CG's shared space takes fewer passes."""
    matrix = dense(np.geomspace(1e-3, 1, P))
    block = np.random.default_rng(5).standard_normal((P, 6))
    block[:, 3] = 2 * block[:, 0] - block[:, 1]  # dependent
    block[:, 4] = 0
    operator, columns = counted(matrix)
    found = solve(operator, block, 1e-3, method, rtol=1e-9)
    assert found.converged and found.products == sum(columns)
    np.testing.assert_allclose(found.x, np.linalg.solve(matrix + 1e-3 * np.eye(P), block), atol=1e-6)
    if method == "cg":
        assert len(columns) < 0.7 * max(solve(matrix, b, 1e-3, "cg", rtol=1e-9).products for b in block.T[[0, 1, 2]])


class Positive(SymmetricOperator):
    """A matrix that says whether it is positive."""

    def __init__(self, matrix: np.ndarray, positive: bool | None):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.known = matrix, positive

    @property
    def positive(self) -> bool | None:
        return self.known

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self.matrix @ vector


@pytest.mark.parametrize(("known", "method"), [(True, "cg"), (None, "minres"), (False, "minres")])
def test_what_is_known_chooses_the_method(known: bool | None, method: str) -> None:
    assert solve(Positive(dense(np.linspace(1, 2, P)), known), B).method == method


@pytest.mark.parametrize("method", ["cg", "minres"])
def test_a_nystrom_preconditioner_saves_products_where_eigenvalues_decay(method: str) -> None:
    matrix = dense(np.geomspace(1e4, 1e-4, P))
    plain, helped = (solve(matrix, B, 1e-2, method, rtol=1e-8, preconditioner=p) for p in (None, 40))
    np.testing.assert_allclose(helped.x, np.linalg.solve(matrix + 1e-2 * np.eye(P), B), rtol=1e-4, atol=1e-3)
    assert helped.converged and helped.products < 0.6 * plain.products


def test_zero_right_side_costs_nothing() -> None:
    found = solve(np.eye(3), np.zeros(3))
    assert (found.converged, found.products, found.x.tolist()) == (True, 0, [0, 0, 0])


BAD = [
    ({"b": np.ones(2)}, "b must be a vector of shape"),
    ({"b": np.ones((2, 3))}, "or a block"),
    ({"preconditioner": 4}, "preconditioner must be a whole number from 1 to 3"),
    ({"b": np.array([1, np.nan, 0])}, "b must be finite"),
    ({"damping": -1}, "damping must be"),
    ({"method": "minre"}, "did you mean 'minres'"),
    ({"rtol": 0}, "rtol must be"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_bad_input(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        solve(np.eye(3), **{"b": np.ones(3), **options})
