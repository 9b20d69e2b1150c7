"""Can the numbers be trusted? Products against float64 differences of gradients, symmetry, repeatability."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.common import gaussian, positive_int
from hessmx.results import Provenance, Result

TOLERANCES = {"float32": 1e-3, "float64": 1e-6}  # a wrong rule is off by much more than rounding near a minimum
STEPS = (1.0, 0.1, 0.01)  # a net with kinks needs the small ones, which stay on one piece
STEP = 6e-6  # cube root of the rounding unit of float64 (Nocedal & Wright 2006, section 8.1)


@dataclass(frozen=True, eq=False)
class CheckResult(Result):
    """Relative errors of `vectors` random products; `verdict` says in one line what they mean."""

    trusted: bool
    verdict: str
    difference: float  # ||Hv - (g(w + hv) - g(w - hv)) / 2h|| / ||Hv||, worst vector, best of three steps
    asymmetry: float  # |u.Hv - v.Hu| / (||u|| ||Hv|| + ||v|| ||Hu||)
    repeat: float  # ||Hv - Hv again|| / ||Hv||
    tolerance: float
    reference: str  # dtype of the differences
    vectors: int
    provenance: Provenance = field(default_factory=Provenance)


def check(curv: Any, vectors: int = 2, seed: int = 0) -> CheckResult:
    """Compare `curv.hvp` with central differences; costs 2 products and 6 gradients per vector.

    The differences are of gradients in float64, whatever the net's dtype, computed by MXNet's own backward pass.
    """
    gradient, reference = _gradient(curv)
    directions = [_unit(gaussian(seed, i, curv.num_params)) for i in range(positive_int("vectors", vectors, 2))]
    products = [curv.hvp(v) for v in directions]
    repeat = max(_relative(curv.hvp(v), p) for v, p in zip(directions, products))
    difference = max(_difference(gradient, curv.parameters(), v, p) for v, p in zip(directions, products))
    asymmetry = max(_asymmetry(directions, products, i, j) for i in range(vectors) for j in range(i))
    tolerance = max(TOLERANCES[str(curv.dtype)], TOLERANCES[reference])
    trusted = max(difference, asymmetry, repeat) <= tolerance
    verdict = _verdict(trusted, difference, asymmetry, repeat, tolerance, reference)
    return CheckResult(trusted, verdict, difference, asymmetry, repeat, tolerance, reference, vectors,
                       curv.provenance("hessian"))


def _gradient(curv: Any) -> tuple[Callable[..., np.ndarray], str]:
    """gradient(at) and its dtype: float64 through the traced graph, the net's own where no tracer can read it."""
    if not curv.traced:
        return curv.gradient, str(curv.dtype)
    return partial(curv.gradient, dtype="float64"), "float64"


def _difference(gradient: Any, parameters: np.ndarray, v: np.ndarray, product: np.ndarray) -> float:
    w = parameters.astype(np.float64)
    size = float(np.linalg.norm(w)) or 1.0
    errors = []
    for step in STEPS:
        h = STEP * step * size
        errors.append(_relative((gradient(at=w + h * v) - gradient(at=w - h * v)) / (2 * h), product))
    return min(errors)


def _asymmetry(v: list[np.ndarray], p: list[np.ndarray], i: int, j: int) -> float:
    scale = float(np.linalg.norm(p[i]) + np.linalg.norm(p[j]))
    return abs(float(v[i] @ p[j] - v[j] @ p[i])) / (scale or 1.0)


def _relative(found: np.ndarray, product: np.ndarray) -> float:
    scale = max(float(np.linalg.norm(product)), float(np.linalg.norm(found)))
    return float(np.linalg.norm(found.astype(np.float64) - product)) / (scale or 1.0)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _verdict(
    trusted: bool, difference: float, asymmetry: float, repeat: float, tolerance: float, reference: str
) -> str:
    evidence = f"products agree with {reference} differences of gradients to {difference:.1e}, are symmetric to " \
               f"{asymmetry:.1e} and repeat to {repeat:.1e} (tolerance {tolerance:.0e})"
    if trusted:
        return f"The numbers can be trusted: {evidence}."
    causes = [
        (repeat, "two equal products differ: the data or the net is random"),
        (asymmetry, "the matrix is not symmetric"),
        (difference, "products and differences disagree: a rule is wrong, or the net sits on a kink"),
    ]
    cause = next(text for error, text in causes if not error <= tolerance)
    return f"The numbers can NOT be trusted, {cause}: {evidence}."
