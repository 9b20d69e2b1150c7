"""Runs that can be killed and continued.

A snapshot is one npz file holding everything the algorithm needs; it is replaced atomically, so a kill at any moment
leaves the previous snapshot or the next one. Random vectors are numbered, not drawn from a running generator.
A continued run is therefore bit-identical to one that was never killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hessmx.errors import FileError, InputError


class RunState:
    """A snapshot file, written at most every `every` seconds; `key` names the operator (a hash of parameters and data).

    Writing never takes more than about a tenth of the run.
    """

    def __init__(self, path: str | os.PathLike, key: str = "", every: float = 10.0):
        if every < 0:
            raise InputError(f"every must be a number of seconds of at least 0, not {every!r}")
        self.path, self.key, self.every = Path(path), key, every
        self._signature: dict[str, Any] = {}
        self._next = 0.0

    def open(self, **signature: Any) -> dict[str, np.ndarray]:
        """The arrays of the last snapshot, empty for a new run; refuses a snapshot of a different run."""
        self._signature = {"key": self.key, **signature}
        if not self.path.parent.is_dir():
            raise FileError(f"cannot write state file {self.path}: no such folder; create {self.path.parent} first")
        self._next = time.monotonic() + self.every
        if not self.path.exists():
            return {}
        arrays, written = self._read()
        differing = [name for name in self._signature if written.get(name) != self._signature[name]]
        if differing:
            was = ", ".join(f"{n}={written.get(n)!r} there, {self._signature[n]!r} here" for n in differing)
            raise InputError(f"state file {self.path} belongs to another run ({was}); delete it or name another file")
        return arrays

    def save(self, force: bool = False, **arrays: Any) -> None:
        """Write a snapshot if it is time for one."""
        if not force and time.monotonic() < self._next:
            return
        begun = time.monotonic()
        plain = {name: np.asarray(a) for name, a in arrays.items()}
        meta = json.dumps({"signature": self._signature, "sha256": _digest(plain)})
        temporary = self.path.with_name(self.path.name + ".tmp")
        with open(temporary, "wb") as file:
            np.savez(file, __meta__=np.frombuffer(meta.encode(), np.uint8), **plain)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
        _sync_folder(self.path.parent)
        spent = time.monotonic() - begun
        self._next = time.monotonic() + max(self.every, 10 * spent if self.every else 0.0)

    def remove(self) -> None:
        """Delete the snapshot, once the result is safe."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        try:
            with open(self.path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            meta = json.loads(arrays.pop("__meta__").tobytes())
            intact = meta["sha256"] == _digest(arrays)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise FileError(f"state file {self.path} cannot be read ({error}); delete it to start anew") from error
        if not intact:
            raise FileError(f"state file {self.path} is damaged (checksum differs); delete it to start anew")
        return arrays, meta["signature"]


def open_state(state: RunState | str | os.PathLike | None, **signature: Any) -> tuple[RunState | None,
                                                                                      dict[str, np.ndarray]]:
    """The state and what it holds; (None, {}) for a run that is not saved."""
    if state is None:
        return None, {}
    state = state if isinstance(state, RunState) else RunState(state)
    return state, state.open(**signature)


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
