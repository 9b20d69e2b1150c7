"""Numbers of curvlinops and laplace-torch (scripts/uses/peers.py), and the same nets in Gluon."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hessmx import Curvature
from hessmx._mxnet import mx

nn = mx.gluon.nn
PEERS = json.loads(Path(__file__).with_name("peers.json").read_text())


def array(name: str, key: str) -> np.ndarray:
    return np.array(PEERS["nets"][name][key])


class Sequence(mx.gluon.HybridBlock):
    """A dense layer at every step, the mean over steps, a dense layer."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.step, self.last = nn.Dense(5, in_units=3, flatten=False), nn.Dense(3, in_units=5)

    def hybrid_forward(self, F, x):
        return self.last(F.mean(F.tanh(self.step(x)), axis=1))


def made(name: str) -> Any:
    """The net with PyTorch's parameters, float64."""
    if name == "sequence":
        net = Sequence()
    else:
        net = nn.HybridSequential()
        if name == "conv":
            net.add(nn.Conv2D(3, 3, strides=2, padding=1, in_channels=2, activation="tanh"), nn.Dense(3, in_units=27))
        else:
            net.add(nn.Dense(5, in_units=4, activation="tanh"), nn.Dense(3, in_units=5))
    net.initialize()
    net.cast("float64")
    start, w = 0, array(name, "w")
    for p in net.collect_params().values():
        size = int(np.prod(p.shape))
        p.set_data(mx.nd.array(w[start : start + size].reshape(p.shape), dtype="float64"))
        start += size
    return net


def curvature(name: str, target: bool = False, **options: Any) -> Curvature:
    """Cross-entropy with the stored classes, or the squared loss with the stored targets."""
    x = array(name, "x").reshape(PEERS["nets"][name]["shape"])
    if target:
        return Curvature(made(name), mx.gluon.loss.L2Loss(), (x, array(name, "target").reshape(len(x), -1)), **options)
    return Curvature(made(name), mx.gluon.loss.SoftmaxCrossEntropyLoss(), (x, array(name, "y")), **options)
