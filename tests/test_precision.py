"""Nets in float16 and with casts: computed in float32 at the values that the parameters have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx

gluon, nn, rnn = mx.gluon, mx.gluon.nn, mx.gluon.rnn
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 3, 2)).astype("float16"), RNG.integers(0, 3, 5)


class Casting(nn.HybridBlock):
    """A layer in float16 between casts, as mixed-precision nets have them."""

    def __init__(self, inner: str):
        super().__init__()
        self.inner = inner
        with self.name_scope():
            self.first, self.last = nn.Dense(4, activation="tanh", in_units=6), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        z = self.first(F.cast(x, self.inner))
        return self.last(F.cast(z, str(np.dtype(self.last.weight.dtype))))


def dense() -> Any:
    net = nn.HybridSequential()
    net.add(nn.Dense(4, activation="tanh", in_units=6), nn.BatchNorm(in_channels=4), nn.Dense(3, in_units=4))
    return net


def recurrent() -> Any:
    net = nn.HybridSequential()
    net.add(rnn.LSTM(3, layout="NTC", input_size=2), nn.Dense(3, in_units=9))
    return net


NETS = {"dense": dense, "recurrent": recurrent}


def curvature(make: Any, dtype: str) -> hessmx.Curvature:
    mx.random.seed(0)
    net = make()
    net.initialize(mx.init.Normal(0.6))
    net.cast("float16")
    net.cast(dtype)  # values as float16 holds them
    return hessmx.Curvature(net, gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), engine="reverse-over-forward")


@pytest.mark.parametrize("name", NETS)
def test_float16_nets_are_computed_in_float32_at_their_own_values(name: str) -> None:
    half, double = curvature(NETS[name], "float16"), curvature(NETS[name], "float64")
    assert (half.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_array_equal(half.parameters(), double.parameters())
    v = np.random.default_rng(1).normal(size=half.num_params)
    assert half.loss() == pytest.approx(double.loss(), rel=1e-5)
    np.testing.assert_allclose(half.hvp(v), double.hvp(v), atol=1e-5 * abs(double.hvp(v)).max())


@pytest.mark.parametrize("inner", ["float16", "float32", "float64"])
def test_casts_inside_the_net(inner: str) -> None:
    """Casts to float16 are left out; others are taken as they are."""

    def make() -> Any:
        net = Casting(inner)
        net.initialize(mx.init.Normal(0.6))
        net.first.cast(inner)
        return net

    mx.random.seed(0)
    mixed = hessmx.Curvature(make(), gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), engine="reverse-over-forward")
    plain = Casting("float64")
    plain.initialize()
    plain.cast("float64")
    for mine, theirs in zip(plain.collect_params().values(), mixed.param_names):
        values = mixed.parameters()[mixed.param_slices[theirs]].reshape(mine.shape)
        mine.set_data(mx.nd.array(values, dtype="float64"))
    double = hessmx.Curvature(plain, gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), engine="reverse-over-forward")
    v = np.random.default_rng(1).normal(size=mixed.num_params)
    np.testing.assert_allclose(mixed.hvp(v), double.hvp(v), atol=1e-5 * abs(double.hvp(v)).max())


def test_a_float32_net_with_casts_can_be_differenced_in_float64() -> None:
    net = Casting("float32")
    net.initialize(mx.init.Normal(0.6))
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    exact = hessmx.Curvature(net, loss, (X, Y), engine="reverse-over-forward")
    differences = hessmx.Curvature(net, loss, (X, Y), engine="finite-difference")
    v = np.random.default_rng(1).normal(size=exact.num_params)
    np.testing.assert_allclose(differences.hvp(v), exact.hvp(v), atol=1e-5 * abs(exact.hvp(v)).max())
