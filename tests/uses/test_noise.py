"""Gradient noise against dense covariances, a quadratic that is known, and all batches there are."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.operators.samples import per_sample_gradients
from hessmx.results import from_dict
from hessmx.uses.noise import gradient_noise, sample_gradients
from tests import differences, small_nets
from tests.dense import Problem
from tests.operators.test_matrices import Reference

RNG = np.random.default_rng(2)
DECAY = 0.1


@pytest.fixture(scope="module")
def case():
    problem = Problem("tanh", "softmax-ce", samples=15)
    reference = Reference(problem, "softmax-ce")
    return problem, reference.gradients, reference.hessian


def moments(gradients, w, hessian):
    """|g|^2, g'Hg, tr(S), tr(HS) of the objective with its penalty."""
    g, h = gradients.mean(axis=0) + DECAY * w, hessian + DECAY * np.eye(len(w))
    s = np.cov(gradients.T, bias=True)
    return g @ g, g @ h @ g, np.trace(s), np.trace(h @ s)


def found_moments(result):
    return result.square, result.bend, result.trace.value, result.weighted.value


# ---- against dense matrices made of NumPy jets

@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_exact(case, reduction):
    problem, gradients, hessian = case
    curv = problem.curvature(weight_decay=DECAY, reduction=reduction, batch_size=6)
    result = gradient_noise(curv, exact=True)
    true = moments(gradients, problem.w, hessian)
    np.testing.assert_allclose(found_moments(result), true, rtol=1e-8)
    assert result.simple.value == pytest.approx(true[2] / true[0])
    assert result.critical.value == pytest.approx(true[3] / true[1])
    assert result.critical.interval() == (result.critical.value, result.critical.value)
    assert result.loss == pytest.approx(problem.curvature(weight_decay=DECAY).loss())
    assert from_dict(result.to_dict()).to_dict() == result.to_dict()


def test_probes(case):
    problem, gradients, hessian = case
    result = gradient_noise(problem.curvature(weight_decay=DECAY), probes=60)
    square, bend, trace, weighted = moments(gradients, problem.w, hessian)
    assert result.square == pytest.approx(square) and result.bend == pytest.approx(bend) and result.products == 61
    for estimate, true in ((result.trace, trace), (result.weighted, weighted), (result.simple, trace / square),
                           (result.critical, weighted / bend)):
        assert 0 < estimate.stderr < 0.3 * true
        assert abs(estimate.value - true) < 3 * estimate.stderr


def test_a_subset_is_unbiased_and_its_error_counts_the_draw_of_samples(case):
    problem, gradients, hessian = case

    def ratios(chosen):
        """Unbiased: S over n - 1, |g|^2 and g'Hg without S / n and HS / n."""
        n, (square, bend, trace, weighted) = len(chosen), moments(chosen, problem.w, hessian)
        trace, weighted = trace * n / (n - 1), weighted * n / (n - 1)
        return np.array([trace / (square - trace / n), weighted / (bend - weighted / n)])

    result = gradient_noise(problem.curvature(weight_decay=DECAY), exact=True, subset=True)
    np.testing.assert_allclose([result.simple.value, result.critical.value], ratios(gradients), rtol=1e-8)
    without = np.array([ratios(np.delete(gradients, i, axis=0)) for i in range(15)])
    errors = np.sqrt(14 * without.var(axis=0))
    np.testing.assert_allclose([result.simple.stderr, result.critical.stderr], errors, rtol=1e-6)


def test_gradients_of_single_samples(case):
    problem, gradients, _ = case
    curv, directions = problem.curvature(weight_decay=DECAY), RNG.normal(size=(len(problem.w), 2))
    norms, mean = np.linalg.norm(gradients, axis=1), gradients.mean(axis=0)
    exact = sample_gradients(curv, directions)
    drawn = sample_gradients(curv, directions, norms="probes", probes=20)
    np.testing.assert_allclose(exact.norms, norms, rtol=1e-8)
    np.testing.assert_allclose(exact.mean_cosines, gradients @ mean / norms / np.linalg.norm(mean), atol=1e-9)
    along = gradients @ directions / norms[:, None] / np.linalg.norm(directions, axis=0)
    np.testing.assert_allclose(exact.cosines, along, atol=1e-9)
    assert exact.mean_norm == pytest.approx(np.linalg.norm(mean))
    np.testing.assert_array_equal(exact.low, exact.high)
    inside = (drawn.low < norms) & (norms < drawn.high)
    assert inside.mean() > 0.7 and (np.abs(drawn.norms / norms - 1) < 0.6).all() and (drawn.low < drawn.high).all()
    assert (np.abs(drawn.mean_cosines) <= 1).all()


def test_what_lies_in_the_directions_is_not_drawn(case):
    problem, gradients, _ = case
    span = np.linalg.svd(gradients.T, full_matrices=False)[0]
    drawn = sample_gradients(problem.curvature(), span, norms="probes", probes=1)
    np.testing.assert_allclose(drawn.norms, np.linalg.norm(gradients, axis=1), rtol=1e-8)


# ---- a quadratic with a known covariance

class Target(mx.gluon.HybridBlock):
    """z_i = w - x_i: with loss sum_k a_k z_ik^2 / 2 the Hessian is diag(a), and g_i = a (w - x_i)."""

    def __init__(self, size):
        super().__init__()
        with self.name_scope():
            self.w = self.params.get("w", shape=(1, size), init="ones")

    def hybrid_forward(self, F, x, w):
        return F.broadcast_minus(w, x)


def test_a_quadratic_with_known_covariance():
    a, covariance = np.array([3.0, 0.5, 1.0]), np.array([[1.0, 0.3, 0], [0.3, 2.0, 0], [0, 0, 0.5]])
    x = RNG.normal(size=(6, 3))
    x -= x.mean(axis=0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T, bias=True))).T @ np.linalg.cholesky(covariance).T
    net = Target(3)
    net.initialize()
    net.cast("float64")
    scales = mx.nd.array(a[None], dtype="float64")
    curv = Curvature(net, lambda z, y: mx.nd.sum(mx.nd.broadcast_mul(scales, z * z), axis=1) / 2, (x, np.zeros(6)))
    result = gradient_noise(curv, exact=True)
    noise = np.diag(a) @ covariance @ np.diag(a)
    expected = (a @ a, a @ (a * a), np.trace(noise), np.trace(np.diag(a) @ noise))  # g = a (w - 0), w = 1
    np.testing.assert_allclose(found_moments(result), expected, rtol=1e-10)
    rate = 0.3
    for size in (1, 2):  # of a quadratic the mean over all batches is what is predicted, at any rate
        rest = np.ones(3) - rate * a * (1 - np.array([x[list(c)].mean(axis=0) for c in product(range(6), repeat=size)]))
        change = (a * rest**2).sum(axis=1).mean() / 2 - a.sum() / 2
        assert result.change(rate, size) == pytest.approx(change, rel=1e-9)
    best = result.best_rate(2)
    assert -result.change(best, 2) == pytest.approx(result.gain(2))
    assert result.change(best * 1.01, 2) > result.change(best, 2) < result.change(best * 0.99, 2)


# ---- steps of SGD on all batches there are, by the nets' own losses

@pytest.mark.parametrize("name", small_nets.NETS)
def test_predicted_steps_of_sgd(name):
    net, x, y = small_nets.make(name)
    curv = Curvature(net, small_nets.LOSS, [(x, y)])
    result, w = gradient_noise(curv, exact=True), curv.parameters()
    gradients = np.stack(list(per_sample_gradients(curv)))
    losses = small_nets.losses(net, x, y, curv.param_names)
    rate = 2e-5 * min(1.0, abs(result.square / result.bend))  # short of the kinks

    def measured(batches):
        """Odd terms in the rate taken out of the second-order ones, by a step forth and one back."""
        steps = [rate * gradients[list(batch)].mean(axis=0) for batch in batches]
        forth, back = (np.mean([losses(w - s * step).mean() for step in steps]) - losses(w).mean() for s in (1, -1))
        return (forth - back) / 2, (forth + back) / 2

    for size in (1, 2):
        straight, bent = measured(list(combinations(range(12), size)))
        forth, back = (result.change(s * rate, size, replacement=False) for s in (1, -1))
        assert straight == pytest.approx((forth - back) / 2, rel=1e-4)
        assert bent == pytest.approx((forth + back) / 2, rel=1e-3)
    differences.move(net, curv.param_names, w)


# ---- what is said

class Wave(mx.gluon.HybridBlock):
    """z_i = w + x_i: with loss cos z the loss bends down where it is high."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.w = self.params.get("w", shape=(1, 1), init="zeros")

    def hybrid_forward(self, F, x, w):
        return F.broadcast_add(w, x)


def test_no_critical_batch_where_the_loss_bends_down_and_none_known_in_noise():
    net = Wave()
    net.initialize()
    net.cast("float64")
    loss = lambda z, y: mx.nd.cos(z)[:, 0]  # noqa: E731
    down = gradient_noise(Curvature(net, loss, (np.array([[0.3], [0.1]]), np.zeros(2))), exact=True)
    assert down.bend < 0 and np.isnan(down.critical.value) and "does not bend upwards" in down.notes[0]
    assert down.simple.value == pytest.approx(np.var(np.sin([0.3, 0.1])) / np.mean(np.sin([0.3, 0.1])) ** 2)
    lost = gradient_noise(Curvature(net, loss, (np.array([[3.3], [3.0]]), np.zeros(2))), exact=True, subset=True)
    assert lost.square < 0 and np.isinf(lost.simple.value) and "cannot be told from noise" in lost.notes[0]


BAD = [
    (lambda curv: sample_gradients(curv, np.ones((3, 2))), "directions must be finite columns"),
    (lambda curv: sample_gradients(curv, norms="guess"), "norms must be one of"),
    (lambda curv: sample_gradients(curv, norms="probes", probes=0), "probes must be a whole number"),
    (lambda curv: gradient_noise(curv, probes=1), "at least 2"),
]


@pytest.mark.parametrize(("call", "said"), BAD)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call(Problem("tanh", "softmax-ce").curvature())
