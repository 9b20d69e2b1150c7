"""Saved nets: what `HybridBlock.export` wrote, or a function that makes one, with the parameters of a file."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hessmx._child import cause_of_death
from hessmx._formats import PARAMS_MAGIC, Malformed, PathLike, check_graph, check_params, parse_json, read_bytes
from hessmx._mxnet import mx
from hessmx.errors import DataError, FileError, few, one_line
from hessmx.problem.order import in_order


def load_net(symbol_file: PathLike, params_file: PathLike, x: Any = None) -> Any:
    """The net that `HybridBlock.export` wrote, as a SymbolBlock in the saved precision.

    The inputs are the graph's variables that are not parameters. Graphs that would end the process are refused: tried
    in a child, on the shapes of `x` (an array, or one for each input) where it is given.
    """
    symbol, params = _read_symbol(symbol_file), _read_params(params_file)
    attributes = symbol.attr_dict()
    variables = symbol.list_arguments() + symbol.list_auxiliary_states()
    inputs = in_order([v for v in variables if v not in params and not _is_parameter(v, attributes.get(v, {}))])
    _check_names(set(variables) - set(inputs), set(params), symbol_file, params_file)
    _check_shapes(params, attributes, params_file)
    if not inputs:
        raise FileError(f"{symbol_file} has no input: {params_file} holds values for all of its variables")
    _try_shapes(symbol, params, inputs, x, symbol_file)
    try:
        return _filled(symbol, params, inputs)
    except Exception as error:
        raise FileError(f"{params_file} does not fit {symbol_file}: {one_line(error)}") from error


def _try_shapes(symbol: Any, params: dict[str, Any], inputs: list[str], x: Any, symbol_file: PathLike) -> None:
    """MXNet works out shapes with the graph's own numbers, and divides by some."""
    shapes = {name: value.shape for name, value in params.items()}
    given = x if isinstance(x, (list, tuple)) else [] if x is None else [x]
    if given and len(given) != len(inputs):
        raise DataError(f"{symbol_file} has {len(inputs)} input(s), {few(inputs)}, and the data {len(given)}")
    shapes.update({name: tuple(array.shape) for name, array in zip(inputs, given)})
    cause = cause_of_death(lambda: symbol.infer_shape_partial(**shapes))
    if cause:
        at = f" with inputs of shapes {[tuple(a.shape) for a in given]}" if given else ""
        raise FileError(f"{symbol_file} ends the process ({cause}) when MXNet works out its shapes{at}: it is damaged")


def _filled(symbol: Any, params: dict[str, Any], inputs: list[str]) -> Any:
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
            module = importlib.import_module(module_name)
        except Exception as error:
            raise FileError(f"cannot import {module_name!r} of {factory!r}: {one_line(error)}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise FileError(f"module {module_name!r} has no function {function_name!r}")
    try:
        net = function()
    except Exception as error:
        raise FileError(f"{factory}() failed: {one_line(error)}") from error
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
        raise FileError(f"{params_file} does not fit the net: {one_line(error)}") from error


def _read_symbol(path: PathLike) -> Any:
    content = read_bytes(path)
    if content.startswith(PARAMS_MAGIC):
        raise FileError(f"{path} holds parameters, not a graph: are the two files swapped?")
    try:
        check_graph(parse_json(content))
    except Malformed as error:
        raise FileError(f"{path} is not a graph written by export(): {one_line(error)}") from error
    try:
        return mx.sym.load_json(content.decode())
    except Exception as error:
        raise FileError(f"{path} is a graph that MXNet cannot read: {one_line(error)}") from error


def _read_params(path: PathLike) -> dict[str, Any]:
    """Name -> NDArray, without the prefixes arg: and aux:."""
    content = read_bytes(path)
    if content.lstrip().startswith(b"{"):
        raise FileError(f"{path} holds a graph, not parameters: are the two files swapped?")
    if not content.startswith(PARAMS_MAGIC):
        raise FileError(f"{path} is not a parameter file written by export() or save_parameters()")
    try:
        check_params(content)
        loaded = mx.nd.load_frombuffer(content)
    except Exception as error:
        raise FileError(f"{path} cannot be read as parameters: {one_line(error)}") from error
    if not isinstance(loaded, dict):
        raise FileError(f"{path} holds arrays without names; expected a file written by export()")
    return {name.split(":", 1)[-1]: value for name, value in loaded.items()}


def _is_parameter(name: str, attributes: dict[str, str]) -> bool:
    """Gluon writes a learning rate multiplier beside each parameter; older files show it only in the name."""
    endings = ("_weight", "_bias", "_gamma", "_beta", "_running_mean", "_running_var", "_moving_mean", "_moving_var")
    return "__lr_mult__" in attributes or name.endswith(endings)


def _check_names(graph: set[str], params: set[str], symbol_file: PathLike, params_file: PathLike) -> None:
    lacking = [(params_file, sorted(graph - params)), (symbol_file, sorted(params - graph))]
    told = [f"{file} lacks {few(names)}" for file, names in lacking if names]
    if told:
        raise FileError(f"the graph and the parameters do not belong together: {'; '.join(told)}")


def _check_shapes(params: dict[str, Any], attributes: dict[str, dict[str, str]], params_file: PathLike) -> None:
    wrong = []
    for name, value in params.items():
        text = attributes.get(name, {}).get("__shape__", "")
        try:
            expected = tuple(int(n) for n in text.strip("()[]").replace(" ", "").split(",") if n)
        except ValueError:
            wrong.append(f"{name} is {value.shape}, the graph says {text!r}")
            continue
        known = [e == s for e, s in zip(expected, value.shape) if e > 0]
        if expected and (len(expected) != len(value.shape) or not all(known)):
            wrong.append(f"{name} is {value.shape}, the graph says {expected}")
    if wrong:
        raise FileError(f"{params_file} does not fit the graph: {few(wrong)}")


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Factories live in the user's working folder, which a console script does not have on its path."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
