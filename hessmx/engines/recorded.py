"""The user's own graph, run once on the tape: values, and a backward pass that can be repeated.

    forward             values of the entries that tangents read
    backward(adjoints)  gradients of the ends by the entries that have a local pass
    backward(...)       gradients by the parameters, of whatever cotangents the values and the ends are given

A CachedOp and not an Executor: the latter plans its memory for one backward pass, and a second one after the same
forward pass is silently wrong (docs/mxnet.md). To entries that are read from outside 0 is added first, so that they
are arrays in plain rows: of an array in oneDNN's layout that others read, MXNet's pooling makes wrong gradients.
"""

from __future__ import annotations

import ctypes
from typing import Any, Iterable, Mapping, Sequence

from hessmx._mxnet import mx
from hessmx.engines.fan import fanned
from hessmx.engines.program import weights_beside
from hessmx.engines.whole import Whole
from hessmx.graph.node import Entry
from hessmx.graph.symbols import Symbol, call

# Their backward pass writes over what their forward pass has kept: a second one after the same forward pass is wrong
# (tests/engines/test_linearised.py asks every operator of the table).
SPENT = frozenset("_linalg_det _linalg_slogdet _npi_einsum".split())

_LIB, _check = mx.base._LIB, mx.base.check_call


def added_name(entry: Entry) -> str:
    return f"hessmx_added{entry[0]}_{entry[1]}"


class Recording:
    """The graph to be recorded: outputs are the values `read`, then the ends.

    added     entries whose gradients are wanted: a variable that is zero is added to each
    injected  those of `read` that get cotangents; the others are outputs behind a BlockGrad
    """

    def __init__(self, whole: Whole, read: Sequence[Entry], injected: Iterable[Entry], added: Sequence[Entry]):
        self.read, self.injected, self.added = list(read), frozenset(injected), list(added)
        outputs = self._build(whole)
        self.symbol = fanned(mx.sym.Group(outputs))
        self.inputs: list[str] = self.symbol.list_inputs()
        self.auxiliary = frozenset(self.symbol.list_auxiliary_states())
        self.operator = mx.nd.CachedOp(self.symbol, [])
        self.repeatable = not any(whole.nodes[i].op in SPENT for i in whole.needed)

    def _build(self, whole: Whole) -> list[Symbol]:
        values: dict[Entry, Symbol] = {}
        plain = set(self.read)
        for index in sorted(whole.needed):
            node = whole.nodes[index]
            if node.op is None:
                values[index, 0] = mx.sym.Variable(node.name)
                continue
            ys = call(node.op, [values[entry] for entry in node.inputs], node.raw, node.name)
            for j, y in enumerate(ys):
                entry = (index, j)
                if entry in self.added:
                    zero = mx.sym.Variable(added_name(entry), shape=whole.shapes[entry])
                    y = mx.sym.elemwise_add(y, zero)
                if entry in plain or entry in self.added:
                    y = y + 0  # its backward pass is a copy that MXNet leaves out; that of * 1 is not
                values[entry] = y
        read = [values[e] if e in self.injected else mx.sym.BlockGrad(values[e]) for e in self.read]
        return [*read, *(mx.sym.identity(values[e]) for e in whole.ends)]  # no array is an output twice

    def types(self, known: Mapping[str, Any]) -> dict[str, Any]:
        """dtypes of the added variables, given those of all others."""
        added = [added_name(entry) for entry in self.added]
        given = {name: known[name] for name in self.inputs if name not in added}
        found = dict(zip(self.symbol.list_arguments(), self.symbol.infer_type(**given)[0] or ()))
        default = next(iter(known.values()))
        return {name: found.get(name, default) for name in added}

    def beside(self, wanted: Sequence[str]) -> list[str]:
        """`wanted`, and variables whose gradient must be asked for although nobody wants it."""
        return [*wanted, *sorted(weights_beside(self.symbol, dict.fromkeys(wanted)))]


class Tape:
    """One forward pass of a Recording; made anew for every backward pass where that spends it."""

    def __init__(
        self, recording: Recording, arrays: Mapping[str, Any], wrt: Sequence[str], into: Sequence[Any] | None = None
    ):
        """`wrt` names the variables that gradients may be asked for, `into` the arrays that take the outputs."""
        self.recording = recording
        self._given, self._wrt = {name: arrays[name] for name in recording.inputs}, list(wrt)
        self._spent = False
        self._record(into)

    def _record(self, into: Sequence[Any] | None) -> None:
        self._arrays = {name: array.detach() for name, array in self._given.items()}
        marked = [self._arrays[name] for name in self._wrt]
        mx.autograd.mark_variables(marked, [_nothing()] * len(marked))
        out = None if into is None else [array.detach() for array in into]
        with mx.autograd.record(train_mode=True):
            outputs = self.recording.operator(*self._arrays.values(), out=out)
        self.outputs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
        self._handles = mx.base.c_handle_array(self.outputs)

    def backward(self, cotangents: Sequence[Any], wrt: Sequence[str], first: int = 0) -> list[Any]:
        """Gradients by `wrt` of <cotangents, outputs from `first` on>: new arrays. It can be repeated."""
        if self._spent and not self.recording.repeatable:
            self._record(self.outputs)
        self._spent = True
        count, chosen = len(cotangents), [self._arrays[name] for name in wrt]
        heads = (ctypes.c_void_p * count)(*self._handles[first : first + count])
        found, kinds = ctypes.POINTER(ctypes.c_void_p)(), ctypes.POINTER(ctypes.c_int)()
        _check(_LIB.MXAutogradBackwardEx(
            count, heads, mx.base.c_handle_array(list(cotangents)), len(chosen), mx.base.c_handle_array(chosen),
            ctypes.c_int(1), ctypes.c_int(0), ctypes.c_int(1), ctypes.byref(found), ctypes.byref(kinds),
        ))  # fmt: skip
        handles = [ctypes.cast(found[i], mx.base.NDArrayHandle) for i in range(len(chosen))]
        return [mx.nd.NDArray(handle, writable=False) for handle in handles]


def _nothing() -> Any:
    """Stands for the array that marked variables have their gradients written to; here none ever is."""
    return mx.nd.zeros((1,))
