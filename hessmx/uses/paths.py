"""From one trained net to another: the loss along a straight or a bent path, its barrier, slope and curvature.

Running statistics of BatchNorm are not parameters: in mode="predict" they stay those of the first net all along the
path, which makes barriers of their own. Use mode="train" for such nets: every point then has the statistics of its
batches, as Garipov et al. (2018, section 5) compute them anew for every point.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.common import Progress, positive_int
from hessmx.errors import InputError, choose
from hessmx.results import Provenance, Result
from hessmx.uses.nets import Metric, elsewhere, measured_at, vector_of

KINDS = ("bezier", "chain")
POINTS = 31


@dataclass(frozen=True, eq=False)
class NetPath(Result):
    """Loss at m points of a path; derivatives are by t, which goes from 0 to 1 whatever the path's length."""

    t: np.ndarray  # (m,)
    losses: np.ndarray  # (m,)
    slopes: np.ndarray  # (m,) dL/dt = g . p'; on a chain's corner that of the second leg
    curvatures: np.ndarray  # (m,) d2L/dt2 = p'. H p' + g . p''
    metric: np.ndarray  # (m,) NaN without one
    barrier: float  # highest rise above the line between the ends' losses (Entezari et al. 2022, section 2)
    peak: float  # t where it is
    length: float  # of the path, in the parameters' Euclidean norm
    distance: float  # of its ends
    kind: str  # straight, bezier or chain
    control: np.ndarray | None = None  # (P,) the bend
    training: np.ndarray | None = None  # (steps,) the loss at the random points that the bend was trained on
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True)
class _Shape:
    """A path p(t) and its derivatives; `pull(t)` is dp/dcontrol, a number as all parameters bend alike."""

    at: Callable[[float], np.ndarray]
    velocity: Callable[[float], np.ndarray]
    acceleration: Callable[[float], np.ndarray]
    pull: Callable[[float], float]


def straight(curv: Any, other: Any, points: int = POINTS, metric: Metric | None = None,
             progress: Progress | None = None) -> NetPath:
    """The loss on the straight line from curv's net to another like it (a net, a Curvature, or a vector (P,)).

    Of each point a loss, a gradient and a product; with `metric` one call of it with the net there.
    """
    start, end = _ends(curv, other)
    return _along(curv, _line(start, end), "straight", points, metric, progress, start, end)


def bent(curv: Any, other: Any, kind: str = "bezier", steps: int = 200, rate: float | None = None, points: int = POINTS,
         metric: Metric | None = None, seed: int | None = None, progress: Progress | None = None) -> NetPath:
    """A curve with one bend, trained so that the mean loss along it is low (Garipov et al. 2018, section 3.2 and 3.3).

    "bezier": (1-t)^2 a + 2 t (1-t) c + t^2 b; "chain": straight from a to c, then to b. Only c moves, from the middle:
    `steps` steps of Adam, each a gradient over curv's data at one uniformly random t. `rate` is by default 1/20 of the
    root mean square distance between the ends, and falls to 0: tuned here on digits (scripts/questions/two_nets.py).
    """
    choose("kind", kind, KINDS)
    positive_int("steps", steps, 1)
    start, end = _ends(curv, other)
    scale = float(np.linalg.norm(end - start) / np.sqrt(len(start)))
    rate = 0.05 * scale if rate is None else rate
    if not np.isfinite(rate) or rate <= 0:
        raise InputError(f"rate must be a number above 0, not {rate!r}")
    control, training = _trained(curv, start, end, kind, steps, rate, curv.seed if seed is None else seed, progress)
    shape = _bent(start, control, end, kind)
    return _along(curv, shape, kind, points, metric, progress, start, end, control, training)


def point(path: NetPath, curv: Any, other: Any, t: float) -> np.ndarray:
    """Parameters (P,) at t of a path between the same two nets."""
    start, end = _ends(curv, other)
    shape = _line(start, end) if path.control is None else _bent(start, path.control, end, path.kind)
    return shape.at(t)


def _ends(curv: Any, other: Any) -> tuple[np.ndarray, np.ndarray]:
    start, end = np.asarray(curv.parameters(), float), vector_of(curv, other)
    if np.array_equal(start, end):
        raise InputError("the two nets have the same parameters: there is no path between them")
    return start, end


def _line(start: np.ndarray, end: np.ndarray) -> _Shape:
    return _Shape(lambda t: (1 - t) * start + t * end, lambda t: end - start, lambda t: 0 * start, lambda t: 0.0)


def _bent(a: np.ndarray, c: np.ndarray, b: np.ndarray, kind: str) -> _Shape:
    if kind == "bezier":
        return _Shape(lambda t: (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b,
                      lambda t: 2 * (1 - t) * (c - a) + 2 * t * (b - c), lambda t: 2 * (a - 2 * c + b),
                      lambda t: 2 * t * (1 - t))
    return _Shape(lambda t: (1 - 2 * t) * a + 2 * t * c if t < 0.5 else (2 - 2 * t) * c + (2 * t - 1) * b,
                  lambda t: 2 * (c - a) if t < 0.5 else 2 * (b - c), lambda t: 0 * a,
                  lambda t: 2 * t if t < 0.5 else 2 - 2 * t)


def _trained(curv: Any, start: np.ndarray, end: np.ndarray, kind: str, steps: int, rate: float, seed: int,
             progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    """The bend after Adam (Kingma & Ba 2015, algorithm 1, its defaults), and the losses that it met."""
    generator, control = np.random.default_rng([seed, 0xBE21]), 0.5 * (start + end)
    mean, square, met = np.zeros_like(control), np.zeros_like(control), []
    for step in range(1, steps + 1):
        t, shape = float(generator.uniform()), _bent(start, control, end, kind)
        w = shape.at(t)
        gradient = np.asarray(curv.gradient(at=w), float) * shape.pull(t)
        met.append(float(curv.loss(at=w)))
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        size = rate * (1 - (step - 1) / steps)
        control = control - size * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        if progress:
            progress(step, steps, f"loss {met[-1]:.4g}")
    return control, np.array(met)


def _along(curv: Any, shape: _Shape, kind: str, points: int, metric: Metric | None, progress: Progress | None,
           start: np.ndarray, end: np.ndarray, control: np.ndarray | None = None,
           training: np.ndarray | None = None) -> NetPath:
    t = np.linspace(0, 1, positive_int("points", points, 3))
    places = [shape.at(float(s)) for s in t]
    losses, slopes, bends = np.empty(len(t)), np.empty(len(t)), np.empty(len(t))
    with elsewhere(curv) as move:
        for i, s in enumerate(t):
            move(places[i])
            v, gradient = shape.velocity(float(s)), np.asarray(curv.gradient(), float)
            losses[i], slopes[i] = curv.loss(), gradient @ v
            bends[i] = v @ curv.hvp(v) + gradient @ shape.acceleration(float(s))
            if progress:
                progress(i + 1, len(t), f"loss {losses[i]:.4g}")
    rise = losses - ((1 - t) * losses[0] + t * losses[-1])
    steps = np.linspace(0, 1, 201)
    length = sum(np.linalg.norm(shape.at(b) - shape.at(a)) for a, b in zip(steps, steps[1:]))
    top = int(rise.argmax())
    scores, distance = measured_at(curv, places, metric), float(np.linalg.norm(end - start))
    return NetPath(t, losses, slopes, bends, scores, float(rise[top]), float(t[top]), float(length), distance, kind,
                   control, training, curv.provenance("hessian"))
