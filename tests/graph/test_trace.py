"""Nets of every form that Gluon allows, against the same net written over jets: what is traced is what is computed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from tests import oracles
from tests.dense import relative

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
RNG = np.random.default_rng(6)
X, X2 = RNG.normal(size=(7, 4)), RNG.normal(size=(7, 3))
Y = RNG.normal(size=(7, 3))
L2 = gluon_loss.L2Loss()


def layer(outputs, inputs, **options):
    return nn.Dense(outputs, in_units=inputs, dtype="float64", **options)


def ready(net):
    mx.random.seed(2)
    net.initialize(mx.init.Normal(0.6))
    return net


def two_layers():
    net = nn.HybridSequential()
    net.add(layer(5, 4, activation="tanh"), layer(3, 5))
    return ready(net)


def hybridized(**options):
    net = two_layers()
    net.hybridize(**options)
    net(mx.nd.array(X, dtype="float64"))
    return net


def symbol_block(tmp_path):
    net = hybridized()
    net.export(str(tmp_path / "net"))
    loaded = nn.SymbolBlock.imports(str(tmp_path / "net-symbol.json"), ["data"], str(tmp_path / "net-0000.params"))
    loaded.cast("float64")
    return loaded


class Branches(mx.gluon.Block):
    """Python control flow on values, a loop, and arrays made inside forward."""

    def __init__(self):
        super().__init__()
        self.first, self.last = layer(5, 4), layer(3, 5)
        self.scale = np.linspace(0.5, 1.5, 5)

    def forward(self, x):
        h = self.first(x)
        if h.sum().asscalar() > -1e9:  # a value decides
            h = h.tanh()
        for _ in range(2):
            h = h * mx.nd.array(self.scale, dtype="float64") + mx.nd.ones((1, 5), dtype="float64")
        return self.last(h)


class Shared(mx.gluon.HybridBlock):
    """One layer applied twice, and one weight read twice."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.inner, self.outer = layer(4, 4), layer(3, 4)

    def hybrid_forward(self, F, x):
        return self.outer(F.tanh(self.inner(F.tanh(self.inner(x)))))


class Tied(nn.HybridSequential):
    """Two layers of one set of parameters."""

    def __init__(self):
        super().__init__()
        first = layer(4, 4, activation="tanh")
        self.add(first, layer(4, 4, activation="tanh", params=first.params), layer(3, 4))


class TwoInputs(mx.gluon.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.left, self.right = layer(3, 4), layer(3, 3)

    def hybrid_forward(self, F, a, b):
        return F.tanh(self.left(a)) * self.right(b)


class TwoOutputs(mx.gluon.HybridBlock):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.left, self.right = layer(3, 4, activation="tanh"), layer(3, 4)

    def hybrid_forward(self, F, x):
        return self.left(x), [self.right(x)]


def affine(weight, bias, x):
    return (weight @ weight.lift(x).T).T + bias.reshape(1, -1)


def plain(x, w1, b1, w2, b2):
    return affine(w2, b2, oracles.tanh(affine(w1, b1, x)))


def branches(x, w1, b1, w2, b2):
    h = oracles.tanh(affine(w1, b1, x))
    for _ in range(2):
        h = h * np.linspace(0.5, 1.5, 5) + 1
    return affine(w2, b2, h)


def twice(x, w1, b1, w2, b2):
    return affine(w2, b2, oracles.tanh(affine(w1, b1, oracles.tanh(affine(w1, b1, x)))))


def two_inputs(x, w1, b1, w2, b2):
    return oracles.tanh(affine(w1, b1, x[0])) * affine(w2, b2, x[1])


def two_outputs(x, w1, b1, w2, b2):
    return oracles.tanh(affine(w1, b1, x)) + 2 * affine(w2, b2, x)


def both_outputs(z, y):
    return L2(z[0] + 2 * z[1][0], y)


NETS = {  # how it is made, its data, its loss, itself over jets
    "hybrid": (lambda _: two_layers(), X, L2, plain),
    "hybridized": (lambda _: hybridized(), X, L2, plain),
    "hybridized static": (lambda _: hybridized(static_alloc=True, static_shape=True), X, L2, plain),
    "SymbolBlock": (symbol_block, X, L2, plain),
    "Block with branches": (lambda _: ready(Branches()), X, L2, branches),
    "one layer twice": (lambda _: ready(Shared()), X, L2, twice),
    "shared parameters": (lambda _: ready(Tied()), X, L2, twice),
    "two inputs": (lambda _: ready(TwoInputs()), (X, X2), L2, two_inputs),
    "two outputs": (lambda _: ready(TwoOutputs()), X, both_outputs, two_outputs),
}


def dense_reference(curv, function, x):
    w = curv.parameters()
    whole = oracles.Jet(w, np.eye(w.size), np.zeros((w.size,) * 3))
    p = [whole[place].reshape(*curv.param_shapes[name]) for name, place in curv.param_slices.items()]
    return (0.5 * oracles.square(function(x, *p) - Y).mean(1)).mean(0)


@pytest.mark.parametrize("cut", ["whole", "batches"])
@pytest.mark.parametrize("name", NETS)
def test_nets(name, cut, tmp_path):
    make, x, loss, function = NETS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SymbolBlock on names that MXNet's checkpoint format prefixes
        net = make(tmp_path)
    several = isinstance(x, tuple)
    pieces = [slice(0, 3), slice(3, 7)]
    batches = [(([a[s] for a in x] if several else x[s]), Y[s]) for s in pieces]
    curv = Curvature(net, loss, (list(x) if several else x, Y) if cut == "whole" else batches)
    assert curv.engine == "reverse-over-forward"
    reference = dense_reference(curv, function, x)
    np.testing.assert_allclose(curv.loss(), reference.v, rtol=1e-12)
    np.testing.assert_allclose(curv.gradient(), reference.d, atol=1e-12)
    assert relative(curv.hessian.to_dense(), reference.h) < 1e-12


def test_control_flow_on_values_is_recorded_for_each_batch():
    """A Block that takes another branch on another batch."""

    class Switch(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.layer = layer(3, 4)

        def forward(self, x):
            z = self.layer(x)
            return z.tanh() if x.mean().asscalar() > 0 else z.sigmoid()

    net = ready(Switch())
    first, second = np.abs(X), -np.abs(X)
    curv = Curvature(net, L2, [(first, Y), (second, Y)])
    a, b = (
        dense_reference(curv, lambda x, w, b, f=f: f(affine(w, b, x)), x)
        for f, x in ((oracles.tanh, first), (oracles.sigmoid, second))
    )
    assert relative(curv.hessian.to_dense(), (a.h + b.h) / 2) < 1e-12
