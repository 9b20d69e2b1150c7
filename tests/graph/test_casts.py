"""Casts and copies, in Symbols and on the tape: values as the net has them, derivatives as losses change."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx

nn, L2 = mx.gluon.nn, mx.gluon.loss.L2Loss()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 4)), RNG.normal(size=(5, 3))

CASTS = {
    "data to int32": lambda z, x: z.tanh() * (x.slice_axis(1, 0, 3) * 3).astype("int32").astype("float64"),
    "hidden to int32": lambda z, x: z.tanh() * (z * 3).astype("int32").astype("float64"),
    "hidden to uint8": lambda z, x: z.tanh() * (z.abs() * 30).astype("uint8").astype("float64"),
    "hidden to int64": lambda z, x: z.tanh() + (z * 3).astype("int64").astype("float64"),
    "to the same": lambda z, x: z.astype("float64").tanh() * z,
}
ARRAYS_ONLY = {
    "copyto a device": lambda z, x: z.copyto(mx.cpu()).tanh() * z,
    "copy": lambda z, x: z.copy().tanh() * z,
    "two casts of one": lambda z, x: (z * 3).astype("int32").astype("float64") * z + z.astype("float64").tanh(),
}


class Net(nn.HybridBlock):
    def __init__(self, function, taped):
        super().__init__()
        self.dense, self.function, self.taped = nn.Dense(3, in_units=4, dtype="float64"), function, taped
        mx.random.seed(1)
        self.initialize(mx.init.Normal(1))

    def forward(self, x):
        if self.taped and float(x.sum().asscalar()) > 1e9:
            return x
        return self.function(self.dense(x), x)


def value(net, weight):
    net.dense.weight.set_data(mx.nd.array(weight, dtype="float64"))
    return float(L2(net(mx.nd.array(X, dtype="float64")), mx.nd.array(Y, dtype="float64")).mean().asscalar())


@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("case", CASTS)
def test_casts(case, taped):
    compare(CASTS[case], taped)


@pytest.mark.parametrize("case", ARRAYS_ONLY)
def test_copies(case):
    compare(ARRAYS_ONLY[case], True)


def compare(function, taped):
    """With first and second differences of the loss of the user's net, with a step that crosses no whole number."""
    net = Net(function, taped)
    curv = Curvature(net, L2, (X, Y), engine="reverse-over-forward")
    weight, v, h = net.dense.weight.data().asnumpy(), RNG.normal(size=(3, 4)), 1e-4
    below, here, above = (value(net, weight + step * v) for step in (-h, 0, h))
    value(net, weight)
    flat = np.concatenate([v.ravel(), np.zeros(3)])
    assert curv.loss() == pytest.approx(here, rel=1e-12)
    assert curv.gradient() @ flat == pytest.approx((above - below) / (2 * h), rel=2e-5)
    assert flat @ curv.hvp(flat) == pytest.approx((above - 2 * here + below) / h**2, rel=1e-4, abs=1e-5)
