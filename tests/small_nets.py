"""Small float64 nets of three kinds with a loss and data: Maxout, convolutions with BatchNorm, an LSTM."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from tests import differences

nn = mx.gluon.nn
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
CLASSES, SAMPLES = 3, 12


class LastStep(mx.gluon.HybridBlock):
    """An LSTM read at its last step, time on the first axis of the data (T, N, C), as Gluon's own default has it."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.lstm, self.dense = mx.gluon.rnn.LSTM(3, input_size=2), nn.Dense(CLASSES, in_units=3)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return self.dense(F.SequenceLast(self.lstm(x)))


def _maxout(rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    return dense_net((4, 5, CLASSES), "maxout", pieces=3), rng.normal(size=(SAMPLES, 4))


def _batchnorm(rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    net = nn.HybridSequential()
    net.add(nn.Conv2D(3, 3, in_channels=1, use_bias=False), nn.BatchNorm(in_channels=3), nn.Activation("relu"),
            nn.AvgPool2D(2), nn.Flatten(), nn.Dense(CLASSES, in_units=12))  # fmt: skip
    return net, rng.normal(size=(SAMPLES, 1, 6, 6))


def _lstm(rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    return LastStep(), rng.normal(size=(SAMPLES, SAMPLES, 2))  # as many steps as samples: axes look alike


NETS: dict[str, Callable[[np.random.Generator], tuple[Any, np.ndarray]]] = {
    "maxout": _maxout,
    "batchnorm": _batchnorm,
    "lstm": _lstm,
}


def make(name: str, dtype: str = "float64") -> tuple[Any, np.ndarray, np.ndarray]:
    """The net with random values, x and labels."""
    mx.random.seed(1)
    net, x = NETS[name](np.random.default_rng(len(name)))
    net.initialize(mx.init.Normal(0.5))
    net.cast(dtype)
    for parameter in net.collect_params(".*running_var").values():
        parameter.set_data(mx.nd.full(parameter.shape, 1.7, dtype=dtype))
    return net, x, np.arange(SAMPLES) % CLASSES


Losses = Callable[[np.ndarray], np.ndarray]


def losses(net: Any, x: np.ndarray, y: np.ndarray, names: Any, train: bool = False) -> Losses:
    """Per-sample losses (N,) as a function of the parameters, by forward passes of the net itself, which is moved."""
    arrays = [mx.nd.array(a, dtype="float64") for a in (x, y)]

    def at(w: np.ndarray) -> np.ndarray:
        differences.move(net, names, w)
        kept = {name: p.data().copy() for name, p in net.collect_params(".*running.*").items()}
        with mx.autograd.train_mode() if train else mx.autograd.predict_mode():
            found = LOSS(net(arrays[0]), arrays[1]).asnumpy()
        for name, value in kept.items():
            net.collect_params()[name].set_data(value)
        return found

    return at
