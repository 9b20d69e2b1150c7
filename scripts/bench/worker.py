"""One library in a process of its own: builds nets and times functions as it is told on standard input.

A line {"case": name} builds; {"time": function, "seconds": s} answers with the times of single calls; {"value":
function} with the result saved to a file; {"peak": function} with the most memory that 3 calls need beyond what the
process held before, in MiB (Linux).
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


def _times(function, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return times


def _memory(field: str) -> float:
    """A field of the process's status, MiB: VmRSS what it holds, VmHWM the most it held."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _peak(function) -> float:
    """What earlier work freed is given back, and the high-water mark set to what is held: it would hide the call."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory("VmRSS")
    for _ in range(3):
        function()
    return _memory("VmHWM") - before


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
                functions = side.build(cases.CASES[order["case"]]())
                answer = list(functions)
            elif "time" in order:
                answer = _times(functions[order["time"]], order["seconds"])
            elif "value" in order:
                np.save(order["file"], side.flat(functions[order["value"]]()))
            elif "peak" in order:
                answer = _peak(functions[order["peak"]])
        except Exception as error:  # the run goes on: a library that cannot do a net is part of the result
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
