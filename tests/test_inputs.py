"""Input derivatives against central differences of a NumPy net of the same weights."""

from __future__ import annotations

import numpy as np
import pytest

import hessmx
from hessmx import inputs
from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError, ParameterError

nn = mx.gluon.nn


class Net:
    """4 -> 5 tanh -> 3, Gluon and NumPy."""

    def __init__(self):
        self.gluon = nn.HybridSequential()
        self.gluon.add(nn.Dense(5, activation="tanh", in_units=4, dtype="float64"))
        self.gluon.add(nn.Dense(3, in_units=5, dtype="float64"))
        self.gluon.initialize()
        rng = np.random.default_rng(0)
        for parameter in self.gluon.collect_params().values():
            parameter.set_data(mx.nd.array(rng.normal(size=parameter.shape), dtype="float64"))
        self.w = [p.data().asnumpy() for p in self.gluon.collect_params().values()]
        self.x = rng.normal(size=(6, 4))

    def __call__(self, x, w=None):
        first, bias, second, shift = self.w if w is None else w
        return np.tanh(x @ first.T + bias) @ second.T + shift


@pytest.fixture(scope="module")
def net():
    return Net()


def differences(function, x, h):
    """Derivative of function (N, ...) along every input entry, stacked last."""
    return np.stack([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(x.shape[1])], axis=-1)


def second(function, x, h=1e-3):
    """Second derivatives (N, D, D) of a function (N,), fourth-order in h."""

    def plain(step):
        return differences(lambda y: differences(function, y, step), x, step)

    near, far = plain(h), plain(2 * h)
    return (4 * near - far) / 3


def test_first_derivatives(net):
    true = differences(net, net.x, 1e-5)  # (N, outputs, D)
    v, r = np.arange(4.0), np.array([1.0, -2, 0.5])
    assert np.allclose(inputs.jacobian(net.gluon, net.x), true, atol=1e-8)
    assert np.allclose(inputs.gradient(net.gluon, net.x, 1), true[:, 1], atol=1e-8)
    assert np.allclose(inputs.gradient(net.gluon, net.x, (-1,)), true[:, 2], atol=1e-8)
    assert np.allclose(inputs.gradient(net.gluon, net.x), true.sum(1), atol=1e-8)
    assert np.allclose(inputs.gradient(net.gluon, net.x, r), np.einsum("k,nkd->nd", r, true), atol=1e-8)
    assert np.allclose(inputs.jvp(net.gluon, net.x, v), true @ v, atol=1e-8)
    assert np.allclose(inputs.vjp(net.gluon, net.x, r), np.einsum("k,nkd->nd", r, true), atol=1e-8)


def test_second_derivatives(net):
    true = second(lambda x: net(x)[:, 2], net.x)
    v = np.random.default_rng(1).normal(size=net.x.shape)
    found = inputs.hessian(net.gluon, net.x, 2)
    assert np.allclose(found, true, atol=1e-7) and np.allclose(found, found.transpose(0, 2, 1), atol=1e-13)
    assert np.allclose(inputs.hvp(net.gluon, net.x, v, 2), np.einsum("nij,nj->ni", true, v), atol=1e-7)


def test_of_a_loss(net):
    labels = np.array([0, 1, 2, 2, 1, 0])
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()

    def cross_entropy(x):
        z = net(x)
        return np.log(np.exp(z).sum(1)) - z[np.arange(6), labels]

    y = mx.nd.array(labels, dtype="float64")
    assert np.allclose(
        inputs.gradient(net.gluon, net.x, lambda z: loss(z, y)), differences(cross_entropy, net.x, 1e-5), atol=1e-8
    )
    assert np.allclose(inputs.hessian(net.gluon, net.x, lambda z: loss(z, y)), second(cross_entropy, net.x), atol=1e-7)


def test_mixed_derivative_is_the_change_of_the_weight_gradient(net):
    """d/dw of the derivative along pixel 3: differences in w of NumPy's input derivative."""
    v, h = np.eye(4)[3], 1e-4

    def along(w):
        return sum((net(net.x + h * v, w) - net(net.x - h * v, w))[:, 0]) / (2 * h)

    found = inputs.mixed(net.gluon, net.x, v, 0)
    for place, (name, array) in enumerate(found.items()):
        assert array.shape == net.w[place].shape, name
        for index in list(np.ndindex(*array.shape))[:7]:
            moved = [w.copy() for w in net.w], [w.copy() for w in net.w]
            moved[0][place][index] += h
            moved[1][place][index] -= h
            assert array[index] == pytest.approx((along(moved[0]) - along(moved[1])) / (2 * h), abs=1e-5), name


def test_images_and_convolutions():
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, in_channels=1, activation="sigmoid"), nn.Flatten(), nn.Dense(2, in_units=27))
    net.initialize(mx.init.Normal(0.5))
    net.cast("float64")
    x = np.random.default_rng(0).normal(size=(2, 1, 5, 5))
    found = inputs.hessian(net, x, 0)
    assert found.shape == (2, 1, 5, 5, 1, 5, 5)
    h, unit = 1e-5, np.zeros((1, 5, 5))
    unit[0, 2, 3] = 1
    column = (inputs.gradient(net, x + h * unit, 0) - inputs.gradient(net, x - h * unit, 0)) / (2 * h)
    assert np.allclose(found[..., 0, 2, 3], column, atol=1e-8)


def test_each_sample_has_its_own(net):
    """The batch's gradients are those of the samples one by one, and the net's own gradients are untouched."""
    before = [p.grad().asnumpy().copy() for p in net.gluon.collect_params().values()]
    whole = inputs.gradient(net.gluon, net.x, 0)
    single = np.concatenate([inputs.gradient(net.gluon, net.x[i : i + 1], 0) for i in range(6)])
    assert np.allclose(whole, single, rtol=1e-13)
    for old, parameter in zip(before, net.gluon.collect_params().values()):
        assert np.array_equal(old, parameter.grad().asnumpy())


def test_of_a_frozen_net(net):
    """Parameters that are not trained serve as well; the derivative by them has still nothing to go by."""
    dense = nn.Dense(3, in_units=4, dtype="float64")
    dense.initialize(mx.init.Normal(1))
    dense.collect_params().setattr("grad_req", "null")
    found = inputs.gradient(dense, net.x, 1)
    assert np.allclose(found, np.tile(dense.weight.data().asnumpy()[1], (6, 1)), rtol=1e-14)
    with pytest.raises(ParameterError, match="no trainable parameters"):
        inputs.mixed(dense, net.x, np.ones(4))


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda n: inputs.gradient(n.gluon, n.x, 3), InputError, "not an entry of one sample's output"),
        (lambda n: inputs.gradient(n.gluon, n.x, np.ones(4)), InputError, "output must be real numbers of shape"),
        (lambda n: inputs.hvp(n.gluon, n.x, np.ones(3)), InputError, "v must be real numbers of shape"),
        (lambda n: inputs.hvp(n.gluon, n.x, np.full(4, np.nan)), InputError, "NaN"),
        (lambda n: inputs.gradient(n.gluon, n.x[:, :2]), DataError, "do not fit the net"),
        (lambda n: inputs.gradient(n.gluon, n.x[:0]), DataError, "at least one sample"),
        (lambda n: inputs.gradient(n.gluon, np.full((2, 4), np.inf)), DataError, "NaN or infinite"),
        (lambda n: inputs.gradient("net", n.x), InputError, "Gluon Block"),
    ],
)
def test_bad_input(net, ask, error, text):
    with pytest.raises(error, match=text):
        ask(net)


def test_package_exports_it():
    assert hessmx.inputs is inputs
