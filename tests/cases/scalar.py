"""Arithmetic and comparisons of an array with a scalar attribute."""

from __future__ import annotations

from tests.cases.case import COMPARISON_WORDS, Array, Case, literal


def scalar(value: float) -> dict:
    return {"scalar": value, "is_int": False}


ARITHMETIC = {  # operator: (domain, scalars)
    "_plus_scalar": ("real", (0.7,)),
    "_minus_scalar": ("real", (0.7,)),
    "_rminus_scalar": ("real", (0.7,)),
    "_mul_scalar": ("real", (-1.7, 0.0)),
    "_div_scalar": ("real", (-1.7,)),
    "_rdiv_scalar": ("real", (1.3,)),
    "_power_scalar": ("positive", (2.5, -1.0, 0.0, 1.0)),
    "_rpower_scalar": ("real", (1.3,)),
    "_hypot_scalar": ("real", (0.7,)),
    "_maximum_scalar": ("distinct", (0.31,)),
    "_minimum_scalar": ("distinct", (0.31,)),
    "_mod_scalar": ("fraction", (1.05,)),
    "_rmod_scalar": ("above_one", (3.7,)),
    "_scatter_plus_scalar": ("real", (0.7,)),
    "_scatter_minus_scalar": ("real", (0.7,)),
}

COMPARISONS = [f"_{word}_scalar" for word in COMPARISON_WORDS]

ROWS = (
    [Case(op, (Array((2, 3), domain),), scalar(c)) for op, (domain, values) in ARITHMETIC.items() for c in values]
    + [Case(op, (Array((2, 3), "distinct"),), scalar(0.31)) for op in COMPARISONS]
    + [
        Case("_power_scalar", (Array((2, 3), "real"),), {"scalar": 2, "is_int": True}),
        Case("_power_scalar", (Array((2, 3), "real"),), {"scalar": 3, "is_int": True}),
        Case("_power_scalar", (literal([0.0, 1.0, -1.0]),), {"scalar": 2, "is_int": True}, kink=True, note="x = 0"),
        Case("_maximum_scalar", (literal([0.0, 1.0, -1.0]),), scalar(0.0), kink=True),
        Case("_minimum_scalar", (literal([0.0, 1.0, -1.0]),), scalar(0.0), kink=True),
    ]
)
