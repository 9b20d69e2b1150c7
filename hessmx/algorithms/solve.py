"""Inverse products: (A + damping I) x = b by SciPy's CG and MINRES, with the true residual."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, cg, minres

from hessmx.algorithms.common import Products, Progress, positive_int, positive_number
from hessmx.errors import InputError, choose
from hessmx.results import Solution

SOLVERS = {"cg": cg, "minres": minres}
ROUNDS = 4  # MINRES stops by its own estimate: it goes on, tighter, until the true residual agrees


def solve(operator: Any, b: np.ndarray, damping: float = 0.0, method: str = "cg", *, rtol: float = 1e-6,
          max_products: int | None = None, progress: Progress | None = None, preconditioner: Any = None) -> Solution:
    """x with ||b - (A + damping I) x|| <= rtol ||b||; at most `max_products` products.

    "cg" (Hestenes & Stiefel 1952) needs A + damping I positive definite; "minres" (Paige & Saunders 1975) takes any
    symmetric one. One product of each round gives the true residual. Default: 10 P + 10 products, at most 10,000.
    preconditioner: a positive definite operator near (A + damping I)^-1, such as `curv.kfac().inverse(damping)`.
    """
    choose("method", method, SOLVERS)
    products = Products(operator, progress)
    b, rtol = _right_side(b, products.dim), positive_number("rtol", rtol)
    if not (np.isscalar(damping) and np.isfinite(damping) and damping >= 0):
        raise InputError(f"damping must be a finite number of at least 0, not {damping!r}")
    products.total = positive_int("max_products", min(10 * products.dim + 10, 10_000) if max_products is None
                                  else max_products, 2)
    damped = LinearOperator((products.dim,) * 2, matvec=lambda v: products(v) + damping * v, dtype=np.float64)
    x, residual, tight = np.zeros_like(b), b, rtol
    for _ in range(ROUNDS):
        left = products.total - products.count
        if (left < 4 and products.count) or np.linalg.norm(residual) <= rtol * np.linalg.norm(b):
            break
        steps, target = max(left - 3, 1), tight * np.linalg.norm(b)
        better = x + _correction(SOLVERS[method], damped, residual, target, steps, preconditioner)
        rest = b - damped.matvec(better)
        if np.linalg.norm(rest) >= np.linalg.norm(residual):  # CG on an indefinite matrix: keep what was better
            break
        x, residual, tight = better, rest, tight / 10
    relative = float(np.linalg.norm(residual) / np.linalg.norm(b)) if b.any() else 0.0
    return Solution(x, relative, relative <= rtol, products.count, method, float(damping),
                    _advice(method, relative, rtol))


def _correction(solver: Any, damped: LinearOperator, residual: np.ndarray, target: Any, steps: int,
                preconditioner: Any) -> np.ndarray:
    """Solve for the residual, to the absolute accuracy `target`."""
    name = "rtol" if "rtol" in inspect.signature(solver).parameters else "tol"  # SciPy before 1.12
    options = {name: min(0.5, target / float(np.linalg.norm(residual)))}
    return solver(damped, residual, maxiter=steps, M=preconditioner, **options)[0]


def _right_side(b: Any, dim: int) -> np.ndarray:
    array = np.asarray(b, dtype=np.float64)
    if array.shape != (dim,):
        raise InputError(f"b must be a vector of shape ({dim},), not {array.shape}")
    if not np.isfinite(array).all():
        raise InputError("b must be finite, but contains NaN or infinity")
    return array


def _advice(method: str, relative: float, rtol: float) -> tuple[str, ...]:
    if relative <= rtol:
        return ()
    cause = ("the matrix may be indefinite: try more damping, or method='minres'" if method == "cg"
             else "the matrix may be singular: try more damping")
    return (f"relative residual {relative:.2g} instead of {rtol:.2g}; {cause}, or allow more products",)
