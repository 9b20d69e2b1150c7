"""Rounding against NumPy, costs against forward passes and differences, bits against all combinations, int8 as run."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.errors import EngineError, InputError, ParameterError
from hessmx.uses import quantisation
from hessmx.uses.int8 import exclude_list, quantise
from hessmx.uses.nets import accuracy
from tests.uses.support import SOFTMAX, dense_loss, exported, problem, second_derivative, slope, trained, unchanged

X, Y = problem()


@pytest.fixture(scope="module")
def net():
    return trained(X, Y)


@pytest.fixture(scope="module")
def found(net):
    return quantisation.costs(Curvature(net, SOFTMAX, (X, Y)), (2, 3, 4, 6, 8))


@pytest.mark.parametrize("per", ["tensor", "channel"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_goes_to_the_nearest_of_equal_steps(bits, per):
    w = np.random.default_rng(bits).normal(size=(4, 3, 2)) * np.array([1, 5, 0, 2])[:, None, None]
    out = quantisation.rounded(w, bits, per)
    for row, wanted in zip(out, w):
        top = np.abs(w if per == "tensor" else wanted).max()
        grid = top * np.arange(-(2 ** (bits - 1)) + 1, 2 ** (bits - 1)) / (2 ** (bits - 1) - 1)
        nearest = np.abs(wanted.ravel()[:, None] - grid).min(axis=1)
        np.testing.assert_allclose(np.abs(row - wanted).ravel(), nearest, atol=1e-14)
    assert np.array_equal(quantisation.rounded(w, 32), w)


def test_eight_bits_are_those_of_mxnets_int8():
    """On unit vectors, which uint8 holds exactly, an int8 Dense returns its weight's columns, 0.6 % too small."""
    net = mx.gluon.nn.Dense(6, in_units=5, use_bias=False)
    net.initialize(mx.init.Normal(1.0))
    curv = Curvature(net, mx.gluon.loss.L2Loss(), (np.eye(5, dtype=np.float32), np.zeros((5, 6), np.float32)))
    int8_net, run = quantise(curv)
    theirs = int8_net(mx.nd.array(np.eye(5))).asnumpy().T
    w = net.weight.data().asnumpy()
    np.testing.assert_allclose(quantisation.rounded(w, 8) * (254 / 255.5), theirs, atol=2e-6)
    assert np.abs(theirs - w).max() > 1e-3 and run.rounded == (net.weight.name,)


def test_costs_are_the_loss_and_its_derivatives(net, found):
    f, w = (lambda at: dense_loss(at, X, Y)), Curvature(net, SOFTMAX, (X, Y)).parameters()
    for i, (name, where) in enumerate(zip(found.weights, [slice(0, 30), slice(36, 54)])):
        assert name.endswith("weight")
        for j, bits in enumerate(found.bits):
            d = np.zeros_like(w)
            shape = (6, 5) if i == 0 else (3, 6)
            d[where] = quantisation.rounded(w[where].reshape(shape), int(bits)).ravel() - w[where]
            assert found.measured[i, j] == pytest.approx(f(w + d) - f(w), rel=1e-9, abs=1e-14)
            unit = d / np.linalg.norm(d)
            size = np.linalg.norm(d)
            expected = size * slope(f, w, unit) + 0.5 * size**2 * second_derivative(f, w, unit)
            assert found.predicted[i, j] == pytest.approx(expected, rel=1e-6, abs=1e-11)
            assert found.distances[i, j] == pytest.approx(size)
    assert found.products == 2 * (5 + 30) - (30 - 18)


def test_the_trace_rule_is_the_mean_eigenvalue_times_the_squared_length(net, found):
    curv = Curvature(net, SOFTMAX, (X, Y))
    for i, name in enumerate(found.weights):
        mean = np.linalg.eigvalsh(curv.block([name]).to_dense()).mean()
        np.testing.assert_allclose(found.trace_rule[i], mean * found.distances[i] ** 2, rtol=1e-6)


def test_the_prediction_ranks_small_changes_as_they_are(found):
    assert found.rank_correlation() > 0.95
    kept = np.abs(found.measured) < 0.05
    assert found.rank_correlation(below=0.05) == pytest.approx(
        spearmanr(found.predicted[kept], found.measured[kept])[0])


@pytest.mark.parametrize("mean_bits", [2, 3, 3.7, 5, 32])
@pytest.mark.parametrize("rule", quantisation.RULES)
def test_the_best_bits_are_the_best_of_all_combinations(found, mean_bits, rule):
    plan = quantisation.choose_bits(found, mean_bits, rule)
    cost, best = getattr(found, rule), np.inf
    for columns in itertools.product(range(len(found.bits)), repeat=len(found.weights)):
        bits = found.bits[list(columns)]
        if found.sizes @ bits <= mean_bits * found.sizes.sum():
            best = min(best, cost[range(len(columns)), columns].sum())
    assert plan.separate == pytest.approx(best, rel=1e-9)
    assert plan.mean_bits <= mean_bits
    assert plan.mean_bits == pytest.approx(found.sizes @ plan.bits / found.sizes.sum())


def test_a_plan_is_measured_with_all_weights_rounded(net, found):
    curv = Curvature(net, SOFTMAX, (X, Y))
    plan = quantisation.measure_plan(curv, quantisation.choose_bits(found, 4))
    w = curv.parameters()
    moved = w.copy()
    moved[:30] = quantisation.rounded(w[:30].reshape(6, 5), int(plan.bits[0])).ravel()
    moved[36:54] = quantisation.rounded(w[36:54].reshape(3, 6), int(plan.bits[1])).ravel()
    f = lambda at: dense_loss(at, X, Y)  # noqa: E731
    d = moved - w
    unit, size = d / np.linalg.norm(d), np.linalg.norm(d)
    assert plan.measured == pytest.approx(f(moved) - f(w), rel=1e-9)
    expected = size * slope(f, w, unit) + 0.5 * size**2 * second_derivative(f, w, unit)
    assert plan.joint == pytest.approx(expected, rel=1e-6)


def images(samples=96):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, 1, 8, 8)).astype(np.float32)
    y = (x.mean(axis=(1, 2, 3)) > 0).astype(np.float32) + (x[:, 0, 0, 0] > 1)
    return x, y


def convolutional():
    nn = mx.gluon.nn
    mx.random.seed(0)
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(8, 3, padding=1, in_channels=1), nn.Activation("relu"),
                nn.Conv2D(8, 3, strides=2, in_channels=8), nn.Activation("relu"), nn.Dense(16, in_units=72),
                nn.Activation("relu"), nn.Dense(3, in_units=16))
    net.initialize(mx.init.Xavier())
    return net


@pytest.mark.parametrize("keep", [(), ("net_conv0_weight", "net_dense1_weight")])
@pytest.mark.parametrize("source", ["block", "files"])
def test_the_exclude_list_is_obeyed_by_mxnets_int8(keep, source, tmp_path):
    (x, y), block = images(), convolutional()
    net = block if source == "block" else exported(block, x, tmp_path)
    net(mx.nd.array(x[:2]))
    curv = Curvature(net, SOFTMAX, (x, y), batch_size=32)
    with unchanged(net):
        quantised, run = quantise(curv, keep, metric=accuracy(x, y))
    assert run.kept == keep
    assert set(run.rounded) | set(keep) == {f"net_{n}_weight" for n in ("conv0", "conv1", "dense0", "dense1")}
    assert len(run.exclude) == len(keep) and list(run.exclude) == exclude_list(curv, keep)
    assert "_contrib_quantize_v2" in run.operators
    outputs = quantised(mx.nd.array(x))
    after = SOFTMAX(outputs, mx.nd.array(y)).asnumpy().mean()
    before = SOFTMAX(net(mx.nd.array(x)), mx.nd.array(y)).asnumpy().mean()
    assert run.loss == pytest.approx(before, rel=1e-5)
    assert run.loss + run.rise == pytest.approx(after, rel=1e-5)
    assert run.int8_metric == np.mean(outputs.asnumpy().argmax(axis=1) == y)
    assert 0 < abs(run.rise) < 0.05


def test_results_survive_a_file(found, tmp_path):
    for result in (found, quantisation.choose_bits(found, 4)):
        loaded = files.load(files.save(result, tmp_path / "result.json"))
        assert loaded.weights == result.weights and np.array_equal(loaded.bits, result.bits)
        assert loaded.provenance == result.provenance


BAD = [
    (lambda c, f: quantisation.costs(c, (1,)), InputError, "bits must be a whole number of at least 2"),
    (lambda c, f: quantisation.costs(c, per="row"), InputError, "per must be one of"),
    (lambda c, f: quantisation.choose_bits(f, 1.5), InputError, "at least 2"),
    (lambda c, f: quantisation.choose_bits(replace(f, measured=f.measured * np.nan), 4, "measured"), InputError,
     "was not computed"),
    (lambda c, f: quantise(c), EngineError, "starts from float32"),
    (lambda c, f: exclude_list(c, ["dense9_weight"]), ParameterError, "not a weight of this net"),
    (lambda c, f: f.rank_correlation("magic"), InputError, "rule must be one of"),
]


@pytest.mark.parametrize("call, kind, said", BAD)
def test_bad_input(net, found, call, kind, said):
    with pytest.raises(kind, match=said):
        call(Curvature(net, SOFTMAX, (X, Y)), found)
