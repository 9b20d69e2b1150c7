"""Nystrom approximations A W (W'A W)^-1 W'A of positive matrices: traces, diagonals, preconditioners.

One product for each test vector. With A W = Q R and H = W'A W = C'C the approximation is B B', B = R C^-1, in the
coordinates of Q. Leaving test vector i out takes u_i u_i' from it, u_i column i of R H^-1 over the root of (H^-1)_ii;
and w_i'(A - A_i) w_i, what the approximation without it misses of test vector i, is 1 / (H^-1)_ii: leave-one-out
estimates cost nothing.
"""

from __future__ import annotations

import numpy as np

from hessmx.algorithms.common import rademacher, signs, spherical
from hessmx.algorithms.run import Run
from hessmx.algorithms.sketch import Range, exchangeable_stderr
from hessmx.errors import InputError


class Nystrom(Range):
    """A sketch of A + ridge I, with a ridge at the rounding of the products that keeps H invertible."""

    def began(self, images: np.ndarray) -> None:
        if not self.ridge:
            self.ridge = 4 * self.run.eps * float(np.linalg.norm(images))

    def inverse(self, tests: np.ndarray) -> np.ndarray:
        """C^-1 (m, m) with H^-1 = C^-1 C^-T, for tests (P, m)."""
        inner = (self.basis @ tests).T @ self.corner
        values, turn = np.linalg.eigh((inner + inner.T) / 2)
        if values[0] < -max(1e-10, 100 * self.run.eps) * values[-1]:
            raise InputError(f"a Nystrom approximation needs a positive semidefinite matrix, but v'Av is "
                             f"{values[0]:.3g} for some v and {values[-1]:.3g} for others; use 'hutch++', or a shift")
        floor = max(1e-17 * values[-1], 1e-300)
        return turn / np.sqrt(np.maximum(values, floor))


class NystromTrace:
    """XNysTrace (Epperly, Tropp & Webber 2024, section 2.2): one product for each test vector, on the sphere.

    The sample of test vector i is scaled to the sphere in the complement of all others, where A - A_i lives (section
    2.3). The error bar accounts for correlations (`exchangeable_stderr`).
    """

    name, least, vectors = "xnystrace", 3, 2

    def __init__(self, run: Run):
        self.run, self.sketch = run, Nystrom(run, self.test)

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.sketch.restore(saved)

    def test(self, i: int) -> np.ndarray:
        return spherical(self.run.seed, i, self.run.dim)

    def grow(self, budget: int, limit: int, rtol: float | None) -> None:
        self.sketch.grow(min(budget, self.run.dim))

    def estimate(self) -> tuple[np.ndarray, float, tuple[str, ...]]:
        sketch, size, dim = self.sketch, self.sketch.size, self.run.dim
        tests = np.stack([self.test(i) for i in range(size)], axis=1)
        inverse = sketch.inverse(tests)
        whole = float(np.sum((sketch.corner @ inverse) ** 2)) - dim * sketch.ridge
        if size == dim:
            return np.full(size, whole), 0.0, ("exact: the sketch spans the whole space",)
        k, f = inverse @ inverse.T, sketch.corner @ (inverse @ inverse.T)
        n, g, own = f.T @ f, np.linalg.inv(tests.T @ tests), np.diag(k)
        estimates = whole - np.diag(n) / own + (dim - size + 1) * np.diag(g) / own
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = k / own  # [j, i] = K_ji / K_ii
            second = np.maximum(own[:, None] - k * ratio, 1e-12 * own[:, None])  # K_jj once i has left
            moved = np.diag(n)[:, None] - 2 * ratio * n + ratio**2 * np.diag(n)
            alone = (np.diag(g)[:, None] - g**2 / np.diag(g)) / second  # [i, j]: sample i, unscaled, without j
            changes = moved.T / second.T + ((dim - size + 1) * np.diag(g) / own)[:, None] - (dim - size + 2) * alone
        changes = np.where(np.eye(size, dtype=bool) | ~np.isfinite(changes), 0.0, changes)
        return estimates, float(exchangeable_stderr(estimates, np.sum(changes * changes.T))), ()


def xnysdiag(run: Run, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """XNysDiag (Epperly, Tropp & Webber 2024, section 4): diagonal (P,) and standard errors, from random signs."""
    size = min(budget, run.dim)
    sketch = Nystrom(run, lambda i: rademacher(run.seed, i, run.dim))
    sketch.grow(size)
    tests = signs(run.seed, range(size), run.dim)
    inverse = sketch.inverse(tests)
    k = inverse @ inverse.T
    own, value, stderr = np.diag(k), np.empty(run.dim), np.zeros(run.dim)
    for at in range(0, run.dim, 1 << 16):
        rows = slice(at, at + (1 << 16))
        half = sketch.basis[:, rows].T @ sketch.corner @ inverse
        known = np.sum(half**2, axis=1) - sketch.ridge
        if size == run.dim:
            value[rows] = known
            continue
        columns, local = half @ inverse.T, tests[rows]
        estimates = known[:, None] - columns**2 / own + local * columns / own
        value[rows] = estimates.mean(axis=1)
        stderr[rows] = exchangeable_stderr(estimates.T, _crossed(columns, local, k))
    return value, stderr


def _crossed(columns: np.ndarray, tests: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Sum over i != j of d_ij d_ji, d_ij the change of estimate i when test vector j leaves, too."""
    own, total = np.diag(k), np.zeros(len(columns))

    def change(i: int, j: int) -> np.ndarray:
        left = max(own[j] - k[i, j] ** 2 / own[i], 1e-12 * own[j])
        moved = columns[:, j] - columns[:, i] * k[i, j] / own[i]
        without = columns[:, i] - columns[:, j] * k[i, j] / own[j]
        rest = max(own[i] - k[i, j] ** 2 / own[j], 1e-12 * own[i])
        return moved**2 / left + tests[:, i] * (columns[:, i] / own[i] - without / rest)

    for i in range(len(own)):
        for j in range(i):
            total += 2 * change(i, j) * change(j, i)
    return total
