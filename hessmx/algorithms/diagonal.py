"""The diagonal of an operator: Hutchinson and XDiag."""

from __future__ import annotations

from typing import Any

import numpy as np

from hessmx.algorithms.common import Products, Progress, positive_int, rademacher, require_memory
from hessmx.algorithms.sketch import Sketch, exchangeable_stderr, second_directions
from hessmx.errors import InputError, choose
from hessmx.results import VectorEstimate


def diagonal(operator: Any, method: str = "hutchinson", budget: int = 100, *, memory: int = 2 << 30, seed: int = 0,
             progress: Progress | None = None) -> VectorEstimate:
    """diag A from exactly `budget` products, with a standard error for each entry.

    "hutchinson": mean of v * Av over random signs (Bekas, Kokiopoulou & Saad 2007), constant memory.
    "xdiag": leave-one-out sketches (Epperly, Tropp & Webber 2024, section 4), two vectors of memory for each product;
    far better where the spectrum decays.
    """
    choose("method", method, ("hutchinson", "xdiag"))
    budget = positive_int("budget", budget, 2 if method == "hutchinson" else 4)
    products = Products(operator, progress, budget)
    if method == "hutchinson":
        value, stderr = _hutchinson(products, budget, seed)
    else:
        require_memory(memory, 2 * min(budget, 2 * products.dim), products.dim, "products, or use 'hutchinson'")
        value, stderr = _xdiag(products, budget, seed)
    return VectorEstimate(value, np.maximum(stderr, 4 * products.eps * np.abs(value)), products.count, method)


def _hutchinson(products: Products, budget: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, by Welford's update."""
    mean, spread = np.zeros(products.dim), np.zeros(products.dim)
    for i in range(budget):
        v = rademacher(seed, i, products.dim)
        sample = v * products(v)
        change = sample - mean
        mean = mean + change / (i + 1)
        spread += change * (sample - mean)
    return mean, np.sqrt(spread / (budget * (budget - 1)))


def _xdiag(products: Products, budget: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if budget % 2:
        raise InputError(f"budget must be even for 'xdiag', which spends two products on each test vector, not "
                         f"{budget}; use {budget + 1}, or 'hutchinson'")
    size = min(budget // 2, products.dim)
    sketch = Sketch(products, lambda i: rademacher(seed, i, products.dim), seed)
    sketch.reserve(size)
    for _ in range(size):
        sketch.step()
    known = np.sum(sketch.basis * sketch.images, axis=0)
    if size == products.dim:  # the sketch spans the whole space
        return known, np.zeros_like(known)
    out = sketch.directions()
    gone, gone_images = out.T @ sketch.basis, out.T @ sketch.images
    reach = np.sum(out * sketch.corner, axis=0)  # s_i'R_i; s_j'R_i = 0 for all others

    def left_out(i: int) -> np.ndarray:
        return known - gone[i] * gone_images[i] + sketch.test(i) * gone[i] * reach[i]

    parts = [second_directions(out[:, i], out.T) for i in range(size)]

    def change(i: int, j: int) -> np.ndarray:
        a, b = parts[i][0][j], parts[i][1][j]
        second, second_image = a * gone[j] - b * gone[i], a * gone_images[j] - b * gone_images[i]
        return second * (second_image + b * reach[i] * sketch.test(i))

    estimates = np.stack([left_out(i) for i in range(size)])
    cross = np.zeros(products.dim)
    for i in range(size):
        for j in range(i):
            cross += 2 * change(i, j) * change(j, i)
    return estimates.mean(axis=0), exchangeable_stderr(estimates, cross)
