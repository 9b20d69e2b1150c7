"""Answers over a training run: the result, and the file that grows while the run does."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Sequence

import numpy as np

from hessmx.errors import FileError
from hessmx.files import PathLike, replacing
from hessmx.results import Provenance, Result


def _none() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, eq=False)
class History(Result):
    """Answers at several epochs or steps; one row per question."""

    epochs: np.ndarray  # (m,) epochs done
    names: tuple[str, ...]
    values: np.ndarray  # (questions, m)
    provenance: Provenance = field(default_factory=Provenance)
    unit: str = "epoch"  # what was counted: "epoch" or "step"
    steps: np.ndarray = field(default_factory=_none)  # (m,) steps done
    learning_rates: np.ndarray = field(default_factory=_none)  # (m,) of the Trainer; NaN without one
    thresholds: np.ndarray = field(default_factory=_none)  # (m,) of stability, for "sharpness"; NaN where not asked
    seconds: np.ndarray = field(default_factory=_none)  # (m,) that each row took

    @property
    def when(self) -> np.ndarray:
        """(m,) epochs or steps, whichever was counted."""
        return self.steps if self.unit == "step" else self.epochs

    def of(self, name: str) -> np.ndarray:
        """(m,) answers to one question."""
        return self.values[self.names.index(name)]


@dataclass(frozen=True)
class Row:
    """One time of asking."""

    epoch: int
    step: int
    learning_rate: float
    threshold: float
    seconds: float
    values: tuple[float, ...]


def gather(names: Sequence[str], rows: Sequence[Row], provenance: Provenance, unit: str) -> History:
    def column(get: str, dtype: Any = float) -> np.ndarray:
        return np.array([getattr(row, get) for row in rows], dtype)

    values = np.array([row.values for row in rows], float).reshape(len(rows), len(names)).T
    return History(column("epoch", int), tuple(names), values, provenance, unit, column("step", int),
                   column("learning_rate"), column("threshold"), column("seconds"))  # fmt: skip


class Journal:
    """One line of JSON a row, on the disk before training goes on: a crash loses nothing.

    A file that is there already is continued, if it was written for the same questions.
    """

    def __init__(self, path: PathLike, names: Sequence[str], unit: str):
        self.path, self.names, self.unit = Path(path), tuple(names), unit
        self.rows: list[Row] = []
        if self.path.exists():
            names, unit, self.rows, provenance = _read(self.path)
            if (tuple(names), unit) != (self.names, self.unit):
                asked = ", ".join(names)
                raise FileError(f"{path} holds answers to other questions ({asked}, by {unit}): name another file")
            _write(self.path, [_header(names, unit, provenance), *map(dataclasses.asdict, self.rows)])  # no torn line

    def add(self, row: Row, provenance: Provenance) -> None:
        lines = [] if self.path.exists() else [_header(self.names, self.unit, provenance)]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a") as file:
                file.writelines(json.dumps(line) + "\n" for line in [*lines, dataclasses.asdict(row)])
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise FileError(f"cannot write {self.path}: {error.strerror}") from error


def load_history(path: PathLike) -> History:
    """What a FollowCurvature has written so far; a last line that was cut short is left out."""
    names, unit, rows, provenance = _read(Path(path))
    return gather(names, rows, provenance, unit)


def _header(names: Sequence[str], unit: str, provenance: Provenance) -> dict[str, Any]:
    return {"hessmx": "history", "names": list(names), "unit": unit, "provenance": dataclasses.asdict(provenance)}


def _write(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    with replacing(path) as file:
        file.write("".join(json.dumps(line) + "\n" for line in lines).encode())


def _read(path: Path) -> tuple[list[str], str, list[Row], Provenance]:
    try:
        lines = path.read_text().splitlines(keepends=True)
        header = json.loads(lines[0])
        names, unit, provenance = header["names"], header["unit"], Provenance(**header["provenance"])
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise FileError(f"{path} is not a history that FollowCurvature wrote: its first line is another") from error
    whole = [line for line in lines[1:] if line.endswith("\n")]
    try:
        rows = [Row(**{**item, "values": tuple(item["values"])}) for item in map(json.loads, whole)]
    except (ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged: a line is not a row of answers") from error
    return names, unit, rows, provenance
