"""The five nets of the benchmark as plain numbers: shapes, weights and data, the same for every library.

Weights are a list of (name, array) in the order in which every side takes them; images are NCHW, sequences time first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CLASSES = 10


@dataclass(frozen=True)
class Case:
    """Weights, one batch, and a direction (P,)."""

    name: str
    weights: list[tuple[str, np.ndarray]]
    x: np.ndarray
    y: np.ndarray

    @property
    def direction(self) -> np.ndarray:
        size = sum(array.size for _, array in self.weights)
        return np.random.default_rng(1).standard_normal(size).astype(np.float32)


def _scaled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def _dense(name: str, sizes: tuple[int, ...], batch: int, pieces: int = 1) -> Case:
    rng = np.random.default_rng(0)
    weights = []
    for i, (inputs, units) in enumerate(zip(sizes, sizes[1:])):
        rows = units * (pieces if i < len(sizes) - 2 else 1)
        weights += [(f"{i}.weight", _scaled(rng, rows, inputs)), (f"{i}.bias", np.zeros(rows, np.float32))]
    x = rng.standard_normal((batch, sizes[0])).astype(np.float32)
    return Case(name, weights, x, rng.integers(0, CLASSES, batch))


RESNET_BLOCKS = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2


def _resnet() -> Case:
    """ResNet-20 of He et al. 2016, section 4.2, with 1x1 convolutions on the shortcuts that change shape."""
    rng = np.random.default_rng(0)
    weights: list[tuple[str, np.ndarray]] = []

    def conv_norm(name: str, outputs: int, inputs: int, kernel: int) -> None:
        weights.append((f"{name}.conv", _scaled(rng, outputs, inputs, kernel, kernel)))
        weights.append((f"{name}.gamma", np.ones(outputs, np.float32)))
        weights.append((f"{name}.beta", np.zeros(outputs, np.float32)))

    conv_norm("stem", 16, 3, 3)
    for i, (inputs, outputs, _) in enumerate(RESNET_BLOCKS):
        conv_norm(f"{i}.a", outputs, inputs, 3)
        conv_norm(f"{i}.b", outputs, outputs, 3)
        if inputs != outputs:
            conv_norm(f"{i}.shortcut", outputs, inputs, 1)
    weights += [("head.weight", _scaled(rng, CLASSES, 64)), ("head.bias", np.zeros(CLASSES, np.float32))]
    x = rng.standard_normal((64, 3, 32, 32)).astype(np.float32)
    return Case("resnet20", weights, x, rng.integers(0, CLASSES, 64))


LSTM_UNITS, LSTM_STEPS, LSTM_BATCH = 128, 35, 32


def _lstm() -> Case:
    """Two LSTM layers and a classifier of every step's output; gates in the order i, f, g, o."""
    rng = np.random.default_rng(0)
    weights: list[tuple[str, np.ndarray]] = []
    for layer in range(2):
        for which in ("i2h", "h2h"):
            weights.append((f"{layer}.{which}.weight", _scaled(rng, 4 * LSTM_UNITS, LSTM_UNITS)))
        for which in ("i2h", "h2h"):
            weights.append((f"{layer}.{which}.bias", np.zeros(4 * LSTM_UNITS, np.float32)))
    weights += [("head.weight", _scaled(rng, CLASSES, LSTM_UNITS)), ("head.bias", np.zeros(CLASSES, np.float32))]
    x = rng.standard_normal((LSTM_STEPS, LSTM_BATCH, LSTM_UNITS)).astype(np.float32)
    return Case("lstm", weights, x, rng.integers(0, CLASSES, LSTM_STEPS * LSTM_BATCH))


CASES = {
    "dense": lambda: _dense("dense", (784, 512, 512, 10), 128),
    "maxout": lambda: _dense("maxout", (784, 240, 240, 10), 128, pieces=5),
    "resnet20": _resnet,
    "lstm": _lstm,
    "small": lambda: _dense("small", (64, 64, 64, 10), 128),
}
TITLES = {
    "dense": "dense 784-512-512-10, batch 128",
    "maxout": "Maxout 784-2x240x5-10, batch 128",
    "resnet20": "ResNet-20, BatchNorm in train mode, batch 64, 3x32x32",
    "lstm": "LSTM 2 x 128, 35 steps, batch 32",
    "small": "dense 64-64-64-10, batch 128",
}
