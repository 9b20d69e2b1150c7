"""What every question returns: frozen, with the evidence beside the number, JSON-able by `to_dict()`.

P parameters, k eigenpairs, m samples, `probes` x `steps` quadrature nodes. Arrays are float64.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np
from scipy import stats

from hessmx.errors import InputError


@dataclass(frozen=True)
class Provenance:
    """Where a number comes from; filled by the facade, not by the algorithms."""

    engine: str = "unknown"
    matrix: str = "unknown"
    mode: str = "unknown"
    reduction: str = "unknown"
    dtype: str = "unknown"
    seed: int | None = None
    num_samples: int = 0
    num_params: int = 0


ATOM = 1e-6  # a node this close to an eigenvalue, relative to the largest node, is one


class Result:
    """Base of all results."""

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain Python data under `type`; arrays become lists. `from_dict` reads it back."""
        fields = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"type": type(self).__name__, **fields}


@dataclass(frozen=True, eq=False)
class Eigenpairs(Result):
    """Eigenvalues and vectors: descending for "LA", ascending for "SA" and "BE", descending magnitude for "LM"."""

    values: np.ndarray  # (k,)
    vectors: np.ndarray  # (P, k), orthonormal columns
    residuals: np.ndarray  # (k,) true ||A v - lambda v||_2, each from a product of its own
    converged: np.ndarray  # (k,) bool
    products: int
    method: str
    which: str
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class Estimate(Result):
    """A random estimate with its standard error; `interval` uses Student's t with `dof` degrees of freedom."""

    value: float
    stderr: float
    samples: np.ndarray  # (m,)
    products: int
    method: str
    dof: float = float("nan")
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Confidence interval (low, high); infinitely wide where one sample says nothing about the spread."""
        if not 0 < level < 1:
            raise InputError(f"level must be between 0 and 1, not {level!r}; use 0.95 for a 95 % interval")
        half = self.half_width(level)
        return self.value - half, self.value + half

    def half_width(self, level: float = 0.95) -> float:
        dof = self.dof if np.isfinite(self.dof) else len(self.samples) - 1
        return float(stats.t.ppf(0.5 + level / 2, dof) * self.stderr) if dof > 0 else float("inf")


@dataclass(frozen=True, eq=False)
class VectorEstimate(Result):
    """A random estimate of a vector, such as the diagonal."""

    value: np.ndarray  # (P,)
    stderr: np.ndarray  # (P,)
    products: int
    method: str
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class Solution(Result):
    """x with (A + damping I) x = b."""

    x: np.ndarray  # (P,)
    residual: float  # true ||b - (A + damping I) x|| / ||b||
    converged: bool
    products: int
    method: str
    damping: float
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class Spectrum(Result):
    """Spectral distribution as one quadrature rule per probe; a row ended by a breakdown is padded with weight 0."""

    nodes: np.ndarray  # (probes, steps), ascending
    weights: np.ndarray  # (probes, steps), rows sum to 1
    dim: int
    products: int
    steps: int
    seed: int | None = None
    bounds: np.ndarray | None = None  # (probes, steps) distance from each node to the nearest eigenvalue, at most
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest node."""
        return float(self.nodes.min()), float(self.nodes.max())

    def density(self, grid: np.ndarray, width: float | None = None) -> np.ndarray:
        """Density smoothed by a Gaussian of standard deviation `width`, by default `default_width()`."""
        return self._densities(grid, width).mean(axis=0)

    def density_stderr(self, grid: np.ndarray, width: float | None = None) -> np.ndarray:
        return _stderr(self._densities(grid, width))

    def default_width(self) -> float:
        """Spectral range over number of steps: what the quadrature resolves, whatever the loss's scale."""
        low, high = self.range
        return (high - low) / self.steps or abs(high) / self.steps or 1.0

    def cdf(self, grid: np.ndarray) -> np.ndarray:
        """Share of eigenvalues at or below each grid point, without a kernel."""
        return self._cdfs(grid).mean(axis=0)

    def cdf_stderr(self, grid: np.ndarray) -> np.ndarray:
        return _stderr(self._cdfs(grid))

    def log_density(self, grid: np.ndarray, sign: int = 1, width: float = 0.1) -> np.ndarray:
        """Density over log10|lambda| of the positive (sign=1) or negative (sign=-1) side, `width` in decades.

        Integrates to that side's share; nodes below `zero_level()` belong to neither side.
        """
        side = self.nodes * sign > self.zero_level()
        logs = np.log10(np.where(side, np.abs(self.nodes), 1.0))
        return _smooth(np.asarray(grid, float), logs, self.weights * side, width).mean(axis=0)

    def zero_level(self) -> float:
        """Magnitude under which a node is rounding: 1e-10 of the largest."""
        return 1e-10 * float(np.abs(self.nodes).max())

    def sides(self) -> tuple[float, float, float]:
        """Shares (negative, zero, positive) of the eigenvalues."""
        level, mean = self.zero_level(), self.weights / len(self.weights)
        negative, positive = mean[self.nodes < -level].sum(), mean[self.nodes > level].sum()
        return float(negative), float(1 - negative - positive), float(positive)

    def trace_of(self, function: Callable[[np.ndarray], np.ndarray], name: str = "trace of f") -> Estimate:
        """tr f(A) from the same quadrature (Ubaru, Chen & Saad 2017, section 3); no further product."""
        samples = self.dim * np.sum(self.weights * np.where(self.weights > 0, function(self.nodes), 0.0), axis=1)
        return Estimate(float(samples.mean()), float(_stderr(samples)), samples, self.products, f"slq {name}",
                        notes=self.notes, provenance=self.provenance)

    def logdet(self, shift: float = 0.0) -> Estimate:
        """log det(A + shift I)."""
        self._require_positive(shift)
        return self.trace_of(lambda x: np.log(np.where(x + shift > 0, x + shift, 1.0)), "logdet")

    def effective_dimension(self, shift: float) -> Estimate:
        """sum_i lambda_i / (lambda_i + shift) (MacKay 1992, section 4)."""
        self._require_positive(shift)
        return self.trace_of(lambda x: x / np.where(x + shift > 0, x + shift, 1.0), "effective dimension")

    def _require_positive(self, shift: float) -> None:
        low = float(self.nodes[self.weights > 0].min())
        if low + shift <= 0:
            raise InputError(f"shift must make all eigenvalues positive, but {low:.6g} + {shift:.6g} is not; "
                             f"use a shift above {-low:.6g}")

    def _densities(self, grid: np.ndarray, width: float | None) -> np.ndarray:
        return _smooth(np.asarray(grid, float), self.nodes, self.weights, width or self.default_width())

    def _cdfs(self, grid: np.ndarray) -> np.ndarray:
        return np.array([np.interp(grid, *self._steps(i), left=0.0, right=1.0) for i in range(len(self.nodes))])

    def _steps(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Points of one probe's distribution function: it jumps at nodes that are eigenvalues and passes through the
        middle of the jump at all others, which stand for the eigenvalues around them (Chebyshev-Markov-Stieltjes).
        """
        nodes, weights, size = self.nodes[row], self.weights[row], float(np.abs(self.nodes).max())
        known = np.zeros(len(nodes), bool) if self.bounds is None else self.bounds[row] <= ATOM * size
        above = np.cumsum(weights)
        below, middle = above - weights, above - weights / 2
        heights = np.stack([np.where(known, below, middle), np.where(known, above, middle)], axis=1)
        return np.repeat(nodes, 2) - 1e-12 * size, heights.ravel()  # minus: a jump at 0 counts at 0 despite rounding


@dataclass(frozen=True)
class LayerCurvature(Result):
    """One layer's diagonal block."""

    name: str
    num_params: int
    top_eigenvalue: float
    trace: float
    trace_stderr: float
    share: float  # of the whole trace


@dataclass(frozen=True, eq=False)
class Layers(Result):
    """Curvature layer by layer."""

    rows: tuple[LayerCurvature, ...]
    provenance: Provenance = field(default_factory=Provenance)


@dataclass(frozen=True, eq=False)
class InputGradients(Result):
    """Gradients of one number per sample with respect to that sample's input."""

    inputs: np.ndarray  # (N, *input shape)
    gradients: np.ndarray  # (N, *input shape)
    output: str  # which number
    provenance: Provenance = field(default_factory=Provenance)


def from_dict(data: dict[str, Any]) -> Any:
    """The result that `to_dict` wrote; InputError where a field is missing, unknown or of another kind."""
    from hessmx._saved import restored

    return restored(data, {c.__name__: c for c in (Provenance, *_subclasses(Result))})


def _subclasses(kind: type) -> list[type]:
    direct: list[type] = kind.__subclasses__()
    return direct + [c for d in direct for c in _subclasses(d)]


def _plain(value: Any) -> Any:
    if isinstance(value, Provenance):
        return {"type": "Provenance", **dataclasses.asdict(value)}
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _stderr(samples: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; not-a-number for one sample."""
    m = len(samples)
    return samples.std(axis=0, ddof=1) / np.sqrt(m) if m > 1 else np.full(samples.shape[1:], np.nan)


def _smooth(grid: np.ndarray, centres: np.ndarray, weights: np.ndarray, width: float) -> np.ndarray:
    """(probes, grid) sums of Gaussians at the centres."""
    z = (grid[None, :, None] - centres[:, None, :]) / width
    return (np.exp(-0.5 * z * z) * weights[:, None, :]).sum(axis=2) / (width * np.sqrt(2 * np.pi))
