"""Tangents of tangents, operator by operator: second derivatives by the input against differences of forward passes,
their gradients by the weights against differences of those values."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.training import penalty

nn, nd = mx.gluon.nn, mx.nd
STEP = 1e-3

SMOOTH = {  # of one array; x lies between 0.2 and 0.9
    name: (lambda F, x, name=name: getattr(F, name)(x))
    for name in "exp expm1 log log2 log10 log1p sqrt rsqrt cbrt rcbrt square reciprocal sigmoid tanh softsign erf "
    "erfinv sin cos tan arcsin arccos arctan sinh cosh arcsinh arctanh gamma gammaln".split()
}
OTHERS = {
    "arccosh": lambda F, x: F.arccosh(x + 1),
    "power": lambda F, x: F.broadcast_power(x, x + 1),
    "x**3": lambda F, x: x**3,
    "2**x": lambda F, x: 2**x,
    "1/x": lambda F, x: 1 / x,
    "x/y": lambda F, x: F.broadcast_div(x, F.square(x) + 1),
    "x*y": lambda F, x: x * F.tanh(x),
    "hypot": lambda F, x: F.broadcast_hypot(x, F.square(x)),
    "softmax": lambda F, x: F.softmax(x, axis=-1),
    "log_softmax": lambda F, x: F.log_softmax(x, axis=-1),
    "smooth_l1": lambda F, x: F.smooth_l1(x, scalar=1.0),
    "mish": lambda F, x: x * F.tanh(F.Activation(x, act_type="softrelu")),
    "L2Normalization": lambda F, x: F.L2Normalization(x),
    "mean over entries": lambda F, x: F.broadcast_mul(x, F.mean(F.square(x), axis=-1, keepdims=True)),
    "norm": lambda F, x: F.broadcast_div(x, F.norm(x, axis=-1, keepdims=True)),
    "logsumexp": lambda F, x: F.broadcast_sub(x, F.log(F.sum(F.exp(x), axis=-1, keepdims=True))),
    "concat": lambda F, x: F.concat(F.sin(x), F.square(x), dim=-1),
    "slices": lambda F, x: F.slice_axis(x, axis=1, begin=0, end=2) * F.slice_axis(F.exp(x), axis=1, begin=2, end=4),
    "attention": lambda F, x: F.batch_dot(F.softmax(F.batch_dot(*_rows(F, x), transpose_b=True)), _rows(F, x)[1]),
    "convolution": lambda F, x: F.Convolution(F.expand_dims(F.exp(x), 1), _kernel(F, x), **KERNEL),
    "average pooling": lambda F, x: F.Pooling(F.expand_dims(F.exp(x), 1), kernel=(2,), pool_type="avg", stride=(2,)),
    "maximum": lambda F, x: F.broadcast_maximum(F.square(x), F.sin(x)),
    "where": lambda F, x: F.where(x > 0.5, F.square(x), F.sin(x)),
    "take": lambda F, x: F.take(F.square(x), F.ones_like(F.slice_axis(x, axis=1, begin=0, end=1)), axis=0),
}  # fmt: skip
LAYERS = {  # not GELU: its own forward pass is in float32, too coarse for differences; PyTorch checks it
    "LayerNorm": lambda: nn.LayerNorm(in_channels=4, epsilon=2.0**-10),
    "BatchNorm over running statistics": lambda: nn.BatchNorm(in_channels=4),
    "SELU": lambda: nn.SELU(),
    "PReLU": lambda: nn.PReLU(),
    "softrelu": lambda: nn.Activation("softrelu"),
}


KERNEL = dict(no_bias=True, kernel=(4,), num_filter=1)


def _kernel(F, x):
    return F.reshape(F.slice_axis(F.tanh(x), axis=0, begin=0, end=1), shape=(1, 1, 4))


def _rows(F, x):
    x = F.reshape(x, shape=(0, 2, 2))
    return F.sin(x), F.square(x)


class Between(nn.HybridBlock):
    """A squashed dense layer, what is tested, a sum that weights entries differently."""

    def __init__(self, middle):
        super().__init__()
        self.middle = middle
        with self.name_scope():
            self.first = nn.Dense(4, in_units=2)
            if isinstance(middle, nn.HybridBlock):
                self.register_child(middle)

    def hybrid_forward(self, F, x):
        x = 0.55 + 0.35 * F.tanh(self.first(x))
        y = self.middle(x) if isinstance(self.middle, nn.HybridBlock) else self.middle(F, x)
        return F.sum(F.sin(2 * F.Flatten(y)) + F.Flatten(y), axis=1, keepdims=True)


def made(name):
    middle = {**SMOOTH, **OTHERS}.get(name) or LAYERS[name]()
    net = Between(middle)
    net.initialize(mx.init.Normal(0.7))
    net.cast("float64")
    rng = np.random.default_rng(3)
    net.first.weight.set_data(nd.array(rng.normal(size=(4, 2)) * 0.7, dtype="float64"))
    return net, nd.array(rng.normal(size=(3, 2)) * 0.5, dtype="float64")


def differences(net, x):
    """u_ab by fourth-order differences of forward passes."""

    def along_b(at):
        return sum(w * net(at + k * unit(1)) for k, w in WEIGHTS)

    def unit(k):
        return nd.array(np.eye(2)[k] * STEP, dtype="float64").reshape((1, 2)).broadcast_to(x.shape)

    return sum(w * along_b(x + k * unit(0)) for k, w in WEIGHTS).asnumpy() / STEP**2


WEIGHTS = ((-2, 1 / 12), (-1, -2 / 3), (1, 2 / 3), (2, -1 / 12))


@pytest.mark.parametrize("name", [*SMOOTH, *OTHERS, *LAYERS])
def test_second_derivatives_and_their_gradients(name):
    net, x = made(name)
    seen = []

    def kept(u_ab):
        seen.append(u_ab.asnumpy())
        return nd.square(u_ab) + u_ab

    function = penalty(net, kept, of=("u_ab",), coordinates="ab", mode="predict")
    with mx.autograd.record():
        value = function(x)
    value.backward()
    true = differences(net, x)
    np.testing.assert_allclose(seen[0], true, rtol=1e-6, atol=1e-7 * max(1, np.abs(true).max()))
    assert np.abs(true).max() > 1e-3
    weight = net.first.weight
    at, found, direction = weight.data().copy(), weight.grad().asnumpy(), np.random.default_rng(0).normal(size=(4, 2))
    sides = []
    for side in (1e-5, -1e-5):
        weight.set_data(at + side * nd.array(direction, dtype="float64"))
        sides.append(float(function(x).asscalar()))
    slope = (sides[0] - sides[1]) / 2e-5
    assert np.vdot(found, direction) == pytest.approx(slope, rel=1e-5, abs=1e-6 * np.abs(found).max())
