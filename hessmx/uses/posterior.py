"""Covariances (beta H + D)^-1 of a Gaussian posterior, by what is known of H: all, its top eigenpairs, or factors.

H (P, P) is the Gauss-Newton matrix of the summed negative log-likelihood, beta its precision (1 over the noise's
variance), D = diag(prior) the prior's precisions (P,). A structure is H; `at(beta, prior)` is the covariance.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from hessmx.errors import InputError
from hessmx.operators.kfac import KFAC, Block


class Covariance(Protocol):
    """A posterior's covariance S (P, P)."""

    logdet_precision: float  # log det S^-1

    def variances(self) -> np.ndarray:
        """The diagonal (P,)."""
        ...

    def times(self, vector: np.ndarray) -> np.ndarray:
        """S v (P,)."""
        ...

    def quadratic(self, rows: np.ndarray) -> np.ndarray:
        """U S U' (K, K) for rows U (K, P)."""
        ...

    def draw(self, normal: np.ndarray) -> np.ndarray:
        """Rows (m, P) with covariance S from standard normal ones."""
        ...


class Structure(Protocol):
    """What is known of H."""

    def at(self, beta: float, prior: np.ndarray) -> Covariance: ...


class Full:
    """All of H. A covariance costs P^3 / 3 operations, memory two times P^2 numbers."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = (matrix + matrix.T) / 2

    def at(self, beta: float, prior: np.ndarray) -> Covariance:
        return _Cholesky(beta * self.matrix + np.diag(prior))


class _Cholesky:
    def __init__(self, precision: np.ndarray):
        self._factor, _ = cho_factor(precision, lower=True)
        self.logdet_precision = 2 * float(np.log(np.diag(self._factor)).sum())
        self._variances: np.ndarray | None = None

    def variances(self) -> np.ndarray:
        if self._variances is None:
            root = solve_triangular(self._factor, np.eye(len(self._factor)), lower=True)
            self._variances = (root**2).sum(axis=0)
        return self._variances

    def times(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(cho_solve((self._factor, True), vector))

    def quadratic(self, rows: np.ndarray) -> np.ndarray:
        half = solve_triangular(self._factor, rows.T, lower=True)
        return half.T @ half

    def draw(self, normal: np.ndarray) -> np.ndarray:
        return np.asarray(solve_triangular(self._factor, normal.T, lower=True, trans="T").T)


class LowRank:
    """H = U diag(values) U' with k orthonormal columns U (P, k): the prior alone holds in all other directions."""

    def __init__(self, values: np.ndarray, vectors: np.ndarray):
        self.values, self.vectors = np.maximum(values, 0), vectors

    def at(self, beta: float, prior: np.ndarray) -> Covariance:
        return _Woodbury(beta * self.values, self.vectors, prior)


class _Woodbury:
    """With R = D^-1/2 U (beta values)^1/2 = Q diag(m)^1/2 V': S = D^-1/2 (I - Q diag(m / (1 + m)) Q') D^-1/2."""

    def __init__(self, values: np.ndarray, vectors: np.ndarray, prior: np.ndarray):
        self.scale = 1 / np.sqrt(prior)
        root = self.scale[:, None] * vectors * np.sqrt(values)
        self.q, singular, _ = np.linalg.svd(root, full_matrices=False)
        self.m = singular**2
        self.logdet_precision = float(np.log(prior).sum() + np.log1p(self.m).sum())

    def variances(self) -> np.ndarray:
        return self.scale**2 * (1 - self.q**2 @ (self.m / (1 + self.m)))

    def times(self, vector: np.ndarray) -> np.ndarray:
        scaled = self.scale * vector
        return self.scale * (scaled - self.q @ (self.m / (1 + self.m) * (self.q.T @ scaled)))

    def quadratic(self, rows: np.ndarray) -> np.ndarray:
        scaled = rows * self.scale
        inside = scaled @ self.q
        return scaled @ scaled.T - (inside * (self.m / (1 + self.m))) @ inside.T

    def draw(self, normal: np.ndarray) -> np.ndarray:
        return self.scale * (normal + ((normal @ self.q) * (1 / np.sqrt(1 + self.m) - 1)) @ self.q.T)


class Kronecker:
    """H as K-FAC or EK-FAC; each of its blocks has one prior precision."""

    def __init__(self, operator: KFAC):
        self.operator = operator

    def at(self, beta: float, prior: np.ndarray) -> Covariance:
        return _Factored([self._block(block, beta, prior) for block in self.operator.blocks], len(prior))

    @staticmethod
    def _block(block: Block, beta: float, prior: np.ndarray) -> Block:
        own = prior[block.positions]
        if own.min() != own.max():
            raise InputError(f"a Kronecker-factored posterior needs one prior precision for all of {block.name!r}, not "
                             f"{own.min():g} to {own.max():g}: give one per layer, or biases='separate'")
        return block.having(1 / (beta * block.values + own[0, 0]))


class _Factored:
    def __init__(self, blocks: list[Block], size: int):
        self.operator = KFAC(blocks, size)
        self.logdet_precision = -sum(float(np.log(block.values).sum()) for block in blocks)

    def variances(self) -> np.ndarray:
        return self.operator.exact_diagonal()

    def times(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.operator @ vector)

    def quadratic(self, rows: np.ndarray) -> np.ndarray:
        return self.operator.quadratic(rows)

    def draw(self, normal: np.ndarray) -> np.ndarray:
        half: Any = self.operator.map(np.sqrt)
        return np.asarray(half @ normal.T).T
