"""The operator case table: rows of MXNet operator calls, one file for each family. `CASES` is all of them."""

from __future__ import annotations

import importlib

from tests.cases.case import Array, Case

FAMILIES = (
    "elementwise",
    "scalar",
    "reduce",
    "shape",
    "index",
    "linalg",
    "nn",
    "norms",
    "loss",
    "rnn",
    "contrib",
    "image",
    "random",
    "numpy_elementwise",
    "numpy_arrays",
)

CASES: tuple = tuple(row for family in FAMILIES for row in importlib.import_module(f"tests.cases.{family}").ROWS)
OPERATORS: tuple = tuple(sorted({row.op for row in CASES}))


def rows(op: str) -> tuple:
    """All rows of one operator."""
    return tuple(row for row in CASES if row.op == op)


__all__ = ["CASES", "FAMILIES", "OPERATORS", "Array", "Case", "rows"]
