"""Child process of survey.py: reads case names, measures, answers in JSON lines. It may die; that is its purpose."""

from __future__ import annotations

import gc
import json
import sys

import numpy as np

from hessmx._mxnet import mx
from scripts.operators.measure import measure
from tests.cases import CASES


def stir() -> None:
    """Allocate and free blocks of many sizes, so that a damaged heap shows now and not three cases later."""
    gc.collect()
    for size in (1, 3, 7, 17, 65, 257, 1025):
        x = mx.nd.array(np.ones((size, 8)), dtype="float64")
        (mx.nd.dot(x, x, transpose_b=True) + 1).wait_to_read()
    mx.nd.waitall()


def main() -> None:
    named = {case.name: case for case in CASES}
    answers = sys.stdout
    sys.stdout = sys.stderr  # some operators print
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        name = line.rstrip("\n")
        for record in measure(named[name]):
            print(json.dumps({"name": name, **record}), file=answers, flush=True)
        stir()
        print(json.dumps({"name": name, "done": True}), file=answers, flush=True)


if __name__ == "__main__":
    main()
