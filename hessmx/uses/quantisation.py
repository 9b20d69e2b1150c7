"""What rounding the weights costs: predicted per layer and bit width, measured, and the best bits under a size budget.

A weight is rounded to the nearest of 2^b - 1 equal steps between plus and minus its largest magnitude (of the tensor or
of each output channel): symmetric, as MXNet's own int8. The change d is then known, so its cost is g'd + d'Hd/2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import LinearConstraint, milp
from scipy.stats import spearmanr

from hessmx.algorithms.common import Progress, positive_int
from hessmx.algorithms.trace import trace
from hessmx.errors import InputError, choose
from hessmx.results import Provenance, Result
from hessmx.uses.nets import weights

BITS = (2, 3, 4, 6, 8)
FLOAT = 32  # bits of a weight that is not rounded
RULES = ("predicted", "trace_rule", "measured")


@dataclass(frozen=True, eq=False)
class BitCosts(Result):
    """Rise of the loss when one weight alone is rounded; row: weight, column: bits."""

    weights: tuple[str, ...]  # names of the L weights
    sizes: np.ndarray  # (L,) entries
    bits: np.ndarray  # (b,)
    predicted: np.ndarray  # (L, b) g'd + d'Hd/2 with the true rounding error d
    slopes: np.ndarray  # (L, b) its first part, g'd
    trace_rule: np.ndarray  # (L, b) |d|^2 tr(H)/n, HAWQ-V2's rule
    measured: np.ndarray  # (L, b) loss with the rounded weight minus loss
    distances: np.ndarray  # (L, b) |d|
    traces: np.ndarray  # (L,) of each weight's block of H
    trace_errors: np.ndarray  # (L,) standard errors
    loss: float
    per: str
    products: int
    provenance: Provenance = field(default_factory=Provenance)

    def rank_correlation(self, rule: str = "predicted", below: float = np.inf) -> float:
        """Spearman's, of a rule with the measured rise, over the entries whose measured rise is under `below`.

        Entries under the loss's own rounding (1e-6 of it in float32) are left out. NaN for fewer than three entries.
        """
        values = getattr(self, choose("rule", rule, RULES[:2]))
        noise = (1e-6 if self.provenance.dtype != "float64" else 1e-14) * abs(self.loss)
        kept = (np.abs(self.measured) > noise) & (np.abs(self.measured) < below)
        return float(spearmanr(values[kept], self.measured[kept])[0]) if kept.sum() > 2 else float("nan")


@dataclass(frozen=True, eq=False)
class BitPlan(Result):
    """Bits for each weight, and what all of them together cost."""

    weights: tuple[str, ...]
    bits: np.ndarray  # (L,)
    sizes: np.ndarray  # (L,)
    mean_bits: float  # per weight entry
    budget: float
    rule: str
    separate: float  # sum of the layers' costs by the rule
    joint: float  # g'd + d'Hd/2 with d of all layers together, NaN before `measure_plan`
    measured: float  # NaN before `measure_plan`
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def kept(self) -> tuple[str, ...]:
        """Weights that are not rounded."""
        return tuple(name for name, bits in zip(self.weights, self.bits) if bits >= FLOAT)


def rounded(w: np.ndarray, bits: int, per: str = "tensor") -> np.ndarray:
    """A weight (rows, ...) on its grid of 2^bits - 1 values; `per` "tensor" or "channel" (a scale for each row).

    32 bits or more: unchanged. Ties go away from zero, as in MXNet.
    """
    choose("per", per, ("tensor", "channel"))
    if positive_int("bits", bits, 2) >= FLOAT:
        return np.array(w)
    w = np.asarray(w)
    axes = tuple(range(w.ndim)) if per == "tensor" else tuple(range(1, w.ndim))
    scale = np.abs(w).max(axis=axes, keepdims=True) / (2 ** (bits - 1) - 1)
    steps = np.divide(w, scale, out=np.zeros_like(w), where=scale > 0)
    return np.sign(steps) * np.floor(np.abs(steps) + 0.5) * scale


def rounding_error(curv: Any, bits: dict[str, int], per: str = "tensor") -> np.ndarray:
    """d (P,): the change of the parameters when the named weights are rounded."""
    w, d = np.asarray(curv.parameters(), float), np.zeros(curv.num_params)
    for name, count in bits.items():
        where = curv.param_slices[name]
        d[where] = rounded(w[where].reshape(curv.param_shapes[name]), int(count), per).ravel() - w[where]
    return d


def costs(curv: Any, bits: Sequence[int] = BITS, per: str = "tensor", measure: bool = True, trace_budget: int = 30,
          progress: Progress | None = None) -> BitCosts:
    """Cost of rounding each weight alone, for each bit width, three ways.

    `predicted` spends one product with the weight's block per width; `trace_rule` (HAWQ-V2, Dong et al. 2020, equation
    8: mean eigenvalue times |d|^2) `trace_budget` products per weight; `measured` one loss per width. The first knows
    the direction of d, the second only its length. 0 for `trace_budget` leaves the rule out.
    """
    widths = sorted({positive_int("bits", b, 2) for b in bits})
    names, w, g = weights(curv), np.asarray(curv.parameters(), float), np.asarray(curv.gradient(), float)
    shape, base = (len(names), len(widths)), float(curv.loss())
    slopes, bends, distances, measured = (np.zeros(shape) for _ in range(4))
    traces, errors = np.full(len(names), np.nan), np.full(len(names), np.nan)
    products = 0
    for i, name in enumerate(names):
        block, where = curv.block([name]), curv.param_slices[name]
        for j, width in enumerate(widths):
            d = rounding_error(curv, {name: width}, per)
            slopes[i, j], distances[i, j] = g @ d, np.linalg.norm(d)
            if d.any():
                bends[i, j] = 0.5 * d[where] @ block.matvec(d[where])
                products += 1
                measured[i, j] = float(curv.loss(at=w + d)) - base if measure else np.nan
            if progress:
                progress(i * len(widths) + j + 1, len(names) * len(widths), f"{name}, {width} bits")
        if trace_budget:
            traces[i], errors[i], spent = _trace(block, trace_budget, curv.seed)
            products += spent
    sizes = np.array([int(np.prod(curv.param_shapes[name])) for name in names])
    rule = distances**2 * (traces / sizes)[:, None]
    return BitCosts(names, sizes, np.array(widths), slopes + bends, slopes, rule, measured, distances, traces, errors,
                    base, per, products, curv.provenance("hessian"))


def choose_bits(found: BitCosts, mean_bits: float, rule: str = "predicted") -> BitPlan:
    """The bits with the least total cost among all with at most `mean_bits` per entry: an integer programme.

    One binary variable for each weight and width (HAWQ-V3, Yao et al. 2021, section 3.4); solved exactly by SciPy.
    """
    cost = getattr(found, choose("rule", rule, RULES))
    if not np.isfinite(cost).all():
        raise InputError(f"{rule} was not computed: call costs() with measure=True and trace_budget above 0")
    if not np.isfinite(mean_bits) or mean_bits < found.bits[0]:
        raise InputError(f"mean_bits must be a number of at least {found.bits[0]}, the smallest width asked for, "
                         f"not {mean_bits!r}")
    rows, columns = cost.shape
    one_each = LinearConstraint(np.kron(np.eye(rows), np.ones(columns)), 1, 1)
    size = LinearConstraint(np.outer(found.sizes / found.sizes.sum(), found.bits).ravel()[None], -np.inf,
                            mean_bits * (1 + 1e-12))
    scale = np.abs(cost).max() or 1.0  # HiGHS's tolerances are absolute
    solved = milp(cost.ravel() / scale, constraints=[one_each, size], integrality=np.ones(cost.size), bounds=(0, 1),
                  options={"mip_rel_gap": 0})
    if not solved.success:
        raise InputError(f"no bits were found for mean_bits={mean_bits}: {solved.message}")
    chosen = solved.x.reshape(cost.shape).argmax(axis=1)
    bits = found.bits[chosen]
    mean = float(found.sizes @ bits / found.sizes.sum())
    return BitPlan(found.weights, bits, found.sizes, mean, float(mean_bits), rule,
                   float(cost[np.arange(rows), chosen].sum()), float("nan"), float("nan"), found.provenance)


def measure_plan(curv: Any, plan: BitPlan, per: str = "tensor") -> BitPlan:
    """The plan with the rise that one product predicts for all weights together, and with the measured one."""
    d = rounding_error(curv, dict(zip(plan.weights, plan.bits)), per)
    joint = float(curv.gradient() @ d + 0.5 * d @ curv.hvp(d))
    return replace(plan, joint=joint, measured=float(curv.loss(at=curv.parameters() + d)) - float(curv.loss()))


def _trace(block: Any, budget: int, seed: int) -> tuple[float, float, int]:
    """By Hutch++, or exactly where that is no dearer; with its standard error and the products spent."""
    if block.shape[0] <= budget:
        return float(np.trace(block.to_dense())), 0.0, block.shape[0]
    estimate = trace(block, budget=budget, seed=seed)
    return estimate.value, estimate.stderr, estimate.products
