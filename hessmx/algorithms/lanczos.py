"""Extreme eigenpairs by thick-restart block Lanczos."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh

from hessmx.algorithms.common import Products, Progress, positive_int
from hessmx.algorithms.power import power
from hessmx.errors import choose
from hessmx.results import Eigenpairs

WHICH = ("LA", "SA", "LM", "BE")


def eigenpairs(operator: Any, k: int = 1, which: str = "LA", method: str = "lanczos", *, tol: float = 1e-6,
               max_products: int | None = None, seed: int = 0, progress: Progress | None = None) -> Eigenpairs:
    """k eigenpairs at the end(s) of the spectrum named by `which`."""
    choose("which", which, WHICH)
    choose("method", method, ("lanczos", "power"))
    products = Products(operator, progress, max_products)
    k = positive_int("k", k, 1, products.dim)
    if method == "power":
        return power(products, k, which, tol, max_products or 1000 * k, seed)
    if k >= products.dim - 1:
        values, vectors = np.linalg.eigh(products(np.eye(products.dim)))
        keep = np.arange(products.dim)[{"LA": slice(-k, None), "SA": slice(k), "BE": slice(k), "LM": slice(k)}[which]]
        values, vectors = values[keep], vectors[:, keep]
    else:
        op = LinearOperator((products.dim,) * 2, matvec=lambda v: products(v.ravel()), dtype=float)
        start = np.random.default_rng(seed).standard_normal(products.dim)
        values, vectors = eigsh(op, k, which=which, tol=tol, v0=start)
    order = {"LA": -values, "SA": values, "BE": values, "LM": -np.abs(values)}[which].argsort(kind="stable")
    values, vectors = values[order], vectors[:, order]
    residuals = np.linalg.norm(products(vectors) - vectors * values, axis=0)
    scale = np.maximum(np.abs(values), 1e-3 * np.abs(values).max())
    return Eigenpairs(values, vectors, residuals, residuals <= max(10 * tol, 10 * products.eps) * scale,
                      products.count, "lanczos", which)
