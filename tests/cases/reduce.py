"""Reductions, norms, cumulative and broadcasting operators."""

from __future__ import annotations

from tests.cases.case import Array, Case, distinct, literal, positive, real

AXES = (
    {},
    {"axis": 1},
    {"axis": -1, "keepdims": True},
    {"axis": (0, 2)},
    {"axis": (0, 2), "keepdims": True},
    {"axis": 1, "exclude": True},
    {"axis": (0, 1), "exclude": True, "keepdims": True},
)

DOMAIN = {
    "sum": "real",
    "mean": "real",
    "nansum": "real",
    "prod": "real",
    "nanprod": "real",
    "max": "distinct",
    "min": "distinct",
}

NORM_AXES = ({}, {"axis": 1}, {"axis": 0, "keepdims": True}, {"axis": (0, 1)})

ROWS = (
    [Case(op, (Array((2, 3, 2), domain),), attrs) for op, domain in DOMAIN.items() for attrs in AXES]
    + [Case("sum", (real(3),)), Case("mean", (real(3),)), Case("max", (distinct(5),)), Case("prod", (real(1),))]
    + [Case("norm", (real(2, 4),), {"ord": order, **axes}) for order in (1, 2) for axes in NORM_AXES]
    + [
        Case("moments", (real(2, 3, 2),), {"axes": (0, 2)}),
        Case("moments", (real(2, 3),), {"axes": (1,), "keepdims": True}),
        Case("_square_sum", (real(3, 4),), {"axis": 1}, first="raises", note="row_sparse input only"),
        Case("broadcast_axis", (real(2, 1, 3),), {"axis": 1, "size": 4}),
        Case("broadcast_axis", (real(1, 3, 1),), {"axis": (0, 2), "size": (2, 3)}),
        Case("broadcast_to", (real(2, 1, 3),), {"shape": (2, 4, 3)}),
        Case("broadcast_to", (real(1, 3),), {"shape": (4, 0)}),
        Case("broadcast_like", (real(2, 1, 3), real(2, 4, 3)), wrt=(0,)),
        Case("broadcast_like", (real(1, 3), real(4, 2)), {"lhs_axes": (0,), "rhs_axes": (0,)}, wrt=(0,)),
        Case("argmax", (distinct(3, 4),), {"axis": 1}),
        Case("argmin", (distinct(3, 4),), {"axis": 0, "keepdims": True}),
        Case("all_finite", (real(2, 3),), dtype="float32", first="raises"),
        Case("multi_all_finite", (real(2, 3), real(2)), {"num_arrays": 2}, dtype="float32", first="raises"),
        Case("_histogram", (real(2, 3), literal([-2.0, 0.0, 2.0])), first="raises"),
        Case("argmax_channel", (distinct(3, 4),), first="raises"),
        Case("argsort", (distinct(3, 4),), {"axis": -1}),
        Case("sort", (distinct(3, 4),), {"axis": -1}),
        Case("sort", (distinct(3, 4),), {"axis": 0, "is_ascend": False}),
        Case("sort", (distinct(2, 3),), {"axis": "None"}),
        Case("sort", (distinct(2, 3),), first="raises", note="no explicit axis: the backward pass does not parse"),
        Case("topk", (distinct(3, 4),), {"k": 2, "ret_typ": "value"}),
        Case("topk", (distinct(3, 4),), {"k": 2, "ret_typ": "value", "axis": 0, "is_ascend": True}),
        Case("topk", (distinct(3, 4),), {"k": 2, "ret_typ": "both"}, outputs=(0,)),
        Case("topk", (distinct(3, 4),), {"k": 2, "ret_typ": "indices"}),
        Case("topk", (distinct(3, 4),), {"k": 2, "ret_typ": "mask"}),
        Case("max", (literal([[1.0, 1.0, 0.0]]),), {"axis": 1}, wrt=(0,), kink=True, note="tie: full gradient to both"),
        Case("min", (literal([[1.0, 0.0, 0.0]]),), {"axis": 1}, wrt=(0,), kink=True, note="tie"),
        Case("sort", (literal([1.0, 1.0, 0.0]),), {"axis": 0}, wrt=(0,), kink=True, note="tie"),
        Case(
            "prod",
            (literal([[1.5, 0.0, -2.0]]),),
            {"axis": 1},
            wrt=(0,),
            kink=True,
            note="smooth, but MXNet divides by 0",
        ),
        Case("norm", (literal([0.0, 0.0, 0.0]),), wrt=(0,), kink=True, note="norm of zero"),
        Case("norm", (positive(3),), {"ord": 2}),
    ]
)
