"""Seconds until the first product: making a Curvature of a deep net, its first product, and a later one.

    python scripts/bench/startup.py [--repetitions 3] [--json docs/bench-startup.json] [--only resnet50]

Every repetition is a process of its own. The net has random weights, its shapes are known and it has run once.
Predict mode, batch 1, float32. Medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import tables
from processes import HERE, keep, options

NETS = tables.STARTUP


def build(name: str) -> tuple[Any, Any, Any]:
    """A net that has run once, one input, one label."""
    from side_hessmx import Encoder

    from hessmx._mxnet import mx

    if name == "bert":
        net, shape = Encoder(layers=12, units=768, heads=12, hidden=3072), (1, 128, 768)
    else:
        net = mx.gluon.model_zoo.vision.get_model({"resnet50": "resnet50_v1", "inception": "inceptionv3"}[name])
        shape = (1, 3, 64, 64) if name == "resnet50" else (1, 3, 299, 299)
    net.initialize(mx.init.Xavier(factor_type="in", magnitude=2))
    x, y = mx.nd.random.normal(shape=shape), mx.nd.array([1])
    net(x).wait_to_read()
    return net, x, y


def once(name: str) -> dict[str, float]:
    """In this process: seconds of each part."""
    marks = [time.perf_counter()]
    import hessmx
    from hessmx._mxnet import mx

    marks.append(time.perf_counter())
    net, x, y = build(name)
    import numpy as np

    begin = time.perf_counter()
    curv = hessmx.Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), [(x, y)])
    made = time.perf_counter()
    directions = np.random.default_rng(0).standard_normal((3, curv.num_params), dtype=np.float32)
    times, product = [], None
    for direction in directions:
        start = time.perf_counter()
        product = curv.hvp(direction)
        times.append(time.perf_counter() - start)
    assert product is not None and np.isfinite(product).all() and product.any()
    return {
        "import": marks[1] - marks[0], "curvature": made - begin, "first": times[0], "later": times[-1],
        "parameters": curv.num_params,
    }  # fmt: skip


def fresh(name: str, threads: int) -> dict[str, float]:
    root = str(HERE.parent.parent)
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": paths}
    command = [sys.executable, str(Path(__file__)), "--once", name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = options(__doc__, NETS)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--once", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        print(json.dumps(once(chosen.once)))
        return
    results = {}
    for name in chosen.only.split(","):
        found = [fresh(name, chosen.threads) for _ in range(chosen.repetitions)]
        results[name] = {key: statistics.median(row[key] for row in found) for key in found[0]}
        print(name, json.dumps(results[name]), file=sys.stderr, flush=True)
        keep(chosen.json, results, NETS)
    print(tables.startup(results))


if __name__ == "__main__":
    main()
