"""A symmetric matrix as an optimiser with a diagonal preconditioner sees it."""

from __future__ import annotations

import numpy as np

from hessmx.errors import InputError
from hessmx.operators.base import SymmetricOperator


class Preconditioned(SymmetricOperator):
    """S (A + D) S + E with S = P^-1/2; P, D, E diagonal: its eigenvalues are those of P^-1 (A + D) + E.

    inverse    (P,) diagonal of P^-1, zero where nothing moves
    decay      (P,) diagonal of D; decoupled (P,) that of E
    """

    label = "preconditioned matrix"

    def __init__(self, inner: SymmetricOperator, inverse: np.ndarray, decay: np.ndarray, decoupled: np.ndarray):
        if not (np.isfinite(inverse).all() and (inverse >= 0).all()):
            bad = int((~(np.isfinite(inverse) & (inverse >= 0))).sum())
            raise InputError(f"a preconditioner must be finite and not negative, but {bad} of its entries are not")
        super().__init__(inner.dtype, inner.shape)
        self.inner, self.parts = inner, (inner,)
        self.root, self.added = np.sqrt(inverse), inverse * decay + decoupled

    @property
    def positive(self) -> bool | None:
        return True if self.inner.positive and (self.added >= 0).all() else None

    def exact_diagonal(self) -> np.ndarray | None:
        known = self.inner.exact_diagonal()
        return None if known is None else self.root**2 * known + self.added

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self._products(vector[:, None])[:, 0]

    def _products(self, block: np.ndarray) -> np.ndarray:
        root = self.root[:, None]
        image = self.inner.matmat((root * block).astype(self.dtype, copy=False))
        return (root * image + self.added[:, None] * block).astype(self.dtype, copy=False)
