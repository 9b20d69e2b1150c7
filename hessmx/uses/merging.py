"""One net of several: parameters averaged with the weight that each net's curvature gives them.

Near its minimum w_i each loss is about (w - w_i)' F_i (w - w_i) / 2. The sum of them is least where
sum_i c_i F_i (w - w_i) = 0: that w is the merged net (Matena & Raffel 2022, section 2, with diagonals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from hessmx.algorithms.common import Progress
from hessmx.algorithms.solve import solve
from hessmx.errors import InputError, choose
from hessmx.results import Provenance, Result
from hessmx.uses.diagonals import empirical_fisher_diagonal, ggn_diagonal
from hessmx.uses.nets import vector_of

METHODS = ("full", "diagonal", "mean")
MATRICES = ("ggn", "fisher")


@dataclass(frozen=True, eq=False)
class Merged(Result):
    """The merged net; row i of `losses`: loss of task i, under the nets as they were, their mean, the merged net."""

    parameters: np.ndarray  # (P,)
    weights: np.ndarray  # (k,) of the tasks, sum 1
    losses: np.ndarray  # (k, k + 2)
    residual: float  # of the linear system, relative; 0 where it is solved entry by entry
    converged: bool
    products: int
    method: str
    matrix: str
    damping: float
    provenance: Provenance = field(default_factory=Provenance)


def merge(curvs: Sequence[Any], weights: Sequence[float] | None = None, method: str = "full", matrix: str = "ggn",
          damping: float | None = None, draws: int = 20, rtol: float = 1e-8, max_products: int = 500,
          progress: Progress | None = None) -> Merged:
    """The net that the quadratic models of several trained nets of one architecture prefer together.

    curvs    a Curvature for each: net, loss, and the data that it was trained on
    weights  of the tasks; by default their numbers of samples, which makes it the model of the loss on all data
    method   "full": the whole matrices, by conjugate gradients, k products a step; exact where the losses are quadratic
             (linear regression). "diagonal": `diagonals.ggn_diagonal(draws)` or the empirical Fisher's. "mean": plain
    damping  added to the diagonal, in units of its mean, so that what no task feels is the plain mean; by default
             1e-6 for "full", 1e-3 for "diagonal", whose small entries are noisy
    """
    choose("method", method, METHODS)
    choose("matrix", matrix, MATRICES)
    if len(curvs) < 2:
        raise InputError(f"merging needs at least two nets, not {len(curvs)}")
    share = _shares(curvs, weights)
    points = [vector_of(curvs[0], curv, f"net {i + 1}") for i, curv in enumerate(curvs)]
    centre = np.einsum("i,ip->p", share, points)
    damping = {"full": 1e-6, "diagonal": 1e-3, "mean": 0.0}[method] if damping is None else damping
    w, residual, converged, products = centre, 0.0, True, 0
    if method == "diagonal":
        diagonals = np.stack([(ggn_diagonal(c, draws) if matrix == "ggn" else empirical_fisher_diagonal(c)).value
                              for c in curvs]) * share[:, None]
        total = diagonals.sum(axis=0) + damping * diagonals.sum(axis=0).mean()
        w = centre + np.sum(diagonals * (np.stack(points) - centre), axis=0) / np.where(total > 0, total, 1)
        products = draws * len(curvs)
    elif method == "full":
        matrices = [curv.matrix(matrix) for curv in curvs]
        w, residual, converged, products = _full(matrices, share, points, centre, damping, curvs[0].seed,
                                                 {"rtol": rtol, "max_products": max_products, "progress": progress})
    tested = [*points, centre, w]
    losses = np.array([[float(curv.loss(at=at)) for at in tested] for curv in curvs])
    return Merged(w, share, losses, residual, converged, products, method, matrix, float(damping),
                  curvs[0].provenance(matrix))


def _full(matrices: Sequence[Any], share: np.ndarray, points: list[np.ndarray], centre: np.ndarray, damping: float,
          seed: int, options: dict[str, Any]) -> tuple[np.ndarray, float, bool, int]:
    """(sum c F + damping) (w - centre) = sum c F (w_i - centre), by conjugate gradients in float64."""
    size = len(centre)

    def product(v: np.ndarray) -> np.ndarray:
        return np.sum([c * np.asarray(m.matvec(np.ravel(v)), float) for c, m in zip(share, matrices)], axis=0)

    right = sum(c * np.asarray(m.matvec(p - centre), float) for c, m, p in zip(share, matrices, points))
    probe = np.random.default_rng([seed, 0x3E6]).choice([-1.0, 1.0], size=size)
    shift = damping * max(float(probe @ product(probe)) / size, 0.0)  # one sample of the mean: only its size counts
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    if not np.any(right):
        return centre, 0.0, True, len(matrices) + 1
    found = solve(operator, right, damping=shift, **options)
    return centre + found.x, found.residual, found.converged, (found.products + 2) * len(matrices)


def _shares(curvs: Sequence[Any], weights: Sequence[float] | None) -> np.ndarray:
    given = [curv.num_samples for curv in curvs] if weights is None else weights
    share = np.asarray(given, float)
    if share.shape != (len(curvs),) or not np.isfinite(share).all() or (share < 0).any() or not share.sum():
        raise InputError(f"weights must be {len(curvs)} numbers of at least 0, one for each net, not {weights!r}")
    if weights is None and curvs[0].reduction == "sum":
        share = np.ones(len(curvs))  # sums over samples are weighted by themselves
    return share / share.sum()
