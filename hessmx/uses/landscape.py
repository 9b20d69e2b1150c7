"""Exact loss along lines and on planes through the trained parameters, beside the quadratic model.

Coordinates are coefficients of the directions as given: the point at s is w + s d, whatever the length of d.
A curvature `curv` is asked for `loss(at=w)`, `gradient()`, `hvp(v)`, `parameters()` and the layout of its vectors.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Union

import numpy as np

from hessmx.algorithms.common import Progress
from hessmx.algorithms.state import RunState, open_state
from hessmx.errors import InputError
from hessmx.results import Provenance, Result
from hessmx.uses.directions import Trajectory, normalised, random_directions, towards, trajectory
from hessmx.uses.nets import elsewhere
from hessmx.uses.points import PointLog

__all__ = ["LandscapeLine", "LandscapePlane", "Trajectory", "line", "normalised", "plane", "random_directions",
           "towards", "trajectory"]

POINTS = 41
SPAN = 3.0  # the default line ends where the quadratic model has risen by SPAN^2 times the loss
State = Union[RunState, str, "os.PathLike[str]", None]


@dataclass(frozen=True, eq=False)
class LandscapeLine(Result):
    """Loss at w + s d for s in `radii`; `model` is loss + slope s + curvature s^2 / 2."""

    radii: np.ndarray  # (m,)
    losses: np.ndarray  # (m,)
    model: np.ndarray  # (m,)
    loss: float
    slope: float  # g . d
    curvature: float  # d . H d
    direction_norm: float
    label: str = "direction"
    slopes: np.ndarray | None = None  # (m,) dL/ds at every point, where asked for
    curvatures: np.ndarray | None = None  # (m,) d2L/ds2
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class LandscapePlane(Result):
    """Loss at w + x d1 + y d2; row i of `losses` belongs to ys[i], column j to xs[j]."""

    xs: np.ndarray  # (n,)
    ys: np.ndarray  # (m,)
    losses: np.ndarray  # (m, n)
    model: np.ndarray  # (m, n)
    loss: float
    slopes: np.ndarray  # (2,)
    curvatures: np.ndarray  # (2, 2) d_i . H d_j
    labels: tuple[str, ...] = ("direction 1", "direction 2")
    path: np.ndarray | None = None  # (t, 2) a training trajectory in these coordinates
    explained: np.ndarray | None = None  # (2,) shares of the trajectory's variance
    provenance: Provenance = field(default_factory=Provenance)


def line(curv: Any, direction: np.ndarray, radii: Sequence[float] | np.ndarray | None = None, *,
         label: str = "direction", derivatives: bool = False, state: State = None,
         progress: Progress | None = None) -> LandscapeLine:
    """Loss along one direction. Costs a gradient, one product and a loss per radius.

    With `derivatives` also the exact slope and curvature at every point: a gradient and a product each.
    Without `radii`: 41 points as far out as the quadratic model rises to ten times the loss. With `state`, a killed
    run is continued: a path is a text file with a line for each point, a RunState is written every few seconds.
    """
    d = _direction(curv, direction, "direction")
    loss, slope, curvature = float(curv.loss()), float(curv.gradient() @ d), float(d @ curv.hvp(d))
    s = _radii(curv, d, loss, curvature) if radii is None else _coordinates("radii", radii)
    points = [(float(x),) for x in s]
    losses = _losses(curv, d[:, None], points, state, progress)
    model = loss + slope * s + 0.5 * curvature * s**2
    slopes, curvatures = _derivatives(curv, d, s, progress) if derivatives else (None, None)
    return LandscapeLine(s, losses, model, loss, slope, curvature, float(np.linalg.norm(d)), label, slopes, curvatures,
                         _provenance(curv))


def plane(curv: Any, directions: np.ndarray, xs: Sequence[float] | np.ndarray, ys: Sequence[float] | np.ndarray, *,
          labels: tuple[str, str] = ("direction 1", "direction 2"), trajectory: Trajectory | None = None,
          state: State = None, progress: Progress | None = None) -> LandscapePlane:
    """Loss on a grid spanned by the two columns of `directions` (P, 2); a loss per grid point, two products."""
    columns = np.asarray(directions, float)
    if columns.ndim != 2 or columns.shape[1] != 2:
        raise InputError(f"directions must have shape (P, 2), not {columns.shape}: one column for each axis")
    d = np.stack([_direction(curv, column, "directions") for column in columns.T], axis=1)
    x, y = _coordinates("xs", xs), _coordinates("ys", ys)
    gradient, products = curv.gradient(), np.stack([curv.hvp(column) for column in d.T], axis=1)
    slopes, curvatures = d.T @ gradient, d.T @ products
    points = [(float(a), float(b)) for b in y for a in x]
    losses = _losses(curv, d, points, state, progress).reshape(len(y), len(x))
    at = np.array(points)
    model = float(curv.loss()) + at @ slopes + 0.5 * np.einsum("pi,ij,pj->p", at, curvatures, at)
    path, explained = (trajectory.path, trajectory.explained) if trajectory else (None, None)
    return LandscapePlane(x, y, losses, model.reshape(losses.shape), float(curv.loss()), slopes,
                          0.5 * (curvatures + curvatures.T), labels, path, explained, _provenance(curv))


def _derivatives(curv: Any, d: np.ndarray, radii: np.ndarray, progress: Progress | None) -> tuple[np.ndarray, ...]:
    """g . d and d . H d at every w + s d."""
    w, slopes, curvatures = np.asarray(curv.parameters(), float), np.empty(len(radii)), np.empty(len(radii))
    with elsewhere(curv) as move:
        for i, s in enumerate(radii):
            move(w + s * d)
            slopes[i], curvatures[i] = curv.gradient() @ d, d @ curv.hvp(d)
            if progress:
                progress(i + 1, len(radii), f"slope {slopes[i]:.4g}")
    return slopes, curvatures


def _losses(curv: Any, d: np.ndarray, points: Sequence[tuple[float, ...]], state: State,
            progress: Progress | None) -> np.ndarray:
    """Loss at every point, in order; what a killed run has computed is not computed again."""
    if isinstance(state, RunState):
        return _snapshotted(curv, d, points, state, progress)
    w = np.asarray(curv.parameters(), float)
    with ExitStack() as stack:
        log = None
        if state is not None:
            log = stack.enter_context(PointLog(state, points=len(points), sha256=_digest(w, d, np.array(points))))
        losses = np.full(len(points), np.nan)
        for i, point in enumerate(points):
            if log is not None and i in log.known:
                losses[i] = log.known[i]
                continue
            losses[i] = curv.loss(at=w + d @ np.array(point))
            if log is not None:
                log.add(i, losses[i])
            if progress:
                progress(i + 1, len(points), f"loss {losses[i]:.4g}")
    return losses


def _snapshotted(curv: Any, d: np.ndarray, points: Sequence[tuple[float, ...]], state: RunState,
                 progress: Progress | None) -> np.ndarray:
    """The same with a RunState of one's own, which is written every few seconds."""
    w = np.asarray(curv.parameters(), float)
    _, saved = open_state(state, run="landscape", points=len(points), sha256=_digest(w, d, np.array(points)))
    losses = np.full(len(points), np.nan)
    done = int(saved.get("done", 0))
    losses[:done] = saved["losses"][:done] if done else []
    for i in range(done, len(points)):
        losses[i] = curv.loss(at=w + d @ np.array(points[i]))
        state.save(done=i + 1, losses=losses)
        if progress:
            progress(i + 1, len(points), f"loss {losses[i]:.4g}")
    state.save(force=True, done=len(points), losses=losses)
    return losses


def _radii(curv: Any, d: np.ndarray, loss: float, curvature: float) -> np.ndarray:
    far = np.linalg.norm(curv.parameters()) / np.linalg.norm(d)
    bend = abs(curvature) * far**2
    reach = SPAN * np.sqrt(2 * abs(loss) / abs(curvature)) if bend > 1e-12 and loss else far
    return np.linspace(-1, 1, POINTS) * (min(reach, far) or 1.0)


def _direction(curv: Any, direction: Any, name: str) -> np.ndarray:
    d = np.asarray(direction, float)
    if d.shape != (curv.num_params,):
        raise InputError(f"{name} must be flat with one entry for each of the {curv.num_params} parameters, "
                         f"not of shape {d.shape}")
    if not np.isfinite(d).all() or not d.any():
        raise InputError(f"{name} must be finite and not all zero")
    return d


def _coordinates(name: str, values: Any) -> np.ndarray:
    s = np.asarray(values, float)
    if s.ndim != 1 or not s.size or not np.isfinite(s).all():
        raise InputError(f"{name} must be a list of finite numbers, at least one, not {values!r}"[:200])
    return s


def _provenance(curv: Any) -> Provenance:
    return curv.provenance("loss") if hasattr(curv, "provenance") else Provenance()


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for a in arrays:
        digest.update(np.ascontiguousarray(a).tobytes())
    return digest.hexdigest()
