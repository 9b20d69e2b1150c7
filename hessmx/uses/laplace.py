"""Laplace approximation: a Gaussian posterior over parameters, its evidence, and predictions with their uncertainty.

At trained parameters w the posterior is N(w, S) with S^-1 = beta H + D: H the Gauss-Newton matrix of the summed
negative log-likelihood, beta the noise's precision (1 for classes), D = diag(prior) (Daxberger et al. 2021, sect. 2).
Predictions are those of the net linearised at w: outputs are N(z(x), J S J') (Immer et al. 2021, section 3).

The evidence is the linearised model's: log p(y | w) + log p(w) + P/2 log 2 pi - 1/2 log det S^-1, in nats. It is that
of Bayesian linear regression where the net is linear in its parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping, Sequence, Union

import numpy as np
from scipy.optimize import minimize

from hessmx.algorithms.common import gaussian, positive_int, positive_number
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.errors import EngineError, InputError, choose
from hessmx.operators.likelihood import family, nats
from hessmx.operators.matrices import Unpenalised
from hessmx.problem.groups import Grouping, grouped
from hessmx.results import Provenance, Result
from hessmx.uses.posterior import Covariance, Full, Kronecker, LowRank, Structure
from hessmx.uses.predictions import Outputs, Prediction, predicted

STRUCTURES = ("kfac", "ekfac", "full", "low-rank", "last-layer")
MOST_DENSE = 5_000  # parameters of a posterior without structure: a minute for its eigenvectors
FACTORS = tuple(np.logspace(-2, 6, 25))
FLAT = 1e-3  # nats per logarithm of a precision: a fit is converged where no slope is larger
Prior = Union[None, float, Mapping[str, float], np.ndarray]


@dataclass(frozen=True, eq=False)
class Evidence(Result):
    """Log marginal likelihood and what it is made of, in nats."""

    value: float
    log_likelihood: float
    log_prior: float
    occam: float  # P/2 log 2 pi - 1/2 log det S^-1: what the posterior's volume adds
    effective_params: float  # parameters that the data determine, tr(S beta H) (MacKay 1992)
    groups: tuple[str, ...]
    prior_precisions: tuple[float, ...]  # one for each group
    noise: float  # standard deviation; 1 for classes
    to_gain: float  # by the step to the linearised model's mode; near 0 at a mode
    structure: str
    converged: bool = True  # of the fit
    steps: int = 0
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


class Laplace:
    """A posterior over the parameters `names`, (n,) of them.

    mean (n,), prior (n,) precisions, noise (standard deviation), covariance: `times`, `variances`, `quadratic`, `draw`.
    """

    def __init__(self, data: Data, structure: Structure, kind: str, by: Grouping | None, prior: np.ndarray,
                 noise: float, recentre: bool, fitted: tuple[bool, int] = (True, 0)):
        self._data, self._structure, self.kind, self._by = data, structure, kind, by
        self.prior, self.noise, self._recentre, self._fitted = prior, float(noise), recentre, fitted
        self.covariance: Covariance = structure.at(self.beta, prior)
        slope = self.beta * data.gradient + prior * data.w
        self._step = -self.covariance.times(slope)
        self._to_gain = -0.5 * float(slope @ self._step)
        self.mean = data.w + self._step if recentre else data.w

    @property
    def beta(self) -> float:
        """Precision of the noise; 1 for classes."""
        return self.noise**-2

    @property
    def noisy(self) -> bool:
        """Whether the model has noise: that of a squared loss has."""
        return self._data.noisy

    @property
    def names(self) -> tuple[str, ...]:
        return self._data.names

    def variances(self) -> np.ndarray:
        """Of each parameter (n,)."""
        return self.covariance.variances()

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Draws (count, n) from the posterior."""
        normal = np.stack([gaussian(seed, i, self.mean.size) for i in range(positive_int("count", count))])
        return self.mean + self.covariance.draw(normal)

    # -- evidence

    def evidence(self) -> Evidence:
        """The log marginal likelihood; no pass over the data."""
        log_likelihood, log_prior, occam = self._terms()
        groups = self._groups()
        told = (f"the net is not at a mode of this posterior, a step would gain {self._to_gain:.3g} nats: train on "
                "with this prior as weight decay, or use recentre=True")  # fmt: skip
        notes = (told,) if self._to_gain > 1 and not self._recentre else ()
        determined = self.mean.size - float(self.prior @ self.variances())
        return Evidence(
            log_likelihood + log_prior + occam, log_likelihood, log_prior, occam, determined, tuple(groups),
            tuple(float(self.prior[at].mean()) for at in groups.values()), self.noise, self._to_gain, self.kind,
            *self._fitted, notes, self._data.provenance,
        )  # fmt: skip

    def _terms(self) -> tuple[float, float, float]:
        """Log-likelihood and log prior at the mean, and Occam's term."""
        data, size = self._data, self.mean.size
        fit = -self.beta * self._misfit() - (0.5 * data.entries * np.log(2 * np.pi / self.beta) if data.noisy else 0.0)
        prior = 0.5 * float(np.log(self.prior).sum() - self.prior @ self.mean**2) - 0.5 * size * np.log(2 * np.pi)
        return fit, prior, 0.5 * (size * np.log(2 * np.pi) - self.covariance.logdet_precision)

    def _misfit(self) -> float:
        """The summed negative log-likelihood at the mean, for unit noise: with `recentre` by its quadratic model."""
        if not self._recentre:
            return self._data.value
        d, slope = self._step, self.beta * self._data.gradient + self.prior * self._data.w
        curved = -float(d @ slope) - float(d @ (self.prior * d))  # d' beta H d, as S^-1 d = -slope
        return self._data.value + float(self._data.gradient @ d) + 0.5 * curved / self.beta

    def _groups(self) -> dict[str, np.ndarray]:
        """Group -> positions."""
        net, own = self._data.curv._net, self._data.positions
        place = np.full(net.size, -1)
        place[own] = np.arange(own.size)
        groups = {"all": self.names} if self._by is None else grouped(self.names, self._by)
        return {name: place[net.positions(members)] for name, members in groups.items()}

    def fit(self, noise: bool | None = None, steps: int = 100) -> Laplace:
        """The same posterior with the prior precision of every group, and the noise, that maximise the evidence.

        noise  whether to fit it too; by default where there is one. L-BFGS on logarithms with exact gradients; at most
               `steps` steps, each a covariance and no pass over the data (MacKay 1992; Immer et al. 2021, section 4).
        """
        groups = list(self._groups().values())
        noisy = self.noisy if noise is None else bool(noise)
        if noisy and not self.noisy:
            raise InputError("noise can be fitted for a squared loss only: there is none in a model of classes")

        def with_logs(logs: np.ndarray, fitted: tuple[bool, int] = (True, 0)) -> Laplace:
            prior, own = np.empty_like(self.prior), np.exp(logs)
            for at, value in zip(groups, own):
                prior[at] = value
            return self._with(prior, own[-1] ** -0.5 if noisy else None, fitted)

        def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
            at = with_logs(logs)
            return -sum(at._terms()), -at._slopes(groups, noisy)

        start = [np.log(self.prior[at].mean()) for at in groups] + ([np.log(self.beta)] if noisy else [])
        limits = [(value - 20, value + 20) for value in start]
        found = minimize(loss, np.array(start), jac=True, method="L-BFGS-B", bounds=limits,
                         options={"maxiter": positive_int("steps", steps), "ftol": 1e-13, "gtol": 1e-6})
        return with_logs(found.x, (bool(np.abs(found.jac).max() < FLAT), int(found.nit)))

    def tuned(self, x: Any, y: Any, link: str = "probit", factors: Sequence[float] = FACTORS) -> Laplace:
        """The same posterior with all prior precisions times the factor that makes held-out samples (x, y) likeliest.

        For predictions: the evidence asks for the prior that explains the training data. All `factors` are tried, by
        default 25 from 1e-2 to 1e6. Cost: that of one prediction, and a covariance for each factor.
        """
        tried = [self._with(self.prior * positive_number("factors", factor)) for factor in factors]
        z, covariances = [], []
        for output, rows in self._data.outputs(x):
            z.append([output + rows @ made._step if self._recentre else output for made in tried])
            covariances.append([made.covariance.quadratic(rows) for made in tried])
        losses = []
        for i, made in enumerate(tried):
            means, spreads = (np.array([row[i] for row in table]) for table in (z, covariances))
            losses.append(predicted(self._data.family, means, spreads, made._noise, link).nll(y))
        return tried[int(np.argmin(losses))]

    def _with(self, prior: np.ndarray, noise: float | None = None, fitted: tuple[bool, int] = (True, 0)) -> Laplace:
        sigma = self.noise if noise is None else noise
        return Laplace(self._data, self._structure, self.kind, self._by, prior, sigma, self._recentre, fitted)

    def _slopes(self, groups: Sequence[np.ndarray], noisy: bool) -> np.ndarray:
        """Derivatives of the evidence by the logarithms of the groups' precisions, and of beta."""
        left = self.prior * self.variances()
        pulls = self.prior * self.mean**2
        slopes = [0.5 * (at.size - pulls[at].sum() - left[at].sum()) for at in groups]
        if noisy:
            determined = self.mean.size - left.sum()
            slopes.append(0.5 * self._data.entries - self.beta * self._misfit() - 0.5 * determined)
        return np.array(slopes)

    # -- predictions

    def predict(self, x: Any, link: str = "probit", samples: int = 1000, seed: int = 0) -> Prediction:
        """Outputs (N, K) with covariances J S J', and for classes probabilities, for inputs x (N, ...).

        link  "probit" (MacKay 1992), "sampled" (mean over `samples` draws of the outputs) or "point" (no uncertainty)

        Cost: K gradients of one sample for each sample.
        """
        z, covariances = [], []
        for output, rows in self._data.outputs(x):
            z.append(output + rows @ self._step if self._recentre else output)
            covariances.append(self.covariance.quadratic(rows))
        return predicted(self._data.family, np.array(z), np.array(covariances), self._noise, link, samples, seed,
                         self._data.provenance)

    @property
    def _noise(self) -> float:
        """Variance of the noise; classes have none."""
        return self.noise**2 if self.noisy else 0.0


class Data:
    """What a posterior takes from a Curvature: the likelihood, its slope at the parameters, the net's outputs."""

    def __init__(self, curv: Any, names: Sequence[str]):
        self.curv, self.names = curv, tuple(names)
        compiled = curv._compiled("a Laplace approximation")
        self.family = family(curv._loss)
        self.noisy = self.family == "gaussian"
        plans = [compiled.plan(batch) for batch in curv._batches]
        shape = plans[0].output_shapes[0]
        if len(plans[0].output_shapes) != 1 or len(shape) > 2:
            raise EngineError(f"a posterior needs a net with one output (N, K), not {list(plans[0].output_shapes)}")
        self.factor = nats(curv._loss, shape)
        self.samples = sum(plan.samples for plan in plans)
        self.entries = sum(int(np.prod(plan.output_shapes[0])) for plan in plans)
        gradients, self.positions = curv._selected.gradients, curv._net.positions(self.names)
        self.value = self.factor * float(curv._objective.add_up(lambda batch: gradients.loss(batch)))
        total = self.factor * curv._objective.add_up(lambda batch: gradients.gradient(batch))
        self.gradient = np.asarray(total, np.float64)[self.positions]
        self.w = curv.parameters()[self.positions].astype(np.float64)
        self.provenance = curv.provenance("ggn")
        self._outputs: Outputs | None = None

    @property
    def scale(self) -> float:
        """From the objective's Gauss-Newton matrix to H."""
        return self.factor * (self.samples if self.curv.reduction == "mean" else 1)

    def outputs(self, x: Any) -> Any:
        """z (K,) and J (K, n) for each sample of x."""
        self._outputs = self._outputs or Outputs(self.curv, self.names)
        return self._outputs(x)


def laplace(curv: Any, structure: str = "kfac", prior_precision: Prior = None, noise: float = 1.0, *,
            by: Grouping | None = None, rank: int = 20, recentre: bool = False, **options: Any) -> Laplace:
    """The posterior at the parameters of `curv`, a Curvature with squared, cross-entropy or binary cross-entropy loss.

    structure        "kfac", "ekfac" (a gradient or two per output), "full" (a product per parameter), "low-rank" (the
                     `rank` top eigenpairs; the prior alone in all other directions) or "last-layer" (full, all other
                     parameters fixed); `options` go to curv.kfac or curv.eigenpairs
    prior_precision  a number, one for each group of `by`, or (n,); None: what the weight decay of `curv` stands for,
                     without any 1
    noise            standard deviation of the outputs' noise, for a squared loss
    by               groups with a prior precision each: "layer", "kind", "parameter", ...; None: one for all
    recentre         take the linearised model's mode for the mean: exact for nets that are linear in their parameters
    """
    choose("structure", structure, STRUCTURES)
    if not hasattr(curv, "kfac"):
        raise InputError(f"curv must be a hessmx.Curvature, not {type(curv).__name__}")
    data = Data(curv, last_layer(curv) if structure == "last-layer" else curv.param_names)
    noise = positive_number("noise", noise)
    if not data.noisy and noise != 1.0:
        raise InputError("noise belongs to a squared loss: a model of classes has none")
    known = _structure(data, structure, rank, options)
    start = Laplace(data, known, structure, by, np.ones(data.w.size), noise, recentre)
    prior = _prior(prior_precision, data, start._groups(), start.beta)
    return Laplace(data, known, structure, by, prior, noise, recentre)


def last_layer(curv: Any) -> tuple[str, ...]:
    """Parameters of the layer that the net reads last."""
    graph = curv._compiled("the last layer").plan(next(iter(curv._batches))).net
    names = [graph.nodes[i].name for node in graph.nodes for i, _ in node.inputs if graph.nodes[i].op is None]
    last = next(name for name in reversed(names) if name in curv.param_names)
    return next(members for members in grouped(curv.param_names, "layer").values() if last in members)


def _structure(data: Data, kind: str, rank: int, options: Mapping[str, Any]) -> Structure:
    curv = data.curv
    matrix = Unpenalised(curv._selected.engine, curv._objective, data.names)
    if kind in ("kfac", "ekfac"):
        return Kronecker(curv.kfac(corrected=kind == "ekfac", penalised=False, **options).map(lambda s: s * data.scale))
    if kind == "low-rank":
        rank = positive_int("rank", rank, 1, data.w.size)
        pairs = curv._run(eigenpairs, matrix, "top eigenpairs", k=rank, **options)
        return LowRank(data.scale * pairs.values, pairs.vectors)
    if options:
        raise InputError(f"structure {kind!r} takes no options, but got {', '.join(options)}")
    if data.w.size > MOST_DENSE:
        raise InputError(f"structure {kind!r} of {data.w.size} parameters: at most {MOST_DENSE}; use 'kfac'")
    return Full(data.scale * matrix.to_dense().astype(np.float64))


def _prior(given: Prior, data: Data, groups: Mapping[str, np.ndarray], beta: float) -> np.ndarray:
    """Precisions (n,)."""
    prior: np.ndarray = np.ones(data.w.size)
    if given is None:
        decay = data.curv._objective.penalty.diagonal[data.positions]
        if decay.any():
            prior = decay * beta * data.factor * data.samples
    elif isinstance(given, Mapping):
        if set(given) != set(groups):
            raise InputError(f"prior_precision must name the groups {', '.join(groups)}, not {', '.join(given)}")
        for name, at in groups.items():
            prior[at] = given[name]
    else:
        prior = np.asarray(given, np.float64)
        prior = np.full(data.w.shape, prior) if prior.ndim == 0 else prior
    if prior.shape != data.w.shape or not (np.isfinite(prior).all() and (prior > 0).all()):
        raise InputError(f"prior_precision must be finite and above 0, a number or ({data.w.size},); every parameter "
                         "needs a prior (a weight decay without biases gives them none)")
    return prior
