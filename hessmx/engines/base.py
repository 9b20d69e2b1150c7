"""What the facade needs of an engine."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
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

    def products(self, kind: str, block: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        """The same for the columns of a block (P, K)."""
        ...

    def question(self) -> AbstractContextManager[Any]:
        """Within, parameters and batches in memory stay what they are: what follows from them may be kept."""
        ...


class ByColumns:
    """What engines do that gain nothing from several vectors, and keep nothing from product to product."""

    def products(self: Any, kind: str, block: np.ndarray, batch: Batch, which: Sequence[str]) -> tuple[Any, int]:
        found = [self.product(kind, column, batch, which) for column in block.T]
        columns, samples = [value for value, _ in found], found[0][1]
        if all(value is None for value in columns):
            return None, samples
        return np.stack([np.zeros(len(block)) if value is None else value for value in columns], axis=1), samples

    def question(self) -> AbstractContextManager[Any]:
        return nullcontext()
