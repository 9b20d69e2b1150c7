"""Sums, scalings, products, shifts, transposes and submatrices of operators: small classes that know what they are.

An operator that stands in a sum more than once is multiplied once. What is known of the parts (`positive`,
`exact_diagonal`) is known of the whole where mathematics allows.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hessmx.errors import InputError
from hessmx.operators.base import CurvatureOperator, Identity, SymmetricOperator


class Sum(CurvatureOperator):
    """Factors times operators, each operator once."""

    label = "sum"

    @staticmethod
    def of(*operators: Any) -> CurvatureOperator:
        """Their sum, taken apart and gathered; symmetric where all of them are."""
        shapes = {operator.shape for operator in operators}
        if len(shapes) > 1:
            raise InputError(f"matrices to be added must have one shape, not {' and '.join(map(str, sorted(shapes)))}")
        return total(_gathered([piece for operator in operators for piece in pieces(operator)]))

    def __init__(self, terms: Sequence[tuple[float, Any]]):
        self.terms = tuple(terms)
        self.parts = tuple(part for _, part in terms)
        super().__init__(np.result_type(*(part.dtype for part in self.parts)), self.parts[0].shape)

    def pieces(self) -> list[tuple[float, Any]]:
        return list(self.terms)

    @property
    def positive(self) -> bool | None:
        return True if all(_positive(factor, part) for factor, part in self.terms) else None

    def exact_diagonal(self) -> np.ndarray | None:
        diagonal = np.zeros(self.shape[0])
        for factor, part in self.terms:
            known = exact_diagonal(part)
            if known is None:
                return None
            diagonal += factor * known
        return diagonal

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self._added([part.matvec(vector) for part in self.parts])

    def _products(self, block: np.ndarray) -> np.ndarray:
        return self._added([part.matmat(block) for part in self.parts])

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return self._added([part.rmatvec(vector) for part in self.parts])

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return self._added([part.rmatmat(block) for part in self.parts])

    def _added(self, products: list[np.ndarray]) -> np.ndarray:
        added: Any = sum(factor * image for (factor, _), image in zip(self.terms, products))
        return added.astype(self.dtype, copy=False)


class SymmetricSum(SymmetricOperator, Sum):
    """A sum of symmetric operators."""


class Scaled(CurvatureOperator):
    """`factor` times an operator, in the operator's own dtype; symmetric where that is."""

    label = "scaled matrix"

    def __new__(cls, inner: LinearOperator, factor: Any) -> Any:
        return object.__new__(SymmetricScaled if isinstance(inner, SymmetricOperator) else Scaled)

    def __init__(self, inner: LinearOperator, factor: Any):
        if not np.isreal(factor) or not np.isfinite(factor):
            raise InputError(f"a matrix can be multiplied by a finite real number, not by {factor!r}")
        super().__init__(inner.dtype, inner.shape)
        self.inner, self.factor, self.parts = inner, float(np.real(factor)), (inner,)

    def pieces(self) -> list[tuple[float, Any]]:
        return [(self.factor * factor, part) for factor, part in pieces(self.inner)]

    @property
    def positive(self) -> bool | None:
        return _positive(self.factor, self.inner)

    def exact_diagonal(self) -> np.ndarray | None:
        known = exact_diagonal(self.inner)
        return None if known is None else self.factor * known

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self.factor * self.inner.matvec(vector)

    def _products(self, block: np.ndarray) -> np.ndarray:
        return self.factor * self.inner.matmat(block)

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return self.factor * self.inner.rmatvec(vector)

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return self.factor * self.inner.rmatmat(block)


class SymmetricScaled(SymmetricOperator, Scaled):
    """A multiple of a symmetric operator."""


class Shift(SymmetricSum):
    """A symmetric operator plus `amount` times the identity."""

    label = "shifted matrix"

    def __init__(self, inner: CurvatureOperator, amount: float):
        self.inner, self.amount = inner, float(amount)
        super().__init__(_gathered([*pieces(inner), (self.amount, Identity(inner.dtype, inner.shape[0]))]))


class Product(CurvatureOperator):
    """left @ right."""

    label = "product"

    def __init__(self, left: LinearOperator, right: LinearOperator):
        if left.shape[1] != right.shape[0]:
            raise InputError(f"matrices of shapes {left.shape} and {right.shape} cannot be multiplied")
        super().__init__(np.result_type(left.dtype, right.dtype), (left.shape[0], right.shape[1]))
        self.left, self.right, self.parts = left, right, (left, right)

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.left.matvec(self.right.matvec(vector)))

    def _products(self, block: np.ndarray) -> np.ndarray:
        return np.asarray(self.left.matmat(self.right.matmat(block)))

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.right.rmatvec(self.left.rmatvec(vector)))

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return np.asarray(self.right.rmatmat(self.left.rmatmat(block)))


class Transpose(CurvatureOperator):
    """The transpose of an operator that is not its own."""

    label = "transpose"

    def __init__(self, inner: LinearOperator):
        super().__init__(inner.dtype, (inner.shape[1], inner.shape[0]))
        self.inner, self.parts = inner, (inner,)

    @property
    def T(self) -> Any:
        return self.inner

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.rmatvec(vector))

    def _products(self, block: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.rmatmat(block))

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.matvec(vector))

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.matmat(block))


class Submatrix(CurvatureOperator):
    """Rows and columns of another operator."""

    label = "submatrix"

    def __init__(self, whole: CurvatureOperator, rows: Sequence[int], columns: Sequence[int]):
        self.whole, self.parts = whole, (whole,)
        self.rows, self.columns = _indices(rows, whole.shape[0], "rows"), _indices(columns, whole.shape[1], "columns")
        super().__init__(whole.dtype, (self.rows.size, self.columns.size))

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self._products(vector[:, None])[:, 0]

    def _products(self, block: np.ndarray) -> np.ndarray:
        return self.whole.matmat(_scattered(block, self.columns, self.whole.shape[1], self.dtype))[self.rows]

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return self._transposed_products(vector[:, None])[:, 0]

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return self.whole.rmatmat(_scattered(block, self.rows, self.whole.shape[0], self.dtype))[self.columns]


def pieces(operator: Any) -> list[tuple[float, Any]]:
    """Factors and operators; any other LinearOperator is one piece."""
    return operator.pieces() if isinstance(operator, CurvatureOperator) else [(1.0, operator)]


def total(terms: Sequence[tuple[float, Any]]) -> CurvatureOperator:
    """The sum of the terms, as the smallest class that it is."""
    if len(terms) == 1 and isinstance(terms[0][1], CurvatureOperator):
        factor, part = terms[0]
        return part if factor == 1 else Scaled(part, factor)
    symmetric = all(isinstance(part, SymmetricOperator) for _, part in terms)
    return (SymmetricSum if symmetric else Sum)(terms)


def _gathered(terms: Sequence[tuple[float, Any]]) -> list[tuple[float, Any]]:
    """Each operator once; what has cancelled is left out, unless nothing else is there."""
    found: dict[Any, tuple[float, Any]] = {}
    for factor, part in terms:
        key = Identity if isinstance(part, Identity) else id(part)
        found[key] = found.get(key, (0.0, part))[0] + factor, part
    return [term for term in found.values() if term[0]] or list(found.values())[:1]


def exact_diagonal(operator: Any) -> np.ndarray | None:
    return operator.exact_diagonal() if isinstance(operator, CurvatureOperator) else None


def _positive(factor: float, operator: Any) -> bool | None:
    """What is known of a multiple: a negative one of a positive matrix is not positive, unless it is zero."""
    known = getattr(operator, "positive", None)
    if factor >= 0 or known is None:
        return True if factor == 0 else known
    return None if known is False else False


def _scattered(block: np.ndarray, where: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    whole = np.zeros((size, block.shape[1]), dtype)
    np.add.at(whole, where, block)
    return whole


def _indices(chosen: Any, size: int, what: str) -> np.ndarray:
    indices = np.atleast_1d(np.asarray(chosen))
    if indices.dtype == bool and indices.shape == (size,):
        indices = np.flatnonzero(indices)
    if (
        indices.ndim != 1
        or indices.dtype.kind not in "iu"
        or indices.size == 0
        or indices.min() < 0
        or indices.max() >= size
    ):
        raise InputError(f"{what} must be whole numbers from 0 to {size - 1} (or {size} booleans), not {chosen!r}")
    return indices
