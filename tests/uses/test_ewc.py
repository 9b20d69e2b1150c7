"""The penalty against NumPy, in its value, its gradient and a Trainer's step; forgetting with and without it."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.errors import InputError, ParameterError
from hessmx.uses import ewc
from tests.uses.support import SOFTMAX, exported, problem, trained, unchanged

X, Y = problem()
def data():
    return mx.nd.array(X, dtype="float64"), mx.nd.array(Y, dtype="float64")


@pytest.fixture
def net():
    return trained(X, Y)


def flat(net, of=lambda p: p.data()):
    return np.concatenate([of(p).asnumpy().ravel() for p in net.collect_params().values()])


def shift(net, seed=1):
    """Move the net away from where it learnt, in place."""
    mx.random.seed(seed)
    for p in net.collect_params().values():
        p.set_data(p.data() + 0.1 * mx.nd.random.normal(shape=p.shape, dtype="float64"))


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_importance_is_the_diagonal_where_the_net_is(net, matrix):
    curv = Curvature(net, SOFTMAX, (X, Y))
    with unchanged(net):
        found = ewc.importance(curv, matrix, draws=400)
    exact = np.diag(curv.matrix(matrix).to_dense())
    np.testing.assert_allclose(found.importance, exact, rtol=0.35 if matrix == "ggn" else 1e-8)
    assert np.array_equal(found.parameters, flat(net)) and list(found.sizes) == [30, 6, 18, 3]


@pytest.mark.parametrize("grad_req", ["write", "add"])
def test_a_trainer_steps_along_loss_and_penalty(net, grad_req):
    curv = Curvature(net, SOFTMAX, (X, Y))
    first, second = ewc.importance(curv, draws=10), ewc.importance(curv, "fisher")
    penalty = ewc.Penalty(net, first, second, strength=[3.0, 5.0])
    assert penalty().asscalar() == 0
    shift(net)
    moved = flat(net) - first.parameters
    force = (3.0 * first.importance + 5.0 * second.importance) * moved
    assert penalty().asscalar() == pytest.approx(0.5 * force @ moved, rel=1e-12)
    wanted = curv.gradient() + force
    net.collect_params().setattr("grad_req", grad_req)
    net.collect_params().zero_grad()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    before = flat(net)
    with mx.autograd.record():
        losses = penalty.loss(SOFTMAX)(net(data()[0]), data()[1])
    losses.backward()
    np.testing.assert_allclose(flat(net, lambda p: p.grad()) / len(X), wanted, rtol=1e-8, atol=1e-12)
    trainer.step(len(X))
    np.testing.assert_allclose(flat(net), before - 0.5 * wanted, rtol=1e-7)
    assert losses.shape == (60,)


def test_importance_from_a_file_for_a_net_from_files(net, tmp_path):
    saved = exported(net, X, tmp_path)
    found = files.load(files.save(ewc.importance(Curvature(saved, SOFTMAX, (X, Y))), tmp_path / "task.json"))
    shift(net)
    penalty = ewc.Penalty(net, found)
    moved = flat(net) - found.parameters
    assert penalty().asscalar() == pytest.approx(0.5 * found.importance @ moved**2, rel=1e-12)


def test_the_old_task_is_forgotten_less(net):
    """The new task has the labels moved on by one for another half of space; equal training, with and without."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 5)) + np.array([0, 0, 0, 4, 0])
    y = (np.argmax(x[:, :3], axis=1) + 1) % 3
    old = Curvature(net, SOFTMAX, (X, Y))
    penalty, before, start = ewc.Penalty(net, ewc.importance(old), strength=10), old.loss(), flat(net)
    data, labels, lost = mx.nd.array(x, dtype="float64"), mx.nd.array(y, dtype="float64"), {}
    for name, loss in (("plain", SOFTMAX), ("ewc", penalty.loss(SOFTMAX))):
        for p, part in zip(net.collect_params().values(), np.split(start, [30, 36, 54])):
            p.set_data(mx.nd.array(part.reshape(p.shape), dtype="float64"))
        trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
        for _ in range(150):
            with mx.autograd.record():
                losses = loss(net(data), labels)
            losses.backward()
            trainer.step(60)
        lost[name] = old.loss() - before, float(SOFTMAX(net(data), labels).asnumpy().mean())
    assert lost["ewc"][0] < 0.5 * lost["plain"][0]
    untrained = float(np.mean(SOFTMAX(trained(X, Y)(data), labels).asnumpy()))
    assert lost["plain"][1] <= lost["ewc"][1] < 0.5 * untrained


BAD = [
    (lambda n, f: ewc.Penalty(n), InputError, "at least one task"),
    (lambda n, f: ewc.Penalty(n, f, strength=-1), InputError, "strength must be a number of at least 0"),
    (lambda n, f: ewc.Penalty(trained(X, Y, (5, 4, 3), steps=0), f), ParameterError, "same architecture"),
    (lambda n, f: ewc.importance(Curvature(n, SOFTMAX, (X, Y)), "hessian"), InputError, "matrix must be one of"),
    (lambda n, f: ewc.importance(Curvature(n, SOFTMAX, (X, Y), reduction="sum")), InputError, "reduction='mean'"),
]


@pytest.mark.parametrize("call, kind, said", BAD)
def test_bad_input(net, call, kind, said):
    found = ewc.importance(Curvature(net, SOFTMAX, (X, Y)), draws=2)
    with pytest.raises(kind, match=said):
        call(net, found)
