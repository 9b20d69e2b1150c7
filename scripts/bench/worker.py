"""One library in a process of its own: builds nets and times functions as it is told on standard input.

A line {"case": name} builds; {"time": function, "seconds": s} answers with the times of single calls; {"value":
function, "file": path} saves the result; {"peak": [functions]} answers with the most memory that 3 calls of each need
beyond what the process held before, and with the most that it ever held, in MiB (Linux).
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]


class Timed:
    """A function of the call's number, and what happens before a call without being timed."""

    def __init__(self, entry):
        self.before, self.function = entry if isinstance(entry, tuple) else (lambda call: None, entry)

    def __call__(self, call: int):
        self.before(call)
        return self.function(call)

    def times(self, seconds: float) -> list[float]:
        times: list[float] = []
        end = time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            self.before(len(times))
            start = time.perf_counter()
            self.function(len(times))
            times.append(time.perf_counter() - start)
        return times


def _memory(field: str) -> float:
    """A field of the process's status, MiB: VmRSS what it holds, VmHWM the most it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _peak(functions: list[Timed]) -> dict[str, float]:
    """What earlier work freed is given back, and the high-water mark set to what is held: it would hide the calls."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    for function in functions:
        for call in range(3):
            function(call)
    peak = _memory("VmHWM")
    return {"beyond": peak - before, "process": peak}


def main(side_name: str) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print on standard output
    side, functions = importlib.import_module(f"side_{side_name}"), {}
    cases = importlib.import_module("cases")
    for line in sys.stdin:
        order = json.loads(line)
        answer: object = None
        try:
            if "case" in order:
                built = side.build(cases.CASES[order["case"]]())
                functions = {name: Timed(entry) for name, entry in built.items()}
                answer = list(functions)
            elif "time" in order:
                answer = functions[order["time"]].times(order["seconds"])
            elif "value" in order:
                rows = cases.DIRECTIONS if order["value"].endswith("block") else 1
                np.save(order["file"], side.flat(functions[order["value"]](0), rows))
            elif "peak" in order:
                answer = _peak([functions[name] for name in order["peak"]])
        except Exception as error:  # the run goes on: a library that cannot do a net is part of the result
            told = str(error).splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {told[0][:200]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
