"""Memory over thousands of Hessian-vector products, from arrays and from a DataLoader.

    python scripts/bench/growth.py [--products 10000]

Prints the process's resident memory (MiB) along the way; it must not grow after the first hundred products.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import hessmx  # first: settles threads and NumPy's aliases
from hessmx._mxnet import mx

import numpy as np  # isort: skip


def resident() -> float:
    """Resident memory of this process, MiB (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def sources() -> dict:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(96, 20)).astype(np.float32), rng.integers(0, 3, 96).astype(np.float32)
    dataset = mx.gluon.data.ArrayDataset(x, y)
    return {"arrays": (x, y), "DataLoader": mx.gluon.data.DataLoader(dataset, batch_size=32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, default=10_000)
    total = parser.parse_args().products
    marks = [total // 100, total // 10, total // 2, total]
    for name, data in sources().items():
        net = hessmx.blocks.dense_net((20, 32, 3), "tanh")
        net.initialize()
        curv = hessmx.Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), data, batch_size=None)
        rng, seen = np.random.default_rng(1), []
        for done in range(1, total + 1):
            curv.hvp(rng.standard_normal(curv.num_params))
            if done in marks:
                seen.append(f"{resident():.1f} after {done}")
        print(f"{name}: MiB {', '.join(seen)}", flush=True)


if __name__ == "__main__":
    main()
