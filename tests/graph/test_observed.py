"""Nets that branch on `autograd.is_training()`: both tracers take the branch of the mode; nothing is drawn for it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import EngineError, HessmxWarning

nn, autograd, L2 = mx.gluon.nn, mx.autograd, mx.gluon.loss.L2Loss()
RNG = np.random.default_rng(2)
X, Y = RNG.normal(size=(6, 3)), RNG.normal(size=(6, 2))


class Branches(nn.HybridBlock):
    """Another function when training; `taped`: one that no Symbol can pass through."""

    def __init__(self, taped, *layers):
        super().__init__()
        self.taped = taped
        with self.name_scope():
            self.dense = nn.Dense(2, in_units=3, dtype="float64")
            self.rest = nn.HybridSequential()
            self.rest.add(*layers)
        mx.random.seed(1)
        self.initialize(mx.init.Normal(0.7))
        self.cast("float64")

    def forward(self, x):
        if self.taped and float(x.sum().asscalar()) > 1e9:
            return x
        z = self.rest(self.dense(x)).tanh()
        return 3 * z if autograd.is_training() else z


def loss_of(z, y):
    return L2(z, y) * (2 if autograd.is_training() else 1)


def value(net, mode):
    scope = autograd.train_mode() if mode == "train" else autograd.predict_mode()
    with scope:
        return float(loss_of(net(mx.nd.array(X, dtype="float64")), mx.nd.array(Y, dtype="float64")).mean().asscalar())


@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("mode", ["train", "predict"])
def test_the_branch_of_the_mode_is_taken(mode, taped):
    net = Branches(taped)
    curv = Curvature(net, loss_of, (X, Y), mode=mode)
    assert curv.loss() == pytest.approx(value(net, mode), rel=1e-12)
    weight, h = net.dense.weight, 3e-4
    here, v = weight.data().asnumpy(), RNG.normal(size=(2, 3))
    values = []
    for step in (-h, 0, h):
        weight.set_data(mx.nd.array(here + step * v, dtype="float64"))
        values.append(value(net, mode))
    weight.set_data(mx.nd.array(here, dtype="float64"))
    v = np.append(v.ravel(), np.zeros(2))
    assert v @ curv.hvp(v) == pytest.approx(np.diff(values, 2)[0] / h**2, rel=1e-5)
    with autograd.train_mode():  # the mode is hessmx's, wherever it is asked
        assert Curvature(net, loss_of, (X, Y), mode=mode).loss() == curv.loss()


@pytest.mark.parametrize("taped", [False, True])
def test_batch_statistics_on_the_branch_of_training(taped):
    net = Branches(taped, nn.BatchNorm(in_channels=2, epsilon=1e-3))
    before = net.rest[0].running_mean.data().asnumpy()
    z = X @ net.dense.weight.data().asnumpy().T
    z = (z - z.mean(0)) / np.sqrt(z.var(0) + float(np.float32(1e-3)))
    expected = ((3 * np.tanh(z) - Y) ** 2).mean()
    curv = Curvature(net, loss_of, (X, Y), mode="train")
    assert curv.loss() == pytest.approx(expected, rel=1e-7)
    np.testing.assert_array_equal(net.rest[0].running_mean.data().asnumpy(), before)
    assert not autograd.is_training()


@pytest.mark.parametrize("taped", [False, True])
def test_no_random_number_of_mxnet_is_drawn(taped):
    net = Branches(taped, nn.Dropout(0.5))
    mx.random.seed(7)
    expected = mx.nd.random.uniform(shape=(4,)).asnumpy()
    mx.random.seed(7)
    curv = Curvature(net, loss_of, (X, Y), mode="train")
    assert curv.gradient().any()
    np.testing.assert_array_equal(mx.nd.random.uniform(shape=(4,)).asnumpy(), expected)


def approximate(net):
    """In train mode, by differences."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", HessmxWarning)
        return Curvature(net, L2, (X, Y), mode="train")


class Frozen(mx.gluon.Block):
    """BatchNorm in predict mode inside a net that is trained: no node of a graph says so."""

    def __init__(self, layer):
        super().__init__()
        self.dense, self.layer = nn.Dense(2, in_units=3, dtype="float64"), layer

    def forward(self, x):
        z = self.dense(x)
        with autograd.predict_mode():
            z = self.layer(z)
        return z.tanh()


def test_a_switch_of_modes_within_the_net_is_not_traced():
    net = Frozen(nn.BatchNorm(in_channels=2))
    net.initialize()
    net.cast("float64")
    with pytest.raises(HessmxWarning, match="switches between train and predict mode"):
        Curvature(net, L2, (X, Y), mode="train")
    curv = approximate(net)
    z = X @ net.dense.weight.data().asnumpy().T / np.sqrt(1 + 1e-5)  # running statistics 0 and 1
    assert curv.loss() == pytest.approx(((np.tanh(z) - Y) ** 2).mean() / 2, rel=1e-6)


class Reads(mx.gluon.Block):
    """Decides on a value behind Dropout or BatchNorm."""

    def __init__(self, layer):
        super().__init__()
        self.dense, self.layer = nn.Dense(2, in_units=3, dtype="float64"), layer

    def forward(self, x):
        z = self.layer(self.dense(x))
        return z if z.max().asscalar() > 1.2 else 2 * z


def test_a_branch_on_values_behind_batch_norm_is_that_of_training():
    net = Reads(nn.BatchNorm(in_channels=2))
    net.initialize(mx.init.Normal(0.1))
    net.cast("float64")
    z = X @ net.dense.weight.data().asnumpy().T
    batch = (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)
    assert batch.max() > 1.2 > z.max()
    curv = approximate(net)
    assert curv.loss() == pytest.approx(((batch - Y) ** 2).mean() / 2, rel=1e-5)


def test_a_branch_on_values_behind_dropout_is_refused():
    net = Reads(nn.Dropout(0.5))
    net.initialize()
    with pytest.raises(EngineError, match="Dropout masks cannot be held fixed"):
        Curvature(net, L2, (X, Y), mode="train")
