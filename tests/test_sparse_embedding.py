"""gluon.contrib's SparseEmbedding, whose weight is stored by rows, against a dense Embedding of the same values."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx

nn = mx.gluon.nn
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


class Words(mx.gluon.Block):
    def __init__(self, sparse: bool):
        super().__init__()
        with self.name_scope():
            self.embedding = mx.gluon.contrib.nn.SparseEmbedding(6, 3) if sparse else nn.Embedding(6, 3)
            self.dense = nn.Dense(4, in_units=6, activation="tanh")

    def forward(self, x):
        return self.dense(self.embedding(x))


def pair():
    sparse, dense = Words(True), Words(False)
    for net in (sparse, dense):
        net.initialize(mx.init.Normal(0.5))
    for p, q in zip(sparse.collect_params().values(), dense.collect_params().values()):
        q.set_data(p._data[0].tostype("default"))
    return sparse, dense


def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 5, (8, 2)).astype(np.float32), rng.integers(0, 4, 8).astype(np.float32)


@pytest.mark.filterwarnings("ignore::hessmx.HessmxWarning")
@pytest.mark.parametrize("engine", ["auto", "finite-difference"])
def test_like_a_dense_embedding(engine):
    sparse, dense = pair()
    found, expected = Curvature(sparse, LOSS, data(), engine=engine), Curvature(dense, LOSS, data())
    assert found.engine == ("reverse-over-forward" if engine == "auto" else engine)
    assert np.allclose(found.gradient(), expected.gradient(), rtol=1e-5, atol=1e-7)
    v = np.random.default_rng(1).normal(size=found.num_params)
    assert np.allclose(found.hvp(v), expected.hvp(v), rtol=1e-3, atol=1e-5)


def test_left_as_it_was_and_followed_when_it_changes():
    sparse, dense = pair()
    weight = sparse.embedding.weight
    before, array = weight._data[0].asnumpy(), weight._data[0]
    curv = Curvature(sparse, LOSS, data())
    loss = curv.loss()
    assert weight._data[0] is array and array.stype == "row_sparse" and np.array_equal(array.asnumpy(), before)
    assert "row_sparse_data" not in vars(weight)
    weight._data[0][:] = mx.nd.array(2 * before).tostype("row_sparse")
    dense.embedding.weight.set_data(mx.nd.array(2 * before))
    assert curv.loss() == pytest.approx(Curvature(dense, LOSS, data()).loss(), rel=1e-6) != loss
