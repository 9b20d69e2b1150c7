"""Influence against dense inverses, leaving samples out and training again, and differences of the nets' own losses."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import InputError
from hessmx.results import from_dict
from hessmx.uses.influence import influence, parameter_change, self_influence
from tests import differences, small_nets
from tests.dense import Problem
from tests.operators.test_matrices import Reference

RNG = np.random.default_rng(5)
DECAY = 0.01


def close(found, true, tolerance=1e-8):
    np.testing.assert_allclose(found, true, atol=tolerance * np.abs(true).max())


# ---- against dense inverses made of NumPy jets

@pytest.fixture(scope="module", params=[("tanh", "softmax-ce"), ("maxout", "l2"), ("tanh", "sigmoid-bce")], ids=str)
def case(request):
    """The net, and its training and test references: test samples are other data with the net's values."""
    train, test = Problem(*request.param, samples=9), Problem(*request.param, samples=4)
    test.x = RNG.normal(size=test.x.shape)
    return train, Reference(train, request.param[1]), test, Reference(test, request.param[1]).gradients


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(("matrix", "damping"), [("ggn", None), ("ggn", 0.02), ("hessian", 5.0)])
def test_scores_against_dense_inverses(case, matrix, damping, reduction):
    train, reference, test, test_gradients = case
    curv = train.curvature(weight_decay=DECAY, reduction=reduction)
    factor = 9 if reduction == "sum" else 1
    dense = factor * (getattr(reference, matrix) + DECAY * np.eye(curv.num_params))
    dense += (damping or 0) * np.eye(curv.num_params)
    true = reference.gradients @ np.linalg.solve(dense, test_gradients.T) * factor / 9
    options = dict(matrix=matrix, damping=damping, rtol=1e-11)
    each = influence(curv, (test.x, test.y), each=True, **options)
    close(each.scores, true)
    whole = influence(curv, (test.x, test.y), **options)
    close(whole.scores[:, 0], true.mean(axis=1))
    assert whole.converged and whole.damping == (damping or 0) and not whole.notes
    order = np.argsort(-true.mean(axis=1))
    assert list(whole.helpful(3)) == list(order[:3]) and list(whole.harmful(2)) == list(order[::-1][:2])
    close(whole.group([0, 4]), true[[0, 4]].sum(axis=0).mean(), 1e-7)


def test_of_a_function_of_the_outputs():
    train = Problem("tanh", "softmax-ce", samples=9)
    reference, curv = Reference(train, "softmax-ce"), train.curvature(weight_decay=DECAY)
    dense = reference.ggn + DECAY * np.eye(curv.num_params)
    true = reference.gradients @ np.linalg.solve(dense, reference.jacobians[:2, 1].T) / 9
    found = influence(curv, (train.x[:2], train.y[:2]), of=lambda z, y: z[:, 1], each=True, rtol=1e-11)
    close(found.scores, true)
    close(found.values, train.net(mx.nd.array(train.x[:2], dtype="float64")).asnumpy()[:, 1])


def test_self_influence_and_the_parameters_change(case):
    train, reference, _, _ = case
    curv = train.curvature(weight_decay=DECAY)
    inverse = np.linalg.inv(reference.ggn + DECAY * np.eye(curv.num_params))
    true = np.einsum("np,pq,nq->n", reference.gradients, inverse, reference.gradients) / 9
    solved = self_influence(curv, [7, 2, 3], rtol=1e-10)
    assert list(solved.samples) == [2, 3, 7]
    close(solved.values, true[[2, 3, 7]])
    assert list(solved.order()) == [(2, 3, 7)[i] for i in np.argsort(-true[[2, 3, 7]])]
    drawn = self_influence(curv, probes=32, rtol=1e-4)
    assert drawn.converged and drawn.residual <= 1e-4
    np.testing.assert_allclose(drawn.stderr, drawn.values / 4)
    low, high = drawn.interval(0.9999)
    assert ((low < true) & (true < high)).all() and solved.interval()[0] is solved.values
    change = parameter_change(curv, [0, 5], rtol=1e-11)
    close(change.x, inverse @ (reference.gradients[0] + reference.gradients[5]) / 9)


def test_results_are_saved_whole():
    curv = Problem("tanh", "softmax-ce").curvature()
    for result in (influence(curv, (RNG.normal(size=(2, 4)), np.zeros(2))), self_influence(curv, probes=2)):
        again = from_dict(result.to_dict())
        assert again.to_dict() == result.to_dict() and again.provenance.matrix == "ggn"


# ---- leaving samples out, and training again

def probabilities(w, x):
    z = x @ w.T
    p = np.exp(z - z.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def trained(x, y, weights, w):
    """Minimum of sum_i weights_i l_i / N + decay / 2 |w|^2 of softmax regression, by Newton's method in NumPy."""
    classes, samples = len(w), len(x)
    for _ in range(30):
        p = probabilities(w, x)
        gradient = ((p - np.eye(classes)[y]) * weights[:, None]).T @ x / samples + DECAY * w
        if np.abs(gradient).max() < 1e-13:
            return w
        middle = (p[:, :, None] * np.eye(classes) - p[:, :, None] * p[:, None]) * (weights / samples)[:, None, None]
        hessian = np.einsum("nkl,ni,nj->kilj", middle, x, x, optimize=True).reshape(w.size, w.size)
        w = w - np.linalg.solve(hessian + DECAY * np.eye(w.size), gradient.ravel()).reshape(w.shape)
    raise AssertionError("Newton's method has not converged")


def regression(samples=400, tests=50):
    """Three classes in the plane that overlap, the net at its minimum, the test loss as a function of the weights."""
    y = RNG.integers(0, 3, samples + tests)
    points = np.array([[0, 0], [1.5, 0], [0, 1.5]])[y] + RNG.normal(size=(len(y), 2))
    x = np.hstack([points, np.ones((len(y), 1))])
    start = trained(x[:samples], y[:samples], np.ones(samples), np.zeros((3, 3)))
    net = dense_net((2, 3), "tanh", dtype="float64")
    net.initialize()
    for parameter, value in zip(net.collect_params().values(), (start[:, :2], start[:, 2])):
        parameter.set_data(mx.nd.array(value, dtype="float64"))
    curv = Curvature(net, small_nets.LOSS, (points[:samples], y[:samples]), weight_decay=DECAY)

    def retrained(weights):
        w = trained(x[:samples], y[:samples], weights, start)
        return -np.log(probabilities(w, x[samples:])[np.arange(tests), y[samples:]]).mean()

    return curv, (points[samples:], y[samples:]), retrained


@pytest.fixture(scope="module")
def softmax_regression():
    return regression()


def test_leaving_samples_out_of_softmax_regression(softmax_regression):
    curv, test, retrained = softmax_regression
    assert np.abs(curv.gradient()).max() < 1e-12
    found = influence(curv, test)
    before = retrained(np.ones(400))
    assert found.values[0] == pytest.approx(before, rel=1e-10)
    true = np.array([retrained(1 - np.eye(1, 400, i)[0]) - before for i in range(400)])
    assert np.corrcoef(found.scores[:, 0], true)[0, 1] > 0.99
    assert np.polyfit(found.scores[:, 0], true, 1)[0] == pytest.approx(1, abs=0.03)


def test_weighing_a_sample_less_in_softmax_regression(softmax_regression):
    """The derivative by the weight of a sample, which the scores are: exact, where leaving out is first order."""
    curv, test, retrained = softmax_regression
    found, h = influence(curv, test, rtol=1e-10), 1e-3
    for i in (*found.helpful(3), *found.harmful(3)):
        less, more = (retrained(1 - s * h * np.eye(1, 400, i)[0]) for s in (1, -1))
        assert found.scores[i, 0] == pytest.approx((less - more) / (2 * h), rel=1e-5)


def test_leaving_out_a_group_moves_the_parameters(softmax_regression):
    curv, test, retrained = softmax_regression
    group = [3, 50, 99, 200]
    weights = np.ones(400)
    weights[group] = 0
    change = parameter_change(curv, group, rtol=1e-10)
    moved = curv.loss(at=curv.parameters() + change.x)
    there = Curvature(curv._net.block, small_nets.LOSS, test).loss(at=curv.parameters() + change.x)
    before = retrained(np.ones(400))
    assert moved > curv.loss()
    assert there - before == pytest.approx(retrained(weights) - before, rel=0.1)
    assert influence(curv, test).group(group)[0] == pytest.approx(there - before, rel=0.1)


# ---- other nets, against differences of their own forward passes

@pytest.mark.parametrize("name", small_nets.NETS)
def test_other_nets(name):
    """Each factor of g_i' (H + damping I)^-1 g is held against differences of losses, then their product."""
    net, x, y = small_nets.make(name)
    test_x, test_y = (x[:, :4] if name == "lstm" else x[:4]), y[:4]
    curv = Curvature(net, small_nets.LOSS, [(x, y)])
    names, w, damping = curv.param_names, curv.parameters(), 3.0
    gradient = Curvature(net, small_nets.LOSS, [(test_x, test_y)]).gradient()
    hessian = curv.hessian.to_dense()
    found = influence(curv, [(test_x, test_y)], matrix="hessian", damping=damping, rtol=1e-11)
    np.testing.assert_array_equal(curv.parameters(), w)
    losses, test_losses = (small_nets.losses(net, *data, names) for data in ((x, y), (test_x, test_y)))
    for r in RNG.normal(size=(4, len(w))):
        r, h = r / np.linalg.norm(r), 1e-4
        assert differences.directional(test_losses, w, r, 1e-5).mean() == pytest.approx(r @ gradient, rel=1e-6)
        bend = (losses(w + h * r) - 2 * losses(w) + losses(w - h * r)).mean() / h**2
        assert bend == pytest.approx(r @ hessian @ r, rel=1e-4, abs=1e-6)
    v = np.linalg.solve(hessian + damping * np.eye(len(w)), gradient)
    close(found.scores[:, 0], differences.directional(losses, w, v, 1e-5) / len(y), 1e-6)


# ---- what is said, and what it costs

def test_a_solve_that_stops_short_and_batch_statistics_are_told():
    net, x, y = small_nets.make("batchnorm")
    curv = Curvature(net, small_nets.LOSS, (x, y), mode="train")
    found = influence(curv, (x, y), damping=1e-6, max_products=4)
    assert not found.converged and found.residuals[0] > 1e-5
    assert found.notes[0].startswith("batch statistics")
    assert any("relative residual" in note for note in found.notes)
    drawn = self_influence(curv, probes=1, damping=1e-6, steps=3)
    assert not drawn.converged and "more steps" in drawn.notes[-1]


def test_without_a_penalty_the_damping_follows_the_curvature():
    problem = Problem("tanh", "softmax-ce")
    found = influence(problem.curvature(), (problem.x, problem.y))
    mean = np.trace(Reference(problem, "softmax-ce").ggn) / len(problem.w)
    assert found.damping == pytest.approx(0.1 * mean, rel=0.5)
    assert f"damping {found.damping:.3g}" in found.notes[0]


def test_memory_is_a_few_vectors():
    net = dense_net((300, 300, 10), "tanh")
    net.initialize()
    curv = Curvature(net, small_nets.LOSS, (RNG.normal(size=(64, 300)), np.arange(64) % 10))
    influence(curv, (np.ones((1, 300)), np.zeros(1)), damping=0.1, max_products=5)
    tracemalloc.start()
    influence(curv, (np.ones((1, 300)), np.zeros(1)), damping=0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 8 * curv.num_params < 64 * 4 * curv.num_params


BAD = [
    (lambda curv, test: influence(curv, test, matrix="fisher"), "matrix must be one of 'ggn', 'hessian'"),
    (lambda curv, test: influence(curv, test, of=3), "of must be a callable"),
    (lambda curv, test: influence(curv, test, damping=-1), "damping must be a finite number"),
    (lambda curv, test: self_influence(curv, probes=0), "probes must be a whole number"),
    (lambda curv, test: self_influence(curv, [99]), "from 0 to 6"),
    (lambda curv, test: parameter_change(curv, []), "from 0 to 6"),
    (lambda curv, test: parameter_change(curv, [0.5]), "from 0 to 6"),
]


@pytest.mark.parametrize(("call", "said"), BAD)
def test_bad_input(call, said):
    problem = Problem("tanh", "softmax-ce")
    with pytest.raises(InputError, match=said):
        call(problem.curvature(), (problem.x, problem.y))
