"""Trace estimators."""

from __future__ import annotations

from typing import Any

import numpy as np

from hessmx.algorithms.common import Products, Progress, positive_int, rademacher
from hessmx.results import Estimate


def hutchinson(operator: Any, budget: int = 100, *, seed: int = 0, progress: Progress | None = None) -> Estimate:
    """tr A as the mean of v'Av over random signs (Hutchinson 1990). Cost: `budget` products."""
    budget = positive_int("budget", budget, 2)
    products = Products(operator, progress, budget)
    samples = []
    for i in range(budget):
        v = rademacher(seed, i, products.dim)
        samples.append(float(v @ products(v)))
    array = np.array(samples)
    return Estimate(float(array.mean()), float(array.std(ddof=1) / np.sqrt(budget)), array,
                    products.count, "hutchinson", dof=budget - 1)
