"""H v of the nets of gluon.model_zoo.vision, in float64 and float32, with running and with batch statistics.

    python scripts/zoo.py                            all 34 nets, a table
    python scripts/zoo.py resnet18_v1 alexnet        some nets
    python scripts/zoo.py --rows zoo.jsonl           what is in the file is not run again, each row is added when done
    python scripts/zoo.py --modes predict --nets 5   one mode, the first five nets that are not in the file

float64 products are judged by differences of MXNet's own float64 gradients, float32 products by the float64 ones at
the same parameters (which are float32 numbers). Random weights, no shift at 0; running statistics are those of the
batch, so that activations are of size 1. Dropout is left out: its masks would differ. Exit code 1 if any relative
error is above 1e-5 (float64), or in float32 above 1e-3 and above three times what rounding of the parameters does.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":  # not scripts/, some of whose names are those of packages
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import hessmx  # noqa: E402
from hessmx._mxnet import mx  # noqa: E402

TOLERANCE = 1e-5
TOLERANCE32 = 1e-3
ROUNDINGS = 3  # of that size are allowed too: batch statistics of few values make large numbers of rounding
SAMPLES = {"predict": 2, "train": 4}
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
    mode: str
    size: int
    params: int
    error: float  # |Hv - differences| / |differences|, float64
    error32: float  # |Hv in float32 - Hv in float64| / |Hv in float64|
    rounding: float  # how far Hv in float64 moves where its parameters move by float32's rounding
    gradient: float  # seconds, float64
    product: float  # seconds, float64
    product32: float  # seconds, float32

    @property
    def right(self) -> bool:
        return self.error <= TOLERANCE and self.error32 <= max(TOLERANCE32, ROUNDINGS * self.rounding)


def build(name: str, samples: int, seed: int = 0) -> tuple[Any, Any, Any]:
    """A float64 net with random weights that are float32 numbers, and a batch for it."""
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
    for p in net.collect_params().values():
        p.set_data(p.data().astype("float32").astype("float64"))
    x = x.astype("float32").astype("float64")
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


def check(name: str, train: bool = False, samples: int | None = None, seed: int = 0) -> Row:
    """A long step may cross a kink, a short one is rounded more: the better of two counts."""
    mode = "train" if train else "predict"
    net, x, y = build(name, samples or SAMPLES[mode], seed)
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    curv = hessmx.Curvature(net, loss, (x, y), mode=mode)
    v = np.random.default_rng(seed + 1).standard_normal(curv.num_params)
    v /= np.linalg.norm(v)
    product, size, params = curv.hvp(v), x.shape[-1], curv.num_params
    gradient_time, product_time = _seconds(curv.gradient), _seconds(lambda: curv.hvp(v))
    rounding = _rounding(net, curv, v, product)
    del curv  # its arrays are as large as the net's own
    truths = (differences(net, x, y, v, train, step) for step in (1e-6, 1e-7))
    error = min(_apart(product, true) for true in truths)
    net.cast("float32")
    curv = hessmx.Curvature(net, loss, (x.astype("float32"), y.astype("float32")), mode=mode)
    error32 = _apart(curv.hvp(v), product)
    times = gradient_time, product_time, _seconds(lambda: curv.hvp(v))
    return Row(name, mode, size, params, error, error32, rounding, *times)


def _rounding(net: Any, curv: Any, v: np.ndarray, product: np.ndarray) -> float:
    """The largest of three draws."""
    rng, moves = np.random.default_rng(2), []
    start = [(p, p.data().copy()) for p in _trained(net)]
    for _ in range(3):
        for p, w in start:
            p.set_data(w * mx.nd.array(1 + 6e-8 * rng.uniform(-1, 1, w.shape), dtype="float64"))
        moves.append(_apart(curv.hvp(v), product))
    for p, w in start:
        p.set_data(w)
    return max(moves)


def _apart(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def known(rows: Path | None) -> dict[tuple[str, str], Row]:
    """What an earlier run has written; a line that was cut off is left out."""
    found: dict[tuple[str, str], Row] = {}
    for line in rows.read_text().splitlines() if rows is not None and rows.exists() else ():
        try:
            row = Row(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[row.name, row.mode] = row
    return found


def show(row: Row) -> None:
    verdict = "right" if row.right else "WRONG"
    print(
        f"{row.name:18s} {row.mode:7s} {row.size:5d} {row.params:11,d} {row.error:9.1e} {row.error32:9.1e} "
        f"{row.rounding:9.1e} {row.gradient:10.2f} {row.product:7.2f} {row.product32:11.2f} {verdict}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description="H v of the model zoo in float64 and float32")
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--modes", nargs="+", choices=tuple(SAMPLES), default=tuple(SAMPLES))
    parser.add_argument("--nets", type=int, default=len(NAMES), help="how many nets to run at the most")
    parser.add_argument("--rows", type=Path, help="file of results, a line for each net and mode: read first, added to")
    options = parser.parse_args()
    rows = known(options.rows)
    titles = ("net", "mode", "image", "parameters", "float64", "float32", "rounding", "gradient s", "Hv s", "float32 s")
    print("{:18s} {:7s} {:>5s} {:>11s} {:>9s} {:>9s} {:>9s} {:>10s} {:>7s} {:>11s}".format(*titles))
    left = options.nets
    shown = []
    for name in options.names:
        missing = [mode for mode in options.modes if (name, mode) not in rows]
        if missing and not left:
            continue
        left -= bool(missing)
        for mode in options.modes:
            if mode in missing:
                rows[name, mode] = check(name, mode == "train")
                if options.rows is not None:
                    with options.rows.open("a") as file:
                        file.write(json.dumps(asdict(rows[name, mode])) + "\n")
            shown.append(rows[name, mode])
            show(shown[-1])
    wrong = [row for row in shown if not row.right]
    print(
        f"{len(shown)} rows, {len(wrong)} wrong; largest errors "
        f"{max((row.error for row in shown), default=0):.1e} (float64), "
        f"{max((row.error32 for row in shown), default=0):.1e} (float32)"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
