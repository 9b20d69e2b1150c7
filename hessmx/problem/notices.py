"""What must be said of a net before numbers are given: operators that compute, or send back, something else.

hessmx answers for the numbers that the user's net computes. Where MXNet's own kernel computes another function than
the operator's, there is nothing to answer for; where the gradient that it sends back is that of another function,
training has followed another loss than the one whose curvature is asked for.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Iterable, Mapping

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import DataError, HessmxWarning
from hessmx.graph.node import Graph, Node, Shape, infer_shapes
from hessmx.graph.symbols import scope
from hessmx.graph.trace import names
from hessmx.rules import RULES

_TAKEN = "training followed that one, hessmx differentiates what is computed"
OTHER_GRADIENT: dict[str, str] = {  # operator -> what it does, and what hessmx does
    **dict.fromkeys(
        "SoftmaxOutput LinearRegressionOutput MAERegressionOutput LogisticRegressionOutput SVMOutput".split(),
        f"sends back the gradient of another function than it returns: {_TAKEN}",
    ),
    **dict.fromkeys(("MakeLoss", "make_loss"), f"sends back a constant gradient whatever follows: {_TAKEN}"),
    "IdentityAttachKLSparseReg": f"adds a penalty to the gradient and not to the loss: {_TAKEN}",
    "_contrib_gradientmultiplier": f"multiplies the gradient and not the loss: {_TAKEN}",
    "BlockGrad": "stops the gradient: its output counts as a constant, as in training; losses elsewhere see it move",
    **dict.fromkeys(
        ("_contrib_round_ste", "_contrib_sign_ste"),
        "sends back the gradient of the identity: products are differences of that, not of the loss",
    ),
}


def say_other_gradients(net: Graph, loss: Graph | None, moving: Iterable[str]) -> None:
    """One HessmxWarning that names the operators whose gradient in training is not the derivative of their value."""
    found = other_gradients(net, moving)
    if loss is not None:
        for op, places in other_gradients(loss, names("output", len(net.heads))).items():
            found[op] = (*found.get(op, ()), *places)
    if found:
        told = "; ".join(f"{op} at {', '.join(places)} {OTHER_GRADIENT[op]}" for op, places in found.items())
        warnings.warn(told, HessmxWarning, stacklevel=4)


def other_gradients(graph: Graph, moving: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Operator -> names of its nodes that a derivative goes through, from what moves to a head."""
    moving, reached, heads = set(moving), set(), {index for index, _ in graph.heads}
    matters = set(heads)
    for index in range(len(graph.nodes) - 1, -1, -1):
        if index in matters and not _is_flat(graph.nodes[index]):
            matters |= {i for i, _ in graph.nodes[index].inputs}
    found: dict[str, list[str]] = {}
    for index, node in enumerate(graph.nodes):
        if not (node.name in moving if node.op is None else any(i in reached for i, _ in node.inputs)):
            continue
        if not _is_flat(node):
            reached.add(index)
        if node.op in OTHER_GRADIENT and index in matters and not _harmless(node, index in heads):
            found.setdefault(node.op, []).append(node.name)
    return {op: tuple(places) for op, places in found.items()}


def _is_flat(node: Node) -> bool:
    """Whether the operator's derivative is zero: what it is made of does not matter."""
    rule = RULES.get(node.op or "")
    nothing = node.op in ("_mul_scalar", "_npi_multiply_scalar") and float(node.attrs["scalar"]) == 0
    return nothing or (rule is not None and rule.kind == "zero")


def _harmless(node: Node, last: bool) -> bool:
    """A MakeLoss at the very end that changes nothing, as the symbolic interface ends every loss."""
    attrs = node.attrs
    if node.op == "_contrib_gradientmultiplier":
        return float(attrs.get("scalar", 1)) == 1
    plain = float(attrs.get("grad_scale", 1)) == 1 and attrs.get("normalization", "null") == "null"
    return node.op in ("MakeLoss", "make_loss") and last and plain


def refuse_wrong_values(graph: Graph, shapes: Mapping[str, Shape], dtype: np.dtype) -> None:
    """DataError for transposed convolutions whose kernel computes something else in the net's dtype.

    MXNet's own one does, with stride and dilation above 1 on the same axis; oneDNN's, in float32, does not.
    """
    suspects = {i: node for i, node in enumerate(graph.nodes) if node.op == "Deconvolution" and _strides_apart(node)}
    if not suspects:
        return
    with scope():
        entries = infer_shapes(graph, shapes)
    for node in suspects.values():
        size, (kernel, stride, dilate) = entries[node.inputs[0]][2:], _geometry(node)
        dtype = np.dtype(np.float32 if dtype == np.float16 else dtype)  # in which hessmx computes: MXNet has no kernel
        if not _as_defined(str(dtype), tuple(size), kernel, stride, dilate):
            raise DataError(
                f"transposed convolution {node.name} with stride {stride} and dilation {dilate} computes something "
                f"else than one in {dtype}: a fault of MXNet's kernel. Use dilation 1 or stride 1"
                + ("" if dtype == np.float32 else ", or net.cast('float32')")
            )


def _geometry(node: Node) -> tuple[tuple, tuple, tuple]:
    kernel = tuple(node.attrs["kernel"])
    stride, dilate = (tuple(node.attrs.get(key) or (1,) * len(kernel)) for key in ("stride", "dilate"))
    return kernel, stride, dilate


def _strides_apart(node: Node) -> bool:
    return any(k > 1 and s > 1 and d > 1 for k, s, d in zip(*_geometry(node)))


@lru_cache(maxsize=256)
def _as_defined(dtype: str, size: Shape, kernel: Shape, stride: Shape, dilate: Shape) -> bool:
    """Whether MXNet's operator spreads small whole numbers as the definition says: exact in every dtype."""
    generator = np.random.default_rng(0)
    x, w = (generator.integers(1, 4, shape).astype(float) for shape in (size, kernel))
    true = np.zeros([(n - 1) * s + (k - 1) * d + 1 for n, k, s, d in zip(size, kernel, stride, dilate)])
    for place in np.ndindex(*kernel):
        cut = (slice(j * d, j * d + (n - 1) * s + 1, s) for j, d, n, s in zip(place, dilate, size, stride))
        true[tuple(cut)] += w[place] * x
    arrays = [mx.nd.array(a[None, None], dtype=dtype) for a in (x, w)]
    attrs = {"kernel": kernel, "stride": stride, "dilate": dilate, "num_filter": 1, "no_bias": True}
    return bool(np.array_equal(mx.nd.Deconvolution(*arrays, **attrs).asnumpy()[0, 0], true))
