"""Losses, slopes and gradients of single samples against NumPy jets and differences of the net's own forward passes."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import DataError, EngineError, InputError
from hessmx.operators.samples import per_sample_gradients, per_sample_losses, per_sample_slopes, weighted_gradient
from tests import differences, small_nets
from tests.dense import Problem
from tests.operators.test_matrices import Reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("loss", ["softmax-ce", "l2", "sigmoid-bce"])
@pytest.mark.parametrize("batch_size", [3, 7])
def test_dense_nets_against_jets(loss, batch_size):
    problem = Problem("tanh", loss)
    curv, true = problem.curvature(batch_size=batch_size, weight_decay=0.3), Reference(problem, loss).gradients
    v, weights = RNG.normal(size=(curv.num_params, 2)), RNG.normal(size=7)
    np.testing.assert_allclose(per_sample_slopes(curv, v), true @ v, atol=1e-10)
    np.testing.assert_allclose(per_sample_slopes(curv, v[:, 0]), true @ v[:, 0], atol=1e-10)
    np.testing.assert_allclose(np.stack(list(per_sample_gradients(curv))), true, atol=1e-10)
    np.testing.assert_allclose(np.stack(list(per_sample_gradients(curv, [5, 2]))), true[[2, 5]], atol=1e-10)
    np.testing.assert_allclose(weighted_gradient(curv, weights), weights @ true, atol=1e-10)
    assert per_sample_losses(curv).mean() == pytest.approx(problem.curvature().loss(), rel=1e-12)


@pytest.mark.parametrize("mode", ["predict", "train"])
@pytest.mark.parametrize("name", small_nets.NETS)
def test_other_nets_against_differences_of_their_own_losses(name, mode):
    net, x, y = small_nets.make(name)
    curv = Curvature(net, small_nets.LOSS, [(x, y)], mode=mode)
    w, v = curv.parameters(), RNG.normal(size=(curv.num_params, 2))
    own, at = per_sample_losses(curv), per_sample_losses(curv, w + 0.01 * v[:, 0])
    slopes, gradients = per_sample_slopes(curv, v), np.stack(list(per_sample_gradients(curv)))
    losses = small_nets.losses(net, x, y, curv.param_names, mode == "train")
    np.testing.assert_allclose(own, losses(w), rtol=1e-10)
    np.testing.assert_allclose(at, losses(w + 0.01 * v[:, 0]), rtol=1e-10)
    for column, direction in zip(slopes.T, v.T):
        true = differences.directional(losses, w, direction, 1e-5)  # short of the kinks
        np.testing.assert_allclose(column, true, atol=1e-7 * np.abs(true).max())
    np.testing.assert_allclose(gradients @ v, slopes, atol=1e-10 * np.abs(slopes).max())


def test_batches_of_time_first_are_not_cut_along_time():
    """Cut along its first axis the data would still run, and give other losses."""
    net, x, y = small_nets.make("lstm")
    curv = Curvature(net, small_nets.LOSS, [(x, y), (x[:, :5], y[:5])])
    gradients = np.stack(list(per_sample_gradients(curv)))
    assert gradients.shape == (17, curv.num_params)
    np.testing.assert_allclose(gradients[:5], gradients[12:], atol=1e-12)


class Halved(mx.autograd.Function):
    """What no tracer can read."""

    def forward(self, x):
        return x / 2

    def backward(self, dy):
        return dy / 2


class Untraced(mx.gluon.Block):
    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.dense = mx.gluon.nn.Dense(3, in_units=4)

    def forward(self, x):
        return Halved()(self.dense(x))


@pytest.mark.filterwarnings("ignore")  # that these are differences is said, and tested elsewhere
def test_a_net_that_cannot_be_traced_has_slopes_by_differences():
    net = Untraced()
    net.initialize(mx.init.Normal(0.5))
    net.cast("float64")
    x, y = RNG.normal(size=(6, 4)), np.arange(6) % 3
    curv = Curvature(net, small_nets.LOSS, (x, y))
    assert curv.engine == "finite-difference"
    p = np.exp(net(mx.nd.array(x, dtype="float64")).asnumpy())
    rest = (p / p.sum(1, keepdims=True) - np.eye(3)[y]) / 2
    true = np.concatenate([np.einsum("nk,ni->nki", rest, x).reshape(6, -1), rest], axis=1)
    v = RNG.normal(size=curv.num_params)
    np.testing.assert_allclose(np.stack(list(per_sample_gradients(curv))), true, atol=1e-10)
    np.testing.assert_allclose(per_sample_slopes(curv, v), true @ v, atol=1e-7)
    with pytest.raises(EngineError, match="needs a net that can be traced"):
        weighted_gradient(curv, np.ones(6))


def test_a_shuffling_loader_is_refused():
    problem = Problem("tanh", "softmax-ce")
    samples = mx.gluon.data.ArrayDataset(problem.x, problem.y)
    for shuffle in (False, True):
        loader = mx.gluon.data.DataLoader(samples, batch_size=3, shuffle=shuffle)
        curv = Curvature(problem.net, problem.loss, loader)
        if shuffle:
            with pytest.raises(DataError, match="turn off shuffling"):
                per_sample_slopes(curv, np.ones(curv.num_params))
        else:
            arrays = per_sample_slopes(problem.curvature(), np.ones(curv.num_params))
            np.testing.assert_allclose(per_sample_slopes(curv, np.ones(curv.num_params)), arrays, atol=1e-12)


BAD = [
    (lambda curv: per_sample_slopes(curv, np.ones(3)), "v must be real numbers of shape"),
    (lambda curv: per_sample_slopes(curv, np.full(curv.num_params, np.nan)), "NaN or infinite"),
    (lambda curv: weighted_gradient(curv, np.ones(3)), "weights must be 7 finite numbers"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call(Problem("tanh", "softmax-ce").curvature())
