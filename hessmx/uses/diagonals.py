"""Diagonals by squared gradients: never negative, and as precise for small entries as for large.

A diagonal from products with random signs has errors of the size of its rows, which drown the small entries by which
weights are ranked. With the Hessian of the loss at the outputs as L L', the Gauss-Newton matrix of a batch is the
covariance of sum_i J_i' L_i e_i for random signs e: each entry's estimate is a square, with an error in its proportion.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator

import numpy as np

from hessmx._mxnet import mx
from hessmx.algorithms.common import positive_int
from hessmx.curvature import Curvature
from hessmx.errors import EngineError
from hessmx.graph.trace import flatten
from hessmx.operators.likelihood import Relabel
from hessmx.problem.data import Batch
from hessmx.results import VectorEstimate

_loss = mx.gluon.loss
Root = Callable[[np.ndarray, np.ndarray], np.ndarray]  # outputs (N, ...) and signs of that shape -> L e


def ggn_diagonal(curv: Any, draws: int = 20) -> VectorEstimate:
    """Diagonal (P,) of the Gauss-Newton matrix, penalty included; for these losses the Fisher's, too (Martens 2020).

    For Gluon's softmax cross-entropy, L2, logistic and sigmoid losses. Costs `draws` gradients and forward passes;
    relative standard error of every entry at most sqrt(2 / draws), sqrt(2 / (draws x batches)) where batches are alike.
    """
    positive_int("draws", draws, 2)
    drawn = _Cotangents(curv._compiled("the Gauss-Newton matrix's diagonal"), curv._loss, curv.seed)
    first = [drawn(batch, 0) for batch in curv._batches]
    linear = Curvature(curv._net.block, _dot, [(*batch.inputs, batch.labels) for batch in first],
                       list(curv.param_names), mode=curv.mode, seed=curv.seed)
    objective, found = curv._objective, []
    for draw in range(draws):
        total = objective.add_up(lambda batch, draw=draw: _square(linear, drawn(batch, draw)))
        found.append(np.asarray(objective.vector(total, np.ones(curv.num_params), dtype=np.float64)))
    values = np.stack(found)
    return VectorEstimate(values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(draws), draws, "squared gradients",
                          provenance=curv.provenance("ggn"))


def empirical_fisher_diagonal(curv: Any) -> VectorEstimate:
    """Mean (or sum) of the squared per-sample gradients (P,), labels as in the data, without the penalty.

    Exact; each sample's gradient by itself: N backward passes of one sample, which in train mode changes the net.
    """
    if curv.mode == "train":
        raise EngineError("single samples have no batch statistics: use a Curvature in mode='predict'")
    total = curv._objective.add_up(lambda batch: _squares(curv, batch))
    return VectorEstimate(np.asarray(curv._objective.vector(total, dtype=np.float64)), np.zeros(curv.num_params),
                          curv.num_samples, "single gradients", provenance=curv.provenance("fisher"))


def _squares(curv: Any, batch: Batch) -> tuple[np.ndarray, int]:
    single = list(_singly(batch))
    return sum(gradient_of(curv, sample) ** 2 for sample in single), len(single)  # type: ignore[return-value]


def _square(linear: Any, batch: Batch) -> tuple[np.ndarray, int]:
    return gradient_of(linear, batch) ** 2, batch.inputs[0].shape[0]


def gradient_of(curv: Any, batch: Batch) -> np.ndarray:
    """Gradient (P,) of the batch's summed loss, float64."""
    return np.asarray(curv._selected.gradients.gradient(batch)[0], np.float64)


class _Cotangents(Relabel):
    """Batches with L e in the place of the labels, for signs e drawn anew in every draw."""

    def __init__(self, compiled: Any, loss: Any, seed: int):
        root = _root(loss)
        super().__init__(compiled, loss, seed)
        self._draw = lambda loss, z, labels, generator: root(z, generator.choice([-1.0, 1.0], size=z.shape))

    def __call__(self, batch: Batch, draw: int) -> Batch:
        if isinstance(batch.labels, (list, tuple)):
            return super().__call__(batch, draw)  # which says that this is for one label
        labels = batch.labels.astype(self.compiled.net.dtype)  # class numbers may be whole numbers, cotangents are not
        return super().__call__(Batch(batch.index, batch.inputs, labels, kept=False), draw)


def _dot(output: Any, cotangent: Any) -> Any:
    """A loss whose gradient is J' times the labels."""
    return (output * cotangent).reshape((0, -1)).sum(axis=1)


def _root(loss: Any) -> Root:
    """e -> L e for the loss's Hessian L L' at the outputs (Schraudolph 2002, section 3.1: matching losses)."""
    weight = 1.0 if getattr(loss, "_weight", None) is None else float(loss._weight)
    if isinstance(loss, _loss.L2Loss):
        return lambda z, e: e * np.sqrt(weight / z[0].size)
    logits = not getattr(loss, "_from_sigmoid", False) and not getattr(loss, "_from_logits", False)
    if isinstance(loss, (_loss.SigmoidBinaryCrossEntropyLoss, _loss.LogisticLoss)) and logits:
        return lambda z, e: e * np.sqrt(weight / z[0].size) * np.exp(-0.5 * (np.logaddexp(0, z) + np.logaddexp(0, -z)))
    if isinstance(loss, _loss.SoftmaxCrossEntropyLoss) and logits and loss._sparse_label:
        return lambda z, e: _softmax_root(z, e, loss._axis) * np.sqrt(weight * z.shape[loss._axis] / z[0].size)
    raise EngineError("the diagonal from squared gradients is for softmax cross-entropy (scores, class numbers), L2, "
                      f"logistic and sigmoid losses, not {type(loss).__name__}: use curv.diagonal(matrix='ggn')")


def _softmax_root(z: np.ndarray, e: np.ndarray, axis: int) -> np.ndarray:
    """(diag(sqrt p) - p sqrt(p)') e, whose square is diag(p) - p p'."""
    p = np.exp(z - z.max(axis=axis, keepdims=True))
    p /= p.sum(axis=axis, keepdims=True)
    return np.sqrt(p) * e - p * (np.sqrt(p) * e).sum(axis=axis, keepdims=True)


def _singly(batch: Batch) -> Iterator[Batch]:
    """The samples of a batch, as batches of one."""
    for i in range(batch.inputs[0].shape[0]):
        cut = [a[i : i + 1].copy() for a in flatten(batch.labels)]
        labels = cut if isinstance(batch.labels, (list, tuple)) else cut[0]
        yield Batch(batch.index, [x[i : i + 1].copy() for x in batch.inputs], labels, kept=False)
