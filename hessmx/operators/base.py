"""Curvature matrices as SciPy LinearOperators: public methods check, hooks compute, and every operator says what is
known of it (`positive`, `exact_diagonal`), so that algorithms can use it. Sums, scalings, products, shifts and
transposes of them are operators of their own: `expressions.py`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from typing import Any, Sequence

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hessmx.errors import InputError


class CurvatureOperator(LinearOperator):
    """A matrix (m, n) known by its products; `to_dense()` costs min(m, n) of them."""

    label = "matrix"
    parts: tuple[Any, ...] = ()  # operators it is made of, which are asked when it is asked

    def __init__(self, dtype: Any, shape: tuple[int, int]):
        super().__init__(np.dtype(dtype), shape)

    # -- hooks

    def _product(self, vector: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _products(self, block: np.ndarray) -> np.ndarray:
        """(m, K) from a block (n, K): probes, blocks and right sides come here together."""
        return _by_columns(self._product, block, self.shape[0], self.dtype)

    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return _by_columns(self._transposed_product, block, self.shape[1], self.dtype)

    @property
    def positive(self) -> bool | None:
        """Whether it is positive semidefinite: True or False where that is known beforehand, None where it is not."""
        return None

    def exact_diagonal(self) -> np.ndarray | None:
        """The diagonal (m,), where it costs no product."""
        return None

    def question(self) -> AbstractContextManager[Any]:
        """Around all products of one question: what is kept for them may be kept from the first to the last."""
        stack = ExitStack()
        for part in self.parts:
            if isinstance(part, CurvatureOperator):
                stack.enter_context(part.question())
        return stack

    def pieces(self) -> list[tuple[float, Any]]:
        """The matrix as a sum of factors times operators."""
        return [(1.0, self)]

    # -- what SciPy calls

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._product(checked(np.ravel(vector), self.shape[1], self.label))

    def _rmatvec(self, vector: np.ndarray) -> np.ndarray:
        return self._transposed_product(checked(np.ravel(vector), self.shape[0], self.label))

    def _matmat(self, block: np.ndarray) -> np.ndarray:
        return self._products(checked_block(block, self.label))

    def _rmatmat(self, block: np.ndarray) -> np.ndarray:
        return self._transposed_products(checked_block(block, self.label))

    # -- what is made of it

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
        return expressions().Submatrix(self, rows, columns)

    def __add__(self, other: Any) -> Any:
        return expressions().Sum.of(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: Any) -> Any:
        return self + (-1 * other)

    def __neg__(self) -> Any:
        return self * -1

    def __mul__(self, other: Any) -> Any:
        if np.isscalar(other):
            return expressions().Scaled(self, other)
        return self @ other

    def __rmul__(self, other: Any) -> Any:
        return self * other if np.isscalar(other) else super().__rmul__(other)

    def __truediv__(self, other: Any) -> Any:
        return self * (1 / other)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, LinearOperator):
            return expressions().Product(self, other)
        return super().__matmul__(other) if np.isscalar(other) else super().dot(other)

    @property
    def T(self) -> Any:
        return expressions().Transpose(self)

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

    def _transposed_products(self, block: np.ndarray) -> np.ndarray:
        return self._products(block)

    def shift(self, amount: float) -> CurvatureOperator:
        return expressions().Shift(self, amount)

    def _adjoint(self) -> LinearOperator:
        return self

    def _transpose(self) -> LinearOperator:
        return self

    @property
    def T(self) -> Any:
        return self


class Identity(SymmetricOperator):
    """The identity."""

    label, positive = "identity", True

    def __init__(self, dtype: Any, size: int):
        super().__init__(dtype, (size, size))

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return vector

    def _products(self, block: np.ndarray) -> np.ndarray:
        return block

    def exact_diagonal(self) -> np.ndarray:
        return np.ones(self.shape[0])


class Outer(SymmetricOperator):
    """g g' of a vector g (P,)."""

    label, positive = "outer product", True

    def __init__(self, vector: np.ndarray):
        super().__init__(vector.dtype, (vector.size, vector.size))
        self.vector = vector

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self.vector * (self.vector @ vector)

    def _products(self, block: np.ndarray) -> np.ndarray:
        return np.multiply.outer(self.vector, self.vector @ block)

    def exact_diagonal(self) -> np.ndarray:
        return self.vector.astype(np.float64) ** 2


def expressions() -> Any:
    """The module of sums, scalings and products, which are made of the classes here."""
    from hessmx.operators import expressions

    return expressions


def checked(vector: Any, size: int, label: str) -> np.ndarray:
    """`vector` as floating array (size,), or an error that says what is wrong with it."""
    array = np.asarray(vector)
    if array.shape != (size,) and array.dtype.kind in "fiub":
        raise InputError(f"a vector for the {label} must have shape ({size},), not {array.shape}")
    return checked_block(array, label)


def checked_block(block: Any, label: str) -> np.ndarray:
    """Real and finite numbers; SciPy has looked at their shape."""
    array = np.asarray(block)
    if array.dtype.kind not in "fiub":
        raise InputError(f"a vector for the {label} must be real numbers, not dtype {array.dtype}")
    if not _finite(array):
        raise InputError(f"a vector for the {label} holds {int((~np.isfinite(array)).sum())} NaN or infinite value(s)")
    return array


def _by_columns(product: Any, block: np.ndarray, rows: int, dtype: Any) -> np.ndarray:
    columns = [product(block[:, j]) for j in range(block.shape[1])]
    return np.stack(columns, axis=1) if columns else np.zeros((rows, 0), dtype)


def _finite(array: np.ndarray) -> bool:
    """Whether all entries are; one pass without a temporary, unless the sum itself overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(array.sum()) or np.isfinite(array).all())
