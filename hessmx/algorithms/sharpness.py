"""Sharpness, stable step sizes, outliers and saddles: answers made from eigenpairs, spectra and a loss to evaluate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.common import positive_int, positive_number
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.errors import InputError
from hessmx.results import Eigenpairs, Provenance, Result, Spectrum

LossAlong = Callable[[np.ndarray, float], float]
"""loss_along(direction, step): the loss at w + step * direction."""


@dataclass(frozen=True, eq=False)
class Sharpness(Result):
    """Largest Hessian eigenvalue and what plain gradient descent makes of it."""

    top_eigenvalue: float
    residual: float  # true ||A v - lambda v||: some eigenvalue lies this close
    converged: bool
    stable_learning_rate: float  # 2 / top_eigenvalue; infinite where no direction curves upwards
    products: int
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class TrainerSharpness(Result):
    """Largest eigenvalue of P^-1 H and what the Trainer's optimiser, with its preconditioner P, makes of it."""

    top_eigenvalue: float
    residual: float  # true ||A v - lambda v|| of the symmetric form: some eigenvalue lies this close
    converged: bool
    threshold: float  # above it a step with this rate overshoots by more than it corrects
    ratio: float  # top_eigenvalue / threshold: 1 is the edge of stability
    learning_rate: float
    stable_learning_rate: float  # at which the threshold is the top eigenvalue, with P held still
    optimizer: str
    products: int
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class BallSharpness(Result):
    """Largest loss found at distance `radius`, over the loss at the centre."""

    rise: float
    loss: float
    radius: float
    direction: np.ndarray  # (P,) unit vector
    evaluations: int
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class Outliers(Result):
    """Eigenvalues above the largest gap, beside the number of classes."""

    count: int
    classes: int
    threshold: float  # middle of the gap
    gap: float  # ratio of the eigenvalues on its two sides
    values: np.ndarray  # (k,) descending
    agrees: bool  # with classes - 1 or classes
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class SaddleReport(Result):
    """Whether the point is a saddle, how deep, and what the loss does along the most negative direction."""

    is_saddle: bool  # the eigenvalue lies below 0 by more than its residual
    eigenvalue: float
    residual: float
    direction: np.ndarray  # (P,) unit vector, pointing downhill
    steps: np.ndarray  # (m,)
    losses: np.ndarray  # (m,) measured along the direction
    quadratic: np.ndarray  # (m,) what the eigenvalue and slope predict
    best_step: float
    descent: float  # loss at the centre minus the lowest loss measured
    goes_down: bool
    products: int
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


def sharpness(operator: Any, **options: Any) -> Sharpness:
    """Largest eigenvalue and the learning rate 2 / lambda_max beyond which gradient descent diverges nearby."""
    return sharpness_of(eigenpairs(operator, 1, "LA", **options))


def sharpness_of(pairs: Eigenpairs) -> Sharpness:
    """The same from eigenpairs at the top ("LA")."""
    top = int(np.argmax(pairs.values))
    value = float(pairs.values[top])
    return Sharpness(value, float(pairs.residuals[top]), bool(pairs.converged[top]), 2 / value if value > 0 else np.inf,
                     pairs.products, pairs.notes)


def trainer_sharpness(pairs: Eigenpairs, factor: float, learning_rate: float, optimizer: str,
                      notes: tuple[str, ...] = ()) -> TrainerSharpness:
    """From the top eigenpair of P^-1 H and the optimiser's threshold, factor / learning_rate (Cohen et al. 2022)."""
    top = sharpness_of(pairs)
    threshold = factor / learning_rate if learning_rate > 0 else np.inf
    stable = factor / top.top_eigenvalue if top.top_eigenvalue > 0 else np.inf
    return TrainerSharpness(top.top_eigenvalue, top.residual, top.converged, threshold, top.top_eigenvalue / threshold,
                            learning_rate, stable, optimizer, top.products, (*top.notes, *notes))


def ball_sharpness(loss_along: LossAlong, directions: np.ndarray, radius: float = 0.05, *,
                   gradient_at: Callable[[np.ndarray], np.ndarray] | None = None, ascent: int = 5) -> BallSharpness:
    """Largest loss on the sphere of `radius` (Foret et al. 2021, equation 1): over both signs of every given direction
    (columns; the gradient and the top eigenvectors are good ones), then by `ascent` steps v <- g(w + radius v) / ||g||
    where `gradient_at(displacement)` gives gradients. A lower bound of the true maximum, as every such search is.
    """
    radius = positive_number("radius", radius)
    columns = np.asarray(directions, float).reshape(len(directions), -1)
    sizes = np.linalg.norm(columns, axis=0)
    if not np.isfinite(columns).all() or not sizes.any():
        raise InputError("directions must hold at least one finite vector other than zero")
    units = [s * c for c in (columns[:, sizes > 0] / sizes[sizes > 0]).T for s in (1.0, -1.0)]
    centre, found = float(loss_along(units[0], 0.0)), [(float(loss_along(u, radius)), u) for u in units]
    best = max(found, key=lambda pair: pair[0])
    vector = best[1]
    for _ in range(ascent if gradient_at else 0):
        slope = np.asarray(gradient_at(radius * vector), float)  # type: ignore[misc]
        if not slope.any():
            break
        vector = slope / np.linalg.norm(slope)
        found.append((float(loss_along(vector, radius)), vector))
        best = max(best, found[-1], key=lambda pair: pair[0])
    return BallSharpness(best[0] - centre, best[0], radius, best[1], len(found) + 1)


def count_outliers(values: np.ndarray | Eigenpairs, classes: int) -> Outliers:
    """Outliers above the largest ratio between neighbours among the positive top eigenvalues (Papyan 2020, section 3:
    about as many as classes). Give at least classes + 2 top eigenvalues: a gap below the last is not seen.
    """
    positive_int("classes", classes, 2)
    array = -np.sort(-np.asarray(getattr(values, "values", values), float).ravel())
    positive = array[array > 0]
    if len(array) < classes + 2:
        raise InputError(f"values must hold at least classes + 2 = {classes + 2} top eigenvalues, not {len(array)}")
    if len(positive) < 2:
        return Outliers(len(positive), classes, 0.0, float("inf"), array, False)
    ratios = positive[:-1] / positive[1:]
    count = int(np.argmax(ratios)) + 1
    middle, agrees = float(np.sqrt(positive[count - 1] * positive[count])), count in (classes - 1, classes)
    return Outliers(count, classes, middle, float(ratios[count - 1]), array, agrees)


def count_above(spectrum: Spectrum, threshold: float) -> float:
    """Number of eigenvalues above a threshold, by the spectrum's distribution function."""
    return float(spectrum.dim * (1 - spectrum.cdf(np.array([threshold]))[0]))


def saddle_report(operator: Any, loss_along: LossAlong, *, gradient: np.ndarray | None = None,
                  steps: np.ndarray | None = None, **options: Any) -> SaddleReport:
    """Most negative eigenpair, and the loss followed along it: `steps` along the direction (default 24, from 1e-3 to 1,
    geometric), downhill by the gradient's sign if it is given, else by trying both.
    """
    pairs = eigenpairs(operator, 1, "SA", **options)
    direction, value = pairs.vectors[:, 0], float(pairs.values[0])
    lengths = np.geomspace(1e-3, 1.0, 24) if steps is None else np.asarray(steps, float).ravel()
    if not len(lengths) or not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise InputError("steps must be a list of finite lengths above 0")
    centre = float(loss_along(direction, 0.0))
    slope = float(gradient @ direction) if gradient is not None else 0.0
    signs = (1.0, -1.0) if gradient is None or slope == 0 else (-np.sign(slope),)
    runs = [(s, np.array([float(loss_along(s * direction, t)) for t in lengths])) for s in signs]
    sign, losses = min(runs, key=lambda run: run[1].min())
    best = int(np.argmin(losses))
    residual = float(pairs.residuals[0])
    return SaddleReport(value < -residual, value, residual, sign * direction, lengths, losses,
                        centre + sign * slope * lengths + value * lengths**2 / 2, float(lengths[best]),
                        centre - float(losses[best]), bool(losses[best] < centre), pairs.products, pairs.notes)
