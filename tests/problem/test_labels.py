"""Class numbers out of range are refused wherever the loss hides them, unless nothing depends on them."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import DataError

nn, CE = mx.gluon.nn, mx.gluon.loss.SoftmaxCrossEntropyLoss()
RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(10, 4)), np.arange(10) % 3


def dense():
    mx.random.seed(1)
    net = nn.Dense(3, in_units=4, dtype="float64")
    net.initialize(mx.init.Normal(0.5))
    return net


class Custom(mx.gluon.Block):
    def forward(self, z, y):
        if z.shape[0] < 0:
            return z
        return -mx.nd.log_softmax(z).pick(y.reshape((-1,)))


class Hybrid(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, z, y):
        return -F.pick(F.log_softmax(z), F.cast(F.expand_dims(y, 1), "int32"), keepdims=True)


LOSSES = {
    "Gluon": CE,
    "lambda": lambda z, y: CE(z, y),
    "pick": lambda z, y: -z.log_softmax().pick(y),
    "Block": Custom(),
    "HybridBlock": Hybrid(),
    "one of two terms": lambda z, y: CE(z, y) + z.square().mean(axis=1),
}


@pytest.mark.parametrize("labels", [Y + 1, Y - 1, Y + 0.5, Y + 2.0**33], ids=["from 1", "negative", "halves", "2^33"])
@pytest.mark.parametrize("name", LOSSES)
def test_labels_that_are_no_classes(name, labels):
    with pytest.raises(DataError, match=r"class numbers 0 to 2 for 3 outputs, but batch 0 holds .* from 0") as caught:
        Curvature(dense(), LOSSES[name], (X, labels)).hvp(np.ones(15))
    assert "\n" not in str(caught.value)
    assert Curvature(dense(), LOSSES[name], (X, Y)).loss() > 0


def test_labels_of_a_later_batch():
    later = np.where(np.arange(10) == 9, 3, Y)
    with pytest.raises(DataError, match="batch 1 holds 3"):
        Curvature(dense(), lambda z, y: CE(z, y), [(X[:5], Y[:5]), (X[5:], later[5:])]).loss()


def test_padding_that_is_weighted_with_zero_may_be_anything():
    mask = (np.arange(10) < 6).astype(float).reshape(10, 1)
    padded = np.where(mask[:, 0] > 0, Y, -1)
    curv = Curvature(dense(), lambda z, y: CE(z, y[0], y[1]), [(X, [padded, mask])])
    z = X @ dense().weight.data().asnumpy().T
    log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
    assert curv.loss() == pytest.approx(-log_p[np.arange(6), Y[:6]].sum() / 10, rel=1e-10)
    with pytest.raises(DataError, match="batch 0 holds -1"):
        Curvature(dense(), lambda z, y: CE(z, y[0], y[1]), [(X, [padded, 1 - mask])]).loss()


def test_regression_has_no_classes():
    assert Curvature(dense(), mx.gluon.loss.L2Loss(), (X, RNG.normal(size=(10, 3)) * 100)).loss() > 0
