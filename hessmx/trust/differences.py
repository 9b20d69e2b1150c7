"""Derivatives from values alone, with what they can be trusted to.

Values at t = -2h .. 2h give first and second derivatives at 0 to order h^4 (Fornberg 1988, table 1). Steps get shorter
until two agree; how far they are apart is the doubt. At a kink and in noise no two agree, and the doubt is large.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np

STEPS = (8e-3, 2e-3, 5e-4, 1e-4, 2e-5)  # of what moves, relative to its own size
PLACES = (-2, -1, 1, 2)
ENOUGH = (1e-7, 5e-6)  # relative doubts of first and second derivatives that need no shorter step


@dataclass(frozen=True)
class Known:
    """A number (or vector) known to +- doubt."""

    value: Any
    doubt: float

    def __add__(self, other: Known) -> Known:
        return Known(self.value + other.value, self.doubt + other.doubt)

    def __sub__(self, other: Known) -> Known:
        return Known(self.value - other.value, self.doubt + other.doubt)

    def __truediv__(self, number: float) -> Known:
        return Known(self.value / number, self.doubt / abs(number))

    def of(self, linear: Callable[[Any], Any], norm: float) -> Known:
        """A linear function of it, that makes doubts `norm` times as large."""
        return Known(linear(self.value), norm * self.doubt)


class Path:
    """First and second derivatives at t = 0 of vectors `values(t)`, given those at 0 (`here`).

    A derivative asked for costs 4 calls of `values` a step; all quantities share them.
    """

    def __init__(
        self,
        values: Callable[[float], Sequence[np.ndarray]],
        here: Sequence[np.ndarray],
        steps: Sequence[float] = STEPS,
    ):
        self._values, self._here, self._steps = values, here, steps
        self._kept: list[Sequence[Sequence[np.ndarray]]] = []

    def first(self, which: int) -> Known:
        """d values[which] / dt.

        A kink nearer than the steps leaves the mean of both slopes, the same for every step; it shows in second
        differences, which grow as 1 / h. So their change times h is doubt too.
        """
        return self._known(lambda k: self._slope(k, which), ENOUGH[0], lambda k: self._kink(k, which))

    def second(self, which: int) -> Known:
        """d^2 sum(values[which]) / dt^2."""
        return self._known(lambda k: self._bend(k, which).sum(keepdims=True), ENOUGH[1]).of(np.sum, 1.0)

    def _at(self, k: int, which: int) -> list[np.ndarray]:
        while len(self._kept) <= k:
            self._kept.append([self._values(place * self._steps[len(self._kept)]) for place in PLACES])
        return [values[which] for values in self._kept[k]]

    def _slope(self, k: int, which: int) -> np.ndarray:
        far_left, left, right, far_right = self._at(k, which)
        return (8 * (right - left) - (far_right - far_left)) / (12 * self._steps[k])

    def _bend(self, k: int, which: int) -> np.ndarray:
        far_left, left, right, far_right = self._at(k, which)
        sides = 16 * (right + left) - (far_right + far_left) - 30 * self._here[which]
        return np.asarray(sides / (12 * self._steps[k] ** 2))

    def _kink(self, k: int, which: int) -> float:
        change = self._bend(k, which) - self._bend(k - 1, which)
        return float(np.abs(change).max(initial=0)) * self._steps[k]

    def _known(
        self, derivative: Callable[[int], np.ndarray], enough: float, more: Callable[[int], float] = lambda k: 0.0
    ) -> Known:
        before = derivative(0)
        best = Known(before, np.inf)
        for k in range(1, len(self._steps)):
            after = derivative(k)
            doubt = float(np.abs(after - before).max(initial=0)) + more(k)
            if doubt < best.doubt:
                best = Known(after, doubt)
            if doubt <= enough * float(np.abs(after).max(initial=0)):
                break
            before = after
        return best
