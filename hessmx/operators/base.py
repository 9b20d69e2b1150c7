"""Curvature matrices as SciPy LinearOperators: public methods check, one hook computes."""

from __future__ import annotations

from typing import Any

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

    def _matvec(self, vector: np.ndarray) -> np.ndarray:
        return self._product(checked(vector, self.shape[1], self.label))

    def _matmat(self, block: np.ndarray) -> np.ndarray:
        columns = [self._matvec(block[:, j]) for j in range(block.shape[1])]
        return np.stack(columns, axis=1) if columns else np.zeros((self.shape[0], 0), self.dtype)

    def to_dense(self) -> np.ndarray:
        """The matrix (m, n) itself; n products, m n numbers."""
        return self.matmat(np.eye(self.shape[1], dtype=self.dtype))

    def __repr__(self) -> str:
        rows, columns = self.shape
        return f"<{rows}x{columns} {type(self).__name__} with dtype={self.dtype}>"


class SymmetricOperator(CurvatureOperator):
    """A symmetric matrix (P, P): its own transpose."""

    def _rmatvec(self, vector: np.ndarray) -> np.ndarray:
        return self._matvec(vector)

    def _adjoint(self) -> LinearOperator:
        return self

    _transpose = _adjoint


def checked(vector: Any, size: int, label: str) -> np.ndarray:
    """`vector` as floating array (size,), or an error that says what is wrong with it."""
    array = np.asarray(vector)
    if array.dtype.kind not in "fiub":
        raise InputError(f"a vector for the {label} must be real numbers, not dtype {array.dtype}")
    if array.shape not in ((size,), (size, 1)):
        raise InputError(f"a vector for the {label} must have shape ({size},), one entry per parameter, not {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"a vector for the {label} holds {int((~np.isfinite(array)).sum())} NaN or infinite value(s)")
    return array.reshape(size)
