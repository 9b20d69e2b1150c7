"""The tape tracer: run any Python on arrays, read what autograd recorded.

MXNet names marked arrays `var<k>` and the others `null<k>` on its tape, and forgets which array each one was. The
name of an array is learnt by recording one operator on it alone. To know the arrays that user code makes on the way
(masks, states, constants), every array that reaches an operator is noted while the function runs (observed.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Callable, Iterator, Mapping

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.node import Graph, Node, parse
from hessmx.graph.observed import observed
from hessmx.graph.symbols import scope

# what the tape shows as one node, and not what is in it
_CLOSED = {
    "_CustomFunction": "autograd.Function is user code that MXNet's tape does not describe",
    "_CachedOp": "a SymbolBlock that does not trace as Symbol is closed: use the Python code that it was exported from",
}


@dataclass(frozen=True)
class Recording:
    """A graph, the arrays that user code made itself, what it returned, and whether it depends on values.

    With `values` it holds only for the values of inputs and parameters that it was made with: Python has looked at
    some, or the arrays it made may come from them.
    """

    graph: Graph
    constants: dict[str, Any]
    result: Any
    values: bool


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
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    parameters: Mapping[str, Any],
    tag: str,
    train: bool = False,
) -> Recording:
    """Graph of function(*inputs) with variables named as given, on the branch of the mode `train`.

    `tag` sets the names of the arrays it made apart from those of another recording. `parameters` are arrays that the
    function reads on its own. All given arrays must be copies or detached: they are marked as variables here. Operators
    run in predict mode, so that no random number is drawn; Dropout and BatchNorm are on the tape all the same.
    """
    if mx.util.is_np_array():
        inputs = {name: array.as_np_ndarray() for name, array in inputs.items()}
    given = {**inputs, **parameters}
    mx.autograd.mark_variables(list(given.values()), [mx.nd.zeros((1,))] * len(given), grad_reqs="write")
    with scope(), mx.autograd.record(train_mode=False), observed(train) as run:
        result = function(*inputs.values())
    leaves = list(_leaves(result))
    if not leaves or not all(isinstance(leaf, mx.nd.NDArray) for leaf in leaves):
        raise GraphError(f"expected arrays, but {type(result).__name__} was returned; return NDArrays")
    graph = _casts(_read(leaves), run.seen)
    for op in graph.ops.keys() & _CLOSED.keys():
        raise GraphError(_CLOSED[op])
    run.check_mode(graph, symbolic=False)
    wanted = {_tape_name(array): name for name, array in given.items()}
    constants: dict[str, Any] = {}
    unnamed = set(graph.variables) - set(wanted)
    for array in run.seen.values():
        if not unnamed:
            break
        name = _tape_name(array)
        if name in unnamed:
            unnamed.remove(name)
            wanted[name] = f"hessmx_{tag}_{name}"
            constants[wanted[name]] = _nd(array).detach()
    if unnamed:
        raise GraphError(f"{len(unnamed)} array(s) made inside forward could not be recovered from the tape")
    return Recording(_renamed(graph, wanted), constants, result, run.looked or bool(constants))


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


def _casts(graph: Graph, seen: Mapping[int, Any]) -> Graph:
    """Copies as what they are: `astype` and `copyto` are `_copyto` on the tape, which knows no dtype.

    The dtype is that of the array that was written to.
    """
    if "_copyto" not in graph.ops:
        return graph
    dtypes = {}
    for array in seen.values():
        try:
            dtypes[mx.autograd.get_symbol(_nd(array)).name] = np.dtype(array.dtype).name
        except mx.base.MXNetError:  # not on the tape
            continue
    missing = [name for name in graph.ops["_copyto"] if name not in dtypes]
    if missing:
        raise GraphError(f"the dtype of {len(missing)} copied array(s) could not be recovered from the tape")
    nodes = tuple(
        Node("Cast", node.name, node.inputs, MappingProxyType({"dtype": dtypes[node.name]}))
        if node.op == "_copyto"
        else node
        for node in graph.nodes
    )
    return Graph(nodes, graph.heads)


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    nodes = tuple(Node(None, names[node.name], ()) if node.op is None else node for node in graph.nodes)
    return Graph(nodes, graph.heads)
