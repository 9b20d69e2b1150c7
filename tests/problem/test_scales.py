"""Scales of a loss tensor against MXNet's own gradients of its sum and means."""

from __future__ import annotations

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError

REDUCE = {"sum": lambda t: t.sum(), "mean": lambda t: t.sum(axis=1).mean(), "entries": lambda t: t.mean()}


def gradient(scale: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    x, y, w = (mx.nd.array(rng.normal(size=s), dtype="float64") for s in ((6, 4), (6, 3), (3, 4)))
    w.attach_grad()
    with mx.autograd.record():
        loss = REDUCE[scale](mx.nd.square(mx.nd.FullyConnected(x, w, num_hidden=3, no_bias=True) - y))
    loss.backward()
    return w.grad.asnumpy()


@pytest.mark.parametrize("of", REDUCE)
@pytest.mark.parametrize("over", REDUCE)
def test_factors_and_rates(of, over):
    scale = hessmx.loss_scale(mx.nd.zeros((6, 3)))
    assert np.allclose(gradient(of), scale.factor(of, over) * gradient(over), rtol=1e-12)
    rate = scale.learning_rate(0.1, used_with=of, for_scale=over)
    assert np.allclose(0.1 * gradient(of), rate * gradient(over), rtol=1e-12)


def test_of_a_curvature():
    net = mx.gluon.nn.Dense(3, in_units=4)
    net.initialize()
    data = np.ones((11, 4)), np.ones((11, 3))
    curv = hessmx.Curvature(net, mx.gluon.loss.L2Loss(), data, batch_size=4)
    assert (curv.scale().samples, curv.scale().entries) == (11, 1)
    tensor = hessmx.Curvature(net, lambda z, y: mx.nd.square(z - y), data, batch_size=4)
    assert (tensor.scale().samples, tensor.scale().entries) == (11, 3)


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda: hessmx.loss_scale(()), DataError, "first axis"),
        (lambda: hessmx.loss_scale((0, 3)), DataError, "at least one sample"),
        (lambda: hessmx.loss_scale((2,)).factor("sums", "mean"), InputError, "did you mean 'sum'"),
        (lambda: hessmx.loss_scale((2,)).learning_rate(-1, "sum", "mean"), InputError, "above 0"),
    ],
)
def test_bad_input(ask, error, text):
    with pytest.raises(error, match=text):
        ask()
