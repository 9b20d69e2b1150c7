"""What all algorithms share: counted and checked products, options, progress, random probes."""

from __future__ import annotations

from typing import Any, Protocol, Union

import numpy as np
from scipy import stats
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hessmx.errors import InputError

SMALL = 1e-3  # eigenvalues below this share of the norm are resolved to tol * SMALL of the norm


class Progress(Protocol):
    """Called after every product."""

    def __call__(self, done: int, total: int | None, message: str) -> None: ...



class Products:
    """A symmetric operator that counts its products, returns float64 and refuses NaN."""

    def __init__(self, operator: Any, progress: Progress | None = None, total: int | None = None):
        self.operator = square(operator)
        self.dim = self.operator.shape[0]
        self.dtype = np.dtype(self.operator.dtype or np.float64)
        self.progress, self.total, self.message = progress, total, ""
        self.count = 0
        self.scale = 0.0  # largest ||Av|| / ||v|| met: a lower bound of the norm of A

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """A @ (P,) or (P, K), one count per column."""
        out = np.asarray(self.operator @ vectors.astype(self.dtype, copy=False), dtype=np.float64)
        self.count += 1 if vectors.ndim == 1 else vectors.shape[1]
        if not np.isfinite(out).all():
            raise InputError(f"expected finite numbers, but matrix-vector product {self.count} contains NaN or "
                             "infinity; check parameters and data for NaN, and the loss for overflow or log(0)")
        sizes = np.linalg.norm(vectors, axis=0)
        self.scale = max(self.scale, float(np.max(np.linalg.norm(out, axis=0) / np.where(sizes > 0, sizes, 1.0))))
        if self.progress:
            self.progress(self.count, self.total, self.message)
        return out

    def limits(self, values: np.ndarray | float, tol: float) -> np.ndarray:
        """Residuals at which eigenpairs count as converged: relative to lambda, or to the norm of A for small ones."""
        return np.maximum(tol * np.maximum(np.abs(values), SMALL * self.scale), 10 * self.eps * self.scale)

    @property
    def eps(self) -> float:
        """Rounding of one product."""
        return float(np.finfo(self.dtype).eps)


def square(operator: Any) -> LinearOperator:
    """The operator as a real square LinearOperator."""
    shape = getattr(operator, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise InputError(f"expected a square operator or matrix of shape (P, P), got shape {shape}")
    if np.dtype(getattr(operator, "dtype", None) or np.float64).kind not in "fiu":
        raise InputError(f"expected a real operator, got dtype {operator.dtype}; pass float32 or float64")
    operator = aslinearoperator(operator)
    return operator if np.dtype(operator.dtype or float).kind == "f" else operator * 1.0


def positive_int(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """`value` as an int in [low, high]."""
    number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not number or value < low or (high is not None and value > high):
        limits = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise InputError(f"{name} must be a whole number {limits}, not {value!r}")
    return int(value)


def positive_number(name: str, value: Any) -> float:
    """`value` as a finite float above 0."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise InputError(f"{name} must be a finite number above 0, not {value!r}")
    return number


def require_memory(memory: int, vectors: int, dim: int, what: str) -> None:
    """Refuse a run whose Lanczos vectors would not fit in `memory` bytes."""
    if vectors * dim * 8 > memory:
        raise InputError(f"memory must hold {vectors} vectors of {dim} numbers, {vectors * dim * 8} bytes, but is "
                         f"{memory}; raise it or ask for fewer {what}")


def opposite_notes(values: np.ndarray) -> list[str]:
    """Names a dominant pair +-a, on which power iteration alone never settles; no method may pass over it."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 0.0)
    if low < 0 < high and abs(high + low) <= 1e-4 * high:
        return [f"the largest magnitude belongs to two eigenvalues, {high:.6g} and {low:.6g}: equal in size, "
                "opposite in sign"]
    return []


def mean_square_interval(values: np.ndarray, count: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Exact confidence interval of variances whose estimates `values` are means of `count` squared normal numbers."""
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, not {level!r}; use 0.95 for a 95 % interval")
    low, high = (count / stats.chi2.ppf(tail, count) for tail in (0.5 + level / 2, 0.5 - level / 2))
    return values * low, values * high


Index = Union[int, "tuple[int, int]"]  # number of a random vector, or (stream, number)


def rademacher(seed: int, index: Index, dim: int) -> np.ndarray:
    """Random signs, vector number `index` of a seed; it does not depend on how many are drawn."""
    return _generator(seed, index).integers(0, 2, dim) * 2.0 - 1.0


def gaussian(seed: int, index: Index, dim: int) -> np.ndarray:
    """Standard normal vector number `index` of a seed."""
    return _generator(seed, index).standard_normal(dim)


def _generator(seed: int, index: Index) -> np.random.Generator:
    """Vector (stream, number) is (..., stream, number) in NumPy's seed sequence; streams never meet."""
    stream, number = index if isinstance(index, tuple) else (0, index)
    return np.random.default_rng([positive_int("seed", seed, 0), stream, number])
