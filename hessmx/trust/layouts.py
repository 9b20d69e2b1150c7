"""One node in float32 as the engine runs it: values of inputs and outputs are constants, in either layout of memory.

oneDNN keeps arrays of 8, 16 .. channels in blocks where a Convolution made them, and operators that are not its own
have gone wrong on those. Compared are the tangent, and what its backward pass owes to each value, with float64.
"""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.tangents import push_node
from hessmx.graph.node import Graph, Node
from hessmx.graph.site import ZERO, Site, Zero
from hessmx.graph.symbols import _handle, scope

Arrays = Sequence[np.ndarray]


def alone(graph: Graph) -> Node | None:
    """The one operator of a lowered graph; None where lowering made several of it."""
    nodes = [node for node in graph.nodes if node.op is not None]
    return nodes[0] if len(nodes) == 1 and all(graph.nodes[i].op is None for i, _ in nodes[0].inputs) else None


def local_pass(
    node: Node, inputs: Arrays, moving: Sequence[int], t: Arrays, c: Arrays, train: bool, dtype: Any, blocked: bool
) -> list[np.ndarray]:
    """Tangents of the outputs, and the gradient of <c, tangents> by the values that they read; by name of the value."""
    xs = [as_array(x, dtype) for x in inputs]
    given = {f"x{i}": x for i, x in enumerate(xs)}
    given.update({f"y{j}": y for j, y in enumerate(invoke(node, xs, train))})
    given.update({f"t{i}": as_array(d, dtype) for i, d in zip(moving, t)})
    outputs = sum(name[0] == "y" for name in given)
    with scope():
        variables = {name: mx.sym.Variable(name, shape=tuple(a.shape)) for name, a in given.items()}
        if blocked and dtype == np.float32:
            variables = {name: _in_blocks(symbol, name, given) for name, symbol in variables.items()}
        heads: list[Any] = []
        for u, cotangent, j in zip(_tangents(node, variables, len(xs), outputs, given), c, range(len(c))):
            if not isinstance(u, Zero):
                given[f"c{j}"] = as_array(cotangent, dtype)
                weight = mx.sym.Variable(f"c{j}", shape=cotangent.shape)
                heads += [mx.sym.elemwise_mul(weight, u), mx.sym.BlockGrad(u)]
        return _run(heads, given) if heads else []


def _tangents(node: Node, variables: dict[str, Any], inputs: int, outputs: int, given: dict[str, Any]) -> Sequence[Any]:
    xs, ys = ([variables[f"{kind}{i}"] for i in range(count)] for kind, count in (("x", inputs), ("y", outputs)))
    ts = [variables.get(f"t{i}", ZERO) for i in range(inputs)]
    x_shapes = [tuple(given[f"x{i}"].shape) for i in range(inputs)]
    y_shapes = [tuple(given[f"y{j}"].shape) for j in range(outputs)]
    return push_node(node, Site(node, xs, ys, ts, x_shapes, y_shapes))


def _run(heads: list[Any], given: dict[str, Any]) -> list[np.ndarray]:
    symbol = mx.sym.Group(heads)
    names = symbol.list_arguments()
    wanted = [name for name in names if name[0] in "xy" and np.dtype(given[name].dtype).kind == "f"]
    executor = symbol.bind(
        mx.cpu(),
        {name: given[name] for name in names},
        args_grad={name: mx.nd.zeros(given[name].shape, dtype=given[name].dtype) for name in wanted},
        grad_req={name: "write" if name in wanted else "null" for name in names},
        aux_states={name: given[name] for name in symbol.list_auxiliary_states()},
    )
    tangents = [u.asnumpy().astype(np.float64) for u in executor.forward(is_train=True)[1::2]]
    executor.backward([mx.nd.ones_like(y) for y in executor.outputs])
    return tangents + [executor.grad_dict[name].asnumpy().astype(np.float64) for name in sorted(wanted)]


def invoke(node: Node, xs: Sequence[Any], train: bool) -> list[Any]:
    """The operator on arrays, imperatively: all its outputs."""
    keys, texts = list(node.raw), list(node.raw.values())
    with mx.autograd._RecordingStateScope(False, train):
        ys = mx._ctypes.ndarray._imperative_invoke(_handle(str(node.op)), list(xs), keys, texts, None, False, True)
    return list(ys) if isinstance(ys, (list, tuple)) else [ys]


def as_array(value: np.ndarray, dtype: Any) -> Any:
    """An NDArray; floating values in `dtype`."""
    value = value.astype(dtype) if value.dtype.kind == "f" else value
    if not value.ndim:
        return mx.np.array(value, dtype=value.dtype).as_nd_ndarray()
    return mx.nd.array(value, dtype=value.dtype)


def can_be_blocked(shape: tuple) -> bool:
    return 3 <= len(shape) <= 5 and shape[1] % 8 == 0 and shape[1] > 0


def _in_blocks(symbol: Any, name: str, given: dict[str, Any]) -> Any:
    """The same values as a 1 x 1 Convolution leaves them."""
    shape = tuple(given[name].shape)
    if not can_be_blocked(shape) or given[name].dtype != np.float32:
        return symbol
    channels, ones = shape[1], (1,) * (len(shape) - 2)
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, *ones)
    given[f"eye_{name}"] = mx.nd.array(eye)
    weight = mx.sym.Variable(f"eye_{name}", shape=eye.shape)
    return mx.sym.Convolution(symbol, weight, kernel=ones, num_filter=channels, no_bias=True)
