"""What all algorithms share: checked options, progress, random probes."""

from __future__ import annotations

from typing import Any, Protocol, Union

import numpy as np
from scipy import stats

from hessmx.errors import InputError


class Progress(Protocol):
    """Called after every product."""

    def __call__(self, done: int, total: int | None, message: str) -> None: ...



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


def signs(seed: int, numbers: range, dim: int) -> np.ndarray:
    """Random signs (dim, K): vectors with these numbers, side by side."""
    return np.stack([rademacher(seed, i, dim) for i in numbers], axis=1)


def gaussian(seed: int, index: Index, dim: int) -> np.ndarray:
    """Standard normal vector number `index` of a seed."""
    return _generator(seed, index).standard_normal(dim)


def spherical(seed: int, index: Index, dim: int) -> np.ndarray:
    """Vector number `index` of a seed, uniform on the sphere of radius sqrt(dim)."""
    v = gaussian(seed, index, dim)
    return v * np.sqrt(len(v)) / np.linalg.norm(v)


def _generator(seed: int, index: Index) -> np.random.Generator:
    """Vector (stream, number) is (..., stream, number) in NumPy's seed sequence; streams never meet."""
    stream, number = index if isinstance(index, tuple) else (0, index)
    return np.random.default_rng([positive_int("seed", seed, 0), stream, number])
