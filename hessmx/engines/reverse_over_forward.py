"""Exact products: one ordinary backward pass over the tangent graph (Pearlmutter 1994, section 3)."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from hessmx.engines.compiled import Compiled
from hessmx.problem.data import Batch

NAME = "reverse-over-forward"


class ReverseOverForward:
    """Cost of a product: 8 forward passes by operation count (a gradient: 3)."""

    name = NAME
    exact = True

    def __init__(self, compiled: Compiled):
        self.compiled = compiled

    def product(self, kind: str, vector: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        """Sum over the samples of a batch; None where it is identically zero."""
        program, plan = self.compiled.program(kind, batch, which, which)
        if program is None:
            return None, plan.samples
        self.compiled.flat("tangent", which, plan).load(vector)
        with program.threads():
            program.forward(self.compiled.feeds(batch, plan))
            program.backward()
            return self.compiled.flat("gradient", which, plan).read(), plan.samples
