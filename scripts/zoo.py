"""H v of the nets of gluon.model_zoo.vision against float64 differences of MXNet's own gradient.

    python scripts/zoo.py                 all 34 nets, a table
    python scripts/zoo.py resnet18_v1     some nets
    python scripts/zoo.py --train ...     batch statistics instead of running ones

Random weights, no shift at 0; running statistics are those of the batch, so that activations are of size 1. Dropout
is left out: its masks would differ. Exit code 1 if any relative error is above 1e-5.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import hessmx  # noqa: E402
from hessmx._mxnet import mx  # noqa: E402

TOLERANCE = 1e-5
CLASSES = 4
# The smallest images that the pooling layers of a family accept; all others take 32 x 32.
SIZES = {"alexnet": 67, "squeezenet": 213, "densenet": 221, "inception": 299}
NAMES = tuple(
    [f"resnet{depth}_v{version}" for version in (1, 2) for depth in (18, 34, 50, 101, 152)]
    + [f"vgg{depth}{norm}" for norm in ("", "_bn") for depth in (11, 13, 16, 19)]
    + ["alexnet", "inceptionv3", "squeezenet1.0", "squeezenet1.1"]
    + [f"densenet{depth}" for depth in (121, 161, 169, 201)]
    + [f"mobilenet{multiplier}" for multiplier in ("0.25", "0.5", "0.75", "1.0")]
    + [f"mobilenetv2_{multiplier}" for multiplier in ("0.25", "0.5", "0.75", "1.0")]
)


@dataclass(frozen=True)
class Row:
    name: str
    size: int
    params: int
    error: float  # |Hv - differences| / |differences|
    gradient: float  # seconds
    product: float  # seconds


def build(name: str, samples: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """A net with random float64 weights, and a batch for it."""
    mx.random.seed(seed)
    rng = np.random.default_rng(seed)
    size = next((size for family, size in SIZES.items() if name.startswith(family)), 32)
    net = mx.gluon.model_zoo.vision.get_model(name, classes=CLASSES)
    net.initialize(mx.init.Xavier(factor_type="in", magnitude=2))
    x = mx.nd.array(rng.standard_normal((samples, 3, size, size)), dtype="float64")
    net(x[:1].astype("float32"))
    net.cast("float64")
    for p in _trained(net):  # a channel that is dead would stand at its ReLU's kink if its shift were 0
        if p.name.endswith(("gamma", "beta", "bias")):
            centre = 1.0 if p.name.endswith("gamma") else 0.0
            p.set_data(mx.nd.array(centre + 0.2 * rng.standard_normal(p.shape), dtype="float64"))
    for block in _blocks(net):
        if isinstance(block, mx.gluon.nn.BatchNorm):
            block._kwargs["momentum"] = 0.0
        if isinstance(block, mx.gluon.nn.Dropout):
            block._rate = 0
    with mx.autograd.train_mode():
        net(x)
    return net, x, mx.nd.array(np.arange(samples) % CLASSES, dtype="float64")


def _blocks(net: Any) -> list[Any]:
    found: list[Any] = []
    net.apply(found.append)
    return found


def gradient(net: Any, x: Any, y: Any, train: bool) -> np.ndarray:
    """By MXNet's autograd on the net itself."""
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    with mx.autograd.record(train_mode=train):
        value = loss(net(x), y)
    value.backward(train_mode=train)
    return np.concatenate([p.grad().asnumpy().ravel() for p in _trained(net)]) / len(x)


def _trained(net: Any) -> list[Any]:
    return [p for p in net.collect_params().values() if p.grad_req != "null"]


def differences(net: Any, x: Any, y: Any, v: np.ndarray, train: bool, step: float) -> np.ndarray:
    """(g(w + h v) - g(w - h v)) / 2h."""
    parameters = _trained(net)
    start = [p.data().copy() for p in parameters]
    ends = np.cumsum([w.size for w in start])
    sides = []
    for sign in (1, -1):
        for p, w, piece in zip(parameters, start, np.split(v, ends[:-1])):
            p.set_data(w + mx.nd.array(sign * step * piece.reshape(w.shape), dtype="float64"))
        sides.append(gradient(net, x, y, train))
    for p, w in zip(parameters, start):
        p.set_data(w)
    return (sides[0] - sides[1]) / (2 * step)


def check(name: str, train: bool = False, samples: int = 2, seed: int = 0) -> Row:
    """A long step may cross a kink, a short one is rounded more: the better of two counts."""
    net, x, y = build(name, samples, seed)
    curv = hessmx.Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), (x, y), mode="train" if train else "predict")
    v = np.random.default_rng(seed + 1).standard_normal(curv.num_params)
    v /= np.linalg.norm(v)
    product = curv.hvp(v)
    started = time.perf_counter()
    curv.gradient()
    middle = time.perf_counter()
    curv.hvp(v)
    ended = time.perf_counter()
    truths = (differences(net, x, y, v, train, step) for step in (1e-6, 1e-7))
    error = min(float(np.linalg.norm(product - true) / np.linalg.norm(true)) for true in truths)
    return Row(name, x.shape[-1], curv.num_params, error, middle - started, ended - middle)


def main() -> int:
    parser = argparse.ArgumentParser(description="H v of the model zoo against float64 differences")
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--train", action="store_true", help="batch statistics")
    options = parser.parse_args()
    print(f"{'net':18s} {'image':>5s} {'parameters':>11s} {'error':>9s} {'gradient s':>10s} {'Hv s':>7s}")
    worst = 0.0
    for name in options.names:
        row = check(name, options.train, samples=4 if options.train else 2)
        worst = max(worst, row.error)
        print(
            f"{name:18s} {row.size:5d} {row.params:11,d} {row.error:9.1e} {row.gradient:10.2f} {row.product:7.2f}",
            flush=True,
        )
    print(f"{len(options.names)} nets, largest error {worst:.1e}, allowed {TOLERANCE:.0e}")
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
