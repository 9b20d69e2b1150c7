"""Curvature followed during training: an event handler for Gluon's Estimator, and for loops of one's own."""

from __future__ import annotations

import sys
import time
from typing import Any, Callable, Mapping

import numpy as np

from hessmx._mxnet import mx
from hessmx.curvature import Curvature
from hessmx.errors import InputError, choose
from hessmx.files import PathLike
from hessmx.uses.history import History, Journal, Row, gather, load_history
from hessmx.uses.penalty import Penalty, penalty

__all__ = ["QUESTIONS", "FollowCurvature", "History", "Penalty", "load_history", "penalty"]

_events: Any = mx.gluon.contrib.estimator.event_handler

Question = Callable[[Curvature], float]
SHARPNESS = "sharpness"  # of P^-1 H: the one question to a Trainer too

QUESTIONS: dict[str, Question] = {
    "loss": lambda curv: curv.loss(),
    "top eigenvalue": lambda curv: float(curv.eigenpairs(1).values[0]),
    "bottom eigenvalue": lambda curv: float(curv.eigenpairs(1, "SA").values[0]),
    "trace": lambda curv: curv.trace(budget=30).value,
    "gradient length": lambda curv: float(np.linalg.norm(curv.gradient())),
}


class FollowCurvature(_events.EpochEnd, _events.BatchEnd):
    """Ask questions of the training loss's curvature at the end of every `every`-th epoch or step.

    loss, data, options   as for Curvature; a few hundred samples are enough to follow a trend
    ask                   names of QUESTIONS, "sharpness" (as the Trainer's optimiser sees it: needs one), or a mapping
                          name -> function of a Curvature
    unit                  what `every` counts: "epoch" or "step" (batch)
    eigenvalues           how many of the largest eigenvalues are kept beside
    trainer               gluon.Trainer whose rate and threshold are kept beside; an Estimator's own by default
    share                 of the run's time that asking may take, such as 0.1: beyond it an occasion is left out
    file                  every row is on the disk before training goes on; a file that is there is continued
    show                  a line on the terminal after each time of asking

    Nothing is copied between epochs and the training is not disturbed: not its gradients, random numbers or statistics.
    In a loop of one's own call `measure(net)` after each epoch or step. `history` holds the answers so far. Where
    training has run to NaN, so do the answers.
    """

    def __init__(
        self,
        loss: Any,
        data: Any,
        ask: Any = ("loss", "top eigenvalue"),
        every: int = 1,
        *,
        unit: str = "epoch",
        eigenvalues: int = 0,
        trainer: Any = None,
        share: float | None = None,
        file: PathLike | None = None,
        show: bool = False,
        **options: Any,
    ):
        self.unit = choose("unit", unit, ("epoch", "step"))
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every must be a whole number of {unit}s of at least 1, not {every!r}")
        if not isinstance(eigenvalues, int) or eigenvalues < 0:
            raise InputError(f"eigenvalues must be how many to keep, 0 or more, not {eigenvalues!r}")
        if share is not None and not 0 < share <= 1:
            raise InputError(f"share must be above 0 and at most 1, such as 0.1, not {share!r}")
        self.loss, self.data, self.every, self.options = loss, data, every, options
        self.eigenvalues, self.trainer, self.share, self.show = eigenvalues, trainer, share, show
        self.questions: dict[str, Question | None] = (
            dict(ask) if isinstance(ask, Mapping) else {name: _known(name) for name in ask}
        )
        self.names = (*self.questions, *(f"eigenvalue {i + 1}" for i in range(eigenvalues)))
        self.left_out = 0  # occasions, for the sake of `share`
        self._curvature: Curvature | None = None
        self._journal = None if file is None else Journal(file, self.names, unit)
        self._rows: list[Row] = [] if self._journal is None else self._journal.rows
        last = self._rows[-1] if self._rows else Row(0, 0, np.nan, np.nan, 0.0, ())
        self._done = {"epoch": last.epoch, "step": last.step}
        self._started: float | None = None
        self._spent = 0.0

    def epoch_end(self, estimator: Any, *_: Any, **__: Any) -> None:
        self._count("epoch", estimator.net, self.trainer or estimator.trainer)

    def batch_end(self, estimator: Any, *_: Any, **__: Any) -> None:
        self._count("step", estimator.net, self.trainer or estimator.trainer)

    def measure(self, net: Any) -> dict[str, float]:
        """Count one epoch or step; answer the questions if it is one of those asked for: name -> value, else {}."""
        return self._count(self.unit, net, self.trainer)

    @property
    def history(self) -> History:
        if not self._rows:
            raise InputError(f"nothing has been measured yet: train for at least one {self.unit}")
        provenance = self._curvature.provenance("hessian") if self._curvature else load_history(self._path).provenance
        return gather(self.names, self._rows, provenance, self.unit)

    @property
    def _path(self) -> PathLike:
        assert self._journal is not None
        return self._journal.path

    def _count(self, unit: str, net: Any, trainer: Any) -> dict[str, float]:
        self._done[unit] += 1
        if unit != self.unit or self._done[unit] % self.every:
            return {}
        start = time.perf_counter()
        if self._started is None:
            self._started = start
        elif self.share is not None and self._spent > self.share * (start - self._started):
            self.left_out += 1
            return {}
        if self._curvature is None or not self._curvature.fits(net):
            self._curvature = Curvature(net, self.loss, self.data, **self.options)
        values, rate, threshold = self._ask(self._curvature, trainer)
        taken = time.perf_counter() - start
        self._spent += taken
        row = Row(self._done["epoch"], self._done["step"], rate, threshold, taken, values)
        if self._journal is not None:
            self._journal.add(row, self._curvature.provenance("hessian"))
        self._rows.append(row)
        answers = dict(zip(self.names, values))
        if self.show:
            self._tell(answers, row)
        return answers

    def _ask(self, curv: Curvature, trainer: Any) -> tuple[tuple[float, ...], float, float]:
        """Answers, and the Trainer's rate and threshold; NaN where training has gone there."""
        if trainer is None and SHARPNESS in self.questions and self.questions[SHARPNESS] is None:
            raise InputError("'sharpness' is asked of an optimiser: give trainer=")
        rate, threshold = (float(trainer.learning_rate), np.nan) if trainer is not None else (np.nan, np.nan)
        if not np.isfinite(curv.parameters()).all() or not np.isfinite(curv.loss()):
            return (np.nan,) * len(self.names), rate, threshold
        values = []
        for question in self.questions.values():
            if question is None:
                found: Any = curv.sharpness(trainer=trainer)
                values.append(found.top_eigenvalue)
                threshold = found.threshold
            else:
                values.append(float(question(curv)))
        if self.eigenvalues:
            values += curv.eigenpairs(min(self.eigenvalues, curv.num_params)).values.tolist()
            values += [np.nan] * (len(self.names) - len(values))
        return tuple(values), rate, threshold

    def _tell(self, answers: dict[str, float], row: Row) -> None:
        told = [f"{self.unit} {self._done[self.unit]}", *(f"{name} {value:.4g}" for name, value in answers.items())]
        if np.isfinite(row.threshold):
            told.append(f"threshold {row.threshold:.4g}")
        end = "\r" if sys.stderr.isatty() else "\n"
        print("  ".join(told), end=end, file=sys.stderr, flush=True)


def _known(name: str) -> Question | None:
    if name == SHARPNESS:
        return None
    if name not in QUESTIONS:
        known = ", ".join([*QUESTIONS, SHARPNESS])
        raise InputError(f"ask must name some of {known}, or map names to functions, not {name!r}")
    return QUESTIONS[name]
