"""Which weights, filters or units can go: saliencies, and loss against sparsity, predicted and measured.

To remove a group of parameters is to move by d = -w there and 0 elsewhere; its cost is g'd + d'Hd/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hessmx.algorithms.common import Progress
from hessmx.errors import InputError, choose
from hessmx.problem.groups import layer
from hessmx.results import Provenance, Result
from hessmx.uses.diagonals import ggn_diagonal
from hessmx.uses.nets import Metric, measured_at, weights

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
METHODS = ("magnitude", "obd", "exact", "greedy")


@dataclass(frozen=True, eq=False)
class Saliencies(Result):
    """What each candidate costs, and in which order they go."""

    values: np.ndarray  # (c,) predicted rise of the loss; for "magnitude" the size, which is no loss
    order: np.ndarray  # (c,) the first to go first
    names: tuple[str, ...]  # (c,) of the groups; of the weights where each entry is a candidate
    places: np.ndarray  # (n,) in the parameter vector, candidate after candidate
    starts: np.ndarray  # (c + 1,) where each candidate's begin in `places`
    method: str
    matrix: str
    products: int
    provenance: Provenance = field(default_factory=Provenance)

    def chosen(self, share: float) -> np.ndarray:
        """Places (n,) in the parameter vector of the candidates of least saliency: `share` of all candidates."""
        if not 0 <= share <= 1:
            raise InputError(f"a sparsity must be between 0 and 1, not {share!r}")
        chosen = [self.places[self.starts[c] : self.starts[c + 1]] for c in self._first(share)]
        return np.concatenate([np.zeros(0, np.int64), *chosen])

    def total(self, share: float) -> float:
        """Sum of the saliencies of those candidates: but for "greedy", the rise as if none knew of another."""
        return float(self.values[self._first(share)].sum())

    def _first(self, share: float) -> np.ndarray:
        return self.order[: round(share * len(self.values))]


@dataclass(frozen=True, eq=False)
class PruningCurve(Result):
    """The loss as more and more is removed, least saliency first, without training on."""

    sparsities: np.ndarray  # (s,) shares of the candidates
    removed: np.ndarray  # (s,) parameters set to zero
    separate: np.ndarray  # (s,) rise predicted by adding up saliencies; NaN for "magnitude"
    joint: np.ndarray  # (s,) rise predicted by g'd + d'Hd/2 with all that is removed
    measured: np.ndarray  # (s,) rise
    metric: np.ndarray  # (s,) NaN without one
    loss: float
    base_metric: float
    method: str
    kind: str  # weights, or groups
    products: int
    provenance: Provenance = field(default_factory=Provenance)


def saliencies(curv: Any, method: str = "obd", groups: str | Mapping[str, Sequence[int]] | None = None,
               matrix: str = "ggn", budget: int = 20, progress: Progress | None = None) -> Saliencies:
    """Saliency of every weight, or of every group.

    groups   None: each entry of a weight. "unit": each row of a weight (a filter, a unit) with its bias, but for the
             last layer, whose rows are the outputs. Or a mapping: name -> places in the parameter vector.
    method   "magnitude": |w|, of a group its length. No product.
             "obd": sum of a_kk w_k^2 / 2 (LeCun, Denker & Solla 1990, equation 5). `matrix` "ggn" as there, from
             `budget` gradients (`diagonals.ggn_diagonal`); others by `curv.diagonal`, negative estimates count as 0.
             "exact": g'd + d'Hd/2 with the Hessian, one product for each group: what is coupled within it is in it.
             "greedy": the same, and each value counts what is gone already (d'H d of all that went before): a second
             product for each group.
    """
    choose("method", method, METHODS)
    if method in ("exact", "greedy") and groups is None:
        raise InputError(f"method={method!r} spends a product on each candidate: give groups='unit' or a mapping, "
                         "or take 'obd' for single weights")
    members = None if groups is None else _groups(curv, groups)
    if members is None:
        names, places = weights(curv), places_of(curv, weights(curv))
        starts = np.arange(len(places) + 1)
    else:
        names, places = tuple(members), np.concatenate(list(members.values()))
        starts = np.concatenate([[0], np.cumsum([len(m) for m in members.values()])])
    w, order = np.asarray(curv.parameters(), float), None
    if method in ("exact", "greedy"):
        values, products = _exact(curv, w, members or {}, progress), len(names)
        if method == "greedy":
            values, order = _greedy(curv, w, members or {}, values, progress)
            products *= 2
    else:
        entries, products = _entries(curv, w, method, matrix, budget)
        values = np.add.reduceat(entries[places], starts[:-1])
        values = np.sqrt(values) if method == "magnitude" else values
    order = np.argsort(values, kind="stable") if order is None else order
    told = {"magnitude": "none", "obd": matrix}.get(method, "hessian")
    return Saliencies(values, order, names, places, starts, method, told, products, curv.provenance(told))


def units(curv: Any) -> dict[str, np.ndarray]:
    """Each row of a weight with the bias entry beside it: 'conv0[3]' -> places. The last layer is left out."""
    by_layer: dict[str, list[str]] = {}
    for name in curv.param_names:
        by_layer.setdefault(layer(name), []).append(name)
    last, found = layer(weights(curv)[-1]), {}
    for title, names in by_layer.items():
        heavy = [n for n in names if len(curv.param_shapes[n]) > 1]
        if not heavy or title == last:
            continue
        rows = curv.param_shapes[heavy[0]][0]
        fitting = [n for n in names if curv.param_shapes[n][0] == rows]
        tables = [np.arange(curv.num_params)[curv.param_slices[n]].reshape(rows, -1) for n in fitting]
        found.update({f"{title}[{i}]": np.concatenate([t[i] for t in tables]) for i in range(rows)})
    if not found:
        raise InputError("groups='unit' needs a layer before the last one; give a mapping of names to places instead")
    return found


def curve(curv: Any, found: Saliencies, sparsities: Sequence[float] = SPARSITIES, metric: Metric | None = None,
          progress: Progress | None = None) -> PruningCurve:
    """Remove the least salient share of the candidates, for each of `sparsities`; nothing is trained on.

    A product and a loss for each sparsity; with `metric` (such as `nets.accuracy(x, y)`) that, too, on the pruned net.
    """
    w, g, base = np.asarray(curv.parameters(), float), np.asarray(curv.gradient(), float), float(curv.loss())
    shares = np.asarray(sorted(sparsities), float)
    moved, joint, measured = [], [], []
    for i, share in enumerate(shares):
        places = found.chosen(float(share))
        d = np.zeros_like(w)
        d[places] = -w[places]
        moved.append(w + d)
        joint.append(float(g @ d + 0.5 * d @ curv.hvp(d)))
        measured.append(float(curv.loss(at=w + d)) - base)
        if progress:
            progress(i + 1, len(shares), f"sparsity {share:.0%}")
    separate = [found.total(float(share)) if found.method != "magnitude" else np.nan for share in shares]
    scores = measured_at(curv, [w, *moved], metric)
    removed = np.array([len(found.chosen(float(share))) for share in shares])
    kind = "weights" if len(found.values) == len(found.places) else "groups"
    return PruningCurve(shares, removed, np.array(separate), np.array(joint), np.array(measured), scores[1:], base,
                        float(scores[0]), found.method, kind,
                        found.products + len(shares), curv.provenance("hessian"))


def mask(curv: Any, found: Saliencies, share: float) -> dict[str, np.ndarray]:
    """Parameter name -> 0 where it is removed and 1 elsewhere, in its shape: for training on with the zeros kept."""
    ones = np.ones(curv.num_params, np.float32)
    ones[found.chosen(share)] = 0
    return {name: ones[where].reshape(curv.param_shapes[name]) for name, where in curv.param_slices.items()}


def _entries(curv: Any, w: np.ndarray, method: str, matrix: str, budget: int) -> tuple[np.ndarray, int]:
    """Saliency of every parameter by itself, of magnitudes the square; and the products spent."""
    if method == "magnitude":
        return w**2, 0
    found = ggn_diagonal(curv, budget) if matrix == "ggn" else curv.diagonal(matrix=matrix, budget=budget)
    return 0.5 * np.maximum(found.value, 0) * w**2, found.products


def places_of(curv: Any, names: Sequence[str]) -> np.ndarray:
    return np.concatenate([np.arange(curv.num_params)[curv.param_slices[name]] for name in names])


def _groups(curv: Any, groups: str | Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    if isinstance(groups, str):
        choose("groups", groups, ("unit",))
        return units(curv)
    members = {str(name): np.unique(np.asarray(places)) for name, places in groups.items()}
    for name, places in members.items():
        if not places.size or places.dtype.kind not in "iu" or places[0] < 0 or places[-1] >= curv.num_params:
            raise InputError(f"group {name!r} must list places from 0 to {curv.num_params - 1} in the parameter vector")
    if not members:
        raise InputError("groups must name at least one group")
    if np.bincount(np.concatenate(list(members.values()))).max() > 1:
        raise InputError("groups must not share places: each parameter can be removed once")
    return members


def _exact(curv: Any, w: np.ndarray, members: Mapping[str, np.ndarray], progress: Progress | None) -> np.ndarray:
    """g'd + d'Hd/2 for every group; products with the block of the parameters that a group touches."""
    g, owner = np.asarray(curv.gradient(), float), np.empty(curv.num_params, np.int64)
    for k, name in enumerate(curv.param_names):
        owner[curv.param_slices[name]] = k
    blocks: dict[tuple[int, ...], tuple[Any, np.ndarray]] = {}
    values = []
    for i, (name, places) in enumerate(members.items()):
        key = tuple(np.unique(owner[places]))
        if key not in blocks:
            names = [curv.param_names[k] for k in key]
            blocks[key] = curv.block(names), places_of(curv, names)
        block, whole = blocks[key]
        d = np.zeros(len(whole))
        d[np.searchsorted(whole, places)] = -w[places]
        values.append(-g[places] @ w[places] + 0.5 * d @ block.matvec(d))
        if progress:
            progress(i + 1, len(members), name)
    return np.array(values)


def _greedy(curv: Any, w: np.ndarray, members: Mapping[str, np.ndarray], alone: np.ndarray,
            progress: Progress | None) -> tuple[np.ndarray, np.ndarray]:
    """Rise that each group adds to those gone before it, and the order: always the one that adds least.

    Of the quadratic model a'Ha/2 + a'Hd + d'Hd/2, the middle term is what H times all that is gone says about the next.
    """
    places, left = list(members.values()), set(range(len(members)))
    values, order, pull = np.array(alone), [], np.zeros(curv.num_params)
    while left:
        adds = {c: alone[c] - pull[places[c]] @ w[places[c]] for c in left}
        best = min(left, key=lambda c: (adds[c], c))
        values[best] = adds[best]
        order.append(best)
        left.remove(best)
        d = np.zeros(curv.num_params)
        d[places[best]] = -w[places[best]]
        pull += curv.hvp(d) if left else 0.0
        if progress:
            progress(len(order), len(members), "greedy order")
    return values, np.array(order)
