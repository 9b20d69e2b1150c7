"""Which linearisations are kept, and when they are trusted unseen.

As many batches keep theirs as fit a budget of memory; the others share one, which is made anew in every pass. Within a
question (one run of an algorithm) a batch in memory is compared with what was linearised once, otherwise at every
product.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from hessmx.engines.linearised import Linearised, State
from hessmx.problem.data import Batch

BUDGET = 2**30  # bytes


class Kept:
    """The states of one net and one loss, least recently used kinds of products going first."""

    def __init__(self, budget: int = BUDGET):
        self.budget = budget
        self._slots: OrderedDict[int, tuple[Linearised, list[State]]] = OrderedDict()
        self._trusted: dict[int, tuple[State, Batch, Any]] = {}
        self._questions = 0

    def state(self, linearised: Linearised, index: int, make: Callable[[], State]) -> State:
        """The state of batch `index`: its own where memory allows, else one that is shared."""
        _, states = self._slots.setdefault(id(linearised), (linearised, []))
        self._slots.move_to_end(id(linearised))
        if not states or (len(states) <= index and self._fits(states[0].bytes)):
            states.append(make())
        return states[min(index, len(states) - 1)]

    def _fits(self, more: int) -> bool:
        """Whether there is room for a state of so many bytes, once older kinds of products have gone."""
        while self._bytes() + more > self.budget and len(self._slots) > 1:
            self._slots.popitem(last=False)
        return self._bytes() + more <= self.budget

    def _bytes(self) -> int:
        return sum(state.bytes for _, states in self._slots.values() for state in states)

    def clear(self) -> None:
        self._slots.clear()
        self._trusted.clear()

    # -- questions

    @contextmanager
    def question(self) -> Iterator[None]:
        """Within, parameters and batches in memory are compared once, and then known to stay what they are."""
        self._questions += 1
        try:
            yield
        finally:
            self._questions -= 1
            if not self._questions:
                self._trusted.clear()

    def is_trusted(self, state: State, batch: Batch, seeds: Any) -> bool:
        known = self._trusted.get(id(state))
        return known is not None and known[0] is state and known[1] is batch and known[2] is seeds

    def trust(self, state: State, batch: Batch, seeds: Any) -> None:
        if self._questions:
            self._trusted[id(state)] = state, batch, seeds
