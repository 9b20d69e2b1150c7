"""`mx.np` elementwise operators: `_npi_*` unary, binary, scalar, comparison, where."""

from __future__ import annotations

from tests.cases.case import Array, Case, distinct, literal, positive, real
from tests.cases.scalar import scalar

UNARY = {
    "real": "exp expm1 sin cos sinh cosh tanh arcsinh arctan square cbrt negative absolute degrees radians",
    "positive": "log log2 log10 log1p sqrt reciprocal",
    "unit": "arcsin arccos arctanh tan",
    "above_one": "arccosh",
    "fraction": "floor ceil rint fix trunc sign logical_not around isnan isinf isfinite isposinf isneginf",
}

SHAPES = ((2, 3), ())

BINARY = {
    "add": ("real", "real"),
    "subtract": ("real", "real"),
    "multiply": ("real", "real"),
    "true_divide": ("real", "positive"),
    "power": ("positive", "real"),
    "hypot": ("real", "real"),
    "arctan2": ("real", "positive"),
    "copysign": ("real", "real"),
    "ldexp": ("real", "real"),
}

PAIRS = (((2, 1, 3), (4, 3)), ((2, 3), (2, 3)), ((2, 3), ()))

SCALAR = {
    "add_scalar": ("real", 0.7),
    "subtract_scalar": ("real", 0.7),
    "rsubtract_scalar": ("real", 0.7),
    "multiply_scalar": ("real", -1.7),
    "true_divide_scalar": ("real", -1.7),
    "rtrue_divide_scalar": ("real", 1.3),
    "power_scalar": ("positive", 2.5),
    "rpower_scalar": ("real", 1.3),
    "mod_scalar": ("fraction", 1.05),
    "rmod_scalar": ("above_one", 3.7),
    "arctan2_scalar": ("real", 0.7),
    "ldexp_scalar": ("real", 1.5),
    "rldexp_scalar": ("real", 1.5),
}

WORDS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
INTEGERS = Array((3,), "index", 1, 9, dtype="int32")
INTEGER_BINARY = ("bitwise_and", "bitwise_or", "bitwise_xor", "lcm")
MASK = literal([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])

ROWS = (
    [
        Case(f"_npi_{op}", (Array(shape, domain),))
        for domain, ops in UNARY.items()
        for op in ops.split()
        for shape in SHAPES
    ]
    + [Case(f"_npi_{op}", (Array(left, a), Array(right, b))) for op, (a, b) in BINARY.items() for left, right in PAIRS]
    + [Case(f"_npi_{op}", (Array((2, 3), domain),), scalar(value)) for op, (domain, value) in SCALAR.items()]
    + [Case(f"_npi_{word}", (real(2, 3), distinct(3))) for word in WORDS]
    + [Case(f"_npi_{word}_scalar", (distinct(2, 3),), scalar(0.31)) for word in WORDS]
    + [
        Case("_npi_power_scalar", (real(2, 3),), {"scalar": 2, "is_int": True}),
        Case("_npi_around", (Array((2, 3), "fraction"),), {"decimals": 1}),
        Case("_npi_copysign_scalar", (real(2, 3),), scalar(-0.7), first="raises"),
        Case("_npi_rcopysign_scalar", (real(2, 3),), scalar(0.7), first="raises"),
        Case("_npi_rarctan2_scalar", (positive(2, 3),), scalar(0.7), first="wrong"),
        Case("_npi_mod", (positive(2, 3), Array((2, 3), "above_one")), seed=1),
        Case("_npi_mod", (positive(2, 1), Array((3,), "above_one"))),
        Case("_npi_nan_to_num", (real(2, 3),)),
        Case("_npi_where", (MASK, real(2, 3), real(2, 3))),
        Case("_npi_where", (MASK, real(3), real(2, 1))),
        Case("_npi_where_lscalar", (MASK, real(2, 3)), {"scalar": 0.7}, first="wrong"),
        Case("_npi_where_rscalar", (MASK, real(2, 3)), {"scalar": 0.7}, first="wrong"),
        Case("_npi_absolute", (literal([-1.0, 0.0, 1.0]),), kink=True),
        Case("_npx_relu", (real(2, 3),)),
        Case("_npx_sigmoid", (real(2, 3),)),
        Case("_np_copy", (real(2, 3),)),
        Case("_npi_full_like", (real(2, 3),), {"fill_value": 2.0}),
    ]
    + [Case("_npi_bitwise_not", (INTEGERS,), wrt=(0,))]
    + [Case(f"_npi_{op}", (INTEGERS, INTEGERS), wrt=(0, 1)) for op in INTEGER_BINARY]
    + [Case(f"_npi_{op}_scalar", (INTEGERS,), {"scalar": 6, "is_int": True}, wrt=(0,)) for op in INTEGER_BINARY]
)
