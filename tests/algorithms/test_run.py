"""What every answer notices by itself, and what every operator is told."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from hessmx.algorithms.diagonal import diagonal
from hessmx.algorithms.frobenius import squared_frobenius
from hessmx.algorithms.functions import apply, solve_shifted, trace_of
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.solve import solve
from hessmx.algorithms.trace import METHODS, trace
from hessmx.operators import SymmetricOperator
from tests.algorithms.support import dense

P = 80
MATRIX = dense(np.geomspace(0.1, 10, P))
B = np.random.default_rng(6).standard_normal(P)
QUESTIONS = {
    "eigenpairs": lambda a, **o: eigenpairs(a, 2, max_products=60, **o),
    "power": lambda a, **o: eigenpairs(a, 1, method="power", max_products=60, **o),
    "spectrum": lambda a, **o: spectrum(a, 3, 8, **o),
    "diagonal": lambda a, **o: diagonal(a, "hutchinson", 12, **o),
    "xdiag": lambda a, **o: diagonal(a, "xdiag", 12, **o),
    "frobenius": lambda a, **o: squared_frobenius(a, 12, **o),
    "cg": lambda a, **o: solve(a, B, 0.1, "cg", max_products=60, **o),
    "minres": lambda a, **o: solve(a, B, 0.1, "minres", max_products=60, **o),
    "sqrt": lambda a, **o: apply(a, B, "exp", max_products=40, **o),
    "shifts": lambda a, **o: solve_shifted(a, B, [0.1, 1.0], max_products=40, **o)[0],
    "trace of f": lambda a, **o: trace_of(a, np.tanh, 4, 8, **o),
    **{name: lambda a, name=name, **o: trace(a, name, 12, **o) for name in METHODS},
}


class Told(SymmetricOperator):
    """A matrix that is told of questions."""

    def __init__(self, products):
        super().__init__(float, (P, P))
        self.products, self.seen = products, []

    @contextmanager
    def question(self):
        self.seen.append("begins")
        try:
            yield
        finally:
            self.seen.append("ends")

    def _product(self, vector):
        self.seen.append("product")
        return self.products(vector)


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_begins_before_the_first_product_and_ends_after_the_last(name: str) -> None:
    operator = Told(lambda v: MATRIX @ v)
    result = QUESTIONS[name](operator)
    assert operator.seen == ["begins", *["product"] * result.products, "ends"]
    assert not any("differ by" in note for note in result.notes)


@pytest.mark.parametrize("name", ["eigenpairs", "spectrum", "cg", "hutch++"])
def test_a_question_ends_where_it_fails(name: str) -> None:
    operator = Told(lambda v: v * np.nan)
    with pytest.raises(ValueError, match="product 1 contains NaN"):
        QUESTIONS[name](operator)
    assert operator.seen[-1] == "ends"


WRONG = np.random.default_rng(7).standard_normal((P, P)) * 0.01 * np.linalg.norm(MATRIX) / P


@pytest.mark.parametrize("name", QUESTIONS)
def test_one_percent_of_asymmetry_is_noticed(name: str) -> None:
    asymmetric = LinearOperator((P, P), matvec=lambda v: MATRIX @ v + WRONG @ v, dtype=float)
    assert any("not those of one symmetric matrix" in note for note in QUESTIONS[name](asymmetric).notes)


@pytest.mark.parametrize("name", QUESTIONS)
def test_products_that_do_not_repeat_are_noticed(name: str) -> None:
    """A matrix of which one percent is drawn anew for every product, symmetric each time."""
    rng = np.random.default_rng(9)

    def product(v: np.ndarray) -> np.ndarray:
        factor = rng.standard_normal((P, P)) * 0.007 * np.linalg.norm(MATRIX) / P
        return MATRIX @ v + (factor + factor.T) @ v

    random = LinearOperator((P, P), matvec=product, dtype=float)
    assert any("differ by" in note for note in QUESTIONS[name](random).notes)


@pytest.mark.parametrize("name", QUESTIONS)
def test_rounding_in_float32_is_no_asymmetry(name: str) -> None:
    result = QUESTIONS[name](MATRIX.astype(np.float32))
    assert not any("differ by" in note for note in result.notes)


def test_an_operator_that_knows_only_vectors() -> None:
    scales = np.linspace(1, 2, P)
    operator = LinearOperator((P, P), matvec=lambda v: scales * v, dtype=float)  # wrong for columns (P, 1)
    np.testing.assert_allclose(trace(operator, budget=20).value, scales.sum(), rtol=0.2)
    np.testing.assert_allclose(eigenpairs(operator, 2, block=2).values, [2, scales[-2]], rtol=1e-5)
    assert spectrum(operator, 2, 5).products == 10


def test_residuals_that_products_do_not_allow_are_explained() -> None:
    """Products with errors of 1e-4 in float32: the space converges, the true residual does not, and a note says why."""
    matrix, rng = dense(np.r_[5.0, np.linspace(0, 1, P - 1)]).astype(np.float32), np.random.default_rng(2)

    def product(v: np.ndarray) -> np.ndarray:
        return (matrix @ v) * (1 + 1e-4 * rng.standard_normal(P))

    pairs = eigenpairs(LinearOperator((P, P), matvec=product, dtype=np.float32), 1)
    assert not pairs.converged.all()
    assert "products in float32 carry errors of that size" in pairs.notes[0] or "stopped after" in pairs.notes[0]
