"""What the facade needs of an engine."""

from __future__ import annotations

from typing import Any, Protocol, Sequence

import numpy as np

from hessmx.problem.data import Batch


class Engine(Protocol):
    """Second-order products, summed over the samples of a batch."""

    name: str
    exact: bool

    def product(self, kind: str, vector: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        """(Product `kind` with `vector` (P,) over the parameters `which`, or None if zero; number of samples)."""
        ...
