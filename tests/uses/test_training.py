"""The Estimator's handler: its numbers are those of a fresh Curvature, and the training is the same without it."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, figures
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import InputError
from hessmx.uses.training import FollowCurvature

nn, estimator = mx.gluon.nn, mx.gluon.contrib.estimator
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40).astype(np.float32)


def trained(epochs: int, *handlers) -> tuple:
    mx.random.seed(0)
    net = dense_net((4, 6, 3), "tanh")
    net.add(nn.Dropout(0.2))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    x, y = data()
    loader = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(x, y), batch_size=10)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    fit = estimator.Estimator(net, LOSS, mx.metric.Loss(), trainer=trainer, context=mx.cpu())
    fit.logger.handlers.clear()
    fit.fit(loader, epochs=epochs, event_handlers=list(handlers))
    return net, np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_follows_the_training_without_disturbing_it():
    ask = {"loss": lambda curv: curv.loss(), "top": lambda curv: curv.eigenpairs(1).values[0]}
    follow = FollowCurvature(LOSS, data(), ask, every=2)
    net, followed = trained(4, follow)
    _, alone = trained(4)
    assert np.array_equal(followed, alone)
    history, fresh = follow.history, Curvature(net, LOSS, data())
    assert list(history.epochs) == [2, 4] and history.names == ("loss", "top")
    assert history.values[0, -1] == pytest.approx(fresh.loss(), rel=1e-6)
    assert history.values[1, -1] == pytest.approx(np.linalg.eigvalsh(fresh.hessian.to_dense())[-1], rel=1e-4)
    assert history.values[0, 0] != history.values[0, 1]
    drawn = figures.history(history)
    assert [ax.get_ylabel() for ax in drawn] == ["loss", "top"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FollowCurvature(LOSS, data(), ["sharpness"]), "top eigenvalue"),
        (lambda: FollowCurvature(LOSS, data(), every=0), "at least 1"),
        (lambda: FollowCurvature(LOSS, data()).history, "nothing has been measured"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InputError, match=text):
        make()
