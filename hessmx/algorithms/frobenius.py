"""Squared Frobenius norm: the sum of the squared eigenvalues."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hessmx.algorithms.common import positive_int, signs
from hessmx.algorithms.run import Context, Run
from hessmx.results import Estimate, skew_dof

if TYPE_CHECKING:
    from typing_extensions import Unpack


def squared_frobenius(operator: Any, budget: int = 100, **context: Unpack[Context]) -> Estimate:
    """||A||_F^2 as the mean of ||Av||^2 over random signs: Hutchinson's estimate of tr A'A. `budget` products."""
    budget = positive_int("budget", budget, 2)
    with Run(operator, **context) as run:
        run.total, samples = budget, np.empty(0)
        while len(samples) < budget:
            numbers = range(len(samples), min(len(samples) + run.block, budget))
            images = run(signs(run.seed, numbers, run.dim))
            samples = np.append(samples, np.sum(images**2, axis=0))
        value, spread = float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(budget))
        return Estimate(value, max(spread, 4 * run.eps * value), samples, run.count, "hutchinson", skew_dof(budget),
                        notes=run.notes())
