"""Data is what it is taken for: samples along the right axis, apart, the same in every pass, numbers not wrapped."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import DataError, HessmxWarning
from hessmx.problem.data import Batches

gluon, nn = mx.gluon, mx.gluon.nn
RNG = np.random.default_rng(0)
L2, CE = gluon.loss.L2Loss(), gluon.loss.SoftmaxCrossEntropyLoss()


# -- the axis of samples

class Recurrent(gluon.HybridBlock):
    """Time-major, as Gluon's recurrent layers are by default: (T, N, C)."""

    def __init__(self):
        super().__init__()
        self.rnn, self.dense = gluon.rnn.GRU(3, input_size=2), nn.Dense(3, flatten=False, in_units=3)
        mx.random.seed(0)
        self.initialize(mx.init.Normal(0.5))

    def hybrid_forward(self, F, x):
        return self.dense(self.rnn(x))


X, Y = RNG.normal(size=(12, 4, 2)), RNG.integers(0, 3, (12, 4))


def test_time_major_arrays_are_cut_along_the_batch_axis_of_the_loss():
    net, loss = Recurrent(), gluon.loss.SoftmaxCrossEntropyLoss(batch_axis=1)
    expected = loss(net(mx.nd.array(X)), mx.nd.array(Y)).asnumpy()
    assert expected.shape == (4,)
    cut = Curvature(net, loss, (X, Y), batch_size=2)
    assert cut.num_samples == 4
    assert cut.loss() == pytest.approx(expected.mean(), rel=1e-6)
    v = RNG.normal(size=cut.num_params)
    whole = Curvature(net, loss, [(X, Y)])
    assert whole.num_samples == 4
    np.testing.assert_allclose(cut.hvp(v), whole.hvp(v), rtol=1e-4, atol=1e-6)


AXES = {
    "the loss is told the other axis": lambda: (Recurrent(), CE, (X, Y)),
    "the axis is hidden in a function": lambda: (
        Recurrent(), lambda z, y: gluon.loss.SoftmaxCrossEntropyLoss(batch_axis=1)(z, y), (X, Y)),
    "one loss for each step": lambda: (Recurrent(), lambda z, y: -z.log_softmax().pick(y).reshape((-1,)), (X, Y)),
}  # fmt: skip


@pytest.mark.parametrize("case", AXES)
def test_arrays_that_would_be_cut_through_time_are_refused(case):
    net, loss, data = AXES[case]()
    with pytest.raises(DataError, match=r"axis 0 are not apart.*give batches of your own, \[\(x, y\), \.\.\.\]"):
        Curvature(net, loss, data, batch_size=6)
    assert Curvature(net, loss, [data]).loss() > 0


def test_arrays_of_which_not_all_have_the_batch_axis():
    with pytest.raises(DataError, match=r"axis 1 \(the loss's batch_axis\), but have \(12, 4, 2\), \(4,\).*batches of"):
        Curvature(Recurrent(), gluon.loss.SoftmaxCrossEntropyLoss(batch_axis=1), (X, Y[0]))


# -- losses that compare samples

def centred(z, y):
    F = mx.nd if isinstance(z, mx.nd.NDArray) else mx.sym
    return (F.broadcast_sub(z, z.mean(axis=0, keepdims=True)) - y).square().mean(axis=1)


def dense():
    net = nn.Dense(3, in_units=2)
    mx.random.seed(0)
    net.initialize(mx.init.Normal(1))
    return net


MIXING = {"contrastive": gluon.loss.SDMLLoss(), "centred on the batch": centred}
PAIRS = RNG.normal(size=(20, 2)).astype(np.float32), RNG.normal(size=(20, 3)).astype(np.float32)


@pytest.mark.parametrize("name", MIXING)
def test_losses_that_mix_samples_are_refused_where_arrays_are_cut(name):
    with pytest.raises(DataError, match="numbers would depend on batch_size"):
        Curvature(dense(), MIXING[name], PAIRS, batch_size=10)


def test_losses_that_mix_samples_are_the_users_where_batches_are():
    batches = [(PAIRS[0][i : i + 10], PAIRS[1][i : i + 10]) for i in (0, 10)]
    with pytest.raises(HessmxWarning, match="the loss mixes the samples of a batch"):
        Curvature(dense(), centred, batches)
    z = PAIRS[0] @ dense().weight.data().asnumpy().T
    expected = ((z - z.mean(0) - PAIRS[1]) ** 2).mean()
    assert Curvature(dense(), centred, PAIRS).loss() == pytest.approx(expected, rel=1e-5)  # one batch: one meaning


# -- the same samples in every pass

class Loader:
    """A pass is what `make(number of the pass)` returns."""

    def __init__(self, make):
        self.make, self.passes = make, -1

    def __iter__(self):
        self.passes += 1
        return iter(self.make(self.passes))


def flipped(n):
    """One entry changes its sign in every other pass, where the net's weight is zero: the loss cannot tell."""
    x = PAIRS[0].copy()
    x[3, 1] *= (-1) ** n
    return [(x[:10], PAIRS[1][:10]), (x[10:], PAIRS[1][10:])]


def shuffled(n):
    order = np.random.default_rng(n).permutation(20)
    return [(PAIRS[0][order[i : i + 8]], PAIRS[1][order[i : i + 8]]) for i in (0, 8, 16)]


def blind():
    net, last = nn.HybridSequential(), dense()
    last.weight.set_data(last.weight.data() * mx.nd.array([[1, 0]]))
    net.add(nn.Dropout(1e-6), last)
    return net


REFUSED = {
    "augmentation that the loss does not see": (flipped, "predict"),
    "labels exchanged between samples": (lambda n: [(PAIRS[0], np.roll(PAIRS[1], n, axis=0))], "predict"),
    "other samples left out": (lambda n: shuffled(n)[:2], "predict"),
    "another order, with masks": (shuffled, "train"),
    "only a later pass differs": (lambda n: flipped(n == 3), "predict"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_passes_that_differ_are_refused(case):
    make, mode = REFUSED[case]
    with pytest.raises(DataError, match="two passes over the data must give the same data"):
        Curvature(blind(), L2, Loader(make), mode=mode).eigenpairs(1)


def test_shuffling_is_no_difference():
    curv, v = Curvature(dense(), L2, Loader(shuffled)), np.ones(9)
    np.testing.assert_allclose(curv.hvp(v), Curvature(dense(), L2, PAIRS).hvp(v), rtol=1e-5)


# -- whole numbers

WHOLE = {
    "labels + 2^32": (np.float32, np.arange(4) % 3 + 2**32, True),
    "labels + 2^40 in a net of float64": (np.float64, np.arange(4) % 3 + 2**60, True),
    "unsigned": (np.float32, np.array([2**64 - 1, 0, 1, 2], np.uint64), True),
    "the least int64": (np.float32, np.array([-(2**63), 0, 1, 2]), True),
    "an NDArray of int64": (np.float32, mx.nd.array([2**33, 0, 1, 2], dtype="int64"), True),
    "the largest int32": (np.float32, np.array([2**31 - 1, 0, 1, 2]), False),
    "uint64 that fits": (np.float32, np.array([2**31 - 1, 0, 1, 2], np.uint64), False),
    "exact in float64": (np.float64, np.array([2**31 - 1, 0, 1, 2]), False),
}


@pytest.mark.parametrize("role", ["x", "y"])
@pytest.mark.parametrize("case", WHOLE)
def test_whole_numbers_are_kept_or_refused(case, role):
    dtype, values, refused = WHOLE[case]
    other = np.ones(4)
    data = (values, other) if role == "x" else (other, values)
    if refused:
        with pytest.raises(DataError, match=f"{role} holds the whole number") as caught:
            Batches(data, np.dtype(dtype), mx.cpu())
        assert "\n" not in str(caught.value)
        return
    (batch,) = Batches(data, np.dtype(dtype), mx.cpu())
    found = (batch.inputs[0] if role == "x" else batch.labels).asnumpy()
    assert [int(n) for n in found] == [int(n) for n in values]


def test_what_float32_cannot_hold_is_refused():
    with pytest.raises(DataError, match=r"x holds 1e\+39, more than the net's float32"):
        Batches((np.array([1e39, 1]), np.ones(2)), np.dtype(np.float32), mx.cpu())
