"""The facade against closed forms, dense references and its promises: any cut of the data, the net left as it was."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, L2Penalty
from hessmx._mxnet import mx
from hessmx.errors import DataError, InputError
from tests.dense import Problem, relative

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
ENGINES = ("reverse-over-forward", "double-backward", "finite-difference")


def dense(*sizes, dtype="float64", activation="tanh"):
    net = nn.HybridSequential()
    for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        net.add(nn.Dense(outputs, activation if i < len(sizes) - 2 else None, in_units=inputs, dtype=dtype))
    mx.random.seed(3)
    net.initialize(mx.init.Normal(0.7))
    return net


# -- closed forms


def test_linear_regression():
    """mean of |Wx + b - y|^2 / 2 over K outputs: H = kron(I_K, [x 1]'[x 1]) / (N K), parameters (W, b)."""
    problem = Problem(None, "l2", samples=40)
    outputs, inputs = 3, 4
    ones = np.column_stack([problem.x, np.ones(40)])
    block = ones.T @ ones / (40 * outputs)
    expected = np.zeros((15, 15))
    for k in range(outputs):
        place = [*range(k * inputs, (k + 1) * inputs), outputs * inputs + k]
        expected[np.ix_(place, place)] = block
    assert relative(problem.curvature().hessian.to_dense(), expected) < 1e-13


def test_softmax_regression():
    """mean of x x' (x) (diag(p) - p p')."""
    problem = Problem(None, "softmax-ce", samples=40)
    curv = problem.curvature()
    w, b = problem.w[:12].reshape(3, 4), problem.w[12:]
    p = np.exp(problem.x @ w.T + b)
    p /= p.sum(1, keepdims=True)
    ones = np.column_stack([problem.x, np.ones(40)])
    middle = np.einsum("nk,kl->nkl", p, np.eye(3)) - np.einsum("nk,nl->nkl", p, p)
    whole = np.einsum("nkl,ni,nj->kilj", middle, ones, ones).reshape(15, 15) / 40
    order = [5 * k + i for k in range(3) for i in range(4)] + [5 * k + 4 for k in range(3)]
    assert relative(curv.hessian.to_dense(), whole[np.ix_(order, order)]) < 1e-13


def test_a_float32_nets_gradient_in_float64():
    """Softmax regression: mean of (p - y) [x 1]', at the float32 values of parameters and data."""
    net = dense(4, 3, dtype="float32")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    curv = Curvature(net, gluon_loss.SoftmaxCrossEntropyLoss(), (x, y))
    w, b = (p.data().asnumpy().astype(np.float64) for p in net.collect_params().values())
    p = np.exp(x @ w.T + b)
    p /= p.sum(1, keepdims=True)
    slope = (p - np.eye(3)[y]) / 40
    expected = np.concatenate([(slope.T @ x).ravel(), slope.sum(0)])
    found = curv.gradient(dtype="float64")
    assert found.dtype == np.float64 and relative(found, expected) < 1e-13
    assert curv.gradient().dtype == np.float32 and 1e-9 < relative(curv.gradient(), expected) < 1e-5
    with pytest.raises(InputError, match="dtype"):
        curv.gradient(dtype="float16")


@pytest.mark.smoke
@pytest.mark.parametrize("engine", ENGINES)
def test_the_three_engines_agree(engine):
    problem = Problem("tanh", "softmax-ce")
    tolerance = 1e-8 if engine == "finite-difference" else 1e-12
    assert problem.error(engine=engine) < tolerance
    assert problem.curvature(engine=engine).engine == engine


def test_auto_is_exact_and_says_which():
    curv = Problem().curvature()
    assert curv.engine == "reverse-over-forward"
    assert curv.provenance().engine == "reverse-over-forward"


# -- however the data is cut


def seventy():
    rng = np.random.default_rng(1)
    return rng.normal(size=(70, 4)), rng.integers(0, 3, 70).astype(float)


def cuts():
    x, y = seventy()
    pieces = [slice(0, 32), slice(32, 64), slice(64, 70)]
    dataset = mx.gluon.data.ArrayDataset(x, y)
    return {
        "batch_size": dict(data=(x, y), batch_size=32),
        "list of arrays": dict(data=[(x[p], y[p]) for p in pieces]),
        "list of NDArrays": dict(data=[(mx.nd.array(x[p], dtype="float64"), mx.nd.array(y[p])) for p in pieces]),
        "DataLoader": dict(data=mx.gluon.data.DataLoader(dataset, batch_size=32)),
        "shuffled DataLoader": dict(data=mx.gluon.data.DataLoader(dataset, batch_size=32, shuffle=True)),
    }


@pytest.mark.parametrize("mode", ["predict", "train"])
@pytest.mark.parametrize("cut", cuts())
@pytest.mark.parametrize("engine", ENGINES[:2])
def test_32_32_6_equals_70(cut, mode, engine):
    net, loss, v = dense(4, 5, 3), gluon_loss.SoftmaxCrossEntropyLoss(), np.random.default_rng(0).normal(size=43)
    whole = Curvature(net, loss, seventy(), mode=mode, engine=engine, weight_decay=0.1)
    parts = Curvature(net, loss, **cuts()[cut], mode=mode, engine=engine, weight_decay=0.1)
    np.testing.assert_allclose(parts.loss(), whole.loss(), rtol=1e-14)
    np.testing.assert_allclose(parts.gradient(), whole.gradient(), rtol=1e-11, atol=1e-15)
    np.testing.assert_allclose(parts.hvp(v), whole.hvp(v), rtol=1e-11, atol=1e-14)
    assert parts.num_samples == whole.num_samples == 70


def test_sum_is_n_times_mean_with_the_penalty():
    net, loss, v = dense(4, 5, 3), gluon_loss.SoftmaxCrossEntropyLoss(), np.random.default_rng(0).normal(size=43)
    mean, total = (
        Curvature(net, loss, seventy(), reduction=kind, weight_decay=0.3, batch_size=32) for kind in ("mean", "sum")
    )
    np.testing.assert_allclose(total.loss(), 70 * mean.loss(), rtol=1e-14)
    np.testing.assert_allclose(total.gradient(), 70 * mean.gradient(), rtol=1e-13)
    np.testing.assert_allclose(total.hvp(v), 70 * mean.hvp(v), rtol=1e-13)


PENALTIES = [  # weight_decay, wd_mult, the factors on weight, bias, weight, bias
    (0.3, (1, 1, 1, 1), (0.3, 0.3, 0.3, 0.3)),
    (L2Penalty(0.3), (1, 1, 1, 1), (0.3, 0.3, 0.3, 0.3)),
    (L2Penalty(0.3, biases=False), (1, 1, 1, 1), (0.3, 0, 0.3, 0)),
    (0.3, (1, 0, 1, 0), (0.3, 0, 0.3, 0)),
    (L2Penalty(2.0), (1, 1, 0.25, 3), (2, 2, 0.5, 6)),
]


@pytest.mark.parametrize(("decay", "multipliers", "expected"), PENALTIES)
def test_penalty(decay, multipliers, expected):
    net, loss = dense(4, 5, 3), gluon_loss.SoftmaxCrossEntropyLoss()
    for parameter, multiplier in zip(net.collect_params().values(), multipliers):
        parameter.wd_mult = multiplier
    with_penalty, plain = (Curvature(net, loss, seventy(), weight_decay=d) for d in (decay, None))
    factors = np.repeat(np.asarray(expected, float), (20, 5, 15, 3))
    w = plain.parameters()
    np.testing.assert_allclose(with_penalty.loss() - plain.loss(), factors @ w**2 / 2, rtol=1e-12)
    np.testing.assert_allclose(with_penalty.gradient() - plain.gradient(), factors * w, atol=1e-14)
    difference = with_penalty.hessian.to_dense() - plain.hessian.to_dense()
    np.testing.assert_allclose(difference, np.diag(factors), atol=1e-14)


# -- data that is not the same in every pass


class Noisy:
    """A loader that augments: other data in every pass."""

    def __init__(self, scale):
        self.scale, self.rng = scale, np.random.default_rng(0)

    def __iter__(self):
        x, y = seventy()
        yield x + self.scale * self.rng.normal(size=x.shape), y


def test_a_loader_that_changes_between_passes_is_refused():
    with pytest.raises(DataError, match=r"two passes .* same data"):
        Curvature(dense(4, 5, 3), gluon_loss.SoftmaxCrossEntropyLoss(), Noisy(0.1))
    Curvature(dense(4, 5, 3), gluon_loss.SoftmaxCrossEntropyLoss(), Noisy(0))
