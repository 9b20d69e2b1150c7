"""Gradient and Hessian-vector product of five nets: hessmx beside PyTorch and JAX, interleaved in one run.

    python scripts/bench/products.py [--rounds 7] [--seconds 0.6] [--json docs/bench.json] [--only dense,small]

Needs `pip install torch jax` in the same environment. Every library runs in a process of its own with two threads,
and sleeps while the others are timed. Reported are medians over all rounds, and ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from cases import TITLES  # noqa: E402
from tables import products  # noqa: E402

SIDES = ("hessmx", "torch", "jax")


class Side:
    """A worker process."""

    def __init__(self, name: str):
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        command = [sys.executable, str(HERE / "worker.py"), name]
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env=environment,
        )

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"error": "the process ended"}

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def measure(case: str, rounds: int, seconds: float) -> dict:
    """Median seconds of every function of every library, and how far their products are apart."""
    sides = [Side(name) for name in SIDES]
    built = {side.name: side.ask(case=case) for side in sides}
    functions = [(s, f) for s in sides if isinstance(built[s.name], list) for f in built[s.name]]
    times: dict[str, list[float]] = {f"{s.name} {f}": [] for s, f in functions}
    for side, function in functions:
        side.ask(time=function, seconds=seconds / 3)  # compile, warm up
    for _ in range(rounds):
        for side, function in functions:
            answer = side.ask(time=function, seconds=seconds)
            if isinstance(answer, list):
                times[f"{side.name} {function}"] += answer
    with tempfile.TemporaryDirectory() as folder:
        values = {}
        for side, function in functions:
            if function == "hvp":
                file = f"{folder}/{side.name}.npy"
                side.ask(value=function, file=file)
                values[side.name] = np.load(file) if os.path.exists(file) else None
    for side in sides:
        side.close()
    apart = {
        name: float(np.linalg.norm(values["hessmx"] - value) / np.linalg.norm(value))
        for name, value in values.items()
        if name != "hessmx" and value is not None
    }
    return {
        "seconds": {name: statistics.median(found) for name, found in times.items() if found},
        "difference": apart,
        "refused": {name: answer["error"] for name, answer in built.items() if isinstance(answer, dict)},
    }


def peaks(case: str) -> dict[str, float]:
    """Memory that gradient and product each need in a fresh process, MiB."""
    found = {}
    for function in ("gradient", "hvp"):
        side = Side("hessmx")
        side.ask(case=case)
        found[function] = side.ask(peak=function)
        side.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default=",".join(TITLES))
    options = parser.parse_args()
    results = {}
    for case in options.only.split(","):
        results[case] = {**measure(case, options.rounds, options.seconds), "peak": peaks(case)}
        print(case, json.dumps(results[case]), file=sys.stderr, flush=True)
    print(products(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
