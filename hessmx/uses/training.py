"""Curvature followed during training: an event handler for Gluon's Estimator, and for loops of one's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Mapping

import numpy as np

from hessmx._mxnet import mx
from hessmx.curvature import Curvature
from hessmx.errors import InputError
from hessmx.results import Provenance, Result
from hessmx.uses.penalty import penalty as penalty  # hessmx.training.penalty

_events: Any = mx.gluon.contrib.estimator.event_handler

Question = Callable[[Curvature], float]

QUESTIONS: dict[str, Question] = {
    "loss": lambda curv: curv.loss(),
    "top eigenvalue": lambda curv: float(curv.eigenpairs(1).values[0]),
    "bottom eigenvalue": lambda curv: float(curv.eigenpairs(1, "SA").values[0]),
    "trace": lambda curv: curv.trace(budget=30).value,
    "gradient length": lambda curv: float(np.linalg.norm(curv.gradient())),
}


@dataclass(frozen=True, eq=False)
class History(Result):
    """Answers at several epochs; one row per question."""

    epochs: np.ndarray  # (m,)
    names: tuple[str, ...]
    values: np.ndarray  # (questions, m)
    provenance: Provenance = field(default_factory=Provenance)


class FollowCurvature(_events.EpochEnd):
    """Ask questions of the training loss's curvature at the end of every `every`-th epoch.

    loss, data, options   as for Curvature; a few hundred samples are enough to follow a trend
    ask                   names of QUESTIONS, or name -> function of a Curvature

    Nothing is copied between epochs and the training is not disturbed: not its gradients, random numbers or statistics.
    In a loop of one's own call `measure(net)` after an epoch. `history` holds the answers so far.
    """

    def __init__(self, loss: Any, data: Any, ask: Any = ("loss", "top eigenvalue"), every: int = 1, **options: Any):
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a whole number of epochs of at least 1, not {every!r}")
        self.loss, self.data, self.every, self.options = loss, data, every, options
        self.questions = dict(ask) if isinstance(ask, Mapping) else {name: _known(name) for name in ask}
        self._curvature: Curvature | None = None
        self._epoch = 0
        self._rows: list[list[float]] = []
        self._epochs: list[int] = []

    def epoch_end(self, estimator: Any, *_: Any, **__: Any) -> None:
        self.measure(estimator.net)

    def measure(self, net: Any) -> dict[str, float]:
        """Count one epoch; answer the questions if it is one of those asked for. Returns name -> value, or {}."""
        self._epoch += 1
        if self._epoch % self.every:
            return {}
        if self._curvature is None:
            self._curvature = Curvature(net, self.loss, self.data, **self.options)
        answers = {name: float(question(self._curvature)) for name, question in self.questions.items()}
        self._epochs.append(self._epoch)
        self._rows.append(list(answers.values()))
        return answers

    @property
    def history(self) -> History:
        if self._curvature is None:
            raise InputError("nothing has been measured yet: train for at least one epoch")
        values = np.array(self._rows).T
        return History(np.array(self._epochs), tuple(self.questions), values, self._curvature.provenance("hessian"))


def _known(name: str) -> Question:
    if name not in QUESTIONS:
        raise InputError(f"ask must name some of {', '.join(QUESTIONS)}, or map names to functions, not {name!r}")
    return QUESTIONS[name]
