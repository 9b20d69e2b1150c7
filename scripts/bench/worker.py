"""One library in a process of its own: builds nets and times functions as it is told on standard input.

A line {"case": name} builds; {"time": function, "seconds": s} answers with the times of single calls; {"value":
function} with the result saved to a file; {"peak": function} with the growth of the process's memory over 3 calls, in
MiB.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
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


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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
                before = _peak()
                for _ in range(3):
                    functions[order["peak"]]()
                answer = _peak() - before
        except Exception as error:  # the run goes on: a library that cannot do a net is part of the result
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
