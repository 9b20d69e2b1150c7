"""K-FAC and EK-FAC: a block per layer, kept as eigenvalues in a Kronecker-factored basis.

Of a layer with weight W (O, I), input a and gradient g at its output the Gauss-Newton block is the mean of
(a a') x (g g'); K-FAC takes the product of means, A x B (Martens & Grosse 2015, section 3). With A = U_A S_A U_A' and
B = U_B S_B U_B' every function f of the block acts on V (O, I) as U_B (f(s) * (U_B' V U_A)) U_A', with s_jk the
products of eigenvalues, or, for EK-FAC, the block's true diagonal in this basis (George et al. 2018, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Callable, Sequence

import numpy as np

from hessmx.errors import InputError
from hessmx.operators.base import SymmetricOperator, checked

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class Block:
    """Eigenvalues and the factored eigenbasis of one diagonal block."""

    name: str
    positions: np.ndarray  # (O, I) where its entries stand in a vector (P,)
    values: np.ndarray  # (O, I)
    inputs: np.ndarray  # (I, I) U_A
    outputs: np.ndarray  # (O, O) U_B

    def to_basis(self, matrix: np.ndarray) -> np.ndarray:
        """(..., O, I) in the eigenbasis."""
        return self.outputs.T @ matrix @ self.inputs

    def from_basis(self, matrix: np.ndarray) -> np.ndarray:
        return self.outputs @ matrix @ self.inputs.T

    def having(self, values: np.ndarray) -> Block:
        """The same basis with other eigenvalues (O, I)."""
        return replace(self, values=values)

    def diagonal(self) -> np.ndarray:
        """(O, I)."""
        return self.outputs**2 @ self.values @ (self.inputs**2).T


class KFAC(SymmetricOperator):
    """A symmetric matrix (P, P) of Kronecker-factored blocks: product, inverse, trace, determinant, eigenvalues.

    Vectors are float64 (P,). A product costs two small matrix products per layer and no pass over the data: the matrix
    is that of the parameters and data at the time when it was made. Memory: the factors and three times P numbers.
    """

    def __init__(self, blocks: Sequence[Block], size: int, label: str = "kfac"):
        super().__init__(np.float64, (size, size))
        self.blocks, self.label = tuple(blocks), label

    @property
    def positive(self) -> bool:
        return all(block.values.min() >= 0 for block in self.blocks)

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return self._products(vector[:, None])[:, 0]

    def _products(self, block: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(block.T, dtype=np.float64)
        result = np.zeros_like(rows)
        for b in self.blocks:
            result[:, b.positions] = b.from_basis(b.values * b.to_basis(rows[:, b.positions]))
        return result.T

    def map(self, function: Function) -> KFAC:
        """The matrix with `function` applied to its eigenvalues."""
        return KFAC([block.having(function(block.values)) for block in self.blocks], self.shape[0], self.label)

    def inverse(self, damping: float = 0.0) -> KFAC:
        """(A + damping I)^-1, exactly; InputError where that is not positive definite."""
        lowest = min(float(block.values.min()) for block in self.blocks) + damping
        scale = max(float(np.abs(block.values).max()) for block in self.blocks) + abs(damping)
        if not lowest > 1e-14 * scale:
            raise InputError(f"the matrix plus damping {damping!r} has the eigenvalue {lowest:.3g}: use more damping")
        return self.map(lambda values: 1 / (values + damping))

    def trace(self) -> float:
        return float(sum(block.values.sum() for block in self.blocks))

    def logdet(self, shift: float = 0.0) -> float:
        """log det(A + shift I); InputError where that is not positive definite."""
        return -sum(float(np.log(block.values).sum()) for block in self.inverse(shift).blocks)

    def eigenvalues(self) -> np.ndarray:
        """All P eigenvalues, descending."""
        return np.sort(np.concatenate([block.values.ravel() for block in self.blocks]))[::-1]

    def exact_diagonal(self) -> np.ndarray:
        """The diagonal (P,); no product."""
        result = np.zeros(self.shape[0])
        for block in self.blocks:
            result[block.positions] = block.diagonal()
        return result

    def quadratic(self, vectors: np.ndarray) -> np.ndarray:
        """<u_i, A v_j> for the rows of vectors (K, P): (K, K)."""
        rows = np.stack([checked(row, self.shape[0], self.label) for row in np.atleast_2d(vectors)])
        total = np.zeros((len(rows), len(rows)))
        for block in self.blocks:
            turned = block.to_basis(rows[:, block.positions]).reshape(len(rows), -1)
            total += (turned * block.values.ravel()) @ turned.T
        return total


def eigen(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, those below zero by rounding set to zero, and vectors of a positive semidefinite matrix."""
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.maximum(values, 0), vectors


def dense_block(name: str, positions: np.ndarray, matrix: Any) -> Block:
    """A block without structure, (n, n) at positions (n,)."""
    values, vectors = eigen(np.asarray(matrix, np.float64))
    return Block(name, positions[:, None], values[:, None], np.ones((1, 1)), vectors)
