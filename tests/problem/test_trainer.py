"""Preconditioners against the steps that Trainers really take; thresholds against quadratics on which they run."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import InputError
from hessmx.problem.net import Net
from hessmx.problem.trainer import KINDS, read_trainer

LOSS = mx.gluon.loss.L2Loss()
OPTIMIZERS = {
    "sgd": ("sgd", {}),
    "momentum": ("sgd", {"momentum": 0.8}),
    "nag": ("nag", {"momentum": 0.8}),
    "rmsprop": ("rmsprop", {"epsilon": 1e-3}),
    "centered": ("rmsprop", {"centered": True, "gamma2": 0.7, "epsilon": 1e-3}),
    "adam": ("adam", {"epsilon": 1e-4}),
    "adagrad": ("adagrad", {"eps": 1e-3}),
}
MOMENTA = {"momentum": 0.8, "nag": 0.8, "centered": 0.7}


def net_and_data(dtype="float32"):
    mx.random.seed(1)
    net = dense_net((3, 5, 2), "tanh", dtype=dtype)
    net.initialize(mx.init.Normal(0.6))
    rng = np.random.default_rng(0)
    return net, (rng.normal(size=(12, 3)).astype(dtype), rng.normal(size=(12, 2)).astype(dtype))


def step(net, data, trainer):
    x, y = (mx.nd.array(a, dtype=a.dtype) for a in data)
    with mx.autograd.record():
        losses = LOSS(net(x), y)
    losses.backward()
    found = np.concatenate([p.grad().asnumpy().ravel() for p in net.collect_params().values()]) / len(x)
    trainer.step(len(x))
    return found


def values(net):
    return np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()]).astype(float)


def trained(name, steps=4, **more):
    net, data = net_and_data()
    kind, settings = OPTIMIZERS[name]
    net[2].weight.lr_mult = 0.5
    net[2].bias.wd_mult = 0.0
    trainer = mx.gluon.Trainer(net.collect_params(), kind, {"learning_rate": 0.02, "wd": 0.1, **settings, **more})
    for _ in range(steps):
        step(net, data, trainer)
    return net, data, trainer


def buffers(net, trainer, place):
    """The k-th array of every parameter's state; a Trainer has its parameters by name, a net as they were made."""
    states = [trainer._updaters[0].states[trainer._param2idx[name]] for name in net.collect_params()]
    return np.concatenate([state[place].asnumpy().ravel() for state in states]).astype(float)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_next_step_is_the_learning_rate_times_the_preconditioned_gradient(name):
    """With the first moment read after the step, for those that have one."""
    net, data, trainer = trained(name)
    before = values(net)
    if name == "momentum" or name == "nag":
        trainer._updaters[0].states.clear()  # a first step has no momentum
    if name == "centered":
        for state in trainer._updaters[0].states.values():
            state[2][:] = 0
    gradient = step(net, data, trainer)
    known = read_trainer(trainer, Net(net))
    towards = gradient + known.decay * before
    if name == "adam":
        towards = buffers(net, trainer, 0)
    if name == "nag":
        towards = (1 + 0.8) * towards
    expected = -known.learning_rate * (known.inverse * towards + known.decoupled * before)
    np.testing.assert_allclose(values(net) - before, expected, rtol=2e-3, atol=2e-7)
    assert known.learning_rate == 0.02 and known.factor > 0
    assert known.decay.any() != (name == "adagrad") and known.decoupled.any() == (name == "adagrad")


def _one(parameter):
    found = mx.gluon.ParameterDict()
    found.update({parameter.name: parameter})
    return found


def quadratic(name, share):
    """Growth of |w| on f = w^2 / 2 at `share` of the threshold, with a preconditioner that stays at about 1."""
    w = mx.gluon.Parameter("w", shape=(1,), init=mx.init.Constant(1e-4))
    w.initialize()
    kind, settings = OPTIMIZERS[name]
    if kind in ("rmsprop", "adam", "adagrad"):
        settings = {**settings, "eps" if kind == "adagrad" else "epsilon": 1.0}
    trainer = mx.gluon.Trainer(_one(w), kind, {"learning_rate": 1.0, **settings})
    factor = KINDS[kind].factor(trainer.optimizer)
    trainer.set_learning_rate(share * factor)
    trainer.optimizer._index_update_count[0] = trainer.optimizer.num_update = 10**6  # bias corrections have gone
    sizes = []
    for _ in range(150):
        with mx.autograd.record():
            loss = mx.nd.square(w.data()) / 2
        loss.backward()
        trainer.step(1)
        sizes.append(abs(float(w.data().asscalar())))
        if sizes[-1] > 1e-2:
            return np.inf
    return max(sizes[-10:]) / 1e-4


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_below_the_threshold_a_quadratic_is_stable_and_above_it_is_not(name):
    assert quadratic(name, 0.95) < 0.2
    assert quadratic(name, 1.05) > 10


@pytest.mark.parametrize("name", ("momentum", "adam", "adagrad"))
def test_sharpness_is_that_of_the_dense_matrix(name):
    net, data, trainer = trained(name)
    before = {i: [a.asnumpy() for a in _arrays(s)] for i, s in trainer._updaters[0].states.items()}
    curv = Curvature(net, LOSS, data, weight_decay=0.3)  # not the Trainer's: it must not count
    found = curv.sharpness(trainer=trainer)
    plain = Curvature(net, LOSS, data).hessian.to_dense().astype(float)
    known = read_trainer(trainer, Net(net))
    matrix = np.diag(known.inverse) @ (plain + np.diag(known.decay)) + np.diag(known.decoupled)
    assert found.top_eigenvalue == pytest.approx(np.linalg.eigvals(matrix).real.max(), rel=1e-4)
    assert found.converged and found.residual < 1e-3 * found.top_eigenvalue
    assert found.threshold == pytest.approx(known.factor / 0.02)
    assert found.ratio == pytest.approx(found.top_eigenvalue / found.threshold)
    assert found.stable_learning_rate * found.top_eigenvalue == pytest.approx(known.factor)
    assert found.optimizer == OPTIMIZERS[name][0] and found.provenance.matrix == "hessian"
    for i, state in trainer._updaters[0].states.items():
        for array, was in zip(_arrays(state), before[i]):
            np.testing.assert_array_equal(array.asnumpy(), was)


def _arrays(state):
    return state if isinstance(state, tuple) else (state,)


def test_a_schedule_and_saved_states_are_read(tmp_path):
    net, _, trainer = trained("adam", lr_scheduler=mx.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.02))
    known = read_trainer(trainer, Net(net))
    assert known.learning_rate == pytest.approx(trainer.learning_rate) and known.learning_rate < 0.02
    trainer.save_states(str(tmp_path / "states"))
    again = mx.gluon.Trainer(net.collect_params(), "adam")
    again.load_states(str(tmp_path / "states"))
    np.testing.assert_array_equal(read_trainer(again, Net(net)).inverse, known.inverse)
    clipped = trained("sgd", clip_gradient=1.0)
    assert "clipped" in read_trainer(clipped[2], Net(clipped[0])).notes[0]


def test_a_rate_of_zero_is_stable():
    net, data, trainer = trained("sgd")
    trainer.set_learning_rate(0.0)
    found = Curvature(net, LOSS, data).sharpness(trainer=trainer)
    assert found.threshold == np.inf and found.ratio == 0


def _untrained(name, **settings):
    net, data = net_and_data()
    return net, data, mx.gluon.Trainer(net.collect_params(), name, settings)


def _other():
    net, data = net_and_data()
    return net, data, mx.gluon.Trainer(net[2].collect_params(), "sgd")


def _on_kvstore():
    net, data, trainer = trained("sgd")
    trainer._update_on_kvstore = True
    return net, data, trainer


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: _untrained("adam"), "only after a step"),
        (lambda: _untrained("ftrl"), "uses ftrl; its threshold of stability is known for sgd"),
        (_other, "does not train 2 of the 4"),
        (_on_kvstore, "update_on_kvstore=False"),
        (lambda: (*net_and_data(), "adam"), "must be a gluon.Trainer, not str"),
    ],
)
def test_bad_input(make, text):
    net, data, trainer = make()
    with pytest.raises(InputError, match=text):
        Curvature(net, LOSS, data).sharpness(trainer=trainer)
