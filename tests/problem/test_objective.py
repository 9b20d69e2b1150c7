"""What is differentiated: train and predict mode, reductions of the loss itself, penalties with bad values."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, L2Penalty
from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError
from tests import oracles
from tests.dense import Problem, relative

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
RNG = np.random.default_rng(8)
X, Y = RNG.normal(size=(9, 4)), RNG.normal(size=(9, 3))
L2 = gluon_loss.L2Loss()
EPSILON = float(np.float32(1e-5))  # of Gluon's BatchNorm, in the float32 that MXNet keeps it in


def batch_norm_net():
    mx.random.seed(1)
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=4), nn.BatchNorm(in_channels=5), nn.Activation("tanh"), nn.Dense(3, in_units=5))
    net.initialize(mx.init.Normal(0.6))
    net.cast("float64")
    statistics = [p for p in net[1].collect_params().values() if p.grad_req == "null"]
    statistics[0].set_data(mx.nd.array(RNG.normal(size=5) * 0.1, dtype="float64"))
    statistics[1].set_data(mx.nd.array(RNG.uniform(0.5, 1.5, 5), dtype="float64"))
    return net, [p.data().asnumpy() for p in statistics]


def batch_norm_reference(w, mean, variance):
    """The same net over jets; statistics of the batch where none are given."""
    whole = oracles.Jet(w, np.eye(w.size), np.zeros((w.size,) * 3))
    shapes, position, pieces = [(5, 4), (1, 5), (1, 5), (1, 5), (3, 5), (1, 3)], 0, []
    for shape in shapes:
        pieces.append(whole[position : position + np.prod(shape)].reshape(*shape))
        position += np.prod(shape)
    w1, b1, gamma, beta, w2, b2 = pieces
    z = (w1 @ w1.lift(X).T).T + b1
    mean = z.mean(0).reshape(1, 5) if mean is None else mean
    centred = z - mean
    variance = oracles.square(centred).mean(0).reshape(1, 5) if variance is None else variance
    deviation = variance + EPSILON
    inverse = oracles.exp(-0.5 * oracles.log(deviation)) if isinstance(deviation, oracles.Jet) else deviation**-0.5
    h = oracles.tanh(centred * inverse * gamma + beta)
    return (0.5 * oracles.square((w2 @ h.T).T + b2 - Y).mean(1)).mean(0)


@pytest.mark.parametrize("mode", ["predict", "train"])
def test_batch_norm(mode):
    net, (mean, variance) = batch_norm_net()
    curv = Curvature(net, L2, (X, Y), mode=mode)
    reference = batch_norm_reference(curv.parameters(), *((mean, variance) if mode == "predict" else (None, None)))
    np.testing.assert_allclose(curv.loss(), reference.v, rtol=1e-8)
    np.testing.assert_allclose(curv.gradient(), reference.d, atol=1e-8)
    assert relative(curv.hessian.to_dense(), reference.h) < 1e-7
    np.testing.assert_array_equal(net[1].running_mean.data().asnumpy(), mean)


def dropout_net():
    problem = Problem("tanh", "l2")
    net = nn.HybridSequential()
    net.add(nn.Dropout(0.4), *problem.net)
    return net, problem


def test_dropout_does_nothing_in_predict_mode():
    net, problem = dropout_net()
    curv = Curvature(net, L2, (problem.x, problem.y))
    assert relative(curv.hessian.to_dense(), problem.reference().h) < 1e-12


def test_dropout_in_train_mode_is_a_mask_fixed_by_the_seed():
    """The mask is found from the gradient of the first layer's weight being zero where its input is dropped."""
    net, problem = dropout_net()
    x, y = np.ones((1, 4)), problem.y[:1]
    curv = Curvature(net, L2, (x, y), mode="train", seed=3)
    gradient = curv.gradient()[:20].reshape(5, 4)
    mask = (np.abs(gradient).sum(0) > 0) / 0.6
    assert 0 < mask.sum() < 4 / 0.6, "the seed should drop some of the inputs and not all"
    reference = oracles.objective(problem.layers, "l2", problem.w, x * mask, y)
    np.testing.assert_allclose(curv.loss(), reference.v, rtol=1e-12)
    assert relative(curv.hessian.to_dense(), reference.h) < 1e-12
    again = Curvature(net, L2, (x, y), mode="train", seed=3)
    np.testing.assert_array_equal(again.gradient(), curv.gradient())
    others = {Curvature(net, L2, (x, y), mode="train", seed=seed).loss() for seed in range(6)}
    assert len(others) > 1


def test_dropout_masks_differ_from_batch_to_batch():
    net, problem = dropout_net()
    batch = (problem.x, problem.y)
    one, two = (Curvature(net, L2, data, mode="train") for data in ([batch], [batch, batch]))
    assert abs(one.loss() - two.loss()) > 1e-6


# -- losses that reduce over the batch themselves

REDUCED = {
    "mean over everything": lambda z, y: ((z - y).square() / 2).mean(),
    "per sample": lambda z, y: ((z - y).square() / 2).mean(axis=1),
    "one per output": lambda z, y: (z - y).square() / 2,
    "L2Loss": L2,
}


@pytest.mark.parametrize("name", REDUCED)
def test_losses_are_means_over_samples_whatever_their_shape(name):
    problem = Problem("tanh", "l2")
    problem.loss = REDUCED[name]
    curv = problem.curvature()
    factor = 3 if name == "one per output" else 1  # (N, 3) losses: their sum over the outputs is a sample's loss
    assert relative(curv.hessian.to_dense(), factor * problem.reference().h) < 1e-12
    assert curv.num_samples == 7


def test_sample_weights():
    problem, weights = Problem("tanh", "l2"), np.linspace(0, 2, 7)
    jet = (oracles.LOSSES["l2"](oracles.forward(problem.layers, problem.w, problem.x), problem.y) * weights).mean(0)
    curv = Curvature(problem.net, lambda z, y: L2(z, y[0], y[1].expand_dims(1)),
                     [(problem.x, [problem.y, weights])])
    assert relative(curv.hessian.to_dense(), jet.h) < 1e-12


def test_a_loss_that_cannot_be_taken_apart_is_refused():
    problem = Problem("tanh", "l2")
    problem.loss = lambda z, y: (z - y).square().mean().sqrt()
    with pytest.raises(DataError, match="one value for 7 samples"):
        problem.curvature()


@pytest.mark.parametrize("strength", [-1.0, np.nan, np.inf, "0.1"])
def test_penalties_that_are_none(strength):
    with pytest.raises(InputError, match="weight_decay must be a number >= 0 or an L2Penalty"):
        Problem().curvature(weight_decay=L2Penalty(strength))
