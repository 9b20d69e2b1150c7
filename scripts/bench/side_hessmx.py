"""The benchmark's nets in Gluon, measured through hessmx's public functions."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
from cases import CLASSES, LSTM_UNITS, RESNET_BLOCKS, Case

import hessmx
from hessmx._mxnet import mx
from hessmx.blocks import Maxout

nn = mx.gluon.nn


class _ConvNorm(nn.HybridSequential):
    def __init__(self, outputs: int, inputs: int, kernel: int, stride: int):
        super().__init__()
        self.add(nn.Conv2D(outputs, kernel, stride, kernel // 2, use_bias=False, in_channels=inputs))
        self.add(nn.BatchNorm(in_channels=outputs))


class _Residual(nn.HybridBlock):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        with self.name_scope():
            self.a, self.b = _ConvNorm(outputs, inputs, 3, stride), _ConvNorm(outputs, outputs, 3, 1)
            self.shortcut = _ConvNorm(outputs, inputs, 1, stride) if inputs != outputs else None

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # noqa: N803  (Gluon's name)
        way = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.b(F.relu(self.a(x))) + way)


class _Sequence(nn.HybridBlock):
    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.lstm = mx.gluon.rnn.LSTM(LSTM_UNITS, 2, input_size=LSTM_UNITS)
            self.head = nn.Dense(CLASSES, in_units=LSTM_UNITS, flatten=False)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # noqa: N803
        return F.reshape(self.head(self.lstm(x)), shape=(-1, CLASSES))


def _net(case: Case) -> Any:
    if case.name == "lstm":
        return _Sequence()
    net = nn.HybridSequential()
    if case.name == "resnet20":
        net.add(_ConvNorm(16, 3, 3, 1), nn.Activation("relu"))
        net.add(*[_Residual(*block) for block in RESNET_BLOCKS])
        net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(CLASSES, in_units=64))
        return net
    *hidden, last = [array.shape for name, array in case.weights if name.endswith("weight")]
    for rows, inputs in hidden:
        maxout = case.name == "maxout"
        net.add(Maxout(rows // 5, 5, in_units=inputs) if maxout else nn.Dense(rows, "relu", in_units=inputs))
    net.add(nn.Dense(last[0], in_units=last[1]))
    return net


def build(case: Case) -> dict[str, Callable[[], Any]]:
    """What is timed: name -> function."""
    net = _net(case)
    net.initialize()
    trained = [p for p in net.collect_params().values() if p.grad_req != "null"]
    for parameter, (name, array) in zip(trained, case.weights):
        assert parameter.shape == array.shape, (parameter.name, name)
        parameter.set_data(mx.nd.array(array))
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    mode = "train" if case.name == "resnet20" else "predict"
    curv = hessmx.Curvature(net, loss, [(mx.nd.array(case.x), mx.nd.array(case.y))], mode=mode)
    direction = case.direction
    return {"gradient": curv.gradient, "hvp": lambda: curv.hvp(direction)}


def flat(value: Any) -> np.ndarray:
    return np.asarray(value)
