"""Saliencies against the dense Hessian, curves against forward passes in NumPy, the greedy order by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.uses import pruning
from hessmx.uses.diagonals import empirical_fisher_diagonal, ggn_diagonal
from hessmx.uses.nets import accuracy
from tests.uses.support import SOFTMAX, dense_loss, exported, problem, trained, unchanged

X, Y = problem()
WEIGHTS = np.r_[0:30, 36:54]


@pytest.fixture(scope="module")
def net():
    return trained(X, Y)


@pytest.fixture
def curv(net):
    return Curvature(net, SOFTMAX, (X, Y), batch_size=25)


def unit(i):
    return np.r_[5 * i : 5 * i + 5, 30 + i]


LOSSES = {
    "softmax": (SOFTMAX, Y),
    "softmax, labels of another dtype": (SOFTMAX, Y.astype("int32")),
    "weighted softmax": (mx.gluon.loss.SoftmaxCrossEntropyLoss(weight=3), Y),
    "l2": (mx.gluon.loss.L2Loss(), np.eye(3)[Y.astype(int)]),
    "sigmoid": (mx.gluon.loss.SigmoidBCELoss(), np.eye(3)[Y.astype(int)]),
    "logistic": (mx.gluon.loss.LogisticLoss(), 2 * np.eye(3)[Y.astype(int)] - 1),
}


@pytest.mark.parametrize("options", [{}, {"reduction": "sum", "weight_decay": 0.01, "batch_size": 16}])
@pytest.mark.parametrize("name", LOSSES)
def test_diagonal_of_gauss_newton(net, name, options):
    loss, y = LOSSES[name]
    x = X
    if y.dtype == np.int32:  # as NDArrays they keep their dtype
        x, y = mx.nd.array(X, dtype="float64"), mx.nd.array(y, dtype="int32")
    curv = Curvature(net, loss, (x, y), **options)
    with unchanged(net):
        found = ggn_diagonal(curv, 100)
    exact = np.diag(curv.ggn.to_dense())
    z = (found.value - exact) / found.stderr
    assert np.abs(z).max() < 5 and 0.6 < z.std() < 1.4
    assert (found.value >= 0).all() and (found.stderr < 0.2 * exact).all()


def test_diagonal_of_the_empirical_fisher(net):
    curv = Curvature(net, SOFTMAX, (X, Y), batch_size=16)
    exact = np.diag(curv.fisher().to_dense())
    np.testing.assert_allclose(empirical_fisher_diagonal(curv).value, exact, rtol=1e-9, atol=1e-14 * exact.max())


def test_magnitude_removes_the_smallest_weights(curv):
    found, w = pruning.saliencies(curv, "magnitude"), curv.parameters()
    removed = found.chosen(0.25)
    assert set(removed) == set(WEIGHTS[np.argsort(np.abs(w[WEIGHTS]))[:12]])
    masks = pruning.mask(curv, found, 0.25)
    assert {name: int((m == 0).sum()) for name, m in masks.items() if (m == 0).any()}.keys() <= set(found.names)
    assert np.concatenate([m.ravel() for m in masks.values()])[removed].sum() == 0
    assert sum(m.sum() for m in masks.values()) == curv.num_params - 12


def test_obd_is_half_the_diagonal_times_the_square(curv):
    w, diagonal = curv.parameters(), np.diag(curv.ggn.to_dense())
    found = pruning.saliencies(curv, "obd", budget=200)
    np.testing.assert_allclose(found.values, (0.5 * diagonal * w**2)[WEIGHTS], rtol=0.4)
    exact = pruning.saliencies(curv, "obd", matrix="hessian", budget=2 * curv.num_params)  # spans the whole space
    expected = 0.5 * np.maximum(np.diag(curv.hessian.to_dense()), 0) * w**2
    np.testing.assert_allclose(exact.values, expected[WEIGHTS], rtol=1e-6, atol=1e-12)


def test_exact_saliency_of_units(curv):
    h, g, w = curv.hessian.to_dense(), curv.gradient(), curv.parameters()
    found = pruning.saliencies(curv, "exact", "unit")
    assert len(found.names) == 6 and found.names[2].endswith("[2]") and found.products == 6
    for i in range(6):
        d = np.zeros_like(w)
        d[unit(i)] = -w[unit(i)]
        assert found.values[i] == pytest.approx(g @ d + 0.5 * d @ h @ d, rel=1e-9)
        assert set(found.places[found.starts[i] : found.starts[i + 1]]) == set(unit(i))
    assert list(found.order) == list(np.argsort(found.values))


def test_greedy_takes_what_adds_least_to_all_that_is_gone(curv):
    h, g, w = curv.hessian.to_dense(), curv.gradient(), curv.parameters()
    found = pruning.saliencies(curv, "greedy", "unit")

    def model(chosen):
        d = np.zeros_like(w)
        for i in chosen:
            d[unit(i)] = -w[unit(i)]
        return g @ d + 0.5 * d @ h @ d

    gone: list[int] = []
    for best in found.order:
        rises = {i: model([*gone, i]) for i in range(6) if i not in gone}
        assert best == min(rises, key=rises.get)
        assert found.values[best] == pytest.approx(rises[best] - model(gone), rel=1e-7, abs=1e-12)
        gone.append(int(best))
    assert found.total(0.5) == pytest.approx(model(found.order[:3]))


@pytest.mark.parametrize("method, groups", [("magnitude", None), ("obd", None), ("exact", "unit"), ("greedy", "unit")])
def test_curves_are_measured_by_forward_passes(net, curv, method, groups):
    found = pruning.saliencies(curv, method, groups)
    with unchanged(net):
        curve = pruning.curve(curv, found, [0.0, 0.5, 1.0], metric=accuracy(X, Y))
    h, g, w = curv.hessian.to_dense(), curv.gradient(), curv.parameters()
    for i, share in enumerate(curve.sparsities):
        d = np.zeros_like(w)
        d[found.chosen(share)] = -w[found.chosen(share)]
        assert curve.measured[i] == pytest.approx(dense_loss(w + d, X, Y) - dense_loss(w, X, Y), rel=1e-9, abs=1e-13)
        assert curve.joint[i] == pytest.approx(g @ d + 0.5 * d @ h @ d, rel=1e-9, abs=1e-13)
        assert curve.removed[i] == np.count_nonzero(d)
    assert curve.removed[-1] == (48 if groups is None else 36) and curve.measured[0] == 0
    assert curve.metric[0] == curve.base_metric == accuracy(X, Y)(net)
    if method == "greedy":
        np.testing.assert_allclose(curve.separate, curve.joint, rtol=1e-7, atol=1e-12)


def test_a_metric_that_fails_leaves_the_net_as_it_was(net, curv):
    def fails(block):
        raise RuntimeError("mine")

    with unchanged(net), pytest.raises(RuntimeError, match="mine"):
        pruning.curve(curv, pruning.saliencies(curv, "magnitude"), [0.5], metric=fails)


def test_filters_of_a_net_from_files(tmp_path):
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 3, in_channels=2), nn.Activation("tanh"), nn.Dense(3, in_units=36))
    net.initialize(mx.init.Normal(0.3))
    net.cast("float64")
    x = np.random.default_rng(0).normal(size=(20, 2, 5, 5))
    saved = exported(net, x, tmp_path)
    curv = Curvature(saved, SOFTMAX, (x, np.arange(20) % 3))
    found = pruning.saliencies(curv, "exact", "unit")
    assert found.names == tuple(f"net_conv0[{i}]" for i in range(4))
    curve = pruning.curve(curv, found, [0.25])
    net.collect_params()["net_conv0_weight"].data()[int(found.order[0])] = 0
    net.collect_params()["net_conv0_bias"].data()[int(found.order[0])] = 0
    gone = SOFTMAX(net(mx.nd.array(x, dtype="float64")), mx.nd.array(np.arange(20) % 3)).asnumpy().mean()
    assert curve.measured[0] == pytest.approx(gone - curv.loss(), rel=1e-8)
    d = np.zeros(curv.num_params)
    d[found.chosen(0.25)] = -curv.parameters()[found.chosen(0.25)]
    assert np.count_nonzero(d) == 18  # biases are still 0
    assert curve.joint[0] == pytest.approx(curv.gradient() @ d + 0.5 * d @ curv.hessian.to_dense() @ d)


def test_results_survive_a_file(curv, tmp_path):
    found = pruning.saliencies(curv, "exact", "unit")
    loaded = files.load(files.save(found, tmp_path / "found.json"))
    assert np.array_equal(loaded.chosen(0.5), found.chosen(0.5)) and loaded.names == found.names
    curve = pruning.curve(curv, found, [0.5])
    assert files.load(files.save(curve, tmp_path / "curve.json")).measured == curve.measured


BAD = [
    (lambda c: pruning.saliencies(c, "magic"), "method must be one of"),
    (lambda c: pruning.saliencies(c, "exact"), "spends a product on each candidate"),
    (lambda c: pruning.saliencies(c, "obd", "filter"), "groups must be one of"),
    (lambda c: pruning.saliencies(c, "obd", {}), "at least one group"),
    (lambda c: pruning.saliencies(c, "obd", {"a": [0, 99]}), "places from 0 to 56"),
    (lambda c: pruning.saliencies(c, "obd", {"a": [0, 1], "b": [1]}), "must not share places"),
    (lambda c: pruning.curve(c, pruning.saliencies(c, "magnitude"), [1.5]), "between 0 and 1"),
    (lambda c: ggn_diagonal(c, 1), "draws must be a whole number of at least 2"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input(curv, call, said):
    with pytest.raises(InputError, match=said):
        call(curv)
