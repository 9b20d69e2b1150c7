"""Whether a net and a loss would still compute what they did when they were traced: their Python, watched.

What Python decides while a net is traced is in the graph for good: attributes (of blocks, of losses, of objects they
hold), children, hooks, methods, what a closure or a global name stands for, arrays that are no parameters. All of it
is looked through once; after that comparing it with its copies costs about 2 us a block, and no array of parameters is
read.
"""

from __future__ import annotations

import argparse
import copy
import functools
import random
import sys
import sysconfig
import types
import zlib
from collections import deque
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator

import numpy as np

from hessmx._mxnet import memory, mx

# What Gluon itself writes into a Block when it is called, hybridized or exported.
_BOOKKEEPING = frozenset({
    "_active", "_cached_graph", "_cached_op", "_cached_op_args", "_flags", "_in_format", "_out_format", "_callback",
    "_monitor_all", "_backend", "_backend_opts", "_scope",
})  # fmt: skip
_PLAIN = (int, float, complex, str, bytes, type(None), np.generic, frozenset)
_TABLES = (dict, list, set, deque)
_OPEN = (mx.gluon.Block, types.SimpleNamespace, argparse.Namespace)  # libraries' classes whose objects are looked into
_PLACES = ("stdlib", "platstdlib", "purelib", "platlib")
_INSTALLED = tuple(str(Path(sysconfig.get_path(place)).resolve()) for place in _PLACES)
_LIMIT = 100_000  # objects looked through
_SAMPLE = 1 << 18  # entries of a larger array that are compared


class Code:
    """The Python of some blocks and functions, as it was when last looked at."""

    def __init__(self, *roots: Any):
        self._roots = roots
        self._look()

    def changed(self) -> bool:
        """Whether anything is not what it was; says so once, as it looks anew."""
        if self._same():
            return False
        self._look()
        return True

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within, user code runs; what it writes to attributes and containers, or draws, is put back afterwards."""
        self.changed()
        drawn = random.getstate(), np.random.get_state()  # noqa: NPY002  (the user's own)
        try:
            yield
        finally:
            self._put_back()
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])  # noqa: NPY002

    def _put_back(self) -> None:
        """Give attributes of the blocks, and containers that they hold, the entries they had."""
        for now, then in self._tables[: self._held]:
            if isinstance(now, dict):
                changed = {key for key in now.keys() | then.keys() if now.get(key, self) is not then.get(key, self)}
                for key in changed - _BOOKKEEPING:
                    if key in then:
                        now[key] = then[key]
                    else:
                        del now[key]
            elif isinstance(now, (list, deque, set)) and now != then:
                now.clear()
                now.update(then) if isinstance(now, set) else now.extend(then)

    def _same(self) -> bool:
        try:
            for now, then in self._tables:
                if now != then and not _only_bookkeeping(now, then):
                    return False
            return (
                all(table[key] is value for table, key, value in self._names)
                and all(cell.cell_contents is value for cell, value in self._cells)
                and all(digest(array) == before for array, before in self._arrays)
            )
        except Exception:  # names and contents that are gone, whatever the user's `==` raises
            return False

    def _look(self) -> None:
        self._tables: list[tuple[Any, Any]] = []  # containers and attributes, copies of them
        self._names: list[tuple[Any, Any, Any]] = []  # a container, a key, what it stands for
        self._cells: list[tuple[Any, Any]] = []  # of closures
        self._arrays: list[tuple[Any, int]] = []
        seen: dict[int, Any] = {}  # the objects themselves, so that an id stays theirs
        self._functions: list[Any] = []
        self._walk(list(self._roots), seen)
        self._held = len(self._tables)  # those that blocks hold; what functions refer to comes after them
        while self._functions:
            waiting, self._functions = self._functions, []
            for function in waiting:
                self._walk(list(self._function(function)), seen)

    def _walk(self, waiting: list[Any], seen: dict[int, Any]) -> None:
        while waiting and len(seen) < _LIMIT:
            value = waiting.pop()
            if not isinstance(value, _PLAIN) and id(value) not in seen:
                seen[id(value)] = value
                waiting.extend(self._behind(value))

    def _behind(self, value: Any) -> Iterator[Any]:
        """Note what is watched of an object; yield what belongs to it."""
        if isinstance(value, (np.ndarray, mx.nd.NDArray)):
            self._arrays.append((value, digest(value)))
        elif isinstance(value, _TABLES):
            yield from self._table(value)
        elif isinstance(value, tuple):
            yield from value
        elif isinstance(value, types.FunctionType):
            self._functions.append(value)
        elif isinstance(value, types.MethodType):
            yield from (value.__self__, value.__func__)
        elif isinstance(value, (staticmethod, classmethod)):
            yield value.__func__
        elif isinstance(value, property):
            yield from (value.fget, value.fset)
        elif isinstance(value, mx.gluon.ParameterDict):
            self._tables.append((value._params, dict(value._params)))
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif isinstance(value, type):
            if _theirs(value):
                self._tables.append((vars(value), dict(vars(value))))
                yield from vars(value).values()
        elif isinstance(value, _OPEN) or (_theirs(type(value)) and hasattr(value, "__dict__")):
            yield from self._object(value)

    def _table(self, table: Any) -> Iterator[Any]:
        self._tables.append((table, copy.copy(table)))
        items = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
        # An array is told by itself: equal ones must not stand for each other, as one may be written to later.
        self._names.extend((table, k, v) for k, v in items if isinstance(v, (np.ndarray, mx.nd.NDArray)))
        yield from table.values() if isinstance(table, dict) else table

    def _object(self, value: Any) -> Iterator[Any]:
        held = vars(value)
        self._tables.append((held, dict(held)))
        for name, item in held.items():
            if name not in _BOOKKEEPING:
                if isinstance(item, (np.ndarray, mx.nd.NDArray)):
                    self._names.append((held, name, item))
                yield item
        yield from type(value).__mro__

    def _function(self, function: Any) -> Iterator[Any]:
        if not _theirs(function):
            return
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # a name that has no value yet
                self._cells.append((cell, cell.cell_contents))
                yield cell.cell_contents
        yield from (function.__defaults__, function.__kwdefaults__, function.__dict__)
        names = set(_names(function.__code__))
        for name in names & function.__globals__.keys():
            value = function.__globals__[name]
            self._names.append((function.__globals__, name, value))
            if isinstance(value, types.ModuleType) and _theirs(value):
                for inner in names & vars(value).keys():
                    self._names.append((vars(value), inner, vars(value)[inner]))
                    yield vars(value)[inner]
            else:
                yield value


def _only_bookkeeping(now: Any, then: Any) -> bool:
    """Whether attributes differ in nothing but what Gluon keeps there; then the copy is brought up to date."""
    if not isinstance(now, dict):
        return False
    changed = {key for key in now.keys() | then.keys() if now.get(key, then) is not then.get(key, then)}
    if changed - _BOOKKEEPING and any(now.get(key, then) != then.get(key, then) for key in changed - _BOOKKEEPING):
        return False
    then.clear()
    then.update(now)
    return True


def _theirs(value: Any) -> bool:
    """Whether a class, function or module is the user's own, and not an installed library's."""
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return not _installed(str(name))


@functools.cache
def _installed(module: str) -> bool:
    if module == "__main__" or module not in sys.modules:  # a script, a notebook, code that was made
        return False
    path = getattr(sys.modules[module], "__file__", None)
    ours = module.partition(".")[0] == "hessmx"
    return ours or path is None or str(Path(path).resolve()).startswith(_INSTALLED)


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def digest(array: Any, sample: int = _SAMPLE) -> int:
    """Of a dense array's values, or of some of them, evenly spread, where there are many more than `sample`."""
    if isinstance(array, mx.nd.NDArray):
        if array.stype != "default" or array.context.device_type != "cpu":
            return 0
        array = memory(array)
    if array.dtype.hasobject:
        return 0
    flat = array.reshape(-1)
    some = np.ascontiguousarray(flat[:: max(1, flat.size // sample)])
    return zlib.crc32(some.view(np.uint8).data, flat.size)
