"""What running the user's net itself must refuse: MXNet's own gradients would be wrong or random."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import DataError, EngineError

nn = mx.gluon.nn


class Sine(mx.autograd.Function):
    def forward(self, x):
        self.save_for_backward(x)
        return mx.nd.sin(x)

    def backward(self, dy):
        return dy * mx.nd.cos(self.saved_tensors[0])


def net(*layers, dtype="float32"):
    block = nn.Sequential()
    block.add(nn.Conv2D(2, 2, in_channels=1), *layers, nn.Lambda(lambda x: Sine()(x)), nn.Flatten())
    block.initialize(mx.init.Normal(0.5))
    block.cast(dtype)
    return block


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(4, 1, 5, 5)), rng.normal(size=(4, 8))


LOSS = mx.gluon.loss.L2Loss()


@pytest.mark.parametrize(
    ("layers", "mode", "text"),
    [
        ((nn.MaxPool2D(),), "predict", "max pooling is wrong in predict mode"),
        ((nn.MaxPool2D(), nn.Dropout(0.5)), "train", "Dropout masks cannot be held fixed"),
    ],
)
def test_refused(layers, mode, text):
    with pytest.raises(EngineError, match=text):
        Curvature(net(*layers), LOSS, data(), mode=mode)


@pytest.mark.filterwarnings("ignore")
def test_a_loss_averaged_over_the_batch_is_refused_as_for_every_other_net():
    with pytest.raises(DataError, match=r"one value for 4 samples, expected one value per sample, shape \(4,\)"):
        Curvature(net(dtype="float64"), lambda z, y: LOSS(z, y).mean(), (data()[0], np.zeros((4, 32)))).hvp(np.ones(10))


@pytest.mark.filterwarnings("ignore")  # that these are differences is said, and tested elsewhere
def test_max_pooling_in_float64_is_right():
    """Against differences of the loss itself, which needs no gradient of MXNet's."""
    curv = Curvature(net(nn.MaxPool2D(), dtype="float64"), LOSS, data())
    assert curv.engine == "finite-difference"
    w, v, h = curv.parameters(), np.random.default_rng(1).normal(size=curv.num_params), 1e-4
    second = (curv.loss(at=w + h * v) - 2 * curv.loss() + curv.loss(at=w - h * v)) / h**2
    assert v @ curv.hvp(v) == pytest.approx(second, rel=1e-4)
