"""Saved nets, data files and results: everything foreign is checked here, once, in terms of the user's files."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import IO, Any, Union

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import DataError, FileError
from hessmx.results import Result, from_dict

PathLike = Union[str, "os.PathLike[str]"]

_PARAMS_MAGIC = (0x112).to_bytes(8, "little")
_RESULT_MODULES = ("hessmx.trust.check", "hessmx.trust.coverage")  # and all uses
_INLINE = 1000  # arrays with more entries go to the npz beside the JSON
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}  # JSON has no such numbers


# ---- nets

def load_net(symbol_file: PathLike, params_file: PathLike) -> Any:
    """The net that `HybridBlock.export` wrote, as a SymbolBlock in the saved precision.

    The inputs are the graph's variables that are not parameters.
    """
    symbol, params = _read_symbol(symbol_file), _read_params(params_file)
    attributes = symbol.attr_dict()
    variables = symbol.list_arguments() + symbol.list_auxiliary_states()
    inputs = [v for v in variables if v not in params and not _is_parameter(v, attributes.get(v, {}))]
    _check_names(set(variables) - set(inputs), set(params), symbol_file, params_file)
    _check_shapes(params, attributes, params_file)
    if not inputs:
        raise FileError(f"{symbol_file} has no input: {params_file} holds values for all of its variables")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the precision is taken from the file below, not inferred
        net = mx.gluon.SymbolBlock(symbol, [mx.sym.var(name) for name in inputs])
    for name, parameter in net.collect_params().items():
        value = params[name]
        parameter.shape, parameter.dtype = value.shape, value.dtype
        if not np.issubdtype(value.dtype, np.floating):
            parameter.grad_req = "null"
        parameter.initialize(ctx=mx.cpu())
        parameter.set_data(value)
    return net


def make_net(factory: str, params_file: PathLike | None = None) -> Any:
    """The net that `module:factory` returns when called, with the values of `params_file` if given."""
    module_name, _, function_name = factory.partition(":")
    if not module_name or not function_name:
        raise FileError(f"a factory is written module:function, not {factory!r}")
    with _importable(Path.cwd()):
        try:
            module = import_module(module_name)
        except Exception as error:
            raise FileError(f"cannot import {module_name!r} of {factory!r}: {_one_line(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise FileError(f"module {module_name!r} has no function {function_name!r}")
    try:
        net = function()
    except Exception as error:
        raise FileError(f"{factory}() failed: {_one_line(error)}") from error
    if not isinstance(net, mx.gluon.Block):
        raise FileError(f"{factory}() must return a Gluon Block, not {type(net).__name__}")
    if params_file is not None:
        _fill(net, params_file)
    return net


def _fill(net: Any, params_file: PathLike) -> None:
    _read_params(params_file)
    try:
        net.load_parameters(os.fspath(params_file), ctx=mx.cpu(), cast_dtype=True, dtype_source="saved")
    except Exception as error:
        raise FileError(f"{params_file} does not fit the net: {_one_line(error)}") from error


def _read_symbol(path: PathLike) -> Any:
    content = _read_bytes(path)
    if content.startswith(_PARAMS_MAGIC):
        raise FileError(f"{path} holds parameters, not a graph: are the two files swapped?")
    try:
        graph = json.loads(content)
    except ValueError as error:
        raise FileError(f"{path} is not a graph written by export(): {_one_line(error)}") from error
    if not isinstance(graph, dict) or "nodes" not in graph:
        raise FileError(f"{path} is JSON but not a graph written by export(): it has no 'nodes'")
    try:
        return mx.sym.load_json(content.decode())
    except Exception as error:
        raise FileError(f"{path} is a graph that MXNet cannot read: {_one_line(error)}") from error


def _read_params(path: PathLike) -> dict[str, Any]:
    """Name -> NDArray, without the prefixes arg: and aux:."""
    content = _read_bytes(path)
    if content.lstrip().startswith(b"{"):
        raise FileError(f"{path} holds a graph, not parameters: are the two files swapped?")
    if not content.startswith(_PARAMS_MAGIC):
        raise FileError(f"{path} is not a parameter file written by export() or save_parameters()")
    try:
        loaded = mx.nd.load_frombuffer(content)
    except Exception as error:
        raise FileError(f"{path} is damaged or cut short: {_one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise FileError(f"{path} holds arrays without names; expected a file written by export()")
    return {name.split(":", 1)[-1]: value for name, value in loaded.items()}


def _is_parameter(name: str, attributes: dict[str, str]) -> bool:
    """Gluon writes a learning rate multiplier beside each parameter; older files show it only in the name."""
    endings = ("_weight", "_bias", "_gamma", "_beta", "_running_mean", "_running_var", "_moving_mean", "_moving_var")
    return "__lr_mult__" in attributes or name.endswith(endings)


def _check_names(graph: set[str], params: set[str], symbol_file: PathLike, params_file: PathLike) -> None:
    lacking = [(params_file, sorted(graph - params)), (symbol_file, sorted(params - graph))]
    told = [f"{file} lacks {_few(names)}" for file, names in lacking if names]
    if told:
        raise FileError(f"the graph and the parameters do not belong together: {'; '.join(told)}")


def _check_shapes(params: dict[str, Any], attributes: dict[str, dict[str, str]], params_file: PathLike) -> None:
    wrong = []
    for name, value in params.items():
        text = attributes.get(name, {}).get("__shape__", "")
        expected = tuple(int(n) for n in text.strip("()[]").replace(" ", "").split(",") if n)
        known = [e == s for e, s in zip(expected, value.shape) if e > 0]
        if expected and (len(expected) != len(value.shape) or not all(known)):
            wrong.append(f"{name} is {value.shape}, the graph says {expected}")
    if wrong:
        raise FileError(f"{params_file} does not fit the graph: {_few(wrong)}")


# ---- data

def load_data(path: PathLike, labels: bool = True) -> tuple[Any, Any]:
    """(x, y) of an .npz file with the arrays x (or x0, x1, ... for several inputs) and y; y is None without labels."""
    _read_bytes(path, limit=1)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise FileError(f"{path} is not an .npz file of plain arrays: {_one_line(error)}") from error
    several = [f"x{i}" for i in range(len(arrays)) if f"x{i}" in arrays]
    names = ["x"] if "x" in arrays else several
    missing = ([] if names else ["x"]) + (["y"] if labels and "y" not in arrays else [])
    if missing:
        raise DataError(f"{path} must hold the arrays x and y; it lacks {' and '.join(missing)}, it has {_few(arrays)}")
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
    if large:
        arrays = path.with_suffix(".npz")
        with replacing(arrays) as file:
            np.savez_compressed(file, **large)
        data.update(dict.fromkeys(large))
        data["arrays"] = {"file": arrays.name, "sha256": _sha256(arrays), "names": sorted(large)}
    with replacing(path) as file:
        file.write(json.dumps(_strict(data), indent=1, allow_nan=False).encode() + b"\n")
    return path


def load(path: PathLike) -> Any:
    """The result that `save` wrote."""
    uses = import_module("hessmx.uses")
    for module in (*_RESULT_MODULES, *(f"hessmx.uses.{found.name}" for found in iter_modules(uses.__path__))):
        import_module(module)
    try:
        data = _lenient(json.loads(_read_bytes(path)))
    except ValueError as error:
        raise FileError(f"{path} is not a result written by hessmx: {_one_line(error)}") from error
    if not isinstance(data, dict) or "type" not in data:
        raise FileError(f"{path} is not a result written by hessmx: it has no 'type'")
    beside = data.pop("arrays", None)
    if beside:
        arrays = Path(path).with_name(beside["file"])
        if not arrays.is_file():
            raise FileError(f"{path} needs {arrays.name} beside it, which is missing")
        if _sha256(arrays) != beside["sha256"]:
            raise FileError(f"{arrays} is damaged or belongs to another result than {path}")
        with np.load(arrays, allow_pickle=False) as file:
            data.update({name: file[name] for name in beside["names"]})
    return from_dict(data)


@contextmanager
def replacing(path: PathLike) -> Iterator[IO[bytes]]:
    """A file that takes the name `path` only when it is complete; a crash leaves the old one."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
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


# ---- shared

def _read_bytes(path: PathLike, limit: int = -1) -> bytes:
    if not os.path.exists(path):
        raise FileError(f"{path} does not exist")
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Factories live in the user's working folder, which a console script does not have on its path."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


def _few(names: Any, count: int = 4) -> str:
    names = [str(n) for n in names]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "") or "nothing"


def _one_line(error: BaseException) -> str:
    """What MXNet's messages say, without the C++ stack trace around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Traceback", "Stack trace", "File ", "[bt]"))]
    text = told[0].split("Error: ", 1)[-1] if told else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
