"""Influence of 10,000 samples beside kronfluence's EK-FAC on the same dense net, one thread each.

    OMP_NUM_THREADS=1 python scripts/bench/influence.py --other /path/to/python        one with torch and kronfluence

Prints seconds of the processor (they do not depend on what else the machine does) and how the scores agree with those
of a dense inverse: kronfluence approximates the matrix, hessmx solves with it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1] / "questions")]

from common import digits, mx, started, train  # noqa: E402

from hessmx import Curvature  # noqa: E402
from hessmx.blocks import dense_net  # noqa: E402
from hessmx.operators.samples import per_sample_slopes  # noqa: E402
from hessmx.uses.influence import influence  # noqa: E402

SAMPLES, TESTS, SIZES = 10_000, 64, (64, 32, 10)
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def problem() -> tuple[Any, tuple, tuple]:
    """A trained tanh net; the digits again and again with noise, so that no two samples are the same."""
    x, y, test_x, test_y = digits(dtype="float32")
    net = train(started(dense_net(SIZES, "tanh")), x, y, 20, 5e-3)
    rng, many = np.random.default_rng(0), np.resize(np.arange(len(x)), SAMPLES)
    noisy = x[many] + 0.1 * rng.standard_normal((SAMPLES, 64)).astype(np.float32)
    return net, (noisy, y[many]), (test_x[:TESTS], test_y[:TESTS])


def own(net: Any, data: tuple, test: tuple, **options: Any) -> dict[str, Any]:
    curv = Curvature(net, LOSS, data, batch_size=2048)
    influence(curv, test, damping=1e-3, max_products=3)  # compiles
    began, cpu = time.perf_counter(), time.process_time()
    found = influence(curv, test, **options)
    return {"seconds": time.perf_counter() - began, "processor": time.process_time() - cpu,
            "scores": found.scores[:, 0], "products": found.products, "damping": found.damping}


def exact(net: Any, data: tuple, test: tuple, damping: float) -> np.ndarray:
    """By the dense matrix."""
    curv = Curvature(net, LOSS, data, batch_size=2048)
    gradient = Curvature(net, LOSS, test).gradient()
    matrix = curv.ggn.to_dense().astype(np.float64) + damping * np.eye(curv.num_params)
    return per_sample_slopes(curv, np.linalg.solve(matrix, gradient)) / len(data[0])


def other(python: str, net: Any, data: tuple, test: tuple) -> dict[str, Any]:
    arrays = {"x": data[0], "y": data[1], "test_x": test[0], "test_y": test[1], "layers": len(SIZES) - 1}
    values = [p.data().asnumpy() for p in net.collect_params().values()]
    for i in range(len(SIZES) - 1):
        arrays.update({f"weight{i}": values[2 * i], f"bias{i}": values[2 * i + 1]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "problem.npz"
        np.savez(path, **arrays)
        side = Path(__file__).with_name("side_kronfluence.py")
        done = subprocess.run([python, str(side), str(path)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--other", help="a Python that has torch and kronfluence")
    asked = parser.parse_args()
    net, data, test = problem()
    mine = own(net, data, test, rtol=1e-3)
    true = exact(net, data, test, mine["damping"])
    print(f"{SAMPLES:,} samples, {TESTS} test samples, sizes {SIZES}")
    print(f"hessmx: {mine['processor']:.2f} s of the processor ({mine['seconds']:.2f} s), {mine['products']} products, "
          f"correlation with the dense inverse {np.corrcoef(mine['scores'], true)[0, 1]:.6f}")
    if asked.other:
        found = other(asked.other, net, data, test)
        print(f"kronfluence: {found['fit, processor']:.2f} s to fit, {found['scores, processor']:.2f} s for scores "
              f"({found['fit'] + found['scores']:.2f} s), "
              f"correlation with the dense inverse {np.corrcoef(found['values'], true)[0, 1]:.6f}")


if __name__ == "__main__":
    main()
