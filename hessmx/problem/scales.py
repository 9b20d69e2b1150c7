"""A loss that is a tensor: what its sum, its mean over samples and the mean of its entries have to do with each other.

They are one function in three scales. Plain gradient descent (with or without momentum) takes the same path on all of
them if the learning rate is divided by the factor between the scales; Adam and other methods that divide by the
gradient's size take nearly the same path at the same rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hessmx.errors import DataError, InputError, choose
from hessmx.results import Result

SCALES = ("sum", "mean", "entries")


@dataclass(frozen=True)
class LossScale(Result):
    """Scales of a loss of N samples with `entries` numbers each.

    "sum" is what `loss.backward()` differentiates, "mean" the sum over N (hessmx's default, `Trainer.step(N)`),
    "entries" the mean of all numbers (`loss.mean().backward()`).
    """

    samples: int
    entries: int

    def divisor(self, scale: str) -> int:
        """What the sum is divided by."""
        return {"sum": 1, "mean": self.samples, "entries": self.samples * self.entries}[choose("scale", scale, SCALES)]

    def factor(self, of: str, over: str) -> float:
        """Loss, gradient, Hessian and eigenvalues in scale `of`, divided by those in scale `over`."""
        return self.divisor(over) / self.divisor(of)

    def learning_rate(self, rate: float, used_with: str, for_scale: str) -> float:
        """The rate with which gradient descent in scale `for_scale` does what `rate` does in scale `used_with`."""
        if not np.isfinite(rate) or rate <= 0:
            raise InputError(f"rate must be a finite number above 0, not {rate!r}")
        return rate * self.factor(used_with, for_scale)


def loss_scale(losses: Any) -> LossScale:
    """The scales of a loss tensor: an array (N, ...) as a Gluon loss returns it, or its shape."""
    shape = tuple(losses) if isinstance(losses, (tuple, list)) else tuple(losses.shape)
    if not shape or min(shape) < 1:
        raise DataError(f"expected a loss with at least one sample on its first axis, shape (N, ...), not {shape}")
    return LossScale(int(shape[0]), int(np.prod(shape[1:], dtype=np.int64)))
