"""Merging: linear regression against least squares on all data together, diagonals against the formula in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.uses.merging import merge
from tests.uses.support import SOFTMAX, exported, problem, trained, unchanged

L2 = mx.gluon.loss.L2Loss()
RNG = np.random.default_rng(3)
TASKS = [(RNG.normal(size=(n, 4)) * scales, RNG.normal(size=(n, 2)))
         for n, scales in ((30, [1, 3, 0.3, 1]), (50, [2, 0.2, 1, 1]), (20, [0.5, 1, 1, 4]))]


def least_squares(x, y):
    """Weight (2, 4) and bias (2,) as the net's vector."""
    found = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    return np.concatenate([found[:4].T.ravel(), found[4]])


def linear(w):
    net = mx.gluon.nn.Dense(2, in_units=4)
    net.initialize()
    net.cast("float64")
    net.weight.set_data(mx.nd.array(w[:8].reshape(2, 4), dtype="float64"))
    net.bias.set_data(mx.nd.array(w[8:], dtype="float64"))
    return net


@pytest.mark.parametrize("source", ["blocks", "files"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_linear_regressions_merge_into_the_regression_on_all_data(source, reduction, tmp_path):
    nets = [linear(least_squares(*task)) for task in TASKS]
    if source == "files":
        nets = [exported(net, task[0], tmp_path, f"n{i}") for i, (net, task) in enumerate(zip(nets, TASKS))]
    with unchanged(*nets):
        curvs = [Curvature(net, L2, task, reduction=reduction) for net, task in zip(nets, TASKS)]
        merged = merge(curvs, damping=0, rtol=1e-12)
    together = least_squares(*(np.concatenate(parts) for parts in zip(*TASKS)))
    np.testing.assert_allclose(merged.parameters, together, rtol=1e-8, atol=1e-10)
    assert merged.converged and merged.losses.shape == (3, 5)
    for i, (x, y) in enumerate(TASKS):
        out = x @ together[:8].reshape(2, 4).T + together[8:]
        factor = len(x) if reduction == "sum" else 1
        assert merged.losses[i, -1] == pytest.approx(factor * 0.5 * np.mean((out - y) ** 2))
        assert merged.losses[i].argmin() == i


def test_weights_decide_between_the_tasks():
    curvs = [Curvature(linear(least_squares(*task)), L2, task) for task in TASKS[:2]]
    w = [curv.parameters() for curv in curvs]
    h = [curv.hessian.to_dense() for curv in curvs]
    merged = merge(curvs, [0.2, 0.8], damping=0, rtol=1e-12)
    expected = np.linalg.solve(0.2 * h[0] + 0.8 * h[1], 0.2 * h[0] @ w[0] + 0.8 * h[1] @ w[1])
    np.testing.assert_allclose(merged.parameters, expected, rtol=1e-8)
    np.testing.assert_allclose(merge(curvs, [1, 0], damping=0, rtol=1e-12).parameters, w[0], rtol=1e-7)


@pytest.mark.parametrize("matrix", ["ggn", "fisher"])
def test_diagonal_merging_is_the_weighted_mean_of_each_entry(matrix):
    curvs = [Curvature(linear(least_squares(*task)), L2, task) for task in TASKS]
    share = np.array([30, 50, 20]) / 100
    merged = merge(curvs, method="diagonal", matrix=matrix, damping=0, draws=200)
    f = [np.diag(curv.matrix(matrix).to_dense()) * c for curv, c in zip(curvs, share)]
    w = [curv.parameters() for curv in curvs]
    expected = sum(a * b for a, b in zip(f, w)) / sum(f)
    spread = np.ptp(w, axis=0).max()
    np.testing.assert_allclose(merged.parameters, expected, atol=(0.08 if matrix == "ggn" else 1e-9) * spread)
    plain = merge(curvs, method="mean")
    np.testing.assert_allclose(plain.parameters, np.einsum("i,ip->p", share, w))
    np.testing.assert_allclose(plain.losses[:, 3], plain.losses[:, 4])


def test_neighbouring_minima_of_a_net_merge_better_than_they_average(tmp_path):
    x, y = problem(120)
    halves = [(x[:60], y[:60]), (x[60:], y[60:])]
    start = trained(x, y, steps=60)
    nets = []
    for part in halves:
        net = trained(x, y, steps=0)
        for p, q in zip(net.collect_params().values(), start.collect_params().values()):
            p.set_data(q.data())
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.2})
        a, b = (mx.nd.array(v, dtype="float64") for v in part)
        for _ in range(300):
            with mx.autograd.record():
                losses = SOFTMAX(net(a), b)
            losses.backward()
            trainer.step(len(a))
        nets.append(net)
    curvs = [Curvature(net, SOFTMAX, part) for net, part in zip(nets, halves)]
    full, mean = merge(curvs, damping=0.1), merge(curvs, method="mean")
    assert full.losses[:, -1].mean() < mean.losses[:, -1].mean()
    loaded = files.load(files.save(full, tmp_path / "merged.json"))
    assert np.array_equal(loaded.parameters, full.parameters)


BAD = [
    (lambda c: merge(c[:1]), "at least two nets"),
    (lambda c: merge(c, [1, 2]), "weights must be 3 numbers"),
    (lambda c: merge(c, [0, 0, 0]), "weights must be 3 numbers"),
    (lambda c: merge(c, method="half"), "method must be one of"),
    (lambda c: merge(c, matrix="hessian"), "matrix must be one of"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input(call, said):
    curvs = [Curvature(linear(least_squares(*task)), L2, task) for task in TASKS]
    with pytest.raises(InputError, match=said):
        call(curvs)
