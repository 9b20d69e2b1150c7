"""Covariances (beta H + D)^-1 of a Gaussian posterior, by what is known of H: all, its top eigenpairs, or factors.

H (P, P) is the Gauss-Newton matrix of the summed negative log-likelihood, beta its precision (1 over the noise's
variance), D = diag(prior) the prior's precisions (P,). A structure is H; `at(beta, prior)` is the covariance.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from hessmx.errors import InputError
from hessmx.operators.kfac import KFAC, Block, eigen


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
    """All of H. One eigendecomposition, and for a prior that is not one number one for each covariance; P^2 numbers."""

    def __init__(self, matrix: np.ndarray):
        self.values, self.vectors = eigen(matrix)

    def at(self, beta: float, prior: np.ndarray) -> Covariance:
        scale = 1 / np.sqrt(prior)
        if prior.min() == prior.max():
            return _Whole(scale, beta * self.values / prior[0], self.vectors)
        root = scale[:, None] * self.vectors * np.sqrt(self.values)
        return _Whole(scale, *eigen(beta * (root @ root.T)))


class _Whole:
    """S = D^-1/2 V diag(1 / (1 + m)) V' D^-1/2 with the eigenpairs m, V of D^-1/2 beta H D^-1/2."""

    def __init__(self, scale: np.ndarray, m: np.ndarray, vectors: np.ndarray):
        self.scale, self.vectors, self.left = scale, vectors, 1 / (1 + m)
        self.logdet_precision = float(np.log1p(m).sum() - 2 * np.log(scale).sum())

    def variances(self) -> np.ndarray:
        return np.asarray(self.scale**2 * (self.vectors**2 @ self.left))

    def times(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.scale * (self.vectors @ (self.left * (self.vectors.T @ (self.scale * vector)))))

    def quadratic(self, rows: np.ndarray) -> np.ndarray:
        turned = (rows * self.scale) @ self.vectors
        return np.asarray((turned * self.left) @ turned.T)

    def draw(self, normal: np.ndarray) -> np.ndarray:
        return np.asarray(((normal * np.sqrt(self.left)) @ self.vectors.T) * self.scale)


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
