"""Paths against forward passes in NumPy: losses, and slopes and curvatures by differences of losses along the path."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.uses import paths
from hessmx.uses.nets import accuracy, vector_of
from tests.uses.support import SOFTMAX, dense_loss, exported, problem, trained, unchanged

X, Y = problem()


@pytest.fixture(scope="module")
def nets():
    return trained(X, Y, seed=0), trained(X, Y, seed=1)


@pytest.fixture(scope="module")
def curv(nets):
    return Curvature(nets[0], SOFTMAX, (X, Y), batch_size=25)


def differences(f, t, step=1e-4):
    """First and second derivative of f at t, from the side where t stays within [0, 1]."""
    at = [f(t + k * step) for k in (-2, -1, 0, 1, 2)]
    first = (at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * step)
    second = (-at[0] + 16 * at[1] - 30 * at[2] + 16 * at[3] - at[4]) / (12 * step**2)
    return first, second


@pytest.mark.parametrize("make", [
    lambda curv, other: paths.straight(curv, other, 9),
    lambda curv, other: paths.bent(curv, other, "bezier", steps=10, points=9),
    lambda curv, other: paths.bent(curv, other, "chain", steps=10, points=9),
], ids=["straight", "bezier", "chain"])
def test_losses_slopes_and_curvatures_are_those_of_forward_passes(make, nets, curv):
    a, b = (np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()]) for net in nets)
    with unchanged(*nets):
        path = make(curv, nets[1])
    c = path.control

    def position(t):
        if path.kind == "straight":
            return a + t * (b - a)
        if path.kind == "bezier":
            return (1 - t) ** 2 * a + 2 * t * (1 - t) * c + t**2 * b
        return a + 2 * t * (c - a) if t < 0.5 else c + (2 * t - 1) * (b - c)

    along = lambda t: dense_loss(position(t), X, Y)  # noqa: E731
    for i, t in enumerate(path.t):
        assert path.losses[i] == pytest.approx(along(t), rel=1e-9)
        np.testing.assert_allclose(paths.point(path, curv, nets[1], float(t)), position(t), rtol=1e-12)
        if path.kind == "chain" and t == 0.5:
            continue
        first, second = differences(along, t)
        assert path.slopes[i] == pytest.approx(first, rel=1e-5, abs=1e-7)
        assert path.curvatures[i] == pytest.approx(second, rel=1e-4, abs=1e-4)
    rise = path.losses - (1 - path.t) * path.losses[0] - path.t * path.losses[-1]
    assert path.barrier == pytest.approx(rise.max()) and path.t[rise.argmax()] == path.peak
    grid = [position(t) for t in np.linspace(0, 1, 4001)]
    assert path.length == pytest.approx(sum(np.linalg.norm(q - p) for p, q in zip(grid, grid[1:])), rel=1e-4)
    assert path.distance == pytest.approx(np.linalg.norm(b - a))


def test_a_trained_bend_lowers_the_barrier_and_repeats(nets, curv):
    line = paths.straight(curv, nets[1], metric=accuracy(X, Y))
    curve = paths.bent(curv, nets[1], steps=150)
    again = paths.bent(curv, nets[1], steps=150)
    assert line.barrier > 0.1 and curve.barrier < 0.5 * line.barrier
    assert np.array_equal(curve.control, again.control)
    assert line.metric[0] == accuracy(X, Y)(nets[0]) and line.metric[-1] == accuracy(X, Y)(nets[1])
    assert line.metric.min() < line.metric[0]


def test_batch_statistics_along_the_path():
    """In train mode every point has the statistics of its batches: the loss of the net with its values moved there."""
    def make(seed):
        mx.random.seed(seed)
        net = mx.gluon.nn.HybridSequential()
        net.add(mx.gluon.nn.Dense(6, in_units=5), mx.gluon.nn.BatchNorm(in_channels=6), mx.gluon.nn.Activation("tanh"),
                mx.gluon.nn.Dense(3, in_units=6))
        net.initialize(mx.init.Normal(0.5))
        net.cast("float64")
        return net

    first, second, moved = make(0), make(1), make(2)
    path = paths.straight(Curvature(first, SOFTMAX, (X, Y), mode="train"), second, 3)
    for p, q, r in zip(*(net.collect_params().values() for net in (moved, first, second))):
        p.set_data(0.5 * (q.data() + r.data()))
    with mx.autograd.train_mode():
        loss = SOFTMAX(moved(mx.nd.array(X, dtype="float64")), mx.nd.array(Y, dtype="float64")).asnumpy().mean()
    assert path.losses[1] == pytest.approx(loss, rel=1e-9)


def test_nets_from_files_are_matched_by_order_and_shape(nets, curv, tmp_path):
    first, second = (exported(net, X, tmp_path, name) for net, name in zip(nets, "ab"))
    assert set(first.collect_params()) != set(second.collect_params())
    path = paths.straight(Curvature(first, SOFTMAX, (X, Y)), second, 5)
    np.testing.assert_allclose(path.losses, paths.straight(curv, nets[1], 5).losses, rtol=1e-12)
    loaded = files.load(files.save(path, tmp_path / "path.json"))
    assert np.array_equal(loaded.losses, path.losses) and loaded.control is None
    assert loaded.provenance == path.provenance
    np.testing.assert_array_equal(vector_of(curv, second), vector_of(curv, nets[1]))


BAD = [
    (lambda c, o: paths.straight(c, c), "same parameters"),
    (lambda c, o: paths.straight(c, np.ones(3)), "a net like the first one or its parameters"),
    (lambda c, o: paths.straight(c, np.full(c.num_params, np.nan)), "NaN"),
    (lambda c, o: paths.straight(c, trained(X, Y, (5, 4, 3), steps=0)), "same architecture"),
    (lambda c, o: paths.straight(c, o, 2), "points must be a whole number of at least 3"),
    (lambda c, o: paths.bent(c, o, "arc"), "kind must be one of"),
    (lambda c, o: paths.bent(c, o, rate=-1), "rate must be a number above 0"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input(nets, curv, call, said):
    with pytest.raises(InputError, match=said):
        call(curv, nets[1])
