"""Losses at numbered points, one line of a text file each: a run that is killed loses no point that it has computed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from hessmx.errors import FileError, InputError


class PointLog:
    """An append-only file: a line that says which run it is, then `number loss` for every point, losses bit for bit."""

    def __init__(self, path: str | os.PathLike[str], **signature: Any):
        self.path, self.signature = Path(path), json.dumps({"hessmx points of": signature}, sort_keys=True)
        found = self._read()
        self.known: dict[int, float] = found or {}
        try:
            self._file: IO[str] = open(self.path, "w" if found is None else "a")  # noqa: SIM115
        except OSError as error:
            raise FileError(f"cannot write state file {self.path}: {error.strerror}") from error
        if found is None:
            self._line(self.signature)

    def __enter__(self) -> PointLog:
        return self

    def __exit__(self, *told: Any) -> None:
        self._file.close()

    def add(self, number: int, loss: float) -> None:
        self._line(f"{number} {float(loss).hex()}")

    def _line(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()

    def _read(self) -> dict[int, float] | None:
        """Losses of an earlier run by number; None where there is none. A last line cut short is cut off."""
        if not self.path.exists() or not self.path.stat().st_size:
            return None
        try:
            head, *lines = self.path.read_text().split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"state file {self.path} cannot be read ({error}); delete it to start anew") from error
        if head != self.signature:
            raise InputError(f"state file {self.path} belongs to another run or another kind of run; delete it or name "
                             "another file")
        if lines and lines[-1]:
            os.truncate(self.path, self.path.stat().st_size - len(lines[-1].encode()))
        try:
            pairs = [line.split() for line in lines[:-1]]
            return {int(number): float.fromhex(loss) for number, loss in pairs}
        except ValueError as error:
            raise FileError(f"state file {self.path} is damaged ({error}); delete it to start anew") from error

