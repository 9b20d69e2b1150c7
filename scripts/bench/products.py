"""Gradients, Hessian-vector and Gauss-Newton products: hessmx beside PyTorch and JAX, interleaved in one run.

    python scripts/bench/products.py [--rounds 7] [--seconds 0.6] [--json docs/bench-products.json] [--only dense,small]

Needs `pip install torch jax`, here or where `--python torch=PATH --python jax=PATH` says. Every library runs in
a process of its own with two threads, and sleeps while the others are timed. Reported are medians over all rounds,
and how far the libraries' numbers are apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile

import numpy as np
import tables
from cases import TITLES
from processes import Side, interpreters, keep, options


def measure(case: str, sides: list[Side], chosen: argparse.Namespace) -> dict:
    """Median seconds of every function of every library, and how far their results are apart."""
    built = {side.name: side.ask(case=case) for side in sides}
    refused = {name: answer["error"] for name, answer in built.items() if isinstance(answer, dict)}
    working = []
    for side in sides:
        for function in built[side.name] if side.name not in refused else []:
            answer = side.ask(time=function, seconds=chosen.seconds / 3)  # compile, warm up
            if isinstance(answer, dict):
                refused[f"{side.name} {function}"] = answer["error"]
            else:
                working.append((side, function))
    apart = differences(working)
    times: dict[str, list[float]] = {f"{s.name} {f}": [] for s, f in working}
    for _ in range(chosen.rounds):
        for side, function in working:
            times[f"{side.name} {function}"] += side.ask(time=function, seconds=chosen.seconds)
    seconds = {name: statistics.median(found) for name, found in times.items() if found}
    return {"seconds": seconds, "difference": apart, "refused": refused}


def differences(working: list[tuple[Side, str]]) -> dict[str, float]:
    """Relative distance of every result from hessmx's; kept or not, products are the same numbers."""
    with tempfile.TemporaryDirectory() as folder:
        values = {}
        for place, (side, function) in enumerate(working):
            file = f"{folder}/{place}.npy"
            if side.ask(value=function, file=file) is None:
                values[side.name, function] = np.load(file)
    found = {}
    for (name, function), value in values.items():
        base = values.get(("hessmx", function.removesuffix(" kept")))
        if base is not None and (name != "hessmx" or function.endswith("kept")):
            found[f"{name} {function}"] = float(np.linalg.norm(base - value) / np.linalg.norm(base))
    return found


def main() -> None:
    parser = options(__doc__, TITLES)
    parser.add_argument("--rounds", type=int, default=7, help="0: only whether the numbers agree")
    parser.add_argument("--seconds", type=float, default=0.6, help="of one function in one round; at least one call")
    chosen = parser.parse_args()
    results = {}
    for case in chosen.only.split(","):
        sides = [Side(name, python, chosen.threads) for name, python in interpreters(chosen).items()]
        try:
            results[case] = measure(case, sides, chosen)
        finally:
            for side in sides:
                side.close()
        print(case, json.dumps(results[case]), file=sys.stderr, flush=True)
        keep(chosen.json, results, TITLES)
    if chosen.rounds:
        print(tables.costs(results), tables.products(results), sep="\n\n", end="\n\n")
    print(tables.differences(results))


if __name__ == "__main__":
    main()
