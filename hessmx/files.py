"""Saved nets, data files and results: everything foreign is checked here, once, in terms of the user's files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import IO, Any

import numpy as np

from hessmx._formats import Malformed, PathLike, parse_json, read_bytes, read_npz
from hessmx._nets import load_net, make_net
from hessmx.errors import DataError, FileError, InputError, few, one_line
from hessmx.results import Result, from_dict

__all__ = ["PathLike", "load", "load_data", "load_net", "make_net", "replacing", "save"]

_RESULT_MODULES = ("hessmx.trust.check", "hessmx.trust.coverage")  # and all uses
_INLINE = 1000  # arrays with more entries go to the npz beside the JSON
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # JSON has no such numbers


# ---- data

def load_data(path: PathLike, labels: bool = True) -> tuple[Any, Any]:
    """(x, y) of an .npz file with the arrays x (or x0, x1, ... for several inputs) and y; y is None without labels."""
    read_bytes(path, limit=1)
    try:
        arrays = read_npz(path)
    except Exception as error:  # zipfile, zlib and NumPy have many words for a damaged file
        raise FileError(f"{path} is not an .npz file of plain arrays: {one_line(error)}") from error
    numbered = sorted((name for name in arrays if re.fullmatch(r"x\d+", name)), key=lambda name: int(name[1:]))
    names = ["x"] if "x" in arrays else numbered
    missing = ([] if names else ["x"]) + (["y"] if labels and "y" not in arrays else [])
    if missing:
        raise DataError(f"{path} must hold the arrays x and y; it lacks {' and '.join(missing)}, it has {few(arrays)}")
    if "x" in arrays and numbered:
        raise DataError(f"{path} holds x and {few(numbered)}: name the inputs x0, x1, ..., or one input x")
    if numbered != [f"x{i}" for i in range(len(numbered))]:
        raise DataError(f"{path} must number its inputs x0, x1, ... without a gap, but holds {few(numbered)}")
    inputs = [arrays[name] for name in names]
    return (inputs[0] if len(inputs) == 1 else inputs), (arrays["y"] if labels else None)


# ---- results

def save(result: Result, path: PathLike) -> Path:
    """Write a result as JSON, arrays of more than 1000 entries to the .npz beside it; each file replaced at once."""
    path = Path(path)
    large = {
        f.name: value
        for f in dataclasses.fields(result)  # type: ignore[arg-type]
        if isinstance(value := getattr(result, f.name), np.ndarray) and value.size > _INLINE
    }
    data = dataclasses.replace(result, **{name: np.empty(0) for name in large}).to_dict()  # type: ignore[type-var]
    with ExitStack() as both:  # neither takes its name before both are written
        file = both.enter_context(replacing(path))
        if large:
            arrays = path.with_suffix(".npz")
            beside = both.enter_context(replacing(arrays))
            np.savez_compressed(beside, **large)
            data.update(dict.fromkeys(large))
            data["arrays"] = {"file": arrays.name, "sha256": _sha256(beside), "names": sorted(large)}
        file.write(json.dumps(_strict(data), indent=1, allow_nan=False).encode() + b"\n")
        file.flush()
    return path


def load(path: PathLike) -> Any:
    """The result that `save` wrote; FileError for one that was changed into what no result is."""
    uses = import_module("hessmx.uses")
    for module in (*_RESULT_MODULES, *(f"hessmx.uses.{found.name}" for found in iter_modules(uses.__path__))):
        import_module(module)
    try:
        data = _lenient(parse_json(read_bytes(path)))
        if not isinstance(data, dict) or "type" not in data:
            raise Malformed("it has no 'type'")
        if "arrays" in data:
            data.update(_arrays_beside(Path(path), data.pop("arrays")))
        return from_dict(data)
    except (Malformed, InputError, RecursionError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is not a result written by hessmx: {one_line(error)}") from error


def _arrays_beside(path: Path, beside: Any) -> dict[str, np.ndarray]:
    """The arrays of the .npz file that a result names."""
    said = beside if isinstance(beside, dict) else {}
    name, names = said.get("file"), said.get("names")
    if not isinstance(name, str) or Path(name).name != name or not isinstance(names, list) or "sha256" not in said:
        raise Malformed("'arrays' must name a file beside it, its sha256 and the arrays in it")
    file = path.with_name(name)
    if not file.is_file():
        raise FileError(f"{path} needs {name} beside it, which is missing")
    with open(file, "rb") as content:
        if _sha256(content) != said["sha256"]:
            raise FileError(f"{file} is damaged or belongs to another result than {path}")
    try:
        arrays = read_npz(file)
    except Exception as error:
        raise FileError(f"{file} cannot be read: {one_line(error)}") from error
    if sorted(map(str, names)) != sorted(arrays):
        raise Malformed(f"'arrays' names {few(names)}, and {name} holds {few(sorted(arrays))}")
    return arrays


@contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` only when it is complete; a crash or a full disk leaves the old one."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, OSError) and not isinstance(error, FileError):
            raise FileError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _strict(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_strict(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _lenient(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _lenient(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_lenient(v) for v in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value


def _sha256(file: IO[bytes]) -> str:
    """Of a whole open file."""
    file.seek(0)
    digest = hashlib.sha256()
    for part in iter(lambda: file.read(1 << 20), b""):
        digest.update(part)
    return digest.hexdigest()
