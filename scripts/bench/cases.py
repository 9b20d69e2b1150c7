"""The nets of the benchmark as plain numbers: shapes, weights and data, the same for every library.

Weights are a list of (name, array) in the order in which every side takes them; images are NCHW, sequences time first,
tokens (batch, tokens, units).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CLASSES = 10
DIRECTIONS = 8  # of a block; single products take them in turn

Weights = list[tuple[str, np.ndarray]]


@dataclass(frozen=True)
class Case:
    """Weights and one batch.

    statistics  name of a BatchNorm -> its running mean and variance; without them it takes the batch's own
    """

    name: str
    weights: Weights
    x: np.ndarray
    y: np.ndarray
    statistics: dict[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    @property
    def directions(self) -> np.ndarray:
        """(DIRECTIONS, P)."""
        size = sum(array.size for _, array in self.weights)
        return np.random.default_rng(1).standard_normal((DIRECTIONS, size), dtype=np.float32)


def _scaled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    fan_in = int(np.prod(shape[1:]))
    return (rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)


def _layer(rng: np.random.Generator, name: str, outputs: int, inputs: int) -> Weights:
    return [(f"{name}.weight", _scaled(rng, outputs, inputs)), (f"{name}.bias", np.zeros(outputs, np.float32))]


def _norm(name: str, units: int) -> Weights:
    return [(f"{name}.gamma", np.ones(units, np.float32)), (f"{name}.beta", np.zeros(units, np.float32))]


def _dense(name: str, sizes: tuple[int, ...], batch: int, pieces: int = 1) -> Case:
    rng = np.random.default_rng(0)
    weights: Weights = []
    for i, (inputs, units) in enumerate(zip(sizes, sizes[1:])):
        weights += _layer(rng, str(i), units * (pieces if i < len(sizes) - 2 else 1), inputs)
    x = rng.standard_normal((batch, sizes[0])).astype(np.float32)
    return Case(name, weights, x, rng.integers(0, CLASSES, batch))


@dataclass(frozen=True)
class Residual:
    """A residual net: blocks (inputs, outputs, stride) of two 3x3 convolutions; a pooling stem: kernel 7, stride 2."""

    blocks: tuple[tuple[int, int, int], ...]
    pooling: bool

    @property
    def width(self) -> int:
        return self.blocks[0][0]


RESIDUAL = {
    "resnet20": Residual(
        ((16, 16, 1),) * 3 + ((16, 32, 2),) + ((32, 32, 1),) * 2 + ((32, 64, 2),) + ((64, 64, 1),) * 2, False
    ),
    "resnet18": Residual(
        ((64, 64, 1),) * 2 + tuple(b for n in (64, 128, 256) for b in ((n, 2 * n, 2), (2 * n, 2 * n, 1))), True
    ),
}


def _resnet(name: str, batch: int, size: int, running: bool) -> Case:
    """He et al. 2016, with 1x1 convolutions on the shortcuts that change shape.

    ResNet-20: section 4.2. ResNet-18: table 1, as torchvision has it.
    """
    rng, shape = np.random.default_rng(0), RESIDUAL[name]
    weights: Weights = []
    statistics: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def conv_norm(name: str, outputs: int, inputs: int, kernel: int) -> None:
        weights.append((f"{name}.conv", _scaled(rng, outputs, inputs, kernel, kernel)))
        weights.extend(_norm(name, outputs))
        if running:
            mean, variance = 0.1 * rng.standard_normal(outputs), rng.uniform(0.5, 1.5, outputs)
            statistics[name] = mean.astype(np.float32), variance.astype(np.float32)

    conv_norm("stem", shape.width, 3, 7 if shape.pooling else 3)
    for i, (inputs, outputs, _) in enumerate(shape.blocks):
        conv_norm(f"{i}.a", outputs, inputs, 3)
        conv_norm(f"{i}.b", outputs, outputs, 3)
        if inputs != outputs:
            conv_norm(f"{i}.shortcut", outputs, inputs, 1)
    weights += _layer(rng, "head", CLASSES, shape.blocks[-1][1])
    x = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    return Case(name, weights, x, rng.integers(0, CLASSES, batch), statistics)


UNITS, STEPS, SEQUENCES = 128, 35, 32  # of recurrent nets
GATES = {"lstm": 4, "gru": 3}


def _recurrent(name: str) -> Case:
    """Two recurrent layers and a classifier of every step's output; gates in the order i, f, g, o and r, z, n."""
    rng, rows = np.random.default_rng(0), GATES[name] * UNITS
    weights: Weights = []
    for layer in range(2):
        for which in ("i2h", "h2h"):
            weights.append((f"{layer}.{which}.weight", _scaled(rng, rows, UNITS)))
        for which in ("i2h", "h2h"):
            weights.append((f"{layer}.{which}.bias", np.zeros(rows, np.float32)))
    weights += _layer(rng, "head", CLASSES, UNITS)
    x = rng.standard_normal((STEPS, SEQUENCES, UNITS)).astype(np.float32)
    return Case(name, weights, x, rng.integers(0, CLASSES, STEPS * SEQUENCES))


LAYERS, HEADS, TOKENS, HIDDEN = 4, 4, 64, 512  # of the encoder; its units are those of recurrent nets


def _encoder() -> Case:
    """Transformer encoder of Vaswani et al. 2017, section 3.1: normalised after each sum; GELU, mean over tokens."""
    rng = np.random.default_rng(0)
    weights: Weights = []
    for i in range(LAYERS):
        weights += _layer(rng, f"{i}.qkv", 3 * UNITS, UNITS) + _layer(rng, f"{i}.out", UNITS, UNITS)
        weights += _norm(f"{i}.norm1", UNITS)
        weights += _layer(rng, f"{i}.wide", HIDDEN, UNITS) + _layer(rng, f"{i}.narrow", UNITS, HIDDEN)
        weights += _norm(f"{i}.norm2", UNITS)
    weights += _layer(rng, "head", CLASSES, UNITS)
    x = rng.standard_normal((16, TOKENS, UNITS)).astype(np.float32)
    return Case("encoder", weights, x, rng.integers(0, CLASSES, 16))


CASES = {
    "dense": lambda: _dense("dense", (784, 512, 512, 10), 128),
    "maxout": lambda: _dense("maxout", (784, 240, 240, 10), 128, pieces=5),
    "resnet20": lambda: _resnet("resnet20", 64, 32, running=False),
    "resnet18": lambda: _resnet("resnet18", 16, 64, running=True),
    "encoder": _encoder,
    "lstm": lambda: _recurrent("lstm"),
    "gru": lambda: _recurrent("gru"),
    "small": lambda: _dense("small", (64, 64, 64, 10), 128),
}
TITLES = {
    "dense": "dense 784-512-512-10, batch 128",
    "maxout": "Maxout 784-2x240x5-10, batch 128",
    "resnet20": "ResNet-20, BatchNorm in train mode, batch 64, 3x32x32",
    "resnet18": "ResNet-18, predict mode, batch 16, 3x64x64",
    "encoder": "Transformer encoder 4 x 128, 64 tokens, batch 16",
    "lstm": "LSTM 2 x 128, 35 steps, batch 32",
    "gru": "GRU 2 x 128, 35 steps, batch 32",
    "small": "dense 64-64-64-10, batch 128",
}
