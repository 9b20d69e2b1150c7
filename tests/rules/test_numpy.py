"""Nets written with mx.np and mx.npx after npx.set_np(): traced, and with the right Hessian products."""

from __future__ import annotations

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.graph.stacks import stacked_shape

np_, npx = mx.np, mx.npx
RNG = np.random.default_rng(11)
N, D = 6, 4
DATA = RNG.standard_normal((N, D))
TARGET = RNG.standard_normal((N, 3))


@pytest.fixture(autouse=True)
def _numpy_semantics():
    with mx.util.np_shape(True), mx.util.np_array(True):
        yield


class Written(mx.gluon.HybridBlock):
    """Two weights, and a function of F.np operators between them."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        with self.name_scope():
            self.w = self.params.get("w", shape=(D, 3), dtype="float64")
            self.b = self.params.get("b", shape=(3,), dtype="float64")

    def hybrid_forward(self, F, x, w, b):
        return self.function(F, x, w, b)


def _attention(F, x, w, b):
    h = F.np.dot(x, w)
    scores = F.npx.softmax(F.np.matmul(h, F.np.transpose(h)), axis=-1)
    return F.np.matmul(scores, h) + b


def _standardised(F, x, w, b):
    h = F.np.dot(x, w) + b
    mean = F.np.mean(h, axis=1, keepdims=True)
    return (h - mean) / F.np.sqrt(F.np.var(h, axis=1, keepdims=True) + 1e-2)


FUNCTIONS = {
    "dense and tanh": lambda F, x, w, b: F.np.tanh(F.np.dot(x, w) + b),
    "scalar arithmetic": lambda F, x, w, b: 1.5 / (2.0 + F.np.exp(-F.np.dot(x, w))) ** 2 + 0.5 * b - 1,
    "einsum": lambda F, x, w, b: F.np.einsum("nd,dk,k->nk", x, w, F.np.sin(b)),
    "tensordot": lambda F, x, w, b: F.np.tensordot(x, F.np.square(w), axes=([1], [0])) * b,
    "attention": _attention,
    "standardised by its own variance": _standardised,
    "where, with a number": lambda F, x, w, b: F.np.where(F.np.dot(x, w) > 0, F.np.exp(F.np.dot(x, w)), 0.3) * b,
    "sums to a scalar": lambda F, x, w, b: F.np.dot(x, w) * F.np.sum(F.np.square(w)) + F.np.log(F.np.sum(b * b) + 1),
    "joined and split": lambda F, x, w, b: (
        F.np.concatenate(
            F.np.split(F.np.arctan2(F.np.dot(x, w), 1 + F.np.square(F.np.dot(x, w))), 3, axis=1)[::-1], axis=1
        )
        + b
    ),
    "maximum and power": lambda F, x, w, b: F.np.maximum(F.np.dot(x, w), 0.1) ** 1.7 + F.np.power(2 + F.np.cos(b), 3.0),
    "stacks": lambda F, x, w, b: (
        F.np.hstack([F.np.dot(F.np.vstack([x, x]), w)[:6], F.np.dot(x, w)])[:, 1:4] * F.np.dstack([b, b])[0, :, 1]
        + F.np.column_stack([F.np.sin(b), b])[:, 0]
    ),
    "npx": lambda F, x, w, b: F.npx.relu(F.npx.sigmoid(F.np.dot(x, w)) - 0.4) + F.npx.gamma(2 + F.np.square(b)),
}


def _net(function, hybrid: bool):
    net = Written(function)
    net.initialize(mx.init.Zero())
    rng = np.random.default_rng(4)
    net.w.set_data(np_.array(rng.standard_normal((D, 3)), dtype="float64"))
    net.b.set_data(np_.array(rng.uniform(0.5, 1.5, 3), dtype="float64"))
    if hybrid:
        net.hybridize()
    return net


def _loss(output, label):
    return ((output - label) ** 2).sum(axis=1)


def _differences(net, v: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Second differences of the loss itself: MXNet's own first gradient of np.var and np.where is wrong."""
    flat = np.concatenate([p.data().asnumpy().ravel() for p in (net.w, net.b)])

    def loss(point: np.ndarray) -> float:
        net.w.set_data(np_.array(point[: D * 3].reshape(D, 3), dtype="float64"))
        net.b.set_data(np_.array(point[D * 3 :], dtype="float64"))
        output = net(np_.array(DATA, dtype="float64")).asnumpy()
        return float(((output - TARGET) ** 2).sum(axis=1).mean())

    unit = np.eye(flat.size) * step
    product = [
        (loss(flat + e + step * v) - loss(flat + e - step * v) - loss(flat - e + step * v) + loss(flat - e - step * v))
        / (4 * step**2)
        for e in unit
    ]
    loss(flat)
    return np.array(product)


@pytest.mark.parametrize("hybrid", [False, True], ids=["block", "hybridized"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_product_against_second_differences(name, hybrid):
    net = _net(FUNCTIONS[name], hybrid)
    curv = hessmx.Curvature(net, _loss, (DATA, TARGET), engine="reverse-over-forward")
    assert [n.rsplit("_", 1)[-1] for n in curv.param_names] == ["w", "b"]
    v = np.random.default_rng(5).standard_normal(curv.num_params)
    v /= np.abs(v).max()
    true = _differences(net, v)
    assert np.abs(curv.hvp(v) - true).max() / np.abs(true).max() < 1e-5


SHAPES = [[(), ()], [(2, 3), (2, 3)], [(2, 3, 2), (2, 3, 2)], [(3,), (3,)]]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["hstack", "dstack", "column_stack"])
def test_stacked_shapes_are_numpys(name, shapes):
    assert stacked_shape(f"_npi_{name}", shapes) == getattr(np, name)([np.zeros(shape) for shape in shapes]).shape


def test_pieces_of_different_lengths_are_joined():
    assert stacked_shape("_npi_hstack", [(2,), (3,)]) == (5,)
    assert stacked_shape("_npi_column_stack", [(3,), (3, 2)]) == (3, 3)
