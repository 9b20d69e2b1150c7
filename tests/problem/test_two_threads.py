"""One net, one Curvature, several threads: answers are those of one thread, and the net is left as it was found."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from hessmx import Curvature, inputs
from hessmx._mxnet import mx
from hessmx.problem.net import Net

nn, L2 = mx.gluon.nn, mx.gluon.loss.L2Loss()
RNG = np.random.default_rng(0)
X, Y, W = RNG.normal(size=(60, 6)), RNG.normal(size=(60, 3)), RNG.normal(size=(3, 6))


def dense(values=W):
    net = nn.Dense(3, in_units=6, use_bias=False, dtype="float64")
    net.initialize()
    net.weight.set_data(mx.nd.array(values, dtype="float64"))
    return net


def product(v):
    """H v of the mean of |W x - y|^2 / 6 over the samples, in NumPy: (v x) x' / 3 for each."""
    return (v.reshape(3, 6) @ (X.T @ X) / 3 / len(X)).ravel()


class Python(mx.gluon.Block):
    """The same net, which only the tape can read."""

    def __init__(self):
        super().__init__()
        self.dense = dense()

    def forward(self, x):
        return self.dense(x) if float(x.sum().asscalar()) < 1e9 else x


def together(*tasks, times=1):
    """Run the tasks at once, each in its thread; raises what any of them raised."""
    start, raised = threading.Barrier(len(tasks)), []

    def run(task):
        start.wait()
        try:
            for _ in range(times):
                task()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def state(net):
    return {
        name: (p._data[0].handle.value, p._grad[0].handle.value, p.data().asnumpy().tobytes())
        for name, p in net.collect_params().items()
    }


@pytest.mark.parametrize("make", [dense, Python])
def test_two_curvatures_made_on_one_net(make):
    net, v = make(), RNG.normal(size=18)
    before = state(net)

    def ask():
        np.testing.assert_allclose(Curvature(net, L2, (X, Y), batch_size=25).hvp(v), product(v), rtol=1e-10)

    together(ask, ask, times=6)
    assert state(net) == before


def test_one_curvature_in_two_threads():
    """Products, gradients, the Jacobian and values of two vectors at once, none mixed up with the other's."""
    net = dense()
    curv = Curvature(net, L2, (X, Y), batch_size=16)

    def ask(v):
        np.testing.assert_allclose(curv.hvp(v), product(v), rtol=1e-10)
        np.testing.assert_allclose(curv.jacobian @ v, (X @ v.reshape(3, 6).T).ravel(), rtol=1e-10)
        residual = X @ v.reshape(3, 6).T - Y
        np.testing.assert_allclose(curv.loss(at=v), (residual**2).sum() / 6 / len(X), rtol=1e-10)
        np.testing.assert_allclose(curv.gradient(at=v), (residual.T @ X / 3 / len(X)).ravel(), rtol=1e-10)

    together(lambda: ask(W.ravel()), lambda: ask(-2 * W.ravel()), lambda: ask(np.ones(18)), times=15)


def test_a_loader_that_is_reset_is_one_threads_at_a_time():
    loader = mx.io.NDArrayIter(X.astype(np.float32), Y.astype(np.float32), 20)
    curv, v = Curvature(dense(), L2, loader), RNG.normal(size=18)

    def ask():
        np.testing.assert_allclose(curv.hvp(v), product(v), rtol=1e-5)

    together(ask, ask, times=8)


def test_a_net_is_lent_to_one_thread_at_a_time():
    net = dense()
    lender, own, inside = Net(net), net.weight.data(), threading.Event()
    seen, leave = [], threading.Event()

    def first():
        with lender.lent({net.weight.name: mx.nd.zeros((3, 6), dtype="float64")}):
            inside.set()
            leave.wait(5)

    def second():
        inside.wait(5)
        leave.set()
        seen.append(lender.values())  # not the zeros that are lent
        with lender.lent() as lent:
            seen.append(lent[net.weight.name].asnumpy().ravel())

    together(first, second)
    assert len(seen) == 2
    for values in seen:
        np.testing.assert_array_equal(values, W.ravel())
    assert net.weight.data() is own


def test_input_derivatives_beside_products():
    net = Python()
    curv, v = Curvature(net, L2, (X, Y)), RNG.normal(size=18)
    together(
        lambda: np.testing.assert_allclose(inputs.jacobian(net, X[:5])[3], W, rtol=1e-10),
        lambda: np.testing.assert_allclose(curv.hvp(v), product(v), rtol=1e-10),
        times=4,
    )
