"""Operators rewritten into the few whose second derivatives by `create_graph` MXNet has right (tested one by one).

Values are carried as (1, N, k) arrays, since batch_dot is right and FullyConnected, dot and Reshape are not:
(N, k) -> (1, N, k), (k,) -> (1, 1, k). Which operators may be used is decided here, never by trying: an unsupported
double backward can corrupt the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.node import Node, Shape

UNARY = "negative exp expm1 log sqrt cbrt square tanh sigmoid sin cos sinh cosh arctan relu _copy".split()
# These find f' in their second derivative as (c f') / c with the cotangent c: NaN where c is 0, behind dead units.
# A copy of each of their values becomes a head, with a cotangent that is nothing beside any other and not 0.
# (A copy: of one array that is a head twice, MXNet keeps the last cotangent only.)
DIVIDE = frozenset("expm1 sqrt cbrt square tanh sigmoid".split())
_ALMOST_ZERO = {4: 1e-20, 8: 1e-100}  # by the size of the dtype
SECOND_ORDER = frozenset([*UNARY, "batch_dot", "elemwise_add", "add_n", "transpose", "_plus_scalar"])


def apply(op: str, *arrays: Any, **attrs: Any) -> Any:
    """An operator on the tape; only those of SECOND_ORDER."""
    assert op in SECOND_ORDER, op
    return getattr(mx.nd._internal if op.startswith("_") else mx.nd, op)(*arrays, **attrs)


def guard(value: Any) -> tuple[Any, Any]:
    """A head and its cotangent for a value of one of DIVIDE."""
    small = _ALMOST_ZERO[np.dtype(value.dtype).itemsize]
    return apply("_copy", value), mx.nd.full(value.shape, small, ctx=value.context, dtype=value.dtype)


def lifted_shape(shape: Shape) -> Shape:
    return (1, *(1,) * (2 - len(shape)), *shape)


def lift(array: Any) -> Any:
    """(N, k) -> (1, N, k), (k,) -> (1, 1, k): off the tape, for constants and parameters."""
    return array.reshape(lifted_shape(array.shape))


@dataclass(frozen=True)
class Place:
    """One node with its lifted inputs and the shapes before lifting."""

    node: Node
    xs: Sequence[Any]
    x_shapes: Sequence[Shape]
    y_shape: Shape

    @property
    def x(self) -> Any:
        return self.xs[0]

    def attr(self, name: str, default: Any = None) -> Any:
        return self.node.attrs.get(name, default)


def _ones(like: Any, *shape: int) -> Any:
    return mx.nd.ones(shape, ctx=like.context, dtype=like.dtype)


def _spread(value: Any, rows: int) -> Any:
    """(1, 1, k) -> (1, rows, k)."""
    return value if value.shape[1] == rows else apply("batch_dot", _ones(value, 1, rows, 1), value)


def _scaled(value: Any, factor: float) -> Any:
    """A product with the smaller of two diagonal matrices: elemwise and scalar products raise in double backward."""
    _, rows, columns = value.shape
    diagonal = factor * mx.nd.eye(min(rows, columns), ctx=value.context, dtype=value.dtype).expand_dims(0)
    return apply("batch_dot", *((value, diagonal) if columns <= rows else (diagonal, value)))


def _unary(op: str, p: Place) -> Any:
    return apply(op, p.x)


def _add(p: Place) -> Any:
    rows = p.y_shape[0] if len(p.y_shape) == 2 else 1
    return apply("elemwise_add", *(_spread(x, rows) for x in p.xs))


def _sub(p: Place) -> Any:
    return _add(Place(p.node, (p.xs[0], apply("negative", p.xs[1])), p.x_shapes, p.y_shape))


def _abs(p: Place) -> Any:
    """relu(x) + relu(-x): MXNet's second derivative of abs divides by the cotangent, which may be zero."""
    return apply("elemwise_add", apply("relu", p.x), apply("relu", apply("negative", p.x)))


def _fully_connected(p: Place) -> Any:
    y = apply("batch_dot", p.xs[0], p.xs[1], transpose_b=True)
    return y if p.attr("no_bias", False) else apply("elemwise_add", y, _spread(p.xs[2], y.shape[1]))


def _dot(p: Place) -> Any:
    flags = {key: p.attr(key, False) for key in ("transpose_a", "transpose_b")}
    return apply("batch_dot", *p.xs, **flags)


def log_sum_exp(z: Any) -> Any:
    """(1, N, k) -> (1, N, 1), up to a constant: the rows are shifted by their maxima, off the tape."""
    shift = -mx.nd.max(z.detach(), axis=2, keepdims=True)
    shifted = apply("elemwise_add", z, mx.nd.broadcast_like(shift, z.detach()))
    return apply("log", apply("batch_dot", apply("exp", shifted), _ones(z, 1, z.shape[2], 1)))


LIFTS: dict[str, Callable[[Place], Any]] = {
    **{op: partial(_unary, op) for op in UNARY},
    "abs": _abs,
    "Activation": lambda p: apply(p.attr("act_type"), p.x),
    "Flatten": lambda p: p.x,
    "FullyConnected": _fully_connected,
    "dot": _dot,
    "add_n": lambda p: apply("add_n", *p.xs),
    "_plus_scalar": lambda p: apply("_plus_scalar", p.x, scalar=p.attr("scalar")),
    "_minus_scalar": lambda p: apply("_plus_scalar", p.x, scalar=-p.attr("scalar")),
    "_rminus_scalar": lambda p: apply("_plus_scalar", apply("negative", p.x), scalar=p.attr("scalar")),
    "_mul_scalar": lambda p: _scaled(p.x, p.attr("scalar")),
    "_div_scalar": lambda p: _scaled(p.x, 1 / p.attr("scalar")),
    **dict.fromkeys(("elemwise_add", "broadcast_add"), _add),
    **dict.fromkeys(("elemwise_sub", "broadcast_sub"), _sub),
}


def refusal(node: Node, x_shapes: Sequence[Shape], y_shape: Shape) -> str | None:
    """Why a node cannot be lifted; None if it can."""
    if node.op not in LIFTS:
        return "MXNet's double backward of it raises, crashes or is wrong"
    if node.op == "Activation" and node.attrs["act_type"] not in SECOND_ORDER:
        return f"MXNet's double backward of {node.attrs['act_type']} raises"
    if any(len(shape) not in (1, 2) for shape in (*x_shapes, y_shape)):
        return f"arrays of shapes {[*x_shapes, y_shape]}, only (N, k) can be handled"
    if node.op == "dot" and any(len(shape) != 2 for shape in x_shapes):
        return "of a vector"
    if node.op in ("broadcast_add", "broadcast_sub") and any(shape[-1] != y_shape[-1] for shape in x_shapes):
        return "broadcast along the last axis"
    return None
