"""Which number of a sample is differentiated by the inputs: an entry of the net's output, or weights of all."""

from __future__ import annotations

from typing import Any, Callable, Sequence, Union

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.problem.net import Net

Output = Union[None, int, Sequence[int], np.ndarray, Callable[..., Any]]


def cotangent(net: Net, shape: tuple, output: Any) -> Any:
    """What the outputs (N, ...) of `shape` are weighted with: ones, an entry of each sample's, or weights."""
    if output is None:
        return mx.nd.ones(shape, ctx=net.context, dtype=net.dtype)
    index = (int(output),) if isinstance(output, (int, np.integer)) else output
    if isinstance(index, tuple) and all(isinstance(i, (int, np.integer)) for i in index):
        if len(index) != len(shape) - 1 or any(not -n <= i < n for i, n in zip(index, shape[1:])):
            raise InputError(f"output={output!r} is not an entry of one sample's output, which has shape {shape[1:]}")
        weights = np.zeros(shape[1:])
        weights[index] = 1
        return broadcast(net, weights, shape, "output")
    return broadcast(net, output, shape, "output")


def broadcast(net: Net, value: Any, shape: tuple, name: str) -> Any:
    """An NDArray of `shape` from a value of that shape or of one sample's."""
    host = np.asarray(value.asnumpy() if isinstance(value, mx.nd.NDArray) else value)
    if host.shape not in (shape, shape[1:]) or host.dtype.kind not in "fiub":
        expected = f"{shape} or, the same for all samples, {shape[1:]}"
        raise InputError(f"{name} must be real numbers of shape {expected}, not {host.shape}")
    if not np.isfinite(host).all():
        raise InputError(f"{name} holds NaN or infinite values")
    return mx.nd.array(np.broadcast_to(host, shape), ctx=net.context, dtype=net.dtype)
