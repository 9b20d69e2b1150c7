"""The benchmark's nets in Gluon, measured through hessmx's public functions."""

from __future__ import annotations

import itertools
from typing import Any, Callable

import numpy as np
from cases import CLASSES, DIRECTIONS, HEADS, HIDDEN, LAYERS, RESIDUAL, UNITS, Case

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


class _Recurrent(nn.HybridBlock):
    def __init__(self, name: str) -> None:
        super().__init__()
        layer = {"lstm": mx.gluon.rnn.LSTM, "gru": mx.gluon.rnn.GRU}[name]
        with self.name_scope():
            self.layers = layer(UNITS, 2, input_size=UNITS)
            self.head = nn.Dense(CLASSES, in_units=UNITS, flatten=False)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # noqa: N803
        return F.reshape(self.head(self.layers(x)), shape=(-1, CLASSES))


class EncoderLayer(nn.HybridBlock):
    """(batch, tokens, units) -> the same."""

    def __init__(self, units: int, heads: int, hidden: int):
        super().__init__()
        self._heads, self._size = heads, units // heads
        with self.name_scope():
            self.qkv = nn.Dense(3 * units, in_units=units, flatten=False)
            self.out = nn.Dense(units, in_units=units, flatten=False)
            self.norm1 = nn.LayerNorm(in_channels=units)
            self.wide = nn.Dense(hidden, in_units=units, flatten=False)
            self.narrow = nn.Dense(units, in_units=hidden, flatten=False)
            self.norm2 = nn.LayerNorm(in_channels=units)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # noqa: N803
        parts = F.split(self.qkv(x), num_outputs=3, axis=2)
        q, k, v = (self._by_head(F, part) for part in parts)
        shares = F.softmax(F.batch_dot(q, k, transpose_b=True) / self._size**0.5)
        mixed = F.reshape(F.batch_dot(shares, v), shape=(-4, -1, self._heads, 0, 0))
        mixed = F.reshape(F.transpose(mixed, axes=(0, 2, 1, 3)), shape=(0, 0, -3))
        x = self.norm1(x + self.out(mixed))
        return self.norm2(x + self.narrow(F.LeakyReLU(self.wide(x), act_type="gelu")))

    def _by_head(self, F: Any, x: Any) -> Any:  # noqa: N803
        x = F.transpose(F.reshape(x, shape=(0, 0, -4, self._heads, -1)), axes=(0, 2, 1, 3))
        return F.reshape(x, shape=(-3, 0, 0))


class Encoder(nn.HybridBlock):
    """Layers, mean over tokens, classifier."""

    def __init__(self, layers: int, units: int, heads: int, hidden: int):
        super().__init__()
        with self.name_scope():
            self.layers = nn.HybridSequential()
            for _ in range(layers):
                self.layers.add(EncoderLayer(units, heads, hidden))
            self.head = nn.Dense(CLASSES, in_units=units)

    def hybrid_forward(self, F: Any, x: Any) -> Any:  # noqa: N803
        return self.head(F.mean(self.layers(x), axis=1))


def _net(case: Case) -> Any:
    if case.name in ("lstm", "gru"):
        return _Recurrent(case.name)
    if case.name == "encoder":
        return Encoder(LAYERS, UNITS, HEADS, HIDDEN)
    net = nn.HybridSequential()
    if case.name in RESIDUAL:
        shape = RESIDUAL[case.name]
        pooling = shape.pooling
        net.add(_ConvNorm(shape.width, 3, 7 if pooling else 3, 2 if pooling else 1), nn.Activation("relu"))
        if pooling:
            net.add(nn.MaxPool2D(3, 2, 1))
        net.add(*[_Residual(*block) for block in shape.blocks])
        net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(CLASSES, in_units=shape.blocks[-1][1]))
        return net
    *hidden, last = [array.shape for name, array in case.weights if name.endswith("weight")]
    for rows, inputs in hidden:
        maxout = case.name == "maxout"
        net.add(Maxout(rows // 5, 5, in_units=inputs) if maxout else nn.Dense(rows, "relu", in_units=inputs))
    net.add(nn.Dense(last[0], in_units=last[1]))
    return net


def _filled(case: Case) -> tuple[Any, list[Any]]:
    """The net with the case's numbers, and its trained parameters in their order."""
    net = _net(case)
    net.initialize()
    parameters = list(net.collect_params().values())
    trained = [p for p in parameters if p.grad_req != "null"]
    running = [p for p in parameters if p.grad_req == "null"]
    for parameter, (name, array) in zip(trained, case.weights):
        assert parameter.shape == array.shape, (parameter.name, name)
        parameter.set_data(mx.nd.array(array))
    for parameter, array in zip(running, (array for pair in case.statistics.values() for array in pair)):
        parameter.set_data(mx.nd.array(array))
    return net, trained


def build(case: Case) -> dict[str, Any]:
    """What is timed: name -> function of the call's number, or what happens before it, untimed, and the function."""
    net, trained = _filled(case)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    mode = "train" if case.name == "resnet20" else "predict"
    curv = hessmx.Curvature(net, loss, [(mx.nd.array(case.x), mx.nd.array(case.y))], mode=mode)
    directions = case.directions
    here = [array for _, array in case.weights]
    settings = itertools.cycle([[array * (1 + 2**-23) for array in here], here])

    def train(call: int) -> None:
        """As a training step would: every weight another value than before, the next number or so."""
        for parameter, array in zip(trained, next(settings)):
            parameter.data()[:] = array
        mx.nd.waitall()

    def along(matrix: Any) -> Callable[[int], Any]:
        return lambda call: matrix @ directions[call % DIRECTIONS]

    return {
        "gradient": lambda call: curv.gradient(),
        "hvp": (train, along(curv.hessian)),
        "hvp kept": along(curv.hessian),
        "hvp block": lambda call: curv.hessian @ directions.T,
        "ggn": (train, along(curv.ggn)),
        "ggn kept": along(curv.ggn),
    }


def flat(value: Any, rows: int) -> np.ndarray:
    """One vector; of a block (P, K) its columns after each other."""
    return np.asarray(value).reshape(-1, rows).T.ravel()
