"""Functions of a matrix: f(A) b, solves with many shifts, and traces of f(A), all from Krylov spaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Sequence, Union

import numpy as np
from scipy.linalg import eigh

from hessmx.algorithms.common import positive_int, positive_number, rademacher
from hessmx.algorithms.krylov import Krylov, expand, times
from hessmx.algorithms.run import Context, Run
from hessmx.errors import InputError, choose
from hessmx.results import Estimate, Provenance, Result, Solution, skew_dof

if TYPE_CHECKING:
    from typing_extensions import Unpack

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "sqrt": np.sqrt,
    "inverse sqrt": lambda x: 1 / np.sqrt(x),
    "inverse": lambda x: 1 / x,
    "log": np.log,
}
POSITIVE = {"sqrt": 0.0, "inverse sqrt": 1e-14, "log": 1e-14}  # smallest eigenvalue over the largest that they allow
Function = Union[str, Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True, eq=False)
class FunctionProduct(Result):
    """f(A) b."""

    value: np.ndarray  # (P,)
    error: float  # estimated ||value - f(A) b|| / ||value||
    converged: bool
    products: int
    function: str
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


def apply(operator: Any, b: np.ndarray, function: Function, *, rtol: float = 1e-6, max_products: int | None = None,
          **context: Unpack[Context]) -> FunctionProduct:
    """f(A) b by Lanczos from b (Musco, Musco & Sidford 2018): Q f(T) e_1 ||b||, at most as far from f(A) b as twice the
    best polynomial of that degree is from f on the spectrum.

    function: "sqrt", "inverse sqrt", "exp", "inverse", "log", or any f(x) of arrays of eigenvalues. It stops when an
    eighth more steps have changed the result by less than `rtol`; that change is `error`. At most `max_products`
    (default 10 P + 10 and 1000). Where `memory` does not hold the basis, the space is built twice, for twice the
    products. InputError for a matrix on which f is not defined: before the first product where that is known.
    """
    evaluate, name = _named(function)
    with Run(operator, **context) as run:
        start, rtol = _start(b, run.dim), positive_number("rtol", rtol)
        limit = _limit(run, max_products)
        if name in POSITIVE and run.positive is False:
            raise InputError(f"{name} needs a positive matrix, and this one is known not to be; shift it")

        def coefficients(space: Krylov) -> tuple[np.ndarray, float]:
            """Of the result on the basis, and by how much the last steps have changed it."""
            found = _first_column(space.projected[: space.used, : space.used], evaluate, name)
            if not space.pending or space.used < 2:
                return found[:, None], 0.0 if not space.pending else np.inf
            less = space.used - max(1, space.used // 8)
            before = _first_column(space.projected[:less, :less], evaluate, name)
            change = np.linalg.norm(found - np.pad(before, (0, space.used - less)))
            return found[:, None], float(change / (np.linalg.norm(found) or 1.0))

        value, error = _combined(run, start, coefficients, rtol, limit)
        if not error <= rtol:
            run.note(f"relative change {error:.1e} instead of {rtol:.1e}: allow more products")
        return FunctionProduct(value[:, 0], error, error <= rtol, run.count, name, run.notes())


def solve_shifted(operator: Any, b: np.ndarray, dampings: Sequence[float], *, rtol: float = 1e-6,
                  max_products: int | None = None, **context: Unpack[Context]) -> tuple[Solution, ...]:
    """(A + d I) x = b for many dampings d from one Krylov space (Frommer & Maass 1999, section 2): products as for the
    hardest of them, and one for each true residual. Positive or indefinite; memory as for `apply`.
    """
    shifts = np.asarray(dampings, float).ravel()
    if not shifts.size or not np.isfinite(shifts).all() or (shifts < 0).any():
        raise InputError(f"dampings must be finite numbers of at least 0, not {dampings!r}")
    with Run(operator, **context) as run:
        start, rtol = _start(b, run.dim), positive_number("rtol", rtol)
        limit = _limit(run, max_products) - len(shifts)

        def coefficients(space: Krylov) -> tuple[np.ndarray, float]:
            ritz = space.ritz()
            values = ritz.values[:, None] + shifts
            inverse = 1 / np.where(values == 0, np.inf, values)
            found = ritz.turn @ (inverse * ritz.turn[0][:, None])
            rest = float(np.max(np.abs(found[-1]) * np.linalg.norm(space.coupling[:, -1:])))
            return found, rest if space.pending else 0.0

        x, _ = _combined(run, start, coefficients, 0.3 * rtol, limit)
        rest = start[:, None] - run(x) - x * shifts
        residuals = np.linalg.norm(rest, axis=0) / (np.linalg.norm(start) or 1.0)
        missed = [() if r <= rtol else (f"relative residual {r:.2g} instead of {rtol:.2g}: more damping or products",)
                  for r in residuals]
        return tuple(Solution(column, float(r), bool(r <= rtol), run.count, "shifted lanczos", float(d),
                              (*note, *run.notes())) for column, r, d, note in zip(x.T, residuals, shifts, missed))


def _combined(run: Run, start: np.ndarray, coefficients: Callable, rtol: float, limit: int) -> tuple[np.ndarray, float]:
    """Grow the space until `coefficients` says that it is enough, and combine its basis: (P, k), error."""
    size, kept = float(np.linalg.norm(start)), run.storage(min(limit, run.dim) + 1)
    space = Krylov(run, min(limit, run.dim) if kept else limit // 2, keep="full" if kept else "none",
                   dtype=kept or run.short).append(start[None], 1)
    if not kept:
        run.note(f"memory of {run.memory} bytes does not hold the basis: the space is built twice")
    weights, error, look = np.zeros((0, 1)), float("inf"), 4
    if not space.pending:
        return np.zeros((run.dim, coefficients(space)[0].shape[1] if space.used else 1)), 0.0
    while not error <= rtol and not (space.full and space.used):
        expand(run, [space])
        run.message = f"{space.used} steps"
        if space.used >= look or space.full:
            weights, error = coefficients(space)
            look = space.used + max(2, space.used // 8)
    if kept:
        return size * space.combined(weights), error
    again = Krylov(run, space.used, keep="none", dtype=run.short).append(start[None], 1)
    total = np.zeros((run.dim, weights.shape[1]))
    while again.used < space.used:
        total += again.waiting.T.astype(np.float64) @ weights[again.used : again.used + 1]
        expand(run, [again])
    return size * total, error


def trace_of(operator: Any, function: Function, probes: int = 10, steps: int = 64,
             **context: Unpack[Context]) -> Estimate:
    """tr f(A), Krylov-aware (Chen & Hallman 2023; Persson, Chen & Musco 2025): at most probes x steps products.

    Half of the probes start one block Krylov space of `steps` blocks. On the first half of its basis Q the trace of
    f(A) is known from T; the other probes, freed from Q, sample what is left, each with `steps` steps of its own. Where
    a few eigenvalues make the scatter of plain quadrature, Q holds them, and what is left scatters little.
    `truncation`: the difference to three quarters of the steps. Memory: probes / 2 x steps vectors; fewer probes in the
    block where they do not fit.
    """
    evaluate, name = _named(function)
    with Run(operator, **context) as run:
        probes, steps = positive_int("probes", probes, 3), min(positive_int("steps", steps, 2), run.dim)
        run.total = probes * steps
        if name in POSITIVE and run.positive is False:
            raise InputError(f"{name} needs a positive matrix, and this one is known not to be; shift it")
        width = min(probes // 2, max(0, run.affordable() - 3 * steps) // steps, run.dim // steps)
        if width < min(probes // 2, run.dim // steps):
            run.note(f"memory of {run.memory} bytes holds a block of {width} probes instead of {probes // 2}")
        known = _on_block(run, width, steps, evaluate, name) if width else (np.zeros((0, run.dim)), 0.0, 0.0)
        samples, gaps = _remaining(run, known[0], range(width, probes), steps, evaluate, name)
        value, stderr = known[1] + float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(len(samples)))
        return Estimate(value, max(stderr, 4 * run.eps * abs(value)), known[1] + samples, run.count, f"krylov {name}",
                        skew_dof(len(samples)), run.notes(), truncation=known[2] + float(gaps.mean()))


def _on_block(run: Run, width: int, steps: int, evaluate: Callable, name: str) -> tuple[np.ndarray, float, float]:
    """The first half of the basis, the trace of f(A) on it, and what the last quarter of the steps changed of that."""
    starts = np.stack([rademacher(run.seed, i, run.dim) for i in range(width)])
    space = Krylov(run, width * steps, width).append(starts, width)
    half = 0
    for step in range(steps):
        if not space.pending:
            break
        expand(run, [space])
        if step < (steps + 1) // 2:
            half = space.used
    sizes = space.used, max(half, space.used - width * (steps // 4))
    traces = []
    for size in sizes:
        values, turn = eigh(space.projected[:size, :size])
        traces.append(float(np.sum(turn[:half] ** 2 @ _defined(evaluate, name, values))))
    gap = abs(traces[0] - traces[1]) if space.pending else 0.0
    return space.rows[:half], traces[0], gap


def _remaining(run: Run, basis: np.ndarray, numbers: range, steps: int, evaluate: Callable,
               name: str) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the trace off the basis, one for each probe, and what the last quarter of the steps changed of each.

    A sign vector freed from Q has no constant length; how far its square is from its mean, times the mean of f that the
    other probes have found, is taken off: a control variate that leaves the samples unbiased.
    """
    sizes, means, gaps = [], [], []
    for i in numbers:
        start = rademacher(run.seed, i, run.dim)
        for _ in range(2):
            start -= (times(basis, start[None]).T @ basis)[0]
        space = Krylov(run, steps)
        if len(basis) < run.dim:
            space.append(start[None], 1)
        while not space.full:
            expand(run, [space])
        found = [_quadrature(space.projected[:m, :m], evaluate, name) if m else 0.0
                 for m in (space.used, space.used - space.used // 4)]
        sizes.append(float(start @ start))
        means.append(found[0])
        gaps.append(sizes[-1] * abs(found[0] - found[1]) if space.pending else 0.0)
    square, mean = np.array(sizes), np.array(means)
    others = (mean.sum() - mean) / (len(mean) - 1)
    return square * mean - others * (square - (run.dim - len(basis))), np.array(gaps)


def _quadrature(projected: np.ndarray, evaluate: Callable, name: str) -> float:
    values, turn = eigh(projected)
    return float(turn[0] ** 2 @ _defined(evaluate, name, values))


def _first_column(projected: np.ndarray, evaluate: Callable, name: str) -> np.ndarray:
    """f(T) e_1."""
    values, turn = eigh(projected)
    return turn @ (_defined(evaluate, name, values) * turn[0])


def _defined(evaluate: Callable, name: str, values: np.ndarray) -> np.ndarray:
    """f at eigenvalues of T, which are averages of eigenvalues of A: not defined there means not defined for A."""
    largest = float(np.abs(values).max()) or 1.0
    if name in POSITIVE:
        low = float(values.min())
        if low < -1e-6 * largest or (low <= 0 and POSITIVE[name]):
            raise InputError(f"{name} needs positive eigenvalues, but {low:.3g} is among them; shift the matrix by "
                             f"more than {max(-low, 0):.3g}")
        values = np.maximum(values, POSITIVE[name] * largest)
    found = np.asarray(evaluate(values), float)
    if found.shape != values.shape or not np.isfinite(found).all():
        raise InputError(f"the function must give one finite number for each eigenvalue, but gave {found!r}"[:200])
    return found


def _named(function: Function) -> tuple[Callable, str]:
    if callable(function):
        return function, getattr(function, "__name__", "f")
    return FUNCTIONS[choose("function", function, FUNCTIONS)], function


def _start(b: Any, dim: int) -> np.ndarray:
    vector = np.asarray(b, dtype=np.float64)
    if vector.shape != (dim,) or not np.isfinite(vector).all():
        raise InputError(f"b must be a vector of {dim} finite numbers, not of shape {vector.shape}")
    return vector


def _limit(run: Run, max_products: int | None) -> int:
    run.total = positive_int("max_products", min(10 * run.dim + 10, 1000) if max_products is None else max_products, 2)
    return run.total
