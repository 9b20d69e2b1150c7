"""Batches in every form that is taken, and one clear line for every form that is not."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import DataError, HessmxError, InputError
from hessmx.problem.data import Batches

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
RNG = np.random.default_rng(4)
X, Y = RNG.normal(size=(10, 4)), RNG.integers(0, 3, 10).astype(float)
CE, L2 = gluon_loss.SoftmaxCrossEntropyLoss(), gluon_loss.L2Loss()


def dense(outputs=3):
    mx.random.seed(1)
    net = nn.Dense(outputs, in_units=4, dtype="float64")
    net.initialize(mx.init.Normal(0.5))
    return net


class Again:
    """Re-iterable, made anew in every pass."""

    def __init__(self, make):
        self.make = make

    def __iter__(self):
        return iter(self.make())


TAKEN = {
    "NumPy arrays": lambda: (X, Y),
    "integers": lambda: (X, Y.astype(np.int64)),
    "NDArrays": lambda: (mx.nd.array(X, dtype="float64"), mx.nd.array(Y)),
    "list of batches": lambda: [(X[:6], Y[:6]), (X[6:], Y[6:])],
    "one batch in a list": lambda: [(X, Y)],
    "tuple of batches": lambda: ((X[:6], Y[:6]), (X[6:], Y[6:])),
    "re-iterable": lambda: Again(lambda: [(X[:6], Y[:6]), (X[6:], Y[6:])]),
    "batches as lists": lambda: [[X[:6], Y[:6]], [X[6:], Y[6:]]],
    "DataLoader": lambda: mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(X, Y), 4),
    "NDArrayIter": lambda: mx.io.NDArrayIter(X, Y, 4, last_batch_handle="discard"),
}


@pytest.mark.parametrize("form", TAKEN)
def test_taken(form):
    samples = 8 if form == "NDArrayIter" else 10
    expected = Curvature(dense(), CE, (X[:samples], Y[:samples]))
    found = Curvature(dense(), CE, TAKEN[form]())
    atol = 1e-6 if form == "NDArrayIter" else 1e-14  # an NDArrayIter holds float32
    np.testing.assert_allclose(found.gradient(), expected.gradient(), atol=atol)
    np.testing.assert_allclose(found.hessian.to_dense(), expected.hessian.to_dense(), atol=atol)
    assert found.num_samples == samples


def with_nan(a):
    a = a.copy()
    a.flat[3] = np.nan
    return a


REFUSED = {
    "NaN in x": (lambda: (with_nan(X), Y), CE, r"x holds 1 NaN or infinite value"),
    "infinity in y": (lambda: (X, np.where(Y == Y[0], np.inf, Y)), CE, r"y holds \d+ NaN or infinite value"),
    "NaN in a later batch": (lambda: Again(lambda: [(X, Y), (with_nan(X), Y)]), CE, r"x of batch 1 holds 1 NaN"),
    "lengths": (lambda: (X, Y[:9]), CE, r"\(10, 4\).*\(9,\)"),
    "wrong features": (lambda: (X[:, :3], Y), CE, r"\(10, 3\)"),
    "wrong label shape": (lambda: (X, RNG.normal(size=(10, 2))), L2, r"\(10, 2\)"),
    "no samples": (lambda: (X[:0], Y[:0]), CE, r"no sample|empty|at least one"),
    "empty list": (lambda: [], CE, r"no batch.*at least one batch"),
    "empty loader": (lambda: Again(list), CE, r"no batch.*at least one batch"),
    "generator": (lambda: ((x, y) for x, y in [(X, Y)]), CE, r"one-shot iterator.*list, a DataLoader, or arrays"),
    "iterator": (lambda: iter([(X, Y)]), CE, r"one-shot"),
    "words": (lambda: (np.array(["a"] * 10), Y), CE, r"x must hold numbers, but has dtype <U1"),
    "a dict": (lambda: {"x": X, "y": Y}, CE, r"not dict"),
    "a number": (lambda: 3, CE, r"not int"),
    "no labels": (lambda: X, CE, r"not ndarray"),
    "batches without labels": (lambda: [X, X, X], CE, r"batch 0 must be \(x, y\), but is a ndarray"),
    "padded": (lambda: mx.io.NDArrayIter(X, Y, 4), CE, r"padded with 2 repeated samples.*discard"),
    "classes from 1": (lambda: (X, Y + 1), CE, r"0 to 2 for 3 outputs, but batch 0 holds 3 .*from 0"),
    "negative classes": (lambda: (X, Y - 1), CE, r"0 to 2 for 3 outputs, but batch 0 holds -1"),
    "fractions of classes": (lambda: (X, Y / 2), CE, r"batch 0 holds 0\.5"),
    "scalar loss": (lambda: (X, Y), lambda z, y: (z.log_softmax().pick(y) * 2).mean() + 1, r"one value for 10 samples"),
    "two losses": (lambda: (X, Y), lambda z, y: [z.sum(axis=1), z.max(axis=1)], r"one array of per-sample losses"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    data, loss, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as caught:
        Curvature(dense(), loss, data()).hvp(np.ones(15))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


ARGUMENTS = {
    "engine": (dict(engine="double-backwards"), r"engine must be one of .* did you mean 'double-backward'"),
    "mode": (dict(mode="training"), r"mode must be one of 'predict', 'train', not 'training'"),
    "reduction": (dict(reduction="average"), r"reduction must be one of 'mean', 'sum', not 'average'"),
    "loss": (dict(loss="softmax-ce"), r"loss must be a Gluon loss or a callable"),
    "net": (dict(net=lambda x: x), r"net must be a Gluon Block, not function"),
    "weight_decay": (dict(weight_decay=-1), r"weight_decay must be a number >= 0"),
    "weight_decay text": (dict(weight_decay="1e-4"), r"weight_decay must be a number >= 0"),
    "seed": (dict(seed=-1), r"seed must be a whole number"),
    "seed float": (dict(seed=0.5), r"seed must be a whole number"),
    "batch_size": (dict(batch_size=0), r"batch_size must be a whole number of at least 1"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case):
    changed, message = ARGUMENTS[case]
    given = {**dict(net=dense(), loss=CE, data=(X, Y)), **changed}
    with pytest.raises(InputError, match=message) as caught:
        Curvature(given.pop("net"), given.pop("loss"), given.pop("data"), **given)
    assert "\n" not in str(caught.value)


VECTORS = {
    "too short": np.ones(14),
    "a column": np.ones((15, 1)),
    "NaN": np.full(15, np.nan),
    "complex": np.ones(15) * 1j,
    "words": np.array(["a"] * 15),
    "a number": 1.0,
}


@pytest.mark.parametrize("case", VECTORS)
def test_vectors(case):
    with pytest.raises(InputError, match=r"vector") as caught:
        Curvature(dense(), CE, (X, Y)).hvp(VECTORS[case])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["NumPy arrays", "list of batches", "tuple of batches"])
def test_data_in_memory_is_converted_once(form):
    """Or every pass would trace, cast and check it anew."""
    batches = Batches(TAKEN[form](), np.dtype(np.float64), mx.cpu())
    assert all(a is b and a.kept for a, b in zip(batches, batches))


def test_every_error_can_be_caught_at_once():
    with pytest.raises(HessmxError):
        Curvature(dense(), CE, [])
    with pytest.raises(ValueError, match="no batch"):
        Curvature(dense(), CE, [])


def test_labels_too_large_for_float32_keep_their_value():
    labels = np.array([2**24 + 1, 2**24 + 3])
    (batch,) = Batches((np.ones((2, 4)), labels), np.dtype(np.float32), mx.cpu())
    np.testing.assert_array_equal(batch.labels.asnumpy(), labels)
