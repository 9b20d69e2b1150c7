"""Exact products: tangents forward, one ordinary pass back (Pearlmutter 1994, section 3), linearised."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Sequence

import numpy as np

from hessmx.engines.compiled import Compiled
from hessmx.problem.data import Batch

NAME = "reverse-over-forward"


class ReverseOverForward:
    """Cost of a product: 6 forward passes by operation count, and 3 once for parameters and a batch (a gradient: 3)."""

    name = NAME
    exact = True

    def __init__(self, compiled: Compiled):
        self.compiled = compiled

    def product(self, kind: str, vector: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        """Sum over the samples of a batch; None where it is identically zero."""
        state, plan = self.compiled.linearised(kind, batch, which, which)
        return None if state is None else state.product(vector), plan.samples

    def products(self, kind: str, block: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        """The same for the columns of a block (P, K); the batch is linearised once."""
        state, plan = self.compiled.linearised(kind, batch, which, which)
        if state is None:
            return None, plan.samples
        return np.stack([state.product(column) for column in np.ascontiguousarray(block.T)]).T, plan.samples

    def question(self) -> AbstractContextManager[Any]:
        """Within, parameters and batches in memory are taken to stay what they are."""
        return self.compiled.kept.question()
