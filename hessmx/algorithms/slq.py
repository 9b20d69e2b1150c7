"""Stochastic Lanczos quadrature: the spectral distribution from a few probes."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hessmx.algorithms.common import Products, Progress, positive_int, rademacher
from hessmx.results import Spectrum


def spectrum(operator: Any, probes: int = 10, steps: int = 64, *, seed: int = 0,
             progress: Progress | None = None) -> Spectrum:
    """Nodes and weights of Gauss quadratures (Golub & Welsch 1969; Ubaru, Chen & Saad 2017).

    Full reorthogonalisation, float64. Cost: at most probes x steps products, steps vectors of memory.
    """
    probes = positive_int("probes", probes)
    products = Products(operator, progress, probes * positive_int("steps", steps))
    steps = min(steps, products.dim)
    rows = [_quadrature(*_lanczos(products, rademacher(seed, i, products.dim), steps), steps) for i in range(probes)]
    nodes, weights, bounds = (np.array(column) for column in zip(*rows))
    return Spectrum(nodes, weights, products.dim, products.count, steps, seed, bounds)


def _lanczos(products: Products, start: np.ndarray, steps: int) -> tuple[list[float], list[float]]:
    """Diagonal and off-diagonal; shorter than `steps` where the Krylov space is exhausted."""
    basis = np.empty((steps, products.dim))
    alphas: list[float] = []
    betas: list[float] = []
    vector = start / np.linalg.norm(start)
    for j in range(steps):
        basis[j] = vector
        vector = products(vector)
        alphas.append(float(basis[j] @ vector))
        for _ in range(2):
            vector = vector - basis[: j + 1].T @ (basis[: j + 1] @ vector)
        betas.append(float(np.linalg.norm(vector)))
        if betas[-1] <= 100 * np.finfo(float).eps * max(np.abs(alphas).max(), max(betas)):
            break
        vector = vector / betas[-1]
    return alphas, betas


def _quadrature(alphas: list[float], betas: list[float], steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes, weights and residual bounds, padded to `steps` by repeating the last node with weight 0."""
    nodes, vectors = eigh_tridiagonal(alphas, betas[:-1])
    weights, bounds = vectors[0] ** 2, np.abs(betas[-1] * vectors[-1])
    pad = steps - len(nodes)
    return np.pad(nodes, (0, pad), mode="edge"), np.pad(weights / weights.sum(), (0, pad)), np.pad(bounds, (0, pad))
