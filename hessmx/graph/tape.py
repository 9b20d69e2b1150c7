"""The tape tracer: run any Python on arrays, read what autograd recorded.

MXNet names marked arrays `var<k>` and the others `null<k>` on its tape, and forgets which array each one was. The
name of an array is learnt by recording one operator on it alone. To know the arrays that user code makes on the way
(masks, states, constants), every array that reaches an operator is noted while the function runs.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.node import Graph, Node, parse
from hessmx.graph.symbols import scope

_ctypes_ndarray = mx._ctypes.ndarray

# what the tape shows as one node, and not what is in it
_CLOSED = {
    "_CustomFunction": "autograd.Function is user code that MXNet's tape does not describe",
    "_CachedOp": "a SymbolBlock that does not trace as Symbol is closed: use the Python code that it was exported from",
}


@contextmanager
def _noting_arrays(seen: dict[int, Any]) -> Iterator[None]:
    """Keep every array that any operator is given; MXNet collects their handles in one function."""
    original = _ctypes_ndarray.c_handle_array

    def noting(arrays: Any) -> Any:
        seen.update((id(array), array) for array in arrays)
        return original(arrays)

    _ctypes_ndarray.c_handle_array = noting
    try:
        yield
    finally:
        _ctypes_ndarray.c_handle_array = original


def _nd(array: Any) -> Any:
    return array.as_nd_ndarray() if hasattr(array, "as_nd_ndarray") else array


def _tape_name(array: Any) -> str:
    """Empty for an array that only operators off the tape have seen."""
    with mx.autograd.record(train_mode=False):
        alone = mx.nd.identity(_nd(array))
    try:
        return mx.autograd.get_symbol(alone).list_arguments()[0]
    except mx.base.MXNetError:
        return ""


def record(
    function: Callable[..., Any], inputs: Mapping[str, Any], parameters: Mapping[str, Any], tag: str
) -> tuple[Graph, dict[str, Any], Any]:
    """Graph of function(*inputs) with variables named as given; the arrays it made itself; what it returned.

    `tag` sets the names of the arrays it made apart from those of another recording. `parameters` are arrays that the
    function reads on its own. All given arrays must be copies or detached: they are marked as variables here. Runs in
    predict mode, so that no random number is drawn; Dropout and BatchNorm are on the tape all the same.
    """
    if mx.util.is_np_array():
        inputs = {name: array.as_np_ndarray() for name, array in inputs.items()}
    given = {**inputs, **parameters}
    mx.autograd.mark_variables(list(given.values()), [mx.nd.zeros((1,))] * len(given), grad_reqs="write")
    seen: dict[int, Any] = {}
    with scope(), mx.autograd.record(train_mode=False), _noting_arrays(seen):
        result = function(*inputs.values())
    leaves = list(_leaves(result))
    if not leaves or not all(isinstance(leaf, mx.nd.NDArray) for leaf in leaves):
        raise GraphError(f"expected arrays, but {type(result).__name__} was returned; return NDArrays")
    graph = _read(leaves)
    for op in graph.ops.keys() & _CLOSED.keys():
        raise GraphError(_CLOSED[op])
    wanted = {_tape_name(array): name for name, array in given.items()}
    constants: dict[str, Any] = {}
    unnamed = set(graph.variables) - set(wanted)
    for array in seen.values():
        if not unnamed:
            break
        name = _tape_name(array)
        if name in unnamed:
            unnamed.remove(name)
            wanted[name] = f"hessmx_{tag}_{name}"
            constants[wanted[name]] = _nd(array).detach()
    if unnamed:
        raise GraphError(f"{len(unnamed)} array(s) made inside forward could not be recovered from the tape")
    return _renamed(graph, wanted), constants, result


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _read(leaves: list[Any]) -> Graph:
    """One graph for all outputs: they are joined by a last node, which is then taken off again."""
    if len(leaves) == 1:
        return parse(_symbol(leaves[0]))
    with mx.autograd.record(train_mode=False):
        joined = mx.nd.Concat(*[mx.nd.Reshape(_nd(leaf), shape=(-1,)) for leaf in leaves], dim=0)
    graph = parse(_symbol(joined))
    last = graph.nodes[graph.heads[0][0]]
    return Graph(graph.nodes, tuple(graph.nodes[i].inputs[0] for i, _ in last.inputs))


def _symbol(array: Any) -> Any:
    try:
        return mx.autograd.get_symbol(_nd(array))
    except mx.base.MXNetError as error:
        raise GraphError("an output does not depend on the inputs or the parameters: nothing was recorded") from error


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    nodes = tuple(Node(None, names[node.name], ()) if node.op is None else node for node in graph.nodes)
    return Graph(nodes, graph.heads)
