"""Symmetric operators whose spectra are known by construction."""

from __future__ import annotations

import numpy as np
from scipy.sparse.linalg import LinearOperator


def rotated(spectrum: np.ndarray, seed: int = 0, reflections: int = 3) -> LinearOperator:
    """Q diag(spectrum) Q' with Q a product of random Householder reflections: exact eigenvalues, no P x P matrix."""
    spectrum = np.asarray(spectrum, float)
    units = np.random.default_rng([77, seed]).standard_normal((reflections, len(spectrum)))
    units /= np.linalg.norm(units, axis=1, keepdims=True)

    def reflect(v: np.ndarray, order: np.ndarray) -> np.ndarray:
        for u in order:
            v = v - 2 * np.multiply.outer(u, u @ v)
        return v

    def apply(v: np.ndarray) -> np.ndarray:
        return reflect((spectrum * reflect(v, units).T).T, units[::-1])

    return LinearOperator((len(spectrum),) * 2, matvec=apply, matmat=apply, dtype=np.float64)


def dense(spectrum: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same kind of matrix, written out and exactly symmetric, for small P."""
    q = np.linalg.qr(np.random.default_rng([78, seed]).standard_normal((len(spectrum),) * 2))[0]
    matrix = (q * np.asarray(spectrum, float)) @ q.T
    return (matrix + matrix.T) / 2


def counted(operator: object) -> tuple[LinearOperator, list[int]]:
    """The operator and a list that grows by the number of columns of each product."""
    columns: list[int] = []

    def apply(v: np.ndarray) -> np.ndarray:
        columns.append(1 if v.ndim == 1 else v.shape[1])
        return operator @ v

    return LinearOperator(operator.shape, matvec=apply, matmat=apply, dtype=operator.dtype), columns


def ends(spectrum: np.ndarray, k: int, which: str) -> np.ndarray:
    """The k eigenvalues that `which` names, in the order results have them."""
    low = np.sort(spectrum)
    if which == "BE":
        return np.concatenate([low[: k // 2], low[len(low) - (k - k // 2):]])
    key = {"LA": -low, "SA": low, "LM": -np.abs(low)}[which]
    return low[np.argsort(key, kind="stable")][:k]
