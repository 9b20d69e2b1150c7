"""Runs that can be killed and continued.

A snapshot is one npz file holding everything the algorithm needs; it is replaced atomically, so a kill at any moment
leaves the previous snapshot or the next one. Random vectors are numbered, not drawn from a running generator.
A continued run is therefore bit-identical to one that was never killed. While a run lasts it holds a lock on its file.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from hessmx.errors import FileError, InputError

KIND = "hessmx state 1"  # what the file says of itself


class RunState:
    """A snapshot file, written at most every `every` seconds; `key` names the operator (a hash of parameters and data).

    Writing never takes more than about a tenth of the run. FileError for what is no state file of hessmx, for a file
    that another process works with, and where a snapshot cannot be written; InputError for that of another run.
    """

    def __init__(self, path: str | os.PathLike, key: str = "", every: float = 10.0):
        if every < 0:
            raise InputError(f"every must be a number of seconds of at least 0, not {every!r}")
        self.path, self.key, self.every = Path(path), key, every
        self._signature: dict[str, Any] = {}
        self._next = 0.0
        self._held = -1  # descriptor of the file at `path`, locked

    def open(self, **signature: Any) -> dict[str, np.ndarray]:
        """The arrays of the last snapshot, empty for a new run; refuses a snapshot of a different run."""
        self._signature = {"key": self.key, **signature}
        if not self.path.parent.is_dir():
            raise FileError(f"cannot write state file {self.path}: no such folder; create {self.path.parent} first")
        self._next = time.monotonic() + self.every
        self.close()
        if not self.path.exists():
            self._write({})  # so that there is something to lock
            return {}
        if not self.path.is_file():
            raise FileError(f"state file {self.path} is not a regular file; name another one")
        self._held = self._locked()
        arrays, written = self._read()
        differing = [name for name in self._signature if written.get(name) != self._signature[name]]
        if differing:
            self.close()
            was = ", ".join(f"{n}={written.get(n)!r} there, {self._signature[n]!r} here" for n in differing)
            raise InputError(f"state file {self.path} belongs to another run ({was}); delete it or name another file")
        return arrays

    def save(self, force: bool = False, **arrays: Any) -> None:
        """Write a snapshot if it is time for one."""
        if not force and time.monotonic() < self._next:
            return
        begun = time.monotonic()
        self._write({name: np.asarray(a) for name, a in arrays.items()})
        spent = time.monotonic() - begun
        self._next = time.monotonic() + max(self.every, 10 * spent if self.every else 0.0)

    def beside(self, ending: str) -> Path:
        """A file of the run's own beside the snapshot."""
        return self.path.with_name(self.path.name + ending)

    def close(self) -> None:
        """Let others use the file."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1

    def __del__(self) -> None:
        self.close()

    def remove(self) -> None:
        """Delete the snapshot, once the result is safe."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _write(self, arrays: dict[str, np.ndarray]) -> None:
        """Write beside the file, lock, and replace: whoever opens the file meets the lock."""
        meta = json.dumps({"kind": KIND, "signature": self._signature, "sha256": _digest(arrays)})
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        new, size = -1, sum(a.nbytes for a in arrays.values())
        try:
            new = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            fcntl.flock(new, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.posix_fallocate(new, 0, size + len(meta) + 4096 * (len(arrays) + 1))  # a full disk is met here, whole
            with os.fdopen(new, "wb", closefd=False) as file:
                np.savez(file, __meta__=np.frombuffer(meta.encode(), np.uint8), **arrays)
                file.truncate()
            os.fsync(new)
            os.replace(temporary, self.path)
            _sync_folder(self.path.parent)
        except OSError as error:
            if new >= 0:
                os.close(new)
            temporary.unlink(missing_ok=True)
            raise FileError(f"cannot write the snapshot of {size} bytes to state file {self.path} ({error}); make room "
                            "or name a file elsewhere: the last snapshot written is still there") from error
        self.close()
        self._held = new

    def _locked(self) -> int:
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise FileError(f"state file {self.path} cannot be read ({error}); name another file") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            raise FileError(f"state file {self.path} is in use by another run; wait for it or name another") from error
        return file

    def _read(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        try:
            with os.fdopen(self._held, "rb", closefd=False) as file, np.load(file, allow_pickle=False) as stored:
                meta = json.loads(stored["__meta__"].tobytes()) if "__meta__" in stored.files else {}
                known = isinstance(meta, dict) and meta.get("kind") == KIND
                arrays = {name: stored[name] for name in stored.files if name != "__meta__"} if known else {}
            intact = known and meta["sha256"] == _digest(arrays)
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, MemoryError, RuntimeError,
                NotImplementedError, RecursionError, zipfile.BadZipFile) as error:
            self.close()
            raise FileError(f"state file {self.path} cannot be read ({error}); delete it to start anew") from error
        if not known:
            self.close()
            raise FileError(f"{self.path} is not a state file of hessmx; name another file")
        if not intact:
            self.close()
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
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
