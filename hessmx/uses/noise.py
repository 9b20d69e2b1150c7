"""Gradients sample by sample, and gradient noise (McCandlish et al. 2018, section 2): how large a batch is worth it.

    g    gradient of the objective       S    covariance mean_i (g_i - g)(g_i - g)' of the samples' gradients
    H    its Hessian                     B    samples in a batch, drawn at random

A step of plain SGD at rate r changes the objective, to second order and on average over batches, by

    -r |g|^2 + r^2 / 2 (g'Hg + tr(HS) / B)

so its best rate and what that gains are those of the whole gradient over 1 + B_c / B, with the critical batch size

    B_c = tr(HS) / g'Hg        (where H is a multiple of the identity: the simple noise scale tr(S) / |g|^2)

A penalty belongs to g and H, and makes no noise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hessmx.algorithms.common import gaussian, mean_square_interval, positive_int, rademacher
from hessmx.curvature import Curvature
from hessmx.errors import InputError, choose
from hessmx.operators.samples import per_sample_gradients, per_sample_losses, per_sample_slopes
from hessmx.results import Estimate, Provenance, Result


@dataclass(frozen=True, eq=False)
class SampleGradients(Result):
    """One row a sample: its loss, the length of its gradient, and which way that points. The penalty is left out."""

    losses: np.ndarray  # (N,)
    norms: np.ndarray  # (N,) |g_i|
    low: np.ndarray  # (N,) 95 % interval of each norm
    high: np.ndarray  # (N,)
    mean_cosines: np.ndarray  # (N,) with the mean gradient
    cosines: np.ndarray  # (N, k) with the directions asked for
    mean_norm: float  # |mean_i g_i|
    probes: int  # 0: exact
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class GradientNoise(Result):
    """What the samples' gradients differ by, and what that does to steps of SGD; in the scale of the mean loss."""

    loss: float
    square: float  # |g|^2
    bend: float  # g'Hg
    trace: Estimate  # tr(S)
    weighted: Estimate  # tr(HS)
    simple: Estimate  # tr(S) / |g|^2
    critical: Estimate  # tr(HS) / g'Hg
    num_samples: int
    subset: bool  # whether the data stand for more than themselves
    products: int
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def change(self, rate: float, batch: float, replacement: bool = True) -> float:
        """Mean change of the objective by one step of SGD; without replacement a batch's samples are different ones."""
        share = 1.0 if replacement else (self.num_samples - batch) / (self.num_samples - 1)
        return -rate * self.square + rate**2 / 2 * (self.bend + share * self.weighted.value / batch)

    def best_rate(self, batch: float) -> float:
        """Rate with the lowest mean loss after one step on batches of this size."""
        return self.square / self.bend / (1 + self.critical.value / batch)

    def gain(self, batch: float) -> float:
        """Mean fall of the objective at that rate."""
        return self.square**2 / self.bend / 2 / (1 + self.critical.value / batch)


def sample_gradients(curv: Curvature, directions: Any = None, *, norms: str = "loop",
                     probes: int = 64) -> SampleGradients:
    """Losses, lengths of gradients, their cosines with the mean gradient and with `directions` (P, k): eigenvectors.

    norms  "loop": exact, a gradient of one sample for each. "probes": mean squares of <g_i, z> for random normal z,
           with exact intervals; what lies along the directions and the mean gradient is known, and only the rest is
           drawn. Cost: a tangent forward pass for each probe and direction, whatever N is.
    """
    choose("norms", norms, ("loop", "probes"))
    losses = per_sample_losses(curv)
    given = np.empty((curv.num_params, 0)) if directions is None else _columns(directions, curv.num_params)
    mean = curv._unpenalised_gradient().astype(np.float64)
    mean = mean / len(losses) if curv.reduction == "sum" else mean
    columns = np.column_stack([mean, given])
    slopes = per_sample_slopes(curv, columns)
    if norms == "loop":
        squares = np.array([g @ g for g in per_sample_gradients(curv)])
        low = high = squares
    else:
        squares, low, high = _drawn_squares(curv, columns, positive_int("probes", probes))
    lengths, found = np.linalg.norm(columns, axis=0), np.sqrt(squares)
    cosines = slopes / np.maximum(found[:, None] * lengths, np.finfo(float).tiny)
    return SampleGradients(losses, found, np.sqrt(low), np.sqrt(high), cosines[:, 0], cosines[:, 1:], float(lengths[0]),
                           0 if norms == "loop" else probes, (), curv.provenance("gradients"))


def gradient_noise(curv: Curvature, *, probes: int = 64, exact: bool = False, subset: bool = False) -> GradientNoise:
    """Noise scale and critical batch size, with standard errors.

    probes  random signs z: z'Sz and z'SHz have the traces as means; each costs a product and two tangent forward passes
    exact   by a loop instead: a gradient of one sample and a product for every sample
    subset  the data are a random part of what is trained on: |g|^2 and g'Hg without what noise adds to them (appendix
            A.1), and errors that count the draw of the samples too (jackknife)
    """
    part = _Moments(curv)
    if exact:
        part.loop()
    else:
        part.draw(positive_int("probes", probes, 2))
    return part.result(subset)


class _Moments:
    """Of the samples' deviations d_i from the mean: |d_i|^2 and d_i'Hd_i, exact or drawn; <d_i, g>, <d_i, Hg> exact."""

    def __init__(self, curv: Curvature):
        self.curv, self.count = curv, len(per_sample_losses(curv))
        self.scale = 1 / self.count if curv.reduction == "sum" else 1.0
        self.gradient = self.scale * curv.gradient().astype(np.float64)
        image = self.bent(self.gradient)
        self.square, self.bend = float(self.gradient @ self.gradient), float(self.gradient @ image)
        self.along = self.deviations(np.column_stack([self.gradient, image]))  # (N, 2)
        self.products, self.method = 1, "loop"
        self.squares = self.bends = np.zeros(self.count)
        self.drawn = np.empty((0, 2))  # (K, 2) traces by each probe

    def bent(self, v: np.ndarray) -> np.ndarray:
        return self.scale * self.curv.hvp(v).astype(np.float64)

    def deviations(self, directions: np.ndarray) -> np.ndarray:
        """<d_i, v>: centred, which takes the penalty's gradient and the mean of all others out at once."""
        slopes = per_sample_slopes(self.curv, directions)
        return slopes - slopes.mean(axis=0)

    def loop(self) -> None:
        mean = np.zeros(self.curv.num_params)
        for gradient in per_sample_gradients(self.curv):
            mean += gradient / self.count
        pairs = [(d @ d, d @ self.bent(d)) for d in (g - mean for g in per_sample_gradients(self.curv))]
        self.squares, self.bends = np.array(pairs).T
        self.products += self.count

    def draw(self, probes: int) -> None:
        self.method, size = "probes", self.curv.num_params
        both = np.zeros((2, self.count))
        traces = []
        for k in range(probes):
            z = rademacher(self.curv.seed, k, size)
            straight, bent = self.deviations(np.column_stack([z, self.bent(z)])).T
            terms = np.stack([straight**2, straight * bent])
            both += terms / probes
            traces.append(terms.mean(axis=1))
        (self.squares, self.bends), self.drawn = both, np.array(traces)
        self.products += probes

    def result(self, subset: bool) -> GradientNoise:
        n, lost = self.count, 1 / (self.count - 1) if subset and self.count > 1 else 0.0
        estimates, ratios, lengths = [], [], []
        for which, (length, values) in enumerate(((self.square, self.squares), (self.bend, self.bends))):
            total, drawn = float(values.mean()), self.drawn[:, which] if len(self.drawn) else np.empty(0)
            unbiased = total * (1 + lost)
            estimates.append(self.estimate(unbiased, drawn * (1 + lost), 0.0))
            lengths.append(length - lost * total)
            ratio = unbiased / lengths[-1] if lengths[-1] > 0 else float("nan" if which else "inf")
            several = drawn * (1 + lost) / (length - lost * drawn) if np.isfinite(ratio) else np.empty(0)
            spread = self.jackknife(length, values, self.along[:, which]) if subset and np.isfinite(ratio) else 0.0
            ratios.append(self.estimate(ratio, several, spread))
        return GradientNoise(self.curv.loss() * self.scale, lengths[0], lengths[1], estimates[0], estimates[1],
                             ratios[0], ratios[1], n, subset, self.products, tuple(_notes(lengths, subset)),
                             self.curv.provenance("hessian"))

    def estimate(self, value: float, drawn: np.ndarray, spread: float) -> Estimate:
        probes = float(drawn.std(ddof=1) / np.sqrt(len(drawn))) if len(drawn) > 1 else 0.0
        samples = drawn if len(drawn) else np.array([value])
        dof = max((len(drawn) or self.count) - 1.0, 1.0)
        return Estimate(value, float(np.hypot(probes, spread)), samples, self.products, self.method, dof)

    def jackknife(self, length: float, values: np.ndarray, along: np.ndarray) -> float:
        """Standard error of the unbiased ratio, by the ratios without each sample in turn (Efron 1982, chapter 3).

        Without sample i the mean gradient is g - d_i / (n - 1): all that is needed is known.
        """
        n = self.count
        if n < 3:
            return float("nan")
        total = (n * values.mean() - values) / (n - 1) - values / (n - 1) ** 2  # of deviations from the new mean
        lengths = length - 2 * along / (n - 1) + values / (n - 1) ** 2
        ratios = total * (n - 1) / (n - 2) / (lengths - total / (n - 2))
        return float(np.sqrt((n - 1) * ratios.var()))


def _notes(lengths: list[float], subset: bool) -> Iterator[str]:
    if lengths[0] <= 0:
        more = " with so few samples: take more" if subset else ": it is zero"
        yield f"the gradient cannot be told from noise{more}"
    if lengths[1] <= 0:
        yield ("the loss does not bend upwards along the gradient: no rate is best, and there is no critical batch "
               "size; the simple noise scale holds")


def _drawn_squares(curv: Curvature, known: np.ndarray, probes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|g_i|^2 and its interval: exact within the span of `known`, drawn outside."""
    basis, sizes, _ = np.linalg.svd(known, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * sizes.max()] if sizes.max() > 0 else basis[:, :0]
    inside = (per_sample_slopes(curv, basis) ** 2).sum(axis=1) if basis.shape[1] else 0.0
    rest = np.zeros(curv.num_samples)
    for k in range(probes):
        z = gaussian(curv.seed, k, curv.num_params)
        rest += per_sample_slopes(curv, z - basis @ (basis.T @ z)) ** 2 / probes
    low, high = mean_square_interval(rest, probes, 0.95)
    return inside + rest, inside + low, inside + high


def _columns(directions: Any, size: int) -> np.ndarray:
    columns = np.asarray(directions, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    if columns.ndim != 2 or len(columns) != size or not np.isfinite(columns).all():
        raise InputError(f"directions must be finite columns of shape ({size}, k), not {np.shape(directions)}")
    return columns
