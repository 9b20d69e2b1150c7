"""Directions for landscapes: random ones in the net's own proportions, towards another net, along a trajectory.

Biases, and the scales and shifts of normalisation layers, stay fixed unless `biases=True`: random steps in them are not
comparable with steps in weights (Li et al. 2018, section 4). Running statistics of BatchNorm are no parameters: in
mode="predict" they are the trained net's at every point, in mode="train" those of the batch there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hessmx.algorithms.common import gaussian, positive_int
from hessmx.errors import InputError, choose
from hessmx.results import Result
from hessmx.uses.nets import vector_of

SCALES = ("filter", "layer", "none")


@dataclass(frozen=True, eq=False)
class Trajectory(Result):
    """A training trajectory projected on its two principal directions."""

    directions: np.ndarray  # (P, 2), orthonormal
    path: np.ndarray  # (t, 2)
    explained: np.ndarray  # (2,) shares of the variance


def random_directions(curv: Any, count: int = 2, seed: int = 0, biases: bool = False,
                      normalise: str = "filter") -> np.ndarray:
    """(P, count) Gaussian directions, scaled as `normalised` says (by default Li et al. 2018, section 4)."""
    size = np.asarray(curv.parameters()).size
    columns = [normalised(curv, gaussian(seed, i, size), normalise, biases)
               for i in range(positive_int("count", count))]
    return np.stack(columns, axis=1)


def normalised(curv: Any, direction: np.ndarray, by: str = "filter", biases: bool = False) -> np.ndarray:
    """A direction (P,) in the net's own proportions.

    "filter": each row of a weight gets the length of the net's own row. "layer": each weight as a whole. "none": as it
    is. One-dimensional parameters become 0, or with `biases` are scaled in the same way (each entry is a row).
    """
    choose("normalise", by, SCALES)
    w, d = np.asarray(curv.parameters(), float), np.array(direction, float)
    for name, where in curv.param_slices.items():
        shape = curv.param_shapes[name]
        if len(shape) < 2 and not biases:
            d[where] = 0.0
        elif by != "none":
            rows = (shape[0], -1) if by == "filter" else (1, -1)
            d[where] = _like(d[where].reshape(rows), w[where].reshape(rows)).ravel()
    return d


def towards(curv: Any, other: Any) -> np.ndarray:
    """(P,) from curv's net to another of its architecture: at 1 of a line along it stands the other net."""
    return vector_of(curv, other) - np.asarray(curv.parameters(), float)


def trajectory(snapshots: Sequence[np.ndarray] | np.ndarray, centre: np.ndarray | None = None) -> Trajectory:
    """Principal directions of (T, P) parameters met in training, seen from `centre` (default: the last snapshot)."""
    w = np.asarray(snapshots, float)
    if w.ndim != 2 or len(w) < 3:
        raise InputError(f"snapshots must hold at least three parameter vectors, shape (T, P), not {w.shape}")
    moved = w - (w[-1] if centre is None else np.asarray(centre, float))
    _, sizes, rows = np.linalg.svd(moved, full_matrices=False)
    if sizes[0] == 0:
        raise InputError("all snapshots are equal: a trajectory needs parameters that move")
    return Trajectory(rows[:2].T, moved @ rows[:2].T, sizes[:2] ** 2 / np.sum(sizes**2))


def _like(d: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Rows of d with the norms of the rows of w; a row of zeros stays."""
    own = np.linalg.norm(d, axis=1, keepdims=True)
    return d * np.divide(np.linalg.norm(w, axis=1, keepdims=True), own, out=np.zeros_like(own), where=own > 0)
