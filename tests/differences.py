"""Hessian-vector products of any Gluon net by differences of MXNet's own imperative gradients, in float64."""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from hessmx._mxnet import mx

STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))  # central differences of order six


def autograd_gradient(net: Any, loss: Callable, inputs: Sequence[Any], label: Any, names: Sequence[str]) -> np.ndarray:
    """Gradient (P,) of the mean loss, off autograd's tape."""
    parameters = [net.collect_params()[name] for name in names]
    with mx.autograd.record(train_mode=False):
        losses = loss(net(*inputs), label)
    losses.backward(train_mode=False)
    return np.concatenate([p.grad().tostype("default").asnumpy().ravel() for p in parameters]) / losses.shape[0]


def move(net: Any, names: Sequence[str], w: np.ndarray) -> None:
    position = 0
    for name in names:
        parameter = net.collect_params()[name]
        size = int(np.prod(parameter.shape))
        parameter.set_data(mx.nd.array(w[position : position + size].reshape(parameter.shape), dtype="float64"))
        position += size


def directional(gradient: Callable[[np.ndarray], np.ndarray], w: np.ndarray, v: np.ndarray, step: float) -> np.ndarray:
    """Derivative of `gradient` at w along v."""
    unit = step * v / np.linalg.norm(v)
    terms = [k * (gradient(w + j * unit) - gradient(w - j * unit)) for j, k in STENCIL]
    return np.sum(terms, axis=0) / step * np.linalg.norm(v)


def product(net: Any, loss: Callable, data: Any, names: Sequence[str], v: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """H v (P,) of the mean loss in predict mode; the net is moved and put back."""
    *inputs, label = (mx.nd.array(a, dtype="float64") for a in data)
    w = np.concatenate([net.collect_params()[name].data().asnumpy().ravel() for name in names])

    def gradient(at: np.ndarray) -> np.ndarray:
        move(net, names, at)
        return autograd_gradient(net, loss, inputs, label, names)

    try:
        return directional(gradient, w, v, step)
    finally:
        move(net, names, w)
