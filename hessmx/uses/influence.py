"""Influence of training samples (Koh & Liang 2017): what would change if a sample were left out of training.

At a minimum w of J = mean_i l_i + penalty, taking l_i out of the sum (the divisor N stays) moves the minimum by

    dw_i = A^-1 g_i / N        A = curvature of J, plus damping        g_i = gradient of l_i

to first order, and a quantity f (the loss of test samples, or any function of the outputs) by <grad f, dw_i>. A is
symmetric, so one solve v = A^-1 grad f and one forward pass with v as tangent give all samples: score_i = <g_i, v> / N.

    score > 0   without it f would be larger: for a test loss, the sample helped        score < 0   it did harm

Nets are rarely at a minimum, and not convex: with A = G + damping I (the Gauss-Newton matrix, default) scores predict
training that goes on from w while held near it, in weights and in outputs, rather than training anew (Bae et al. 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.common import gaussian, mean_square_interval, positive_int
from hessmx.algorithms.functions import apply
from hessmx.curvature import Curvature
from hessmx.errors import InputError, choose
from hessmx.operators.samples import per_sample_gradients, per_sample_losses, per_sample_slopes, weighted_gradient
from hessmx.results import Provenance, Result, Solution

MATRICES = ("ggn", "hessian")
RTOL = 1e-5  # of the solves
SHARE = 0.1  # damping over the mean eigenvalue (Grosse et al. 2023)
TRACE_PROBES = 10  # products that estimate the mean eigenvalue
_BATCHES = "batch statistics: that a sample left out would also change the others of its batch is not counted"


@dataclass(frozen=True, eq=False)
class Influence(Result):
    """First-order change of each quantity if a training sample were left out; positive: the sample kept it down."""

    scores: np.ndarray  # (N, K)
    losses: np.ndarray  # (N,) of the training samples
    values: np.ndarray  # (K,) the quantities as they are
    residuals: np.ndarray  # (K,) relative, of the solves
    converged: bool
    products: int
    damping: float
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def helpful(self, count: int = 10, column: int = 0) -> np.ndarray:
        """Numbers of the samples without which the quantity would rise most, best first."""
        return np.argsort(-self.scores[:, column], kind="stable")[:count]

    def harmful(self, count: int = 10, column: int = 0) -> np.ndarray:
        """Numbers of the samples without which the quantity would fall most, worst first."""
        return np.argsort(self.scores[:, column], kind="stable")[:count]

    def group(self, samples: Sequence[int] | np.ndarray) -> np.ndarray:
        """Change (K,) of the quantities without all of these samples: the sum, as all of this is first order."""
        return self.scores[np.asarray(samples)].sum(axis=0)


@dataclass(frozen=True, eq=False)
class SelfInfluence(Result):
    """Rise of each sample's own loss if it were left out, to first order: g_i' A^-1 g_i / N."""

    samples: np.ndarray  # (n,) numbers of the samples
    values: np.ndarray  # (n,)
    stderr: np.ndarray  # (n,) 0 where each has been solved for
    losses: np.ndarray  # (n,)
    probes: int  # 0: solved for
    residual: float  # the largest, relative, of the solves
    converged: bool
    products: int
    damping: float
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def order(self) -> np.ndarray:
        """Numbers of the samples, the most influential on itself first."""
        return self.samples[np.argsort(-self.values, kind="stable")]

    def interval(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Confidence intervals (n,), (n,), each for itself: all samples share the probes."""
        return mean_square_interval(self.values, self.probes, level) if self.probes else (self.values, self.values)


def influence(curv: Curvature, test: Any, *, of: Callable[..., Any] | None = None, each: bool = False,
              matrix: str = "ggn", damping: float | None = None, method: str | None = None, rtol: float = RTOL,
              **options: Any) -> Influence:
    """Influence of every training sample of `curv` on what the net does to `test`.

    test     (x, y) or batches, as for Curvature; computed in predict mode
    of       callable(output, label): one number a sample, by default the training loss
    each     a column for every test sample; otherwise one, of their mean
    damping  added to the matrix; None: `default_damping`
    method   "cg" (default with the ggn) or "minres" (default with the hessian), `options` as for `Curvature.solve`

    Cost for each column: a solve and a forward pass with tangents over the training data; no sample's gradient is ever
    made, memory is a few vectors (P,) whatever N is. A solve that stops short is told in `converged` and `notes`.
    """
    asked = _Asked(curv, matrix, damping, method, {"rtol": rtol, **options})
    losses = per_sample_losses(curv)
    quantity = _quantity(curv, test, of)
    if each:
        values, gradients = per_sample_losses(quantity), per_sample_gradients(quantity)
    else:
        values, gradients = np.array([quantity.loss()]), iter([quantity.gradient()])
    columns, solutions = [], []
    for gradient in gradients:
        solution = asked.solve(gradient)
        columns.append(asked.scale * per_sample_slopes(curv, solution.x))
        solutions.append(replace(solution, x=np.empty(0)))
    residuals = np.array([solution.residual for solution in solutions])
    return Influence(np.stack(columns, axis=1), losses, values, residuals, all(s.converged for s in solutions),
                     asked.products + sum(s.products for s in solutions), asked.damping,
                     asked.notes(solutions), curv.provenance(matrix))


def self_influence(curv: Curvature, samples: Sequence[int] | None = None, *, probes: int = 64, matrix: str = "ggn",
                   damping: float | None = None, rtol: float = 1e-3, steps: int = 200,
                   memory: int = 2 << 30) -> SelfInfluence:
    """Influence of training samples on their own loss.

    Of all at once by random probes z_k: with y_k = A^(-1/2) z_k the mean of <g_i, y_k>^2 over k is g_i' A^-1 g_i, with
    a relative standard error of sqrt(2 / probes). Cost of a probe: at most `steps` products, a forward pass with
    tangents, and `steps` vectors (P,), no more than `memory` bytes. Of the `samples` named: a solve each, to `rtol`.
    """
    asked = _Asked(curv, matrix, damping, None, {"rtol": rtol, "max_products": steps})
    losses = per_sample_losses(curv)
    if samples is not None:
        return _solved(asked, np.unique(_numbers(samples, len(losses))), losses)
    positive_int("probes", probes)
    total, products, residuals = np.zeros(len(losses)), 0, []
    for k in range(probes):
        root = curv._run(apply, asked.matrix.shift(asked.damping), f"probe {k + 1}", function="inverse sqrt",
                         b=gaussian(curv.seed, k, curv.num_params), rtol=rtol, max_products=steps, memory=memory)
        total += per_sample_slopes(curv, root.value) ** 2
        residuals.append(root.error)
        products += root.products
    values, worst = asked.scale * total / probes, max(residuals)
    converged = worst <= max(rtol, 10 * float(np.finfo(curv.dtype).eps))
    short = () if converged else (f"relative residual {worst:.2g} instead of {rtol:.2g}: more steps, or more damping",)
    return SelfInfluence(np.arange(len(losses)), values, np.sqrt(2 / probes) * values, losses, probes, worst, converged,
                         asked.products + products, asked.damping, asked.said + short, curv.provenance(matrix))


def parameter_change(curv: Curvature, samples: Sequence[int] | np.ndarray, *, matrix: str = "ggn",
                     damping: float | None = None, method: str | None = None, rtol: float = RTOL,
                     **options: Any) -> Solution:
    """How the parameters would move without these training samples, to first order: `.x` (P,). One solve.

    `curv.loss(at=curv.parameters() + change.x)`, or the same of another Curvature of the net, measures what that does.
    """
    asked = _Asked(curv, matrix, damping, method, {"rtol": rtol, **options})
    chosen = np.zeros(curv.num_samples)
    chosen[_numbers(samples, curv.num_samples)] = 1
    solution = asked.solve(weighted_gradient(curv, chosen))
    return replace(solution, x=asked.scale * solution.x, notes=asked.notes([solution]))


def default_damping(curv: Curvature) -> tuple[float, str]:
    """(damping, why): 0 under a penalty on every parameter, otherwise a tenth of the mean eigenvalue of the ggn.

    A penalty makes the ggn positive definite and is part of what was minimised: damping would be an error. Without one
    the ggn is singular as soon as P exceeds N times the outputs: no sample holds some directions, and influence along
    them has no meaning. A tenth of the mean eigenvalue is the choice of Grosse et al. 2023.
    """
    diagonal = curv._objective.penalty.diagonal
    if diagonal.min() > 0:
        return 0.0, ""
    mean = curv.trace("hutchinson", matrix="ggn", budget=TRACE_PROBES).value / curv.num_params
    damping = SHARE * mean
    return damping, f"damping {damping:.3g}, {SHARE:g} of the mean eigenvalue: no weight decay holds all parameters"


class _Asked:
    """What all questions share: the matrix, its damping, the way to solve, and the factor 1 / N."""

    def __init__(self, curv: Curvature, matrix: str, damping: float | None, method: str | None, options: dict):
        self.curv, self.name, self.options = curv, choose("matrix", matrix, MATRICES), options
        self.matrix, self.products = curv.matrix(matrix), 0
        self.method = method or ("cg" if matrix == "ggn" else "minres")
        self.said: tuple[str, ...] = (_BATCHES,) if curv.mode == "train" else ()
        if damping is None:
            damping, why = default_damping(curv)
            if why:
                self.said, self.products = (*self.said, why), TRACE_PROBES
        self.damping = float(damping)
        self.scale = 1 / curv.num_samples if curv.reduction == "mean" else 1.0

    def solve(self, b: np.ndarray) -> Solution:
        return self.curv.solve(b, self.damping, self.method, self.name, **self.options)

    def notes(self, solutions: Sequence[Solution]) -> tuple[str, ...]:
        """What solves had to say, once each."""
        return (*self.said, *dict.fromkeys(note for solution in solutions for note in solution.notes))


def _solved(asked: _Asked, samples: np.ndarray, losses: np.ndarray) -> SelfInfluence:
    values, solutions = [], []
    for gradient in per_sample_gradients(asked.curv, samples.tolist()):
        solution = asked.solve(gradient)
        values.append(asked.scale * float(gradient @ solution.x))
        solutions.append(replace(solution, x=np.empty(0)))
    return SelfInfluence(samples, np.array(values), np.zeros(len(samples)), losses[samples], 0,
                         max(s.residual for s in solutions), all(s.converged for s in solutions),
                         asked.products + sum(s.products for s in solutions), asked.damping,
                         asked.notes(solutions), asked.curv.provenance(asked.name))


def _quantity(curv: Curvature, test: Any, of: Callable[..., Any] | None) -> Curvature:
    """The mean over the test samples as a Curvature of the same parameters, asked for values and gradients only.

    Its engine is differences, which need no rules: values and gradients are exact under every engine.
    """
    if of is not None and not callable(of):
        raise InputError(f"of must be a callable(output, label) that returns one number a sample, not {of!r}")
    return Curvature(curv._net.block, of or curv._loss, test, list(curv.param_names), engine="finite-difference")


def _numbers(samples: Any, count: int) -> np.ndarray:
    numbers = np.atleast_1d(np.asarray(samples))
    if numbers.dtype.kind not in "iu" or not numbers.size or numbers.min() < 0 or numbers.max() >= count:
        raise InputError(f"samples must be numbers of training samples, from 0 to {count - 1}, not {samples!r}"[:200])
    return numbers
