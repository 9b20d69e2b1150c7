"""Squared Frobenius norm: the sum of the squared eigenvalues."""

from __future__ import annotations

from typing import Any

import numpy as np

from hessmx.algorithms.common import Products, Progress, positive_int, rademacher
from hessmx.results import Estimate


def squared_frobenius(operator: Any, budget: int = 100, *, seed: int = 0, progress: Progress | None = None) -> Estimate:
    """||A||_F^2 as the mean of ||Av||^2 over random signs: Hutchinson's estimate of tr A'A. `budget` products."""
    budget = positive_int("budget", budget, 2)
    products = Products(operator, progress, budget)
    images = (products(rademacher(seed, i, products.dim)) for i in range(budget))
    samples = np.array([float(image @ image) for image in images])
    value, spread = float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(budget))
    return Estimate(value, max(spread, 4 * products.eps * value), samples, products.count, "hutchinson", dof=budget - 1)
