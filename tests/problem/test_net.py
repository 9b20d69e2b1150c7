"""The net is left as it was found: values, gradients, grad_req, statistics, hybridization, random state, names."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import ParameterError
from hessmx.problem.net import Net

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
LOSS = gluon_loss.SoftmaxCrossEntropyLoss()


def batch_norm_net(hybridize=True):
    """With running statistics, Dropout, a cached graph, gradients that are not zero and one frozen parameter."""
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(6, in_units=4), nn.BatchNorm(in_channels=6), nn.Activation("tanh"), nn.Dropout(0.3))
    net.add(nn.Dense(3, in_units=6))
    net.initialize(mx.init.Normal(0.5))
    if hybridize:
        net.hybridize(static_alloc=True)
    x, y = data()
    for _ in range(2):
        with mx.autograd.record():
            losses = LOSS(net(mx.nd.array(x)), mx.nd.array(y))
        losses.backward()
    net[0].bias.grad_req = "null"
    return net


def data(samples=12):
    rng = np.random.default_rng(2)
    return rng.normal(size=(samples, 4)), rng.integers(0, 3, samples).astype(float)


def blocks(net):
    found = []
    net.apply(found.append)
    return found


def snapshot(net):
    """Everything that a user could notice, as comparable values; arrays and caches by identity too."""
    state = {}
    for name, p in net.collect_params().items():
        state[name] = (p.grad_req, p.shape, p.dtype, id(p._data[0]), p.data().asnumpy().tobytes())
        if p.grad_req != "null":
            state[name + " grad"] = (id(p._grad[0]), p.grad().asnumpy().tobytes(), id(p.data()._get_grad_handle()
                                     if hasattr(p.data(), "_get_grad_handle") else None), p.data()._fresh_grad)
    for i, block in enumerate(blocks(net)):
        cached = getattr(block, "_cached_op", None), getattr(block, "_cached_graph", None)
        hooks = len(block._forward_hooks), len(block._forward_pre_hooks)
        state[f"block {i}"] = (getattr(block, "_active", None), id(cached[0]), *map(id, cached[1] or ()), hooks)
    numpy_state = np.random.get_state()  # noqa: NPY002  (the global state is what must not move)
    state["numpy"] = numpy_state[1].tobytes(), numpy_state[2]
    state["modes"] = mx.autograd.is_recording(), mx.autograd.is_training(), mx.util.is_np_array()
    return state


def next_names():
    """Number in the prefix of the next Dense and in the name of the next Symbol."""
    symbol = mx.sym.exp(mx.sym.Variable("a")).name
    return int(nn.Dense(1).prefix[len("dense") : -1]), int(symbol[len("exp") :])


CALLS = {
    "nothing": lambda curv: None,
    "loss": lambda curv: curv.loss(),
    "loss elsewhere": lambda curv: curv.loss(at=np.zeros(curv.num_params)),
    "gradient": lambda curv: curv.gradient(),
    "gradient elsewhere": lambda curv: curv.gradient(at=np.ones(curv.num_params)),
    "hvp": lambda curv: curv.hvp(np.ones(curv.num_params)),
    "dense": lambda curv: curv.hessian.to_dense(),
    "ggn": lambda curv: curv.ggn @ np.ones(curv.num_params),
    "fisher": lambda curv: curv.fisher() @ np.ones(curv.num_params),
    "jacobian": lambda curv: curv.jacobian @ np.ones(curv.num_params),
    "eigenpairs": lambda curv: curv.eigenpairs(k=2),
    "trace": lambda curv: curv.trace(method="hutchinson"),
    "spectrum": lambda curv: curv.spectrum(),
}


@pytest.mark.parametrize("mode", ["predict", "train"])
@pytest.mark.parametrize("call", CALLS)
def test_the_net_is_left_as_it_was_found(call, mode):
    net = batch_norm_net()
    mx.random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    expected = mx.nd.random.normal(shape=3).asnumpy()
    mx.random.seed(5)
    before, names = snapshot(net), next_names()
    CALLS[call](Curvature(net, LOSS, data(), mode=mode))
    assert snapshot(net) == before
    np.testing.assert_array_equal(mx.nd.random.normal(shape=3).asnumpy(), expected)
    assert next_names() == (names[0] + 1, names[1] + 1)


@pytest.mark.parametrize("call", ["loss", "gradient elsewhere", "hvp"])
def test_finite_differences_leave_it_too(call):
    net = batch_norm_net()
    before = snapshot(net)
    curv = Curvature(net, LOSS, data(), engine="finite-difference")
    CALLS[call](curv)
    assert snapshot(net) == before


class Fails:
    """A loader that raises in its n-th pass, in the middle."""

    def __init__(self, good_passes):
        self.good_passes = good_passes

    def __iter__(self):
        x, y = data()
        yield x[:5], y[:5]
        self.good_passes -= 1
        if self.good_passes < 0:
            raise RuntimeError("disk on fire")
        yield x[5:], y[5:]


@pytest.mark.parametrize("engine", ["reverse-over-forward", "finite-difference"])
@pytest.mark.parametrize("call", ["loss", "gradient", "hvp", "eigenpairs"])
def test_the_net_is_left_as_it_was_found_after_an_exception(call, engine):
    net = batch_norm_net()
    before = snapshot(net)
    with pytest.raises(RuntimeError, match="disk on fire"):
        curv = Curvature(net, LOSS, Fails(2), engine=engine)
        CALLS[call](curv)
    assert snapshot(net) == before


PASSES: list[int] = []  # those that are left; an attribute of the net would be put back after each


class Stops(mx.gluon.Block):
    """A net that runs through custom Python and raises in the n-th forward pass."""

    def __init__(self, good_passes):
        super().__init__()
        self.dense = nn.Dense(3, in_units=4)
        self.norm = nn.BatchNorm(in_channels=3)
        PASSES[:] = range(good_passes)

    def forward(self, x):
        z = self.dense(x)
        if not PASSES:
            raise KeyboardInterrupt
        PASSES.pop()
        return _Double()(self.norm(z))


class _Double(mx.autograd.Function):
    def forward(self, x):
        return 2 * x

    def backward(self, dy):
        return 2 * dy


@pytest.mark.parametrize("good_passes", range(6))
def test_an_interrupt_inside_the_users_forward(good_passes):
    net = Stops(good_passes)
    net.initialize(mx.init.Normal(0.5))
    before = snapshot(net)
    with pytest.raises(KeyboardInterrupt):
        Curvature(net, LOSS, data(), engine="finite-difference").hvp(np.ones(21))
    assert snapshot(net) == before


def test_training_on_shows_in_the_next_answer():
    """The same object, after steps of the Trainer, gives what a new one gives; set_data, load and cast arrays too."""
    net = batch_norm_net()
    curv = Curvature(net, LOSS, data())
    v = np.ones(curv.num_params)
    first = curv.hvp(v)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    for _ in range(3):
        with mx.autograd.record():
            losses = LOSS(net(mx.nd.array(data()[0])), mx.nd.array(data()[1]))
        losses.backward()
        trainer.step(12, ignore_stale_grad=True)
    trained = curv.hvp(v)
    assert np.linalg.norm(trained - first) > 1e-3
    np.testing.assert_array_equal(trained, Curvature(net, LOSS, data()).hvp(v))
    net[4].weight.set_data(mx.nd.ones((3, 6)))
    np.testing.assert_array_equal(curv.gradient(), Curvature(net, LOSS, data()).gradient())
    net.initialize(mx.init.Normal(0.1), force_reinit=True)
    np.testing.assert_array_equal(curv.hvp(v), Curvature(net, LOSS, data()).hvp(v))


# -- which parameters

SELECTIONS = [
    (None, ["0_weight", "1_weight", "1_bias"]),  # the first bias is frozen
    ("weight$", ["0_weight", "1_weight"]),
    (lambda p: len(p.shape) == 1, ["0_bias", "1_bias"]),
    ("dense", ["0_weight", "0_bias", "1_weight", "1_bias"]),
]


def two_layers():
    net = nn.HybridSequential(prefix="")
    with net.name_scope():
        net.add(nn.Dense(5, "tanh", in_units=4, prefix="dense0_"), nn.Dense(3, in_units=5, prefix="dense1_"))
    net.initialize(mx.init.Normal(0.5))
    net[0].bias.grad_req = "null"
    return net


@pytest.mark.parametrize(("selection", "expected"), SELECTIONS)
def test_selections(selection, expected):
    curv = Curvature(two_layers(), LOSS, data(), params=selection)
    assert [name.replace("dense", "") for name in curv.param_names] == expected
    assert curv.num_params == sum(np.prod(shape) for shape in curv.param_shapes.values())


def test_a_list_of_parameters_is_the_block_of_the_whole():
    net = two_layers()
    net[0].bias.grad_req = "write"
    whole = Curvature(net, LOSS, data())
    some = Curvature(net, LOSS, data(), params=[net[1].bias, net[0].weight])
    assert some.param_names == ("dense0_weight", "dense1_bias")
    place = np.concatenate([np.arange(s.start, s.stop) for s in (whole.param_slices[n] for n in some.param_names)])
    np.testing.assert_allclose(some.hessian.to_dense(), whole.hessian.to_dense()[np.ix_(place, place)], atol=1e-7)


def deferred():
    net = nn.Dense(3)
    net.initialize()
    return net


def with_nan():
    net = two_layers()
    net[1].weight.set_data(mx.nd.full((3, 5), np.nan))
    return net


REFUSED = [
    (lambda: nn.Dense(3, in_units=4), None, "not initialized.*initialize"),
    (deferred, None, "not initialized.*one batch"),
    (with_nan, None, "'dense1_weight' holds NaN"),
    (two_layers, "conv", "no parameters whose name matches 'conv'.*dense0_weight"),
    (two_layers, "(", "not a regular expression"),
    (two_layers, lambda p: False, "no parameters accepted by the predicate"),
    (two_layers, [], "no parameters in the list"),
    (two_layers, ["dense9_weight"], "'dense9_weight', which is not a parameter"),
]


@pytest.mark.parametrize(("make", "selection", "message"), REFUSED)
def test_refused(make, selection, message):
    with pytest.raises(ParameterError, match=message) as caught:
        Curvature(make(), LOSS, data(), params=selection)
    assert "\n" not in str(caught.value)


def test_lent_arrays_are_taken_back():
    net = two_layers()
    before = net[0].weight.data()
    with pytest.raises(ZeroDivisionError), Net(net).lent():
        net[0].weight.data()[:] = 7
        raise ZeroDivisionError
    assert net[0].weight.data() is before
    assert not (before.asnumpy() == 7).any()
