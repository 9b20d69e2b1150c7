"""Sums, scalings, products and shifts of operators against NumPy, what is known of them, what they cost."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
from scipy.sparse.linalg import aslinearoperator

from hessmx.errors import InputError
from hessmx.operators import CurvatureOperator, Identity, Outer, Scaled, Shift, Sum, SymmetricOperator, Transpose

RNG = np.random.default_rng(5)
B, C, D = (RNG.standard_normal((6, 6)) for _ in range(3))
B, C = B @ B.T, C + C.T
WIDE = RNG.standard_normal((4, 6))


class Symmetric(SymmetricOperator):
    """A symmetric matrix that counts its products and the questions it has seen."""

    def __init__(self, matrix, positive=None):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix, self.known, self.columns, self.asked = matrix, positive, 0, []

    @property
    def positive(self):
        return self.known

    def _product(self, vector):
        self.columns += 1
        return self.matrix @ vector

    @contextmanager
    def question(self):
        self.asked.append("begins")
        yield
        self.asked.append("ends")


class Any(CurvatureOperator):
    """Any matrix."""

    def __init__(self, matrix):
        super().__init__(matrix.dtype, matrix.shape)
        self.matrix = matrix

    def _product(self, vector):
        return self.matrix @ vector

    def _transposed_product(self, vector):
        return self.matrix.T @ vector


b, c, d, wide, g = Symmetric(B, True), Symmetric(C), Any(D), Any(WIDE), Outer(RNG.standard_normal(6))
G, EYE = np.outer(g.vector, g.vector), np.eye(6)
TABLE = {
    "sum": (b + c, B + C),
    "sum with its transpose": (d + d.T, D + D.T),
    "difference": (b - 0.5 * c, B - 0.5 * C),
    "negative": (-b / 2, -B / 2),
    "nested": (2 * (b - c) - (b + g), B - 2 * C - G),
    "shift": (b.shift(0.3), B + 0.3 * EYE),
    "shift of any": (d.shift(0.3), D + 0.3 * EYE),
    "shift of a shift": (b.shift(0.3).shift(-1), B - 0.7 * EYE),
    "product": (b @ d, B @ D),
    "transposed product": ((b @ d).T, D.T @ B),
    "product by *": (wide * d, WIDE @ D),
    "scaled transpose": ((3 * wide).T, 3 * WIDE.T),
    "cancelled": (b - b, 0 * B),
    "with SciPy's": (b + aslinearoperator(D), B + D),
    "submatrix": (d.submatrix([4, 0, 4], [2, 5]), D[np.ix_([4, 0, 4], [2, 5])]),
}


@pytest.mark.parametrize("name", TABLE)
def test_products_blocks_and_transposes(name):
    operator, matrix = TABLE[name]
    block = RNG.standard_normal((matrix.shape[1], 3))
    other = RNG.standard_normal((matrix.shape[0], 2))
    np.testing.assert_allclose(operator @ block[:, 0], matrix @ block[:, 0], atol=1e-12)
    np.testing.assert_allclose(operator @ block, matrix @ block, atol=1e-12)
    np.testing.assert_allclose(operator.rmatvec(other[:, 0]), matrix.T @ other[:, 0], atol=1e-12)
    np.testing.assert_allclose(operator.T @ other, matrix.T @ other, atol=1e-12)
    np.testing.assert_allclose(operator.to_dense(), matrix, atol=1e-12)


@pytest.mark.parametrize(("operator", "kind"), [
    (b.shift(1), Shift), (2 * b, Scaled), (b + c, Sum), (d.T, Transpose), (b.T, Symmetric), (d.T.T, Any),
])
def test_classes_can_be_seen(operator, kind):
    assert isinstance(operator, kind)
    assert isinstance(operator, SymmetricOperator) == (kind not in (Transpose, Any))


@pytest.mark.parametrize(("operator", "known"), [
    (b, True), (c, None), (g, True), (Identity(float, 6), True), (2 * b, True), (-1 * b, False), (-2 * (-1 * b), None),
    (b + g, True), (b + c, None), (b - g, None), (b.shift(1), True), (b.shift(-1), None), (c.shift(1), None),
    (0 * c, True), (b.shift(-1).shift(3), True), (b @ b, None),
])
def test_what_is_known_to_be_positive(operator, known):
    assert operator.positive is known


def test_diagonals_that_cost_nothing():
    np.testing.assert_allclose((2 * g - 0.5 * Identity(float, 6)).exact_diagonal(), np.diag(2 * G - 0.5 * EYE))
    assert b.exact_diagonal() is None and (b + g).exact_diagonal() is None


def test_an_operator_that_stands_twice_is_multiplied_once():
    part = Symmetric(B)
    np.testing.assert_allclose((part + 2 * (part - c) + part.shift(1)) @ EYE[0], (4 * B - 2 * C + EYE)[0])
    assert part.columns == 1


def test_a_question_is_told_to_every_part():
    first, second = Symmetric(B), Symmetric(C)
    with ((first + 2 * second).shift(1) @ first).question():
        assert first.asked == second.asked == ["begins"] or first.asked == ["begins", "begins"]
    assert first.asked[-1] == second.asked[-1] == "ends"


def test_a_multiple_keeps_the_dtype():
    single = Symmetric(B.astype(np.float32))
    assert (0.5 * single).dtype == ((0.5 * single).shift(1) @ EYE[0].astype(np.float32)).dtype == np.float32


@pytest.mark.parametrize(("ask", "text"), [
    (lambda: b + wide, "one shape"), (lambda: wide @ wide, "cannot be multiplied"),
    (lambda: wide.shift(1), "one shape"),
    (lambda: b * 1j, "finite real number"), (lambda: b * np.nan, "finite real number"),
    (lambda: b @ np.full((6, 2), np.nan), "NaN"), (lambda: b @ np.ones(6).astype(complex), "real numbers"),
])
def test_bad_input(ask, text):
    with pytest.raises(InputError, match=text):
        ask()
