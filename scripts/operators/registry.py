"""MXNet's operator registry: canonical names, their aliases, and whether a gradient is registered.

A gradient is registered where binding the bare operator for gradients gets past MXNet's gradient pass, which comes
before shapes are looked at; whatever is refused later (shapes, types, devices) does not matter here.
"""

from __future__ import annotations

import ctypes
import json
import sys

from hessmx._mxnet import mx

_base = mx.base


def _array(pointer: object, size: object) -> list[str]:
    return [pointer[i].decode() for i in range(size.value)]


def names() -> list[str]:
    """Every registered name, aliases too."""
    size, pointer = _base.mx_uint(), ctypes.POINTER(ctypes.c_char_p)()
    _base.check_call(_base._LIB.MXListAllOpNames(ctypes.byref(size), ctypes.byref(pointer)))
    return _array(pointer, size)


def _handle(name: str) -> object:
    handle = _base.OpHandle()
    _base.check_call(_base._LIB.NNGetOpHandle(_base.c_str(name), ctypes.byref(handle)))
    return handle


def describe(name: str) -> tuple[str, dict[str, str], str]:
    """Canonical name (the one Symbol JSON shows), argument types by argument, name of the variadic count."""
    text, count = (ctypes.c_char_p() for _ in range(2)), _base.mx_uint()
    real, about = text
    keys, types, docs = (ctypes.POINTER(ctypes.c_char_p)() for _ in range(3))
    variadic, returns = ctypes.c_char_p(), ctypes.c_char_p()
    _base.check_call(
        _base._LIB.MXSymbolGetAtomicSymbolInfo(
            _handle(name), *map(ctypes.byref, (real, about, count, keys, types, docs, variadic, returns))
        )
    )
    return real.value.decode(), dict(zip(_array(keys, count), _array(types, count))), variadic.value.decode()


def _filler(kind: str) -> str:
    """Some value that an attribute of this type accepts."""
    if kind.startswith("{"):
        return kind.split("'")[1]
    return "(1,)" if kind.startswith(("Shape", "tuple")) else "1"


def registered_gradient(name: str) -> str:
    """ "yes", "no", "no inputs", or "unknown: why"."""
    _, types, variadic = describe(name)
    attrs = {k: _filler(t) for k, t in types.items() if "required" in t and not t.startswith(("NDArray", "Symbol"))}
    if variadic:
        attrs[variadic] = "1"
    try:
        atom = _base.SymbolHandle()
        keys, values = _base.c_str_array(list(attrs)), _base.c_str_array(list(attrs.values()))
        create = _base._LIB.MXSymbolCreateAtomicSymbol
        _base.check_call(create(_handle(name), _base.mx_uint(len(attrs)), keys, values, ctypes.byref(atom)))
        symbol = mx.sym.Symbol(atom)
        symbol._compose(name="probe")
        inputs = symbol.list_arguments()
    except mx.base.MXNetError as error:
        return "unknown: " + " ".join(str(error).split())[-120:]
    return _bind(symbol[0], inputs) if inputs else "no inputs"


def _bind(symbol: object, inputs: list[str]) -> str:
    def square() -> object:
        return mx.nd.ones((2, 2))

    states = {name: square() for name in symbol.list_auxiliary_states()}
    try:
        symbol.bind(mx.cpu(), {k: square() for k in inputs}, {k: square() for k in inputs}, "write", states)
    except mx.base.MXNetError as error:
        return "no" if "non-differentiable" in str(error) else "yes"
    return "yes"


def main() -> None:
    """Child process of survey.py: canonical names in, verdicts out (a few operators kill the process)."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        name = line.rstrip("\n")
        print(json.dumps({"name": name, "gradient": registered_gradient(name)}), flush=True)
        print(json.dumps({"name": name, "done": True}), flush=True)


if __name__ == "__main__":
    main()
