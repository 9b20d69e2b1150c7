"""What is changed in Python after a Curvature is made shows in its next answer, or is refused: never an old answer.

Right values come from forward passes of the user's own net: the loss, and its second differences along a vector.
"""

from __future__ import annotations

import types

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import ParameterError
from hessmx.problem.code import Code
from hessmx.uses.training import FollowCurvature

nn, autograd = mx.gluon.nn, mx.autograd
RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(8, 3)), RNG.normal(size=(8, 2))
L2 = mx.gluon.loss.L2Loss
GLOBAL = 1.0


class Net(nn.HybridBlock):
    """tanh(W x) with a factor that Python decides on; `taped` nets look at a value, so that no Symbol will do."""

    factor = 1.0

    def __init__(self, factor, taped=False):
        super().__init__()
        self.taped, self.decides = taped, factor
        self.number, self.table, self.options = 1.0, {"list": [1.0]}, types.SimpleNamespace(number=1.0)
        self.array, self.mask = np.ones(1), mx.nd.ones((1, 2), dtype="float64")
        with self.name_scope():
            self.dense = nn.Dense(2, in_units=3, dtype="float64")
            self.rest = nn.HybridSequential()
        mx.random.seed(3)
        self.initialize(mx.init.Normal(0.7))

    def forward(self, x):
        if self.taped and float(x.sum().asscalar()) > 1e9:
            return x
        return self.rest((self.dense(x) * self.decides(self)).tanh())


FACTORS = {
    "attribute": (lambda net: net.number, lambda net: setattr(net, "number", 0.3)),
    "new attribute": (lambda net: getattr(net, "fresh", 1.0), lambda net: setattr(net, "fresh", 0.3)),
    "in a list in a dict": (lambda net: net.table["list"][0], lambda net: net.table["list"].insert(0, 0.3)),
    "in an object": (lambda net: net.options.number, lambda net: setattr(net.options, "number", 0.3)),
    "NumPy array written to": (lambda net: float(net.array[0]), lambda net: net.array.fill(0.3)),
    "class attribute": (lambda net: net.factor, lambda net: setattr(Net, "factor", 0.3)),
    "global name": (lambda net: GLOBAL, lambda net: globals().update(GLOBAL=0.3)),
    "layer without parameters": (lambda net: 1.0, lambda net: net.rest.add(nn.Activation("sigmoid"))),
    "function replaced": (lambda net: 1.0, lambda net: setattr(net, "decides", lambda net: 0.3)),
    "hook": (
        lambda net: net.number,
        lambda net: net.register_forward_pre_hook(lambda block, _: setattr(block, "number", 0.3)),
    ),
}


def vector(net):
    return np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()]).astype(np.float64)


def write(net, values):
    start = 0
    for p in net.collect_params().values():
        size = int(np.prod(p.shape))
        p.set_data(mx.nd.array(values[start : start + size].reshape(p.shape), dtype="float64"))
        start += size


def value(net, loss, train=False):
    mode = autograd.train_mode() if train else autograd.predict_mode()
    with mode:
        return float(loss(net(mx.nd.array(X, dtype="float64")), mx.nd.array(Y, dtype="float64")).mean().asscalar())


def assert_right(curv, net, loss, train=False):
    """The loss, and v'Hv by second differences of the loss, of the net as it is."""
    assert curv.loss() == pytest.approx(value(net, loss, train), rel=1e-10)
    here, v, h = vector(net), RNG.normal(size=curv.num_params), 3e-4
    values = []
    for step in (-h, 0.0, h):
        write(net, here + step * v)
        values.append(value(net, loss, train))
    write(net, here)
    assert v @ curv.hvp(v) == pytest.approx(np.diff(values, 2)[0] / h**2, rel=1e-5, abs=1e-6)


@pytest.fixture(autouse=True)
def _as_before(monkeypatch):
    monkeypatch.setattr(Net, "factor", 1.0)
    monkeypatch.setitem(globals(), "GLOBAL", 1.0)


@pytest.mark.parametrize("taped", [False, True])
@pytest.mark.parametrize("case", FACTORS)
def test_changes_of_the_net_are_seen(case, taped):
    factor, change = FACTORS[case]
    net, loss = Net(factor, taped), L2()
    curv, v = Curvature(net, loss, (X, Y)), np.ones(8)
    before = curv.loss(), curv.hvp(v), curv.loss(at=vector(net))
    change(net)
    assert abs(curv.loss() - before[0]) > 1e-3
    assert_right(curv, net, loss)
    assert curv.loss(at=vector(net)) == pytest.approx(value(net, loss), rel=1e-10)


def test_a_mask_that_is_no_parameter():
    class Masked(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.dense, self.mask = nn.Dense(2, in_units=3, dtype="float64"), mx.nd.ones((1, 2), dtype="float64")

        def forward(self, x):
            return self.dense(x) * self.mask

    net, loss = Masked(), L2()
    net.initialize(mx.init.Normal(0.7))
    curv = Curvature(net, loss, (X, Y))
    curv.hvp(np.ones(8))
    net.mask[0, 1] = 0
    assert_right(curv, net, loss)
    net.mask = mx.nd.array([[0.5, 2]], dtype="float64")
    assert_right(curv, net, loss)


def closure():
    scale = 1.0

    def loss(z, y):
        return scale * (z - y).square().mean(axis=1)

    def change():
        nonlocal scale
        scale = 0.3

    return loss, change


def attribute():
    loss = L2()
    return loss, lambda: setattr(loss, "_weight", 0.3)


def callable_object():
    class Loss:
        scale = 1.0

        def __call__(self, z, y):
            return self.scale * (z - y).square().mean(axis=1)

    loss = Loss()
    return loss, lambda: setattr(loss, "scale", 0.3)


@pytest.mark.parametrize("engine", ["reverse-over-forward", "double-backward", "finite-difference"])
@pytest.mark.parametrize("make", [closure, attribute, callable_object])
def test_changes_of_the_loss_are_seen(make, engine):
    net, (loss, change) = Net(lambda net: 1.0), make()
    curv = Curvature(net, loss, (X, Y), engine=engine)
    before = curv.hvp(np.ones(8))
    change()
    assert_right(curv, net, loss)
    assert np.abs(curv.hvp(np.ones(8)) - before).max() > 1e-3


def test_a_dropout_rate_is_seen():
    net, loss = Net(lambda net: 1.0), L2()
    net.rest.add(nn.Dropout(0.5))
    curv = Curvature(net, loss, (X, Y), mode="train")
    with_masks = curv.loss()
    net.rest[0]._rate = 0.0
    assert abs(curv.loss() - with_masks) > 1e-3
    assert_right(curv, net, loss, train=True)


REFUSED = {
    "cast": (lambda net: net.cast("float32"), "was float64 .* and is float32"),
    "another device": (lambda net: net.collect_params().reset_ctx(mx.cpu(1)), r"on cpu\(0\) and is .*on cpu\(1\)"),
    "a layer with parameters": (lambda net: grow(net), "'.*weight' is new"),
}


def grow(net):
    net.rest.add(nn.Dense(2, in_units=2, dtype="float64"))
    net.rest[0].initialize()


@pytest.mark.parametrize("case", REFUSED)
def test_other_parameters_are_refused_in_one_line(case):
    change, message = REFUSED[case]
    net = Net(lambda net: 1.0)
    curv = Curvature(net, L2(), (X, Y))
    ask = [curv.loss, curv.gradient, lambda: curv.hvp(np.ones(8)), lambda: curv.loss(at=np.ones(8))]
    change(net)
    for question in ask:
        with pytest.raises(ParameterError, match=f"{message}.*make a new one") as caught:
            question()
        assert "\n" not in str(caught.value)


# -- parameters' values that Python reads

class ByValue(mx.gluon.Block):
    """Reads the values of its weight in a way that no graph holds."""

    def __init__(self, how):
        super().__init__()
        self.dense, self.how = nn.Dense(2, in_units=3, use_bias=False, dtype="float64"), how

    def forward(self, x):
        weight = self.dense.weight
        if self.how == "mask under pause":
            with autograd.pause():
                mask = weight.data().abs() > 0.5
        elif self.how == "detached":
            mask = weight.data().detach().abs() > 0.5
        elif self.how == "a number":
            mask = mx.nd.full((1, 1), float(weight.data().norm().asscalar()), dtype="float64")
        else:
            mask = mx.nd.full((1, 1), 1.0 if weight.data()[0, 0].asscalar() > 0 else 3.0, dtype="float64")
        return mx.nd.dot(x, (weight.data() * mask.astype("float64")).T)


@pytest.mark.parametrize("how", ["mask under pause", "detached", "a number", "a branch"])
def test_what_depends_on_parameters_values_follows_them(how):
    net, loss = ByValue(how), L2()
    net.initialize(mx.init.Uniform(1.0))
    one, two = np.array([0.9, -0.2, 0.7, 0.1, 0.8, -0.9]), np.array([-0.1, -0.8, 0.3, 0.6, 0.2, 0.9])
    write(net, one)
    curv = Curvature(net, loss, (X, Y))
    assert curv.loss() == pytest.approx(value(net, loss), rel=1e-10)
    there = curv.loss(at=two)
    write(net, two)
    assert there == pytest.approx(value(net, loss), rel=1e-10)
    assert curv.loss() == pytest.approx(value(net, loss), rel=1e-10)
    back = curv.loss(at=one)
    write(net, one)
    assert back == pytest.approx(value(net, loss), rel=1e-10)


class Normalised(mx.gluon.Block):
    """Writes its weight, divided by its length, into the parameter."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(2, in_units=3, use_bias=False, dtype="float64")

    def forward(self, x):
        with autograd.pause():
            weight = self.dense.weight.data()
            self.dense.weight.set_data(weight / weight.norm())
        return self.dense(x)


def pruned():
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=3, use_bias=False, dtype="float64"))
    mask = mx.nd.array([[1, 0, 1], [0, 1, 1]], dtype="float64")
    net[0].register_forward_pre_hook(lambda block, _: block.weight.set_data(block.weight.data() * mask))
    return net


@pytest.mark.parametrize("make", [Normalised, pruned])
def test_parameters_that_forward_writes_are_refused_until_they_are_settled(make):
    net, loss = make(), L2()
    net.initialize(mx.init.Uniform(1.0))
    before = vector(net)
    with pytest.raises(ParameterError, match=r"weight'.*run one batch through the net first"):
        Curvature(net, loss, (X, Y))
    np.testing.assert_array_equal(vector(net), before)
    expected = value(net, loss)  # writes them
    assert Curvature(net, loss, (X, Y)).loss() == pytest.approx(expected, rel=1e-10)


# -- nothing of the user's is changed

def test_what_forward_writes_and_draws_is_put_back():
    class Writes(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            self.dense, self.calls, self.last, self.kept = nn.Dense(2, in_units=3, dtype="float64"), 0, None, [1]

        def hybrid_forward(self, F, x):
            self.calls += 1
            self.extra = np.random.rand()  # noqa: NPY002
            self.last = self.dense(x)
            self.kept.append(self.last)
            return self.last

    net = Writes()
    net.initialize()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    curv = Curvature(net, L2(), (X, Y))
    curv.hvp(np.ones(8))
    assert (net.calls, net.last, net.kept, hasattr(net, "extra")) == (0, None, [1], False)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_arrays_that_are_no_parameters_are_compared_by_value():
    class Holds(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.mask, self.table, self.empty = mx.nd.ones((2, 2)), np.ones((3, 2)), np.ones((0, 2))

    net = Holds()
    code = Code(net)
    assert not code.changed()
    net.mask[0, 1] = 2
    assert code.changed() and not code.changed()
    net.table[2, 1] = 2
    assert code.changed() and not code.changed()
    net.mask = net.mask.copy()
    assert code.changed() and not code.changed()


def test_hybridizing_and_running_a_net_are_no_changes():
    net = nn.HybridSequential()
    net.add(nn.Dense(2, in_units=3), nn.BatchNorm(in_channels=2), nn.Dropout(0.5))
    net.initialize()
    code = Code(net, L2())
    net.hybridize()
    with autograd.record():
        net(mx.nd.array(X))
    net[0].weight.set_data(mx.nd.ones((2, 3)))
    net.collect_params().setattr("grad_req", "add")
    assert not code.changed()
    net.hybridize(False)
    assert not code.changed()
    net.add(nn.Dropout(0.1))
    assert code.changed() and not code.changed()


def test_following_a_training_sees_what_is_changed_between_epochs():
    net, loss = Net(lambda net: net.number), L2()
    follow = FollowCurvature(loss, (X, Y), ask=("loss", "top eigenvalue"))
    follow.measure(net)
    net.number = 0.3
    follow.measure(net)
    grow(net)
    net.cast("float32")
    follow.measure(net)
    other = Net(lambda net: 2.0)
    follow.measure(other)
    for curv, found in ((Curvature(net, loss, (X, Y)), 2), (Curvature(other, loss, (X, Y)), 3)):
        expected = [curv.loss(), np.linalg.eigvalsh(curv.hessian.to_dense())[-1]]
        np.testing.assert_allclose(follow.history.values[:, found], expected, rtol=1e-4)
    assert follow.history.values[0, 1] == pytest.approx(0.5 * np.mean((np.tanh(0.3 * outputs()) - Y) ** 2), rel=1e-10)


def outputs():
    net = Net(lambda net: 1.0)
    return X @ net.dense.weight.data().asnumpy().T + net.dense.bias.data().asnumpy()
