"""The diagonal of an operator: Hutchinson, XDiag and XNysDiag."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hessmx.algorithms.common import positive_int, rademacher, signs
from hessmx.algorithms.nystrom import xnysdiag
from hessmx.algorithms.run import Context, Run, taken_apart
from hessmx.algorithms.sketch import Sketch, exchangeable_stderr, second_directions
from hessmx.errors import InputError, choose
from hessmx.results import VectorEstimate

if TYPE_CHECKING:
    from typing_extensions import Unpack


def diagonal(operator: Any, method: str = "auto", budget: int = 100, **context: Unpack[Context]) -> VectorEstimate:
    """diag A from exactly `budget` products, with a standard error for each entry.

    "hutchinson": mean of v * Av over random signs (Bekas, Kokiopoulou & Saad 2007), constant memory.
    "xdiag": leave-one-out sketches (Epperly, Tropp & Webber 2024, section 4), two vectors of memory for each product;
    far better where the spectrum decays. "xnysdiag": the same for positive matrices, with twice as many test vectors.
    "auto": "xnysdiag" where A is known to be positive, else "xdiag"; "hutchinson" where `memory` does not hold those.
    Parts whose diagonal costs nothing (a shift, an outer product) are added exactly.
    """
    choose("method", method, ("auto", *METHODS))
    factor, rest, known = taken_apart(operator)
    if rest is None and known is not None:
        return VectorEstimate(known, np.zeros_like(known), 0, "exact")
    with Run(rest, **context) as run:
        method = _method(run, method, positive_int("budget", budget, 2))
        run.total = positive_int("budget", budget, 2 if method == "hutchinson" else 4)
        value, stderr = METHODS[method](run, budget)
        value = factor * value + (0.0 if known is None else known)
        stderr = np.maximum(abs(factor) * stderr, 4 * run.eps * np.abs(value))
        return VectorEstimate(value, stderr, run.count, method, run.notes())


def _method(run: Run, method: str, budget: int) -> str:
    """The method asked for, or the one that fits into memory."""
    if method == "auto":
        method = "xnysdiag" if run.positive else "xdiag" if budget % 2 == 0 and budget >= 4 else "hutchinson"
    needed = 2 * min(budget, 2 * run.dim) if method != "hutchinson" else 0
    if needed <= run.affordable():
        return method
    run.note(f"memory of {run.memory} bytes does not hold the {needed} vectors of {method}: hutchinson instead")
    return "hutchinson"


def _hutchinson(run: Run, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and its standard error, by Welford's update."""
    mean, spread = np.zeros(run.dim), np.zeros(run.dim)
    for first in range(0, budget, run.block):
        tests = signs(run.seed, range(first, min(first + run.block, budget)), run.dim)
        for i, sample in enumerate((tests * run(tests)).T, first):
            change = sample - mean
            mean = mean + change / (i + 1)
            spread += change * (sample - mean)
    return mean, np.sqrt(spread / (budget * (budget - 1)))


def _xdiag(run: Run, budget: int) -> tuple[np.ndarray, np.ndarray]:
    if budget % 2:
        raise InputError(f"budget must be even for 'xdiag', which spends two products on each test vector, not "
                         f"{budget}; use {budget + 1}, or 'hutchinson'")
    size = min(budget // 2, run.dim)
    sketch = Sketch(run, lambda i: rademacher(run.seed, i, run.dim))
    sketch.grow(size)
    known = np.sum(sketch.basis * sketch.images, axis=0)
    if size == run.dim:  # the sketch spans the whole space
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
    cross = np.zeros(run.dim)
    for i in range(size):
        for j in range(i):
            cross += 2 * change(i, j) * change(j, i)
    return estimates.mean(axis=0), exchangeable_stderr(estimates, cross)


METHODS = {"hutchinson": _hutchinson, "xdiag": _xdiag, "xnysdiag": xnysdiag}
