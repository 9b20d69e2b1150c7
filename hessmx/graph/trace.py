"""From a net and a loss to two graphs: z(x, w) and the per-sample losses l(z, y).

Two tracers. The symbol tracer calls a HybridBlock with Symbols. The tape tracer runs any Python on the batch under
`autograd.record` and reads the tape. The first is tried first: its graph holds for every batch.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Iterator, Mapping, Sequence

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.node import Graph, parse
from hessmx.graph.observed import observed
from hessmx.graph.symbols import Symbol, scope
from hessmx.graph.tape import record

# Control flow inside a Symbol is a graph in an attribute; on the tape it is unrolled into ordinary operators.
_SUBGRAPH_OPS = {"_foreach", "_while_loop", "_cond", "_CachedOp"}


def names(prefix: str, count: int) -> list[str]:
    return [f"hessmx_{prefix}{i}" for i in range(count)]


def flatten(value: Any) -> list[Any]:
    """Nested tuples and lists of arrays or Symbols, as one list."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in flatten(item)]
    return [value]


def _regroup(template: Any, leaves: list[Any]) -> Any:
    """The structure of `template` with other leaves (consumed from the front)."""
    if isinstance(template, (list, tuple)):
        return type(template)([_regroup(item, leaves) for item in template])
    return leaves.pop(0)


@dataclass(frozen=True)
class Piece:
    """One traced function: its graph, constants, the structure of its result, and whether it is off a tape.

    values  whether it holds only for the values of parameters and inputs that it was traced with
    """

    graph: Graph
    constants: Mapping[str, Any]
    result: Any
    taped: bool
    values: bool = False


def _variables(prefix: str, count: int) -> list[Symbol]:
    variables = [mx.sym.Variable(name) for name in names(prefix, count)]
    return [v.as_np_ndarray() for v in variables] if mx.util.is_np_array() else variables


@contextmanager
def _functions_refuse_symbols() -> Iterator[None]:
    """autograd.Function hands a Symbol to its forward and forgets its backward, which need not be the derivative."""
    original = mx.autograd.Function.__call__

    def refuse(self: Any, *inputs: Any) -> Any:
        if any(isinstance(leaf, Symbol) for leaf in inputs):
            raise GraphError("autograd.Function is user code that a Symbol does not describe")
        return original(self, *inputs)

    mx.autograd.Function.__call__ = refuse
    try:
        yield
    finally:
        mx.autograd.Function.__call__ = original


def _symbolic(
    function: Callable[..., Any],
    inputs: Sequence[Symbol],
    regroup: Callable[[list[Any]], Sequence[Any]],
    train: bool,
) -> Piece:
    with scope(), _functions_refuse_symbols(), mx.autograd.predict_mode(), observed(train) as run:
        result = function(*regroup(list(inputs)))
        leaves = flatten(result)
        if not leaves or not all(isinstance(leaf, Symbol) for leaf in leaves):
            raise GraphError(f"returned {type(leaves[0]).__name__ if leaves else 'nothing'} for a Symbol")
        plain = [leaf.as_nd_ndarray() if hasattr(leaf, "as_nd_ndarray") else leaf for leaf in leaves]
        graph = parse(mx.sym.Group(plain))
    run.check_mode(graph, symbolic=True)
    if run.looked:
        raise GraphError("Python looks at the values of arrays, which a Symbol would hold fast")
    if mx.util.is_np_shape() and any(node.op == "_zeros" and 0 in node.attrs["shape"] for node in graph.nodes):
        raise GraphError("has initial states of open shape, which NumPy semantics read as empty")
    if graph.ops.keys() & _SUBGRAPH_OPS:
        raise GraphError(f"holds control flow, {', '.join(sorted(graph.ops.keys() & _SUBGRAPH_OPS))}")
    return Piece(graph, {}, result, taped=False)


def trace_net(net: Any, inputs: Sequence[Any], parameters: Mapping[str, Any], train: bool = False) -> Piece:
    """Trace `net` on a batch of inputs, on its branch for the mode `train`; `parameters` maps names to arrays."""
    try:
        return _symbolic(net, _variables("data", len(inputs)), lambda leaves: leaves, train)
    except Exception as error:  # user code: whatever it raises, the tape is the answer
        symbolic_error = error
    what = f"the net could not be run on a batch of shapes {_shapes(inputs)}"
    given = dict(zip(names("data", len(inputs)), inputs))
    return _taped(net, given, parameters, "net", what, symbolic_error, train)


def trace_loss(
    loss: Callable[..., Any],
    outputs: Any,
    labels: Any,
    arrays: Callable[[], tuple[list[Any], list[Any]]],
    train: bool = False,
) -> Piece:
    """Trace `loss(outputs, labels)`; `arrays()` gives the values, asked for only if Symbols will not do."""
    output_leaves, label_leaves = flatten(outputs), flatten(labels)
    count = len(output_leaves)

    def regroup(leaves: list[Any]) -> list[Any]:
        rest = list(leaves)
        return [_regroup(outputs, rest)] + ([_regroup(labels, rest)] if label_leaves else [])

    try:
        variables = _variables("output", count) + _variables("label", len(label_leaves))
        return _symbolic(loss, variables, regroup, train)
    except Exception as error:
        symbolic_error = error
    values, label_values = arrays()
    given = dict(zip(names("output", count) + names("label", len(label_leaves)), values + label_values))
    what = f"the loss could not be computed on outputs {_shapes(values)} and labels {_shapes(label_values)}"
    return _taped(lambda *leaves: loss(*regroup(list(leaves))), given, {}, "loss", what, symbolic_error, train)


def _taped(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    tag: str,
    failure: str,
    symbolic_error: Exception,
    train: bool,
) -> Piece:
    """What the tape holds of a function that would not take Symbols, or why both tracers failed."""
    try:
        recording = record(function, inputs, parameters, tag, train)
    except Exception as error:
        reason = str(error) if isinstance(error, GraphError) else f"{failure}: {_first_line(error)}"
        raise GraphError(f"{reason} (as Symbol: {_first_line(symbolic_error)})") from error
    return Piece(recording.graph, recording.constants, recording.result, taped=True, values=recording.values)


def _shapes(arrays: Sequence[Any]) -> list[tuple]:
    return [tuple(array.shape) for array in arrays]


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip() if lines else ''}"
