"""Central differences of gradients: for operators without a rule.

(g(w + h e) - g(w - h e)) |v| / 2h along the unit vector e = v / |v|; the same with step 2h gives the error estimate, a
third of the difference of the two (the leading term of the truncation, which rounding only makes larger).
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from hessmx.engines.base import ByColumns
from hessmx.engines.gradients import Gradients
from hessmx.errors import EngineError
from hessmx.problem.data import Batch
from hessmx.problem.net import Net

NAME = "finite-difference"


class FiniteDifference(ByColumns):
    """Cost of a product: four gradients. `error` is the relative error estimate of the last full product."""

    name = NAME
    exact = False

    def __init__(self, net: Net, gradients: Gradients, dtype: np.dtype):
        self.net, self.gradients = net, gradients
        self.dtype = np.dtype(dtype)  # of the arithmetic; the step is scaled to it
        self._both: np.ndarray | None = None  # (2, P) sums over the batches of a pass, with step h and 2h

    def step(self, parameters: np.ndarray) -> float:
        """Length of the step: cube root of the rounding unit, per entry, relative to the parameters' size.

        The cube root balances truncation h^2 with rounding eps / h (Nocedal & Wright 2006, section 8.1).
        """
        size = float(np.sqrt(np.mean(np.square(parameters, dtype=np.float64)))) or 1.0
        return float(np.cbrt(np.finfo(self.dtype).eps)) * size * np.sqrt(parameters.size)

    def product(self, kind: str, vector: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        if kind != "hessian":
            raise EngineError(
                f"engine '{NAME}' gives products with the Hessian only, not with '{kind}': "
                "register tangent rules for the operators named in the warning (docs/adding-a-rule.md)"
            )
        length = float(np.linalg.norm(vector))
        at = self.net.values().astype(np.float64)
        if length == 0:
            return None, self.gradients.loss(batch)[1]
        unit, h = self.net.embed(vector, which) / length, self.step(at)
        near, samples = self._difference(batch, at, unit, h)
        far, _ = self._difference(batch, at, unit, 2 * h)
        selected = self.net.positions(which)
        both = np.stack([near[selected], far[selected]])
        self._both = both if batch.index == 0 or self._both is None else self._both + both
        return near[selected] * length, samples

    def _difference(self, batch: Batch, at: np.ndarray, unit: np.ndarray, h: float) -> tuple[np.ndarray, int]:
        above, samples = self.gradients.gradient(batch, at + h * unit)
        below, _ = self.gradients.gradient(batch, at - h * unit)
        return (above.astype(np.float64) - below) / (2 * h), samples

    @property
    def error(self) -> float:
        """Relative error estimate of the last product over all batches."""
        if self._both is None:
            return 0.0
        near, far = self._both
        truncation = np.linalg.norm(near - far) / 3 / (np.linalg.norm(near) or 1.0)
        return float(max(truncation, np.finfo(self.net.dtype).eps / 2))  # the answer is rounded to the net's dtype
