"""Trace estimators with honest error bars: Hutchinson, Hutch++, XTrace and XNysTrace."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Mapping

import numpy as np

from hessmx.algorithms.common import positive_int, positive_number, rademacher, signs, spherical
from hessmx.algorithms.nystrom import NystromTrace
from hessmx.algorithms.run import Context, Run, taken_apart
from hessmx.algorithms.sketch import Sketch, exchangeable_stderr, second_directions
from hessmx.errors import InputError, choose
from hessmx.results import Estimate, skew_dof

if TYPE_CHECKING:
    from typing_extensions import Unpack

FIRST, GROWTH, CAP = 30, 1.5, 10_000  # products before the first look at the error, growth between looks, default limit


def trace(operator: Any, method: str = "auto", budget: int | None = None, rtol: float | None = None,
          **context: Unpack[Context]) -> Estimate:
    """tr A, spending exactly `budget` products (default 100), or until the 95 % interval's half-width is `rtol` |tr A|.

    "auto": "xnystrace" where A is known to be positive, else "xtrace", or "hutch++" for an odd budget. With `rtol`,
    `budget` is a limit (default 10,000), nothing is drawn anew, and the error is looked at seldom, at geometrically
    growing sizes: every look costs coverage. Vectors that must be kept take at most `memory` bytes: where all do not
    fit, Hutch++ with as many as do.
    Parts whose trace costs nothing (a shift, an outer product) are added exactly. Coverage, errors: docs/estimators.md.
    """
    choose("method", method, ("auto", *METHODS))
    factor, rest, diagonal = taken_apart(operator)
    known = 0.0 if diagonal is None else float(diagonal.sum())
    if rest is None:
        return Estimate(known, 0.0, np.array([known]), 0, "exact", dof=1.0)
    with Run(rest, **context) as run:
        limit = positive_int("budget", (100 if rtol is None else CAP) if budget is None else budget, 2)
        rtol = None if rtol is None else positive_number("rtol", rtol)
        kind = _kind(run, method, limit, rtol)
        limit = run.total = positive_int("budget", limit, kind.least)
        saved = run.open(task="trace", method=kind.name, budget=limit, rtol=rtol)
        estimator = kind(run)
        if saved:
            estimator.load(saved)
        result = _estimated(run, estimator, limit, rtol, known / factor if factor else 0.0)
    return replace(result, value=factor * result.value, samples=factor * result.samples,
                   stderr=abs(factor) * result.stderr)


def hutchinson(operator: Any, budget: int | None = None, rtol: float | None = None, **options: Any) -> Estimate:
    """`trace` by Hutchinson's method."""
    return trace(operator, "hutchinson", budget, rtol, **options)


def block_traces(operator: Any, places: Mapping[str, np.ndarray], budget: int = 30,
                 **context: Unpack[Context]) -> dict[str, Estimate]:
    """Traces of diagonal blocks, from the same `budget` products of the whole: means of v_b'(Av)_b over random signs.

    What couples a block to the others adds to the scatter and nothing to the mean. `places`: indices of each block.
    """
    budget = positive_int("budget", budget, 2)
    samples: dict[str, np.ndarray] = {name: np.empty(0) for name in places}
    with Run(operator, **context) as run:
        run.total = budget
        for first in range(0, budget, run.block):
            tests = signs(run.seed, range(first, min(first + run.block, budget)), run.dim)
            parts = tests * run(tests)
            samples = {name: np.append(known, parts[places[name]].sum(axis=0)) for name, known in samples.items()}
        return {name: _mean(run, values) for name, values in samples.items()}


def _mean(run: Run, samples: np.ndarray) -> Estimate:
    value, spread = float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples)))
    return Estimate(value, max(spread, 4 * run.eps * abs(value)), samples, run.count, "hutchinson",
                    skew_dof(len(samples)), run.notes())


def _kind(run: Run, method: str, budget: int, rtol: float | None) -> Any:
    """The method asked for, or the one that fits into memory."""
    if method == "auto":
        method = "xnystrace" if run.positive else "hutch++" if budget % 2 or budget < 4 else "xtrace"
    kind = METHODS[method]
    needed = kind.vectors * min(FIRST if rtol else budget, 2 * run.dim)
    if needed <= run.affordable() or method in ("hutchinson", "hutch++"):
        return kind
    run.note(f"memory of {run.memory} bytes holds {run.affordable()} vectors and not the {needed} of {method}: hutch++ "
             "with a sketch that fits instead")
    return _HutchPlusPlus


def _estimated(run: Run, estimator: Any, limit: int, rtol: float | None, known: float) -> Estimate:
    """Products up to the budget, or until the interval is short enough beside the trace, `known` included."""
    if rtol is not None and estimator.vectors and not isinstance(estimator, _HutchPlusPlus):
        limit = min(limit, max(estimator.least, run.affordable() // estimator.vectors) // 2 * 2)
    for spent in [limit] if rtol is None else _looks(estimator.least, limit):
        if run.count > spent:  # a continued run has passed this look
            continue
        estimator.grow(spent, limit, rtol)
        samples, stderr, notes = estimator.estimate()
        value = float(samples.mean())
        spread = max(float(stderr), 4 * run.eps * abs(value))  # no error bar claims more than the products' rounding
        result = Estimate(value + known, spread, samples + known, run.count, estimator.name, skew_dof(len(samples)),
                          (*run.notes(), *notes))
        if rtol is not None and result.half_width() <= rtol * abs(result.value):
            return result
    missed = () if rtol is None else (f"{limit} products did not reach a relative error of {rtol:g}",)
    return replace(result, notes=(*result.notes, *missed))


def _looks(least: int, budget: int) -> list[int]:
    """Numbers of products after which the error is looked at."""
    sizes = [FIRST]
    while sizes[-1] < budget:
        sizes.append(int(sizes[-1] * GROWTH) // 2 * 2)
    return [max(least, min(size, budget)) for size in sizes]


class _Hutchinson:
    """Mean of v'Av over random signs (Hutchinson 1990; Girard 1989)."""

    name, least, vectors = "hutchinson", 2, 0  # smallest budget; vectors kept for each product

    def __init__(self, run: Run):
        self.run, self.samples = run, np.empty(0)

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.samples = saved["samples"]

    def grow(self, budget: int, limit: int, rtol: float | None) -> None:
        while self.run.count < budget:
            numbers = range(len(self.samples), len(self.samples) + min(self.run.block, budget - self.run.count))
            tests = signs(self.run.seed, numbers, self.run.dim)
            self.samples = np.append(self.samples, self.sampled(tests, self.run(tests)))
            self.run.message = f"trace {np.mean(self.samples):.6g}"
            self.save()

    def sampled(self, tests: np.ndarray, images: np.ndarray) -> np.ndarray:
        return np.sum(tests * images, axis=0)

    def save(self) -> None:
        self.run.save(samples=self.samples)

    def estimate(self) -> tuple[np.ndarray, float, tuple[str, ...]]:
        """Samples, standard error, notes; no product."""
        return self.samples, np.std(self.samples, ddof=1) / np.sqrt(len(self.samples)), ()


class _HutchPlusPlus(_Hutchinson):
    """Exact trace on a sketched range, Hutchinson on its complement (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    The sketch grows while that promises a shorter interval from the products that are left (Persson, Cortinovis &
    Kressner 2022, section 3): what is left of each new image beside the sketch tells the variance of the samples. Given
    the sketch the samples are independent and unbiased, so Student's t applies to them.
    """

    name, least, vectors = "hutch++", 4, 1
    STEP, WINDOW = 2, 6  # test vectors between two decisions, and those whose rests are averaged

    def __init__(self, run: Run):
        super().__init__(run)
        self.sketch = Sketch(run, lambda i: rademacher(run.seed, (2, i), run.dim))
        self.done = False

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.sketch.restore(saved)
        self.samples, self.done = saved["samples"], bool(saved["done"])

    def save(self) -> None:
        self.run.save(samples=self.samples, done=self.done, **self.sketch.snapshot())

    def grow(self, budget: int, limit: int, rtol: float | None) -> None:
        sketch = self.sketch
        most = min((budget - 2 - budget // 8) // 2, self.run.affordable() // 2, self.run.dim)
        while not self.done:
            size = min(self.STEP, most - sketch.size)
            if size <= 0 or not self.promising(budget, rtol):
                self.done = size > 0 or rtol is None or sketch.size >= min(self.run.affordable() // 2, self.run.dim)
                break
            sketch.reserve(sketch.size + size)
            sketch.step(size)
            self.save()
        if most < (budget - 2) // 3 and most < self.run.dim:
            self.run.note(f"memory of {self.run.memory} bytes holds a sketch of {most} vectors: more is sampled")
        super().grow(budget, limit, rtol)

    def promising(self, budget: int, rtol: float | None) -> bool:
        """Whether the last two vectors of the sketch saved more than they cost."""
        sketch, size = self.sketch, self.sketch.size
        if size <= self.WINDOW + self.STEP:
            return True
        if sketch.spent:
            return False
        rests = np.diag(sketch.corner)[:size] ** 2

        def products(last: int) -> float:
            """What is spent in the end, or the variance of the mean, with a sketch of `last` vectors."""
            variance = 2 * float(np.mean(rests[max(0, last - self.WINDOW) : last]))
            if rtol is None:
                return variance / max(budget - 2 * last, 1)
            return 2 * last + 4 * variance / max(rtol * abs(sketch.mean()), 1e-300) ** 2

        return products(size) < products(size - self.STEP)

    def sampled(self, tests: np.ndarray, images: np.ndarray) -> np.ndarray:
        basis, sketched = self.sketch.basis[: self.sketch.size], self.sketch.images[: self.sketch.size]
        part = basis @ tests
        return np.sum((tests - basis.T @ part) * (images - sketched.T @ part), axis=0)

    def estimate(self) -> tuple[np.ndarray, float, tuple[str, ...]]:
        samples, stderr, notes = super().estimate()
        return float(np.vdot(self.sketch.basis, self.sketch.images)) + samples, stderr, notes


class _XTrace:
    """Every test vector both sketches and, left out of the sketch, samples (Epperly, Tropp & Webber 2024, section 2).

    Test vectors on the sphere, samples rescaled (section 2.3). Two products for each test vector. The error
    bar accounts for the correlation of the leave-one-out estimates (`exchangeable_stderr`).
    """

    name, least, vectors = "xtrace", 4, 2

    def __init__(self, run: Run):
        self.run, self.sketch = run, Sketch(run, self.test)

    def load(self, saved: dict[str, np.ndarray]) -> None:
        self.sketch.restore(saved)

    def test(self, i: int) -> np.ndarray:
        return spherical(self.run.seed, i, self.run.dim)

    def grow(self, budget: int, limit: int, rtol: float | None) -> None:
        if budget % 2:
            raise InputError(f"budget must be even for 'xtrace', which spends two products on each test vector, not "
                             f"{budget}; use {budget + 1}, or 'hutch++'")
        self.sketch.grow(min(budget // 2, self.run.dim))

    def estimate(self) -> tuple[np.ndarray, float, tuple[str, ...]]:
        sketch, size, dim = self.sketch, self.sketch.size, self.run.dim
        inner = sketch.basis @ sketch.images.T
        if size == dim:
            return np.full(size, np.trace(inner)), 0.0, ("exact: the sketch spans the whole space",)
        tests = np.stack([self.test(i) for i in range(size)], axis=1)
        parts = _Parts((inner + inner.T) / 2, sketch.directions(), sketch.basis @ tests, sketch.images @ tests,
                       sketch.corner, dim)
        estimates = np.array([parts.left_out(i) for i in range(size)])
        changes = np.stack([parts.changes(i, estimates[i]) for i in range(size)])
        return estimates, float(exchangeable_stderr(estimates, np.sum(changes * changes.T))), ()


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


METHODS: dict[str, Any] = {kind.name: kind for kind in (_Hutchinson, _HutchPlusPlus, _XTrace, NystromTrace)}
