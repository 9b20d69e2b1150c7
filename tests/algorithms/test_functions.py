from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.functions import FUNCTIONS, apply, solve_shifted, trace_of
from hessmx.algorithms.slq import spectrum
from hessmx.errors import InputError
from hessmx.operators import SymmetricOperator
from tests.algorithms.support import counted, dense

P = 120
B = np.random.default_rng(8).standard_normal(P)
SPECTRUM = np.geomspace(1e-2, 10, P)
MATRIX = dense(SPECTRUM)
VALUES, VECTORS = np.linalg.eigh(MATRIX)


def true(function, shift: float = 0.0) -> np.ndarray:
    return VECTORS @ (function(VALUES + shift) * (VECTORS.T @ B))


@pytest.mark.parametrize("memory", [2 << 30, 40 * 8 * P], ids=["basis", "two passes"])
@pytest.mark.parametrize("name", [*FUNCTIONS, np.tanh])
def test_functions_times_a_vector_against_the_eigenbasis(name, memory: int) -> None:
    operator, columns = counted(MATRIX)
    found = apply(operator, B, name, memory=memory)
    exact = true(FUNCTIONS.get(name, name) if isinstance(name, str) else name)
    assert np.linalg.norm(found.value - exact) <= 2 * max(found.error, 1e-10) * np.linalg.norm(exact)
    assert found.error <= 1e-6
    assert found.converged and found.products == sum(columns)
    assert ("built twice" in " ".join(found.notes)) == (memory < 1 << 20)


def test_the_square_root_twice_is_the_matrix() -> None:
    once = apply(MATRIX, B, "sqrt", rtol=1e-10).value
    np.testing.assert_allclose(apply(MATRIX, once, "sqrt", rtol=1e-10).value, MATRIX @ B, rtol=1e-6, atol=1e-7)


def test_a_space_that_ends_is_exact_and_a_budget_is_kept() -> None:
    low_rank = dense(np.r_[3.0, 2, 1, np.zeros(P - 3)])
    found = apply(low_rank, B, "exp")
    np.testing.assert_allclose(found.value, B + _exponential(low_rank) @ B, atol=1e-9)
    assert found.products <= 6
    short = apply(MATRIX, B, "inverse sqrt", max_products=10)
    assert short.products == 10 and not short.converged and "more products" in short.notes[0]
    assert not apply(MATRIX, np.zeros(P), "exp").value.any()


def _exponential(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * (np.exp(values) - 1)) @ vectors.T


def test_many_shifts_from_one_space() -> None:
    operator, columns = counted(MATRIX)
    found = solve_shifted(operator, B, [1e-3, 0.1, 10], rtol=1e-8)
    for solution in found:
        exact = np.linalg.solve(MATRIX + solution.damping * np.eye(P), B)
        np.testing.assert_allclose(solution.x, exact, rtol=1e-5, atol=1e-7 * np.abs(exact).max())
        assert solution.converged and solution.products == sum(columns) <= P + 3
    missed = solve_shifted(MATRIX, B, [1e-3, 10], max_products=25)
    assert [s.converged for s in missed] == [False, True]


SPECTRA = {
    "spiked": np.r_[np.geomspace(100, 5, 5), np.linspace(0.1, 0.3, P - 5)],
    "power": 10 * np.arange(1, P + 1.0) ** -1.5,
    "flat": np.linspace(1, 2, P),
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("function", [lambda x: np.log(x + 0.1), np.square])
def test_traces_of_functions_lie_in_their_intervals(name: str, function) -> None:
    matrix, exact = dense(SPECTRA[name]), float(function(SPECTRA[name]).sum())
    found = [trace_of(matrix, function, 6, 12, seed=seed) for seed in range(10)]
    assert sum(low <= exact <= high for low, high in (f.interval() for f in found)) >= 9
    assert all(f.products <= 6 * 12 for f in found)


def test_where_few_eigenvalues_scatter_the_block_knows_them() -> None:
    matrix, exact = dense(SPECTRA["spiked"]), float(np.sum(SPECTRA["spiked"] ** 2))
    plain = [spectrum(matrix, 6, 12, seed=s).trace_of(np.square).value - exact for s in range(10)]
    better = [trace_of(matrix, np.square, 6, 12, seed=s).value - exact for s in range(10)]
    assert np.std(better) < 0.01 * np.std(plain)


class Negative(SymmetricOperator):
    """Known not to be positive, and never to be multiplied."""

    positive = False

    def _product(self, vector: np.ndarray) -> np.ndarray:
        raise AssertionError("a product")


@pytest.mark.parametrize(("ask", "text"), [
    (lambda: apply(Negative(float, (3, 3)), np.ones(3), "sqrt"), "known not to be"),
    (lambda: trace_of(Negative(float, (9, 9)), "log"), "known not to be"),
    (lambda: apply(np.diag([1.0, -1, 2]), np.ones(3), "sqrt"), "shift the matrix by more than"),
    (lambda: apply(np.eye(3), np.ones(3), "sqroot"), "did you mean 'sqrt'"),
    (lambda: apply(np.eye(3), np.ones(2), "exp"), "vector of 3 finite numbers"),
    (lambda: apply(np.eye(3), np.ones(3), lambda x: np.full(x.shape, np.nan)), "one finite number"),
    (lambda: solve_shifted(np.eye(3), np.ones(3), [-1.0]), "dampings must be"),
])
def test_bad_input(ask, text: str) -> None:
    with pytest.raises(InputError, match=text):
        ask()
