"""Trace estimators with honest error bars: Hutchinson, Hutch++ and XTrace."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np

from hessmx.algorithms.common import (
    Products,
    Progress,
    gaussian,
    positive_int,
    positive_number,
    rademacher,
    require_memory,
)
from hessmx.algorithms.sketch import Sketch, exchangeable_stderr, second_directions
from hessmx.algorithms.state import RunState, open_state
from hessmx.errors import InputError, choose
from hessmx.results import Estimate

FIRST, GROWTH, CAP = 30, 1.5, 10_000  # products before the first look at the error, growth between looks, default limit


def trace(operator: Any, method: str = "hutch++", budget: int | None = None, rtol: float | None = None, *,
          memory: int = 2 << 30, seed: int = 0, progress: Progress | None = None,
          state: RunState | str | os.PathLike | None = None) -> Estimate:
    """tr A, spending exactly `budget` products (default 100), or until the 95 % interval's half-width is `rtol` |tr A|.

    With `rtol`, `budget` is a limit (default 10,000) and nothing is drawn anew. The error is looked at seldom, at
    geometrically growing sizes: every look costs coverage. Intervals of runs stopped this way held the truth in 87 to
    99 of 100 seeds; those of fixed budgets (40 products, 400 seeds, four spectra) in 93 to 96 %; below 30 products, or
    where one eigenvalue is most of the trace, 87 to 98 %. Hutch++ and XTrace hold one vector for each product,
    within `memory` bytes.
    """
    kind = METHODS[choose("method", method, METHODS)]
    products = Products(operator, progress)
    budget = positive_int("budget", (100 if rtol is None else CAP) if budget is None else budget, kind.least)
    products.total = budget
    if rtol is not None:
        rtol = positive_number("rtol", rtol)
        if kind.vectors:
            budget = min(budget, max(kind.least, memory // (8 * products.dim)) // 2 * 2)
    require_memory(memory, kind.vectors * min(budget, 2 * products.dim), products.dim, "products, or use 'hutchinson'")
    state, saved = open_state(state, task="trace", method=method, dim=products.dim, budget=budget, rtol=rtol, seed=seed)
    run = kind(products, seed, state)
    run.restore(saved)
    for spent in [budget] if rtol is None else _looks(kind, budget):
        if products.count > spent:  # a continued run has passed this look
            continue
        run.grow(spent)
        result = run.estimate()
        if rtol is not None and result.half_width() <= rtol * abs(result.value):
            return result
    missed = () if rtol is None else (f"{budget} products did not reach a relative error of {rtol:g}",)
    return replace(result, notes=(*result.notes, *missed))


def hutchinson(operator: Any, budget: int | None = None, rtol: float | None = None, **options: Any) -> Estimate:
    """`trace` by Hutchinson's method."""
    return trace(operator, "hutchinson", budget, rtol, **options)


def _looks(kind: type[_Method], budget: int) -> list[int]:
    """Numbers of products after which the error is looked at."""
    sizes = [FIRST]
    while sizes[-1] < budget:
        sizes.append(int(sizes[-1] * GROWTH) // 2 * 2)
    return [max(kind.least, min(size, budget)) for size in sizes]


class _Method:
    """Products spent so far; `grow` spends more, `estimate` spends none."""

    name, least, vectors = "", 2, 0  # smallest budget; vectors kept for each product

    def __init__(self, products: Products, seed: int, state: RunState | None):
        self.products, self.seed, self.state = products, seed, state

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        if saved:
            self.products.count, self.products.scale = int(saved["count"]), float(saved["scale"])
            self.load(saved)

    def save(self, **arrays: Any) -> None:
        if self.state:
            self.state.save(count=self.products.count, scale=self.products.scale, **arrays)

    def load(self, saved: dict[str, np.ndarray]) -> None:
        raise NotImplementedError

    def grow(self, budget: int) -> None:
        raise NotImplementedError

    def estimate(self) -> Estimate:
        raise NotImplementedError

    def result(self, samples: np.ndarray, stderr: float | None = None, notes: tuple[str, ...] = ()) -> Estimate:
        """No error bar claims more than the rounding of the products allows."""
        value, m = float(samples.mean()), len(samples)
        spread = float(samples.std(ddof=1) / np.sqrt(m)) if stderr is None else float(stderr)
        return Estimate(value, max(spread, 4 * self.products.eps * abs(value)), samples, self.products.count, self.name,
                        dof=max(m - 1, 1), notes=notes)


class _Hutchinson(_Method):
    """Mean of v'Av over random signs (Hutchinson 1990; Girard 1989)."""

    name = "hutchinson"

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.samples: list[float] = []

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.samples = saved["samples"].tolist()

    def grow(self, budget: int) -> None:
        while self.products.count < budget:
            v = rademacher(self.seed, len(self.samples), self.products.dim)
            self.samples.append(float(v @ self.products(v)))
            self.products.message = f"trace {np.mean(self.samples):.6g}"
            self.save(samples=self.samples)

    def estimate(self) -> Estimate:
        return self.result(np.array(self.samples))


class _HutchPlusPlus(_Method):
    """Exact trace on a sketched range, Hutchinson on its complement (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    A third of the products draws the sketch, a third gives its trace, the rest samples the complement. Given the
    sketch the samples are independent and unbiased, so Student's t applies to them.
    """

    name, least, vectors = "hutch++", 4, 1

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.sketch = Sketch(self.products, lambda i: rademacher(self.seed, (2, i), self.products.dim), self.seed)
        self.drawn = np.empty((0, self.products.dim))  # A times the sampling vectors

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.sketch.restore(saved)
        self.drawn = saved["drawn"]

    def sample(self, i: int) -> np.ndarray:
        return rademacher(self.seed, i, self.products.dim)

    def grow(self, budget: int) -> None:
        size = max(min(budget // 3, (budget - len(self.drawn)) // 2, self.products.dim), self.sketch.size)
        self.sketch.reserve(size)
        while self.sketch.size < size:
            self.sketch.step()
            self.save(drawn=self.drawn, **self.sketch.snapshot())
        images, have = np.empty((budget - 2 * size, self.products.dim)), len(self.drawn)
        images[:have] = self.drawn
        for i in range(have, len(images)):
            images[i] = self.products(self.sample(i))
            self.drawn = images[: i + 1]
            self.save(drawn=self.drawn, **self.sketch.snapshot())

    def estimate(self) -> Estimate:
        sketch, known = self.sketch, float(np.vdot(self.sketch.basis, self.sketch.images))
        samples = []
        for i, image in enumerate(self.drawn):
            v = self.sample(i)
            part = sketch.basis @ v
            samples.append((v - part @ sketch.basis) @ (image - part @ sketch.images))
        return self.result(known + np.array(samples))


class _XTrace(_Method):
    """Every test vector both sketches and, left out of the sketch, samples (Epperly, Tropp & Webber 2024, section 2).

    Test vectors on the sphere, samples rescaled (section 2.3). Two products for each test vector. The error
    bar accounts for the correlation of the leave-one-out estimates (`exchangeable_stderr`).
    """

    name, least, vectors = "xtrace", 4, 1

    def __init__(self, *args: Any):
        super().__init__(*args)
        self.sketch = Sketch(self.products, self.test, self.seed)

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.sketch.restore(saved)

    def test(self, i: int) -> np.ndarray:
        v = gaussian(self.seed, i, self.products.dim)
        return v * np.sqrt(len(v)) / np.linalg.norm(v)

    def grow(self, budget: int) -> None:
        if budget % 2:
            raise InputError(f"budget must be even for 'xtrace', which spends two products on each test vector, not "
                             f"{budget}; use {budget + 1}, or 'hutch++'")
        size = min(budget // 2, self.products.dim)
        self.sketch.reserve(size)
        while self.sketch.size < size:
            self.sketch.step()
            self.save(**self.sketch.snapshot())

    def estimate(self) -> Estimate:
        sketch, size, dim = self.sketch, self.sketch.size, self.products.dim
        inner = sketch.basis @ sketch.images.T
        if size == dim:
            return self.result(np.full(size, np.trace(inner)), 0.0, ("exact: the sketch spans the whole space",))
        tests = np.stack([self.test(i) for i in range(size)], axis=1)
        parts = _Parts((inner + inner.T) / 2, sketch.directions(), sketch.basis @ tests, sketch.images @ tests,
                       sketch.corner, dim)
        estimates = np.array([parts.left_out(i) for i in range(size)])
        changes = np.stack([parts.changes(i, estimates[i]) for i in range(size)])
        return self.result(estimates, float(exchangeable_stderr(estimates, np.sum(changes * changes.T))))


class _Parts:
    """XTrace in the coordinates of the sketch: H = Q'AQ, columns s_i, Q'w_i, Q'Aw_i, and the numbers w_i'Aw_i."""

    def __init__(self, inner: np.ndarray, out: np.ndarray, tests: np.ndarray, images: np.ndarray, corner: np.ndarray,
                 dim: int):
        self.trace, self.free = float(np.trace(inner)), dim - len(inner)
        self.dim, self.squares = dim, np.sum(tests * corner, axis=0)
        self.out, self.out_images = out.T, (inner @ out).T
        self.tests, self.tests_images, self.images = tests.T, (inner @ tests).T, images.T

    def left_out(self, i: int) -> float:
        """Estimate with test vector i left out of the sketch."""
        return float(self.value(i, [(self.out[i], self.out_images[i])]))

    def changes(self, i: int, estimate: float) -> np.ndarray:
        """(m,) how that estimate changes when test vector j is left out, too; 0 for j = i."""
        a, b = (c[:, None] for c in second_directions(self.out[i], self.out))
        second = a * self.out - b * self.out[i], a * self.out_images - b * self.out_images[i]
        change = estimate - self.value(i, [(self.out[i], self.out_images[i]), second])
        change[i] = 0.0
        return change

    def value(self, i: int, gone: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Trace on the range without the directions `gone` (u, Hu; rows), plus vector i's sample of everything else."""
        known, inside, image = self.trace, self.tests[i], self.tests_images[i]
        for u, hu in gone:
            along = (u @ self.tests[i])[..., None]
            known, inside, image = known - (u * hu).sum(-1), inside - along * u, image - along * hu
        sample = self.squares[i] - 2 * inside @ self.images[i] + (inside * image).sum(-1)
        return known + (self.free + len(gone)) / (self.dim - (inside**2).sum(-1)) * sample


METHODS = {kind.name: kind for kind in (_Hutchinson, _HutchPlusPlus, _XTrace)}
