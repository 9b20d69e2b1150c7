"""The checker believes right products and must not believe wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.curvature import Curvature
from hessmx.errors import InputError
from hessmx.graph.lower import LOWERINGS
from hessmx.trust.check import check

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(50, 6)), RNG.integers(0, 3, 50)


def curvature(activation="tanh", dtype="float64", engine="auto"):
    mx.random.seed(1)
    net = dense_net((6, 8, 3), activation, dtype=dtype)
    net.initialize(mx.init.Xavier())
    return Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), engine=engine, weight_decay=0.01)


NETS = [
    # activation, dtype, engine, how close the products come
    ("tanh", "float64", "auto", 1e-8),
    ("tanh", "float32", "auto", 1e-5),
    ("relu", "float64", "auto", 1e-8),
    ("maxout", "float64", "auto", 1e-8),
    ("maxout", "float32", "auto", 1e-5),
    ("tanh", "float64", "double-backward", 1e-8),
    ("tanh", "float32", "finite-difference", 1e-5),
]


@pytest.mark.smoke
@pytest.mark.parametrize("activation, dtype, engine, close", NETS)
def test_right_products_are_trusted(activation, dtype, engine, close):
    found = check(curvature(activation, dtype, engine))
    assert found.trusted, found.verdict
    assert max(found.difference, found.asymmetry) < close
    assert found.reference == "float64"
    assert "\n" not in found.verdict


def scaled(curv):
    return lambda v: 1.01 * type(curv).hvp(curv, v)


def skewed(curv):
    def product(v):
        return type(curv).hvp(curv, v) + 0.1 * np.roll(v, 1)

    return product


def noisy(curv):
    generator = np.random.default_rng(0)
    return lambda v: type(curv).hvp(curv, v) * generator.normal(1, 0.01)


def nothing(curv):
    return lambda v: np.zeros_like(v)


def not_a_number(curv):
    return lambda v: v * np.nan


WRONG = [(scaled, "rule is wrong"), (skewed, "not symmetric"), (noisy, "random"), (nothing, "rule is wrong"),
         (not_a_number, "random")]


@pytest.mark.parametrize("spoil, said", WRONG)
def test_wrong_products_are_not_trusted(monkeypatch, spoil, said):
    curv = curvature()
    monkeypatch.setattr(curv, "hvp", spoil(curv), raising=False)
    found = check(curv)
    assert not found.trusted
    assert "can NOT be trusted" in found.verdict
    assert said in found.verdict


def test_the_net_is_left_as_it_was():
    curv = curvature()
    before = curv.parameters().copy()
    check(curv)
    assert np.array_equal(curv.parameters(), before)


def test_too_few_vectors():
    with pytest.raises(InputError, match="vectors"):
        check(curvature(), vectors=1)


# -- values of the user's own net have the last word

NINE = [(i + 1) / 10 for i in range(9)]


def quantiles(o, y):
    """Nine smooth quantiles and a mean: the outputs have ten readers, of which MXNet's mean overwrites gradients."""
    parts = [(y[:, 0] - o[:, i]) * (q - 1) + mx.nd.log(1 + mx.nd.exp(4 * (y[:, 0] - o[:, i]))) / 4
             for i, q in enumerate(NINE)]
    return mx.nd.square(o.mean(axis=1) - y[:, 0]) + sum(parts)


def student(o, y):
    """Student's t with a learnt number of degrees of freedom: gammaln's gradient is float32 in MXNet."""
    nu = mx.nd.exp(o[:, 1]) + 2
    wide = mx.nd.log(1 + mx.nd.square(y[:, 0] - o[:, 0]) / nu) * (nu + 1) / 2
    return wide - mx.nd.gammaln((nu + 1) / 2) + mx.nd.gammaln(nu / 2) + mx.nd.log(nu) / 2


def negative_binomial(o, y):
    r, p = mx.nd.exp(o[:, 0]), mx.nd.sigmoid(o[:, 1])
    k = mx.nd.abs(mx.nd.round(y[:, 0] * 3))
    return mx.nd.gammaln(r) - mx.nd.gammaln(k + r) - r * mx.nd.log(1 - p) - k * mx.nd.log(p)


def of_loss(loss, units, dtype):
    mx.random.seed(0)
    net = dense_net((6, 5, units), "tanh", dtype=dtype)
    net.initialize(mx.init.Normal(0.7))
    return Curvature(net, loss, (X[:20], RNG.normal(size=(20, 1))))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("loss, units", [(quantiles, 9), (student, 2), (negative_binomial, 2)])
def test_losses_that_mxnet_gets_wrong_are_trusted(loss, units, dtype):
    found = check(of_loss(loss, units, dtype))
    assert found.trusted, found.verdict
    assert found.bend < found.tolerance and found.slope < found.tolerance
    if loss is student:
        assert found.gradient_bend > found.tolerance and "MXNet's own gradient say otherwise" in found.verdict


def test_another_function_is_not_trusted(monkeypatch):
    """What differences of gradients of the same graph could not see."""
    for op in ("tanh", "Activation"):
        monkeypatch.setitem(LOWERINGS, op, lambda s, _: [mx.sym.sin(s.x)])
    found = check(curvature())
    assert not found.trusted and "not that of the net as it runs" in found.verdict
    assert found.value > 1e-5 and found.slope > 1e-4


def test_a_gradient_that_is_not_the_slope_is_not_trusted(monkeypatch):
    curv = curvature()
    monkeypatch.setattr(curv, "gradient", lambda *a, **k: 1.01 * type(curv).gradient(curv, *a, **k))
    found = check(curv)
    assert not found.trusted and "gradient is not the derivative" in found.verdict
    assert found.slope == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize("mode", ["predict", "train"])
def test_values_of_nets_with_statistics_masks_and_averaged_losses(mode):
    """Masks cannot be drawn again by the net itself: then there are no values to compare with."""
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(5, activation="sigmoid"), mx.gluon.nn.BatchNorm(), mx.gluon.nn.Dropout(0.5))
    net.add(mx.gluon.nn.Dense(1))
    net.initialize(mx.init.Normal(1))
    counts = np.abs(np.round(X[:, :1] * 2))
    net(mx.nd.array(X))
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    loss = mx.gluon.loss.PoissonNLLLoss()
    found = check(Curvature(net, loss, (X, counts), mode=mode, batch_size=25, weight_decay=0.1))
    assert found.trusted, found.verdict
    assert np.isnan(found.value) == (mode == "train")
    assert all(np.array_equal(p.data().asnumpy(), before[name]) for name, p in net.collect_params().items())
