"""What is differentiated: the mean (or sum) of per-sample losses over all data, plus an L2 penalty.

The one place for batch weights: sums over samples are added up batch by batch and divided once, so the answer does not
depend on how the data is cut.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Callable, Sequence, Union

import numpy as np

from hessmx._threads import alone
from hessmx.errors import DataError, HessmxWarning, InputError, choose
from hessmx.problem.data import Batch, Batches
from hessmx.problem.net import Net
from hessmx.problem.samples import check_apart


@dataclass(frozen=True)
class L2Penalty:
    """strength / 2 * sum_p wd_mult_p |w_p|^2, as Gluon's Trainer decays weights (`wd`, `Parameter.wd_mult`).

    biases=False leaves out every one-dimensional parameter (biases, and the scales and shifts of normalisation layers).
    """

    strength: float
    biases: bool = True


WeightDecay = Union[None, float, L2Penalty]


class Penalty:
    """The L2 penalty on a net's selected parameters: a diagonal matrix (P,)."""

    def __init__(self, net: Net, decay: WeightDecay):
        setting = decay if isinstance(decay, L2Penalty) else L2Penalty(0.0 if decay is None else decay)
        if not isinstance(setting.strength, (int, float)) or not np.isfinite(setting.strength) or setting.strength < 0:
            raise InputError(f"weight_decay must be a number >= 0 or an L2Penalty, not {decay!r}")
        self.strength = float(setting.strength)
        self.diagonal = np.zeros(net.size)
        for name, parameter in net.parameters.items():
            if setting.biases or len(net.shapes[name]) > 1:
                self.diagonal[net.slices[name]] = self.strength * parameter.wd_mult

    def value(self, parameters: Any) -> float:
        return 0.5 * float(self.diagonal @ np.asarray(parameters, np.float64) ** 2) if self.strength else 0.0

    def times(self, vector: np.ndarray, net: Net, which: Sequence[str]) -> np.ndarray | float:
        if not self.strength:
            return 0.0
        return (self.diagonal if which == net.names else self.diagonal[net.positions(which)]) * vector


class Reduction:
    """From the sum over samples to the objective: divided by their number ("mean") or not ("sum").

    The penalty belongs to the mean; with "sum" it is multiplied by the number of samples: sum = N mean holds for all.
    """

    def __init__(self, kind: str):
        self.kind = choose("reduction", kind, ("mean", "sum"))

    def of_sum(self, total: Any, samples: int) -> Any:
        """The reduced sum; an array is overwritten."""
        if self.kind == "sum":
            return total
        return np.divide(total, samples, out=total if isinstance(total, np.ndarray) and total.ndim else None)

    def of_penalty(self, penalty: Any, samples: int) -> Any:
        return penalty if self.kind == "mean" else penalty * samples


class Objective:
    """Sums over all samples, turned into the value, gradient and products of the objective."""

    def __init__(self, net: Net, batches: Batches, reduction: str, decay: WeightDecay):
        self.net, self.batches = net, batches
        self.reduction, self.penalty = Reduction(reduction), Penalty(net, decay)
        self.samples = 0  # known after the first pass
        self.convex: bool | None = None  # whether the loss is known to be convex in the outputs of the net

    @alone
    def add_up(self, term: Callable[[Batch], tuple[Any, int]]) -> Any:
        """Sum of `term(batch)` (a new value and its number of samples) over one pass; None counts as zero.

        Batches are added up in float64; a single one stays in its dtype, as copies of (P,) cost as much as a layer.
        """
        total: Any = None
        samples = 0
        for batch in self.batches:
            value, count = term(batch)
            samples += count
            if value is not None:
                total = value if total is None else np.add(total, value, dtype=np.float64)
        self.samples = samples
        return np.zeros(()) if total is None else total

    @alone
    def check_apart(self, batch: Batch, loss: Callable[[Batch], tuple[float, int]]) -> None:
        """Losses must belong to one sample each where the data is in batches, or its cut would be part of the answer.

        Arrays that were cut here are refused with DataError; batches of the user's own get a warning.
        """
        batches = self.batches
        if not (batches.cut or batches.several):
            return
        wrong = check_apart(batch, batches.axis, loss, self.net.dtype)
        if wrong and batches.cut:
            raise DataError(
                f"the samples along axis {batches.axis} are not apart: {wrong}, so numbers would depend on batch_size. "
                "Where the axis is another one, or the loss compares samples, give batches of your own, [(x, y), ...]"
            )
        if wrong and loss(batch)[1] == batch.inputs[0].shape[batches.axis]:
            warnings.warn(f"the loss mixes the samples of a batch ({wrong}): numbers depend on how the data is cut "
                          "into batches", HessmxWarning, stacklevel=4)  # fmt: skip

    @alone
    def check_repeatable(self, loss: Callable[[Batch], tuple[float, int]]) -> None:
        """Two passes over the data must give the same sum of losses, to the rounding of another order."""
        passes = []
        for _ in range(2):
            total = float(self.add_up(loss))
            passes.append((total, self.samples))
        tolerance = 1e-4 if self.net.dtype == np.float32 else 1e-9
        (first, count), (second, again) = passes
        if count != again or abs(first - second) > tolerance * max(abs(first), abs(second)):
            raise DataError(
                f"two passes over the data must give the same data, but the losses add up to {first:.6g} over {count} "
                f"samples and then to {second:.6g} over {again}: turn off random augmentation (shuffling is fine in "
                "mode='predict'; mode='train' needs the same batches in every pass)"
            )

    def value(self, total: Any, parameters: Any) -> float:
        penalty = self.reduction.of_penalty(self.penalty.value(parameters), self.samples)
        return float(self.reduction.of_sum(total, self.samples) + penalty)

    def vector(
        self, total: np.ndarray, moved: Any = None, which: Sequence[str] | None = None, dtype: Any = None
    ) -> np.ndarray:
        """Reduced sum over the parameters `which` (all by default), plus the penalty's matrix times `moved`.

        `moved` is the parameters for a gradient, v for a product, None where the penalty does not belong. In the net's
        dtype, unless another is given.
        """
        which = self.net.names if which is None else which
        result = self.reduction.of_sum(total, self.samples)
        if moved is not None and self.penalty.strength:
            result = result + self.reduction.of_penalty(self.penalty.times(moved, self.net, which), self.samples)
        if not result.ndim:  # identically zero in every batch
            result = np.full(sum(self.net.sizes[name] for name in which), result)
        return np.asarray(result, dtype=dtype or self.net.dtype)
