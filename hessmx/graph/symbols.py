"""How Symbols are made: one generic call for any operator, and a scope that leaves no trace.

MXNet names every new Symbol from a global counter that also names Gluon blocks. Work inside `scope()`, or
the user's next `Dense` gets another prefix and no longer fits its saved parameters.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, Mapping, Sequence

from hessmx._mxnet import mx

_symbol_creator = mx.symbol._internal._symbol_creator
Symbol = mx.sym.Symbol


def scope() -> Any:
    """A context in which new Symbols take their names from a counter of their own."""
    return mx.name.NameManager()


@cache
def _handle(op: str) -> int:
    handle = ctypes.c_void_p()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(mx.base.c_str(op), ctypes.byref(handle)))
    assert handle.value is not None
    return handle.value


def call(
    op: str, inputs: Sequence[Symbol], attrs: Mapping[str, Any] | None = None, name: str | None = None
) -> list[Symbol]:
    """Apply any registered operator, hidden ones included; returns its visible outputs."""
    attrs = attrs or {}
    name = mx.name.NameManager.current.get(name, op.lower().lstrip("_"))
    values = [str(v) for v in attrs.values()]
    result = _symbol_creator(_handle(op), list(inputs), None, list(attrs), values, name, False)
    return [result[i] for i in range(len(result))] if len(result) > 1 else [result]
