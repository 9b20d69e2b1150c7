"""Predictions with uncertainty, and how good they are: negative log-likelihood and calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Iterator, Sequence

import numpy as np
from scipy.special import expit, softmax

from hessmx.algorithms.common import positive_int
from hessmx.engines.compiled import Compiled
from hessmx.engines.taps import outputs_of
from hessmx.errors import DataError, HessmxError, InputError, choose
from hessmx.graph.trace import flatten
from hessmx.operators.jacobian import Jacobian
from hessmx.problem.data import Batch, Batches
from hessmx.results import Provenance, Result

LINKS = ("probit", "sampled", "point")


class Outputs:
    """z (K,) and J (K, n) of every sample: one gradient per output, of this sample alone where samples stand on the
    first axis of x, of all of them otherwise (time on the first axis)."""

    def __init__(self, curv: Any, names: Sequence[str]):
        self._net, self._names = curv._net, tuple(names)
        self._compiled = Compiled(curv._net, None, train=False, seed=curv.seed)

    def __call__(self, x: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        empty = Batches([], self._net.dtype, self._net.context)
        arrays = [empty.array(leaf, "x") for leaf in flatten(x)]
        if not arrays or any(not a.shape or 0 in a.shape for a in arrays):
            raise DataError(f"x must hold at least one sample, not shapes {[tuple(a.shape) for a in arrays]}")
        whole = Batch(0, arrays, [], kept=False)
        outputs = self._values(whole)
        samples, size = outputs.shape
        alone = self._stand_alone(arrays, outputs)
        for i, z in enumerate(outputs):
            jacobian: Any = Jacobian(self._compiled, [_single(arrays, i) if alone else whole], self._names)  # type: ignore[arg-type]
            units = np.eye(size) if alone else np.kron(np.eye(samples)[:, [i]], np.eye(size))
            yield z, jacobian.rmatmat(units).T.astype(np.float64)

    def _values(self, batch: Batch) -> np.ndarray:
        z = outputs_of(self._compiled, batch)[0].astype(np.float64)
        return z.reshape(len(z) if z.ndim else 1, -1)

    def _stand_alone(self, arrays: Sequence[Any], outputs: np.ndarray) -> bool:
        """Whether row i of x gives row i of the outputs, without the others."""
        if {a.shape[0] for a in arrays} != {len(outputs)}:
            return False
        ends = [0, len(outputs) - 1]
        try:
            found = np.concatenate([self._values(_single(arrays, i)) for i in ends])
        except HessmxError:
            return False
        near = 1e-4 if self._net.dtype == np.float32 else 1e-9
        return found.shape == outputs[ends].shape and np.allclose(found, outputs[ends], near, near)


def _single(arrays: Sequence[Any], i: int) -> Batch:
    return Batch(0, [a[i : i + 1].copy() for a in arrays], [], kept=False)


@dataclass(frozen=True, eq=False)
class Prediction(Result):
    """Outputs of N samples, K each, as normal variables; `probabilities` where the model is one of classes."""

    outputs: np.ndarray  # (N, K)
    covariances: np.ndarray  # (N, K, K) of the outputs, without the noise
    noise: float  # variance of the noise
    link: str
    probabilities: np.ndarray | None = None  # (N, K), or (N, K) of each label being 1
    family: str = "gaussian"
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def variances(self) -> np.ndarray:
        """(N, K) of what is observed: of the outputs plus the noise."""
        return np.diagonal(self.covariances, axis1=1, axis2=2) + self.noise

    def linked(self, link: str, samples: int = 1000, seed: int = 0) -> Prediction:
        """The same outputs with another link's probabilities; no pass over the data."""
        return predicted(self.family, self.outputs, self.covariances, self.noise, link, samples, seed, self.provenance)

    def nll(self, y: Any) -> float:
        """Mean negative log-likelihood of labels y, in nats per sample."""
        y = np.asarray(y)
        if self.probabilities is None:
            y = y.reshape(self.outputs.shape)
            variances = self.variances if self.link != "point" else np.full(y.shape, self.noise)
            terms = 0.5 * ((y - self.outputs) ** 2 / variances + np.log(2 * np.pi * variances))
            return float(terms.sum() / len(y))
        if self.family == "categorical":
            chosen = np.take_along_axis(self.probabilities, _classes(y, self.outputs.shape)[:, None], axis=1)
        else:
            chosen = np.where(y.reshape(self.outputs.shape) > 0, self.probabilities, 1 - self.probabilities)
        return float(-np.log(np.maximum(chosen, 1e-300)).sum() / len(y))


def predicted(family: str, z: np.ndarray, covariances: np.ndarray, noise: float, link: str, samples: int = 1000,
              seed: int = 0, provenance: Provenance | None = None) -> Prediction:
    """Probabilities for outputs N(z, covariances): the link's mean over that distribution."""
    choose("link", link, LINKS)
    probabilities = None
    if family != "gaussian":
        squash = (lambda a: softmax(a, axis=-1)) if family == "categorical" else expit
        variances = np.diagonal(covariances, axis1=1, axis2=2)
        if link == "point":
            probabilities = squash(z)
        elif link == "probit":
            probabilities = squash(z / np.sqrt(1 + np.pi / 8 * variances))
        else:
            normal = np.random.default_rng([seed, 0x1A]).standard_normal((positive_int("samples", samples), z.shape[1]))
            probabilities = np.array([squash(m + normal @ _root(c).T).mean(axis=0) for m, c in zip(z, covariances)])
    return Prediction(z, covariances, noise, link, probabilities, family, provenance or Provenance())


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)))


@dataclass(frozen=True, eq=False)
class Calibration(Result):
    """Of N predicted classes: is what is said with confidence p right in a share p of the cases (Guo et al. 2017)."""

    nll: float  # nats per sample
    ece: float  # expected calibration error: mean |confidence - accuracy| over bins, weighted by their samples
    accuracy: float
    confidence: np.ndarray  # (bins,) mean in each bin, NaN where it is empty
    correct: np.ndarray  # (bins,) share of right ones
    counts: np.ndarray  # (bins,)
    provenance: Provenance = field(default_factory=Provenance)


def calibration(prediction: Prediction, y: Any, bins: int = 15) -> Calibration:
    """Calibration against labels y (N,) with bins of equal width; 15 as in Guo et al. 2017, section 4."""
    p = prediction.probabilities
    if p is None:
        raise InputError("calibration is of classes; for a squared loss ask prediction.nll(y)")
    if prediction.family != "categorical" and p.shape[1] > 1:
        raise InputError(f"calibration needs one answer a sample, not {p.shape[1]} labels")
    table = p if prediction.family == "categorical" else np.column_stack([1 - p[:, 0], p[:, 0]])
    y = _classes((np.ravel(y) > 0) if prediction.family != "categorical" else y, table.shape)
    top, right = table.max(axis=1), table.argmax(axis=1) == y
    place = np.minimum((top * positive_int("bins", bins)).astype(int), bins - 1)
    counts = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence, correct = (np.bincount(place, weights, bins) / counts for weights in (top, right))
    ece = float(np.nansum(counts * np.abs(confidence - correct)) / len(y))
    return Calibration(prediction.nll(y), ece, float(right.mean()), confidence, correct, counts, prediction.provenance)


def _classes(y: Any, shape: Sequence[int]) -> np.ndarray:
    """Class numbers (N,), from numbers or from one-hot rows."""
    y = np.asarray(y)
    numbers = y.argmax(axis=1) if y.ndim == 2 and y.shape[1] == shape[1] and shape[1] > 1 else y.reshape(-1)
    whole = numbers.shape == (shape[0],) and bool((numbers == np.floor(numbers)).all())
    if not whole or not 0 <= numbers.min() <= numbers.max() < shape[1]:
        raise DataError(f"y must be {shape[0]} class numbers from 0 to {shape[1] - 1}, not shape {np.shape(y)}")
    return numbers.astype(int)
