"""A growing orthonormal basis of the range of A, and what remains of it when test vectors are left out.

With Y = A W = Q R for test vectors W, leaving out vector i takes from the range of Q just the direction Q s_i, s_i the
normalised column i of R^-T (Epperly, Tropp & Webber 2024, section 2.3). That makes leave-one-out estimates free.
"""

from __future__ import annotations

from typing import Callable

import numpy as np

from hessmx.algorithms.common import Products, gaussian


class Sketch:
    """`basis` (r, P) orthonormal rows, `images` (r, P) A times them, `corner` (r, r) the R of A W' = Q R."""

    def __init__(self, products: Products, test: Callable[[int], np.ndarray], seed: int):
        self.products, self.test, self.seed = products, test, seed
        self.basis = self.images = np.empty((0, products.dim))
        self.corner = np.empty((0, 0))
        self.size, self.spent = 0, False

    def reserve(self, size: int) -> None:
        """Room for `size` vectors."""
        size = min(size, self.products.dim)
        self.basis, self.images = (_enlarged(a, (size, self.products.dim)) for a in (self.basis, self.images))
        self.corner = _enlarged(self.corner, (size, size))

    def step(self) -> None:
        """One more test vector: two products."""
        at, basis = self.size, self.basis[: self.size]
        self.products.message = f"sketch of {at + 1} vectors"
        image = self.products(self.test(at))
        rest, coefficients = _orthogonal(image, basis)
        size = float(np.linalg.norm(rest))
        if size <= max(1e-13, 10 * self.products.eps) * np.linalg.norm(image) or not image.any():
            self.spent, size = True, 0.0  # the range is known; any other direction keeps the budget
            rest, _ = _orthogonal(gaussian(self.seed, (1, at), self.products.dim), basis)
        self.basis[at] = rest / np.linalg.norm(rest)
        self.corner[:at, at], self.corner[at, at] = coefficients, size
        self.images[at] = self.products(self.basis[at])
        self.size += 1

    def directions(self) -> np.ndarray:
        """(r, r) with s_i in column i; zero where the range is known without any one vector."""
        if self.spent:
            return np.zeros((self.size, self.size))
        inverse = np.linalg.inv(self.corner[: self.size, : self.size]).T
        return inverse / np.linalg.norm(inverse, axis=0)

    def snapshot(self) -> dict[str, np.ndarray | int | bool]:
        n = self.size
        return {"basis": self.basis[:n], "images": self.images[:n], "corner": self.corner[:n, :n], "spent": self.spent}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        self.basis, self.images, self.corner = saved["basis"], saved["images"], saved["corner"]
        self.size, self.spent = len(self.basis), bool(saved["spent"])


def exchangeable_stderr(estimates: np.ndarray, cross: np.ndarray | float) -> np.ndarray:
    """Standard error of the mean of leave-one-out estimates e_i of shape (m, ...).

    `cross` is the sum of d_ij d_ji over i != j, d_ij the change of e_i when test vector j leaves the sketch, too. Each
    estimate is unbiased over its own vector, given all others, hence Cov(e_i, e_j) = E d_ij d_ji, and
    var / m + mean d_ij d_ji is an unbiased variance. The plain var / m (Epperly, Tropp & Webber 2024, section 2.5)
    takes them as uncorrelated: nominal 95 % intervals covered 81-94 %.
    """
    m = len(estimates)
    return np.sqrt(estimates.var(axis=0, ddof=1) / m + np.maximum(cross / (m * (m - 1)), 0.0))


def second_directions(first: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) a and b such that a_j other_j - b_j first is the unit part of row j orthogonal to `first`; 0 if none is."""
    overlaps = others @ first
    sizes = np.linalg.norm(others - np.multiply.outer(overlaps, first), axis=1)
    a = np.where(sizes > 1e-8, 1 / np.where(sizes > 1e-8, sizes, 1.0), 0.0)
    return a, a * overlaps


def _orthogonal(vector: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The part orthogonal to the rows of `basis`, and the coefficients of the rest."""
    total = np.zeros(len(basis))
    for _ in range(2):
        part = basis @ vector
        vector, total = vector - part @ basis, total + part
    return vector, total


def _enlarged(array: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    out = np.zeros(np.maximum(shape, array.shape))
    out[: array.shape[0], : array.shape[1]] = array
    return out
