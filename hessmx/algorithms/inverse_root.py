"""(A + damping I)^(-1/2) b by Lanczos: random vectors with the covariance of the inverse, from white ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hessmx.algorithms.common import Products, Progress, positive_int, positive_number, require_memory
from hessmx.errors import InputError


@dataclass(frozen=True, eq=False)
class InverseRoot:
    """x = (A + damping I)^(-1/2) b and how far it can be believed."""

    x: np.ndarray  # (P,)
    residual: float  # of CG on the same Krylov space, relative: bounds the relative error times sqrt(cond)
    converged: bool
    products: int


def inverse_root(operator: Any, b: np.ndarray, damping: float, *, rtol: float = 1e-3, steps: int = 200,
                 memory: int = 2 << 30, progress: Progress | None = None) -> InverseRoot:
    """||b|| Q (T + damping I)^(-1/2) e_1 of the Lanczos decomposition A Q = Q T + ... (Higham 2008, section 13.2).

    Stops where CG would have solved (A + damping I) x = b to `rtol`: as A^(-1/2) is an average of (A + t^2 I)^-1 and
    residuals of CG shrink with t, the error is at most that residual over sqrt(smallest eigenvalue) (Chen, Greenbaum,
    Musco & Musco 2022). InputError where A + damping I is not positive definite. At most `steps` products
    and vectors of float64.
    """
    products = Products(operator, progress, steps)
    steps = min(positive_int("steps", steps), products.dim)
    positive_number("rtol", rtol)
    require_memory(memory, steps + 1, products.dim, "steps")
    length = float(np.linalg.norm(b))
    if length == 0:
        return InverseRoot(np.zeros(products.dim), 0.0, True, 0)
    basis, residual = [b / length], 1.0
    alphas: list[float] = []
    betas: list[float] = []
    while len(alphas) < steps:
        image = products(basis[-1])
        alphas.append(float(basis[-1] @ image))
        for _ in range(2):
            for row in basis:
                image = image - row * (row @ image)
        betas.append(float(np.linalg.norm(image)))
        values, vectors = eigh_tridiagonal(np.array(alphas) + damping, betas[:-1])
        if values[0] <= 0:
            raise InputError(f"the matrix must be positive definite, but it has an eigenvalue of at most "
                             f"{values[0] - damping:.3g} and the damping is {damping:.3g}; use more, or the ggn")
        residual = abs(betas[-1] * float(vectors[-1] @ (vectors[0] / values)))
        if residual <= rtol or betas[-1] <= 10 * products.eps * products.scale:
            break
        basis.append(image / betas[-1])
    weights = length * vectors @ (vectors[0] / np.sqrt(values))
    x = sum(weight * row for weight, row in zip(weights, basis))
    return InverseRoot(np.asarray(x), residual, residual <= max(rtol, 10 * products.eps), products.count)
