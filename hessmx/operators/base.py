"""Curvature matrices as SciPy LinearOperators: public methods check, one hook computes.

Sums, scalings and products of them are again CurvatureOperators, so `(H - 0.5 * G).to_dense()` works.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hessmx.errors import InputError


class CurvatureOperator(LinearOperator):
    """A matrix (m, n) known by its products; `to_dense()` costs n of them."""

    label = "matrix"

    def __init__(self, dtype: Any, shape: tuple[int, int]):
        super().__init__(np.dtype(dtype), shape)

    def _product(self, vector: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._product(checked(np.ravel(vector), self.shape[1], self.label))

    def _rmatvec(self, vector: np.ndarray) -> np.ndarray:
        return self._transposed_product(checked(np.ravel(vector), self.shape[0], self.label))

    def _matmat(self, block: np.ndarray) -> np.ndarray:
        columns = [self._matvec(block[:, j]) for j in range(block.shape[1])]
        return np.stack(columns, axis=1) if columns else np.zeros((self.shape[0], 0), self.dtype)

    def _rmatmat(self, block: np.ndarray) -> np.ndarray:
        columns = [self._rmatvec(block[:, j]) for j in range(block.shape[1])]
        return np.stack(columns, axis=1) if columns else np.zeros((self.shape[1], 0), self.dtype)

    def to_dense(self) -> np.ndarray:
        """The matrix (m, n) itself; min(m, n) products, m n numbers."""
        rows, columns = self.shape
        if columns <= rows:
            return self.matmat(np.eye(columns, dtype=self.dtype))
        return self.rmatmat(np.eye(rows, dtype=self.dtype)).T

    def shift(self, amount: float) -> CurvatureOperator:
        """The matrix plus `amount` times the identity."""
        return self + amount * Identity(self.dtype, self.shape[0])

    def submatrix(self, rows: Sequence[int], columns: Sequence[int]) -> CurvatureOperator:
        """The matrix at the given rows and columns; a product costs one of the whole."""
        return Submatrix(self, rows, columns)

    def __add__(self, other: Any) -> Any:
        return _wrapped(super().__add__(other), self, other)

    def __sub__(self, other: Any) -> Any:
        return self + (-1 * other)

    def __neg__(self) -> Any:
        return self * -1

    def __mul__(self, other: Any) -> Any:
        return _wrapped(super().__mul__(other), self) if np.isscalar(other) else super().__mul__(other)

    def __rmul__(self, other: Any) -> Any:
        return self * other if np.isscalar(other) else super().__rmul__(other)

    def __truediv__(self, other: Any) -> Any:
        return self * (1 / other)

    def __matmul__(self, other: Any) -> Any:
        result = super().__matmul__(other)
        return _wrapped(result) if isinstance(result, LinearOperator) else result

    @property
    def T(self) -> Any:
        return _wrapped(self._transpose(), self)

    @property
    def H(self) -> Any:
        return self.T

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<{rows}x{columns} {type(self).__name__} with dtype={self.dtype}>"


class SymmetricOperator(CurvatureOperator):
    """A symmetric matrix (P, P): its own transpose."""

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return self._product(vector)

    def _adjoint(self) -> LinearOperator:
        return self

    def _transpose(self) -> LinearOperator:
        return self


class Expression(CurvatureOperator):
    """A sum, scaling, product or transpose of operators, as SciPy computes it."""

    label = "expression"

    def __init__(self, inner: LinearOperator):
        super().__init__(inner.dtype, inner.shape)
        self.inner = inner

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.matvec(vector))

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.inner.rmatvec(vector))


class SymmetricExpression(Expression, SymmetricOperator):
    """A sum or scaling of symmetric operators."""

    _transposed_product = SymmetricOperator._transposed_product


class Identity(SymmetricOperator):
    """The identity."""

    label = "identity"

    def __init__(self, dtype: Any, size: int):
        super().__init__(dtype, (size, size))

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return vector


class Outer(SymmetricOperator):
    """g g' of a vector g (P,)."""

    label = "outer product"

    def __init__(self, vector: np.ndarray):
        super().__init__(vector.dtype, (vector.size, vector.size))
        self.vector = vector

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self.vector * (self.vector @ vector)


class Submatrix(CurvatureOperator):
    """Rows and columns of another operator."""

    label = "submatrix"

    def __init__(self, whole: CurvatureOperator, rows: Sequence[int], columns: Sequence[int]):
        self.whole = whole
        self.rows, self.columns = _indices(rows, whole.shape[0], "rows"), _indices(columns, whole.shape[1], "columns")
        super().__init__(whole.dtype, (self.rows.size, self.columns.size))

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self.whole.matvec(_scattered(vector, self.columns, self.whole.shape[1], self.dtype))[self.rows]

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        return self.whole.rmatvec(_scattered(vector, self.rows, self.whole.shape[0], self.dtype))[self.columns]


def _wrapped(result: Any, *parts: Any) -> Any:
    symmetric = parts and all(isinstance(part, SymmetricOperator) for part in parts)
    return (SymmetricExpression if symmetric else Expression)(result)


def _scattered(vector: np.ndarray, where: np.ndarray, size: int, dtype: Any) -> np.ndarray:
    whole = np.zeros(size, dtype)
    np.add.at(whole, where, vector)
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


def checked(vector: Any, size: int, label: str) -> np.ndarray:
    """`vector` as floating array (size,), or an error that says what is wrong with it."""
    array = np.asarray(vector)
    if array.dtype.kind not in "fiub":
        raise InputError(f"a vector for the {label} must be real numbers, not dtype {array.dtype}")
    if array.shape != (size,):
        raise InputError(f"a vector for the {label} must have shape ({size},), not {array.shape}")
    if not _finite(array):
        raise InputError(f"a vector for the {label} holds {int((~np.isfinite(array)).sum())} NaN or infinite value(s)")
    return array


def _finite(array: np.ndarray) -> bool:
    """Whether all entries are; one pass without a temporary, unless the sum itself overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())
