"""Unary functions, binary arithmetic with and without broadcasting, comparisons, where, casts."""

from __future__ import annotations

from tests.cases.case import COMPARISON_WORDS, Array, Case, distinct, index, literal, positive, real

UNARY = {
    "real": "exp expm1 sin cos sinh cosh tanh arcsinh arctan sigmoid relu softsign erf square cbrt "
    "negative abs degrees radians _copy hard_sigmoid smooth_l1",
    "positive": "rcbrt reciprocal log log2 log10 log1p sqrt rsqrt gamma gammaln",
    "unit": "arcsin arccos arctanh erfinv tan",
    "above_one": "arccosh",
    "fraction": "floor ceil round rint fix trunc sign logical_not zeros_like ones_like",
}

SHAPES = ((2, 3), (4,))

BROADCAST = (((2, 1, 3), (1, 4, 3)), ((2, 3), (2, 3)), ((2, 3), (1, 1)))

SMOOTH_BINARY = {  # operator without broadcasting: domains of the two inputs
    "elemwise_add": ("real", "real"),
    "elemwise_sub": ("real", "real"),
    "elemwise_mul": ("real", "real"),
    "elemwise_div": ("real", "positive"),
    "_maximum": ("half", "quarter"),
    "_minimum": ("half", "quarter"),
    "_power": ("positive", "real"),
    "_hypot": ("real", "real"),
    "_mod": ("positive", "above_one"),
    "_scatter_elemwise_div": ("real", "positive"),
}

BROADCAST_BINARY = {
    "broadcast_add": ("real", "real"),
    "broadcast_sub": ("real", "real"),
    "broadcast_mul": ("real", "real"),
    "broadcast_div": ("real", "positive"),
    "broadcast_maximum": ("half", "quarter"),
    "broadcast_minimum": ("half", "quarter"),
    "broadcast_power": ("positive", "real"),
    "broadcast_hypot": ("real", "real"),
    "broadcast_mod": ("positive", "above_one"),
}

COMPARISONS = [prefix + word for prefix in ("_", "broadcast_") for word in COMPARISON_WORDS]

KINKS = (
    [Case(op, (literal([-1.0, 0.0, 2.0]),), kink=True) for op in ("relu", "abs", "sign", "softsign")]
    + [
        Case("smooth_l1", (literal([-1.0, 0.0, 1.0]),), kink=True),
        Case("hard_sigmoid", (literal([-2.5, 2.5]),), kink=True),
    ]
    + [Case("clip", (literal([-1.0, 0.0, 1.0]),), {"a_min": -1.0, "a_max": 1.0}, kink=True)]
    + [Case(op, (literal([1.0, 2.0]), literal([1.0, 3.0])), kink=True) for op in ("_maximum", "_minimum")]
    + [
        Case(op, (literal([[1.0, 2.0]]), literal([[1.0], [3.0]])), kink=True)
        for op in ("broadcast_maximum", "broadcast_minimum")
    ]
)

ROWS = (
    [Case(op, (Array(shape, domain),)) for domain, ops in UNARY.items() for op in ops.split() for shape in SHAPES]
    + [Case(op, (Array((2, 3), a), Array((2, 3), b))) for op, (a, b) in SMOOTH_BINARY.items()]
    + [
        Case(op, (Array(left, a), Array(right, b)))
        for op, (a, b) in BROADCAST_BINARY.items()
        for left, right in BROADCAST
    ]
    + [Case(op, (real(2, 3), distinct(2, 3))) for op in COMPARISONS]
    + [Case(op, (real(2, 1), distinct(1, 3))) for op in COMPARISONS if op.startswith("broadcast")]
    + [
        Case("BlockGrad", (real(2, 3),), first="dropped", note="by design"),
        Case("make_loss", (real(2, 3),), first="fake"),
        Case("smooth_l1", (real(3, 4),), {"scalar": 2.0}),
        Case("hard_sigmoid", (real(3, 4),), {"alpha": 0.6, "beta": 0.4}),
        Case("clip", (distinct(3, 4),), {"a_min": -0.72, "a_max": 0.81}),
        Case("erfinv", (Array((3,), "probability"),)),
        Case("gamma", (Array((4,), "fraction"),)),
        Case("gammaln", (Array((4,), "fraction"),)),
        Case("cbrt", (positive(4),)),
        Case("add_n", (real(2, 3), real(2, 3), real(2, 3)), {"num_args": 3}),
        Case("add_n", (real(2, 3),), {"num_args": 1}),
        Case("where", (Array((2, 3), "binary"), real(2, 3), real(2, 3))),
        Case("where", (Array((2,), "binary"), real(2, 3), real(2, 3))),
        Case("Cast", (real(2, 3),), {"dtype": "float64"}),
        Case("amp_cast", (real(2, 3),), {"dtype": "float32"}, dtype="float32"),
        Case("amp_multicast", (real(2, 3), real(4)), {"num_outputs": 2}, dtype="float32"),
        Case("_identity_with_attr_like_rhs", (real(2, 3), real(2, 3)), wrt=(0,)),
        Case("cast_storage", (real(2, 3),), {"stype": "default"}),
        Case("_grad_add", (real(2, 3), real(2, 3)), first="raises"),
        Case("batch_take", (real(3, 4), index(3, high=4, dtype="int32")), first="raises"),
        Case("khatri_rao", (real(2, 3), real(2, 3)), {"num_args": 2}, first="raises"),
    ]
    + KINKS
)
