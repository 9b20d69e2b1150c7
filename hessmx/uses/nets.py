"""A net at other parameters, the parameters of another net, and a copy that MXNet's tools may work on.

The only place where the uses reach behind the facade for the user's net.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import EngineError, InputError, ParameterError
from hessmx.graph.symbols import scope
from hessmx.graph.trace import flatten, trace_net

Metric = Callable[[Any], float]


@contextmanager
def elsewhere(curv: Any) -> Iterator[Callable[[np.ndarray], None]]:
    """Within, `curv` and its net are at the parameters (P,) that the yielded function was last called with.

    They compute with copies; the user's arrays are not written, and are back whatever happens.
    """
    net = curv._net
    with net.lent() as arrays:

        def move(w: np.ndarray) -> None:
            for name in net.names:
                arrays[name][:] = mx.nd.array(w[net.slices[name]].reshape(net.shapes[name]), dtype=net.dtypes[name])

        yield move


def measured_at(curv: Any, points: Sequence[np.ndarray], metric: Metric | None) -> np.ndarray:
    """metric(net) with the net at each of the points (P,); NaN where there is no metric."""
    if metric is None:
        return np.full(len(points), np.nan)
    found = []
    with elsewhere(curv) as move:
        for w in points:
            move(w)
            found.append(float(metric(curv._net.block)))
    return np.array(found)


def accuracy(x: Any, y: Any) -> Metric:
    """A metric: share of samples whose largest output is the one named by y."""
    labels = y.asnumpy() if isinstance(y, mx.nd.NDArray) else np.asarray(y)

    def share(net: Any) -> float:
        dtype = next(iter(net.collect_params().values())).dtype
        inputs = [a if isinstance(a, mx.nd.NDArray) else mx.nd.array(a, dtype=dtype) for a in flatten(x)]
        return float(np.mean(net(*inputs).asnumpy().argmax(axis=1) == labels))

    return share


def weights(curv: Any) -> tuple[str, ...]:
    """Parameters that are weights: more than one dimension (as in L2Penalty); the others are biases, scales, shifts."""
    chosen = tuple(name for name in curv.param_names if len(curv.param_shapes[name]) > 1)
    if not chosen:
        raise ParameterError(f"none of the parameters {', '.join(curv.param_names[:8])} has more than one dimension: "
                             "there is no weight to compress")
    return chosen


def vector_of(curv: Any, other: Any, name: str = "other") -> np.ndarray:
    """Parameters (P,) of another net of the same architecture: a vector, a Gluon Block, or another Curvature.

    Parameters are matched by name where all names agree, otherwise by their order and shapes.
    """
    if hasattr(other, "parameters") and hasattr(other, "param_names"):
        other = other.parameters()
    if isinstance(other, mx.gluon.Block):
        return _read(curv, dict(other.collect_params().items()), name)
    w = np.asarray(other)
    if w.shape != (curv.num_params,) or w.dtype.kind not in "fiu":
        raise InputError(f"{name} must be a net like the first one or its parameters ({curv.num_params},), "
                         f"not {type(other).__name__} of shape {w.shape}")
    if not np.isfinite(w).all():
        raise InputError(f"{name} holds NaN or infinite values")
    return w.astype(np.float64)


def _read(curv: Any, parameters: dict[str, Any], name: str) -> np.ndarray:
    own = curv._net.all
    if set(own) != set(parameters):
        parameters = dict(zip(own, parameters.values())) if len(own) == len(parameters) else {}
    shapes = {n: tuple(p.shape or ()) for n, p in parameters.items()}
    wrong = [f"{n} is {shapes.get(n, 'missing')} and not {shape}" for n, shape in curv.param_shapes.items()
             if shapes.get(n) != shape]
    if wrong:
        raise InputError(f"{name} must be a net of the same architecture, but {wrong[0]}"
                         + (f" and {len(wrong) - 1} more differ" if wrong[1:] else ""))
    values = [parameters[n].data().asnumpy().ravel() for n in curv.param_names]
    return vector_of(curv, np.concatenate(values), name)


def copy_of(curv: Any, at: np.ndarray | None = None) -> Any:
    """The net as a SymbolBlock with parameters of its own, at `at` (P,) or where it is; inputs hessmx_data0, ...

    EngineError for a net that only runs (Python control flow): it has no Symbol.
    """
    net = curv._net
    batch = next(iter(curv._batches))
    with net.lent() as arrays:
        piece = trace_net(net.block, [x.copy() for x in batch.inputs], arrays)
        values = {name: array.copy() for name, array in arrays.items()}
    if piece.taped:
        raise EngineError("this net has no Symbol, which export() and quantize_net() need: write it as a HybridBlock "
                          "without Python control flow")
    with scope(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the precision is taken from the parameters below, not inferred
        symbol = mx.sym.Group([leaf.as_nd_ndarray() if hasattr(leaf, "as_nd_ndarray") else leaf
                               for leaf in flatten(piece.result)])
        inputs = [v for v in symbol.list_arguments() if v not in net.all]
        block = mx.gluon.SymbolBlock(symbol, [mx.sym.var(v) for v in inputs])
    for name, parameter in block.collect_params().items():
        value = values[name]
        if at is not None and name in net.slices:
            value = mx.nd.array(at[net.slices[name]].reshape(value.shape), dtype=value.dtype)
        parameter.shape, parameter.dtype = value.shape, value.dtype
        parameter.initialize(mx.init.Zero(), net.context)  # the default initialiser would draw random numbers
        parameter.set_data(value)
    return block
