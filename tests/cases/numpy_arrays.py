"""`mx.np` operators that reduce, move, join, multiply or factor arrays."""

from __future__ import annotations

from tests.cases.case import Array, Case, distinct, literal, positive, real

AXES = ({}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}, {"axis": (-1,)})
REDUCTIONS = {
    "_np_sum": "real",
    "_np_prod": "real",
    "_np_max": "distinct",
    "_np_min": "distinct",
    "_npi_mean": "real",
}
MOMENTS = ({}, {"axis": (1,), "ddof": 1}, {"axis": (0,), "keepdims": True})
SQUARE, SPD = Array((3, 3), "square"), Array((3, 3), "spd")

SHAPES = [
    Case("_np_reshape", (real(2, 6),), {"newshape": (3, -1)}),
    Case("_npx_reshape", (real(2, 3, 2),), {"newshape": (-2, -1)}),
    Case("_npx_reshape", (real(2, 3, 2),), {"newshape": (-5, -4)}),
    Case("_np_transpose", (real(2, 3, 2),)),
    Case("_np_transpose", (real(2, 3, 2),), {"axes": (1, 2, 0)}),
    Case("_np_moveaxis", (real(2, 3, 4),), {"source": (0,), "destination": (2,)}),
    Case("_np_squeeze", (real(2, 1, 3),)),
    Case("_np_squeeze", (real(2, 1, 3),), {"axis": (1,)}),
    Case("_np_roll", (real(2, 3),), {"shift": (1,)}),
    Case("_np_roll", (real(2, 3),), {"shift": (1, 2), "axis": (0, 1)}),
    Case("_np_atleast_1d", (real(), real(3)), {"num_args": 2}, first="dropped"),
    Case("_np_atleast_2d", (real(3),), {"num_args": 1}, first="dropped"),
    Case("_np_atleast_3d", (real(2, 3),), {"num_args": 1}, first="dropped"),
    Case("_np_diag", (real(3),), {"k": 1}),
    Case("_np_diag", (real(3, 4),), {"k": -1}),
    Case("_np_diagflat", (real(2, 2),), {"k": 1}),
    Case("_np_diagonal", (real(2, 3, 3),), {"offset": 1, "axis1": 1, "axis2": 2}),
    Case("_np_trace", (real(3, 4),), {"offset": 1}),
    Case("_np_trace", (real(2, 3, 3),), {"axis1": 1, "axis2": 2}),
    Case("_np_cumsum", (real(2, 3),), {"axis": 1}),
    Case("_np_cumsum", (real(2, 3),)),
    Case("_npi_broadcast_to", (real(2, 1, 3),), {"shape": (4, 2, 4, 3)}),
    Case("_npi_flip", (real(2, 3),), {"axis": (0, 1)}),
    Case("_npi_rot90", (real(2, 3),), {"k": 1, "axes": (0, 1)}, first="wrong"),
    Case("_npi_rot90", (real(2, 3, 2),), {"k": 2, "axes": (0, 2)}),
    Case("_npi_tril", (real(3, 3),), {"k": -1}),
    Case("_npi_tril", (real(2, 3, 4),), {"k": 1}),
    Case("_npi_diff", (real(2, 4),), {"n": 1, "axis": -1}),
    Case("_npi_diff", (real(4, 2),), {"n": 2, "axis": 0}),
    Case("_npi_ediff1d", (real(2, 3),)),
    Case("_npi_ediff1d", (real(4), real(2), real(1)), {"to_begin_arr_given": True, "to_end_arr_given": True}),
    Case("_npi_ediff1d", (real(4),), {"to_begin_scalar": 0.5, "to_end_scalar": -1.0}),
    Case("_npi_pad", (real(2, 3),), {"pad_width": "((1, 0), (2, 1))", "mode": "constant", "constant_value": 0.5}),
    Case("_npi_pad", (real(2, 3),), {"pad_width": "((1, 1), (2, 0))", "mode": "edge"}, first="raises"),
    Case("_npi_pad", (real(3, 3),), {"pad_width": "((1, 1), (2, 0))", "mode": "reflect"}, first="raises"),
    Case("_npi_pad", (real(3, 3),), {"pad_width": "((1, 1), (2, 0))", "mode": "symmetric"}, first="raises"),
    Case("_npi_pad", (distinct(3, 3),), {"pad_width": "((1, 1), (2, 0))", "mode": "maximum"}, first="raises"),
    Case("_npi_pad", (distinct(3, 3),), {"pad_width": "((1, 1), (2, 0))", "mode": "minimum"}, first="raises"),
    Case("_npi_hsplit", (real(2, 4),), {"indices": "()", "axis": 1, "sections": 2}),
    Case("_npi_hsplit", (real(2, 4),), {"indices": (0, 1), "axis": 1, "sections": 0}),
    Case("_npi_dsplit", (real(1, 2, 4),), {"indices": "()", "axis": 2, "sections": 2}),
]

JOINS = [
    Case("_npi_concatenate", (real(2, 3), real(2, 1)), {"num_args": 2, "axis": 1}),
    Case("_npi_concatenate", (real(1, 3), real(2, 3)), {"num_args": 2, "axis": 0}),
    Case("_npi_stack", (real(2, 3), real(2, 3)), {"num_args": 2, "axis": 1}),
    Case("_npi_vstack", (real(3), real(3)), {"num_args": 2}),
    Case("_npi_vstack", (real(1, 3), real(2, 3)), {"num_args": 2}),
    Case("_npi_hstack", (real(2, 3), real(2, 1)), {"num_args": 2}),
    Case("_npi_hstack", (real(2), real(3)), {"num_args": 2}),
    Case("_npi_dstack", (real(2, 3), real(2, 3)), {"num_args": 2}),
    Case("_npi_column_stack", (real(3), real(3, 2)), {"num_args": 2}),
]

PRODUCTS = [
    Case("_np_dot", (real(2, 3), real(3, 4))),
    Case("_np_dot", (real(3), real(3))),
    Case("_np_dot", (real(2, 2, 3), real(3))),
    Case("_np_dot", (real(2, 3), real())),
    Case("_np_dot", (real(2, 2, 3), real(2, 3, 2))),
    Case("_npi_matmul", (real(2, 3), real(3, 4))),
    Case("_npi_matmul", (real(2, 2, 3), real(1, 3, 2))),
    Case("_npi_matmul", (real(3), real(3, 2))),
    Case("_npi_matmul", (real(2, 2, 3), real(3))),
    Case("_npi_tensordot", (real(2, 3, 2), real(3, 4)), {"a_axes_summed": (1,), "b_axes_summed": (0,)}),
    Case("_npi_tensordot", (real(2, 3, 2), real(3, 2)), {"a_axes_summed": (1, 0), "b_axes_summed": (0, 1)}),
    Case("_npi_tensordot_int_axes", (real(2, 2, 3), real(2, 3, 2)), {"axes": 2}),
    Case("_npi_tensordot_int_axes", (real(2), real(3)), {"axes": 0}),
    Case("_npi_einsum", (real(2, 3), real(3, 4)), {"num_args": 2, "subscripts": "ij,jk->ik"}),
    Case("_npi_einsum", (real(2, 3, 3),), {"num_args": 1, "subscripts": "bii->b"}),
    Case("_npi_einsum", (real(2, 3), real(2, 3), real(3)), {"num_args": 3, "subscripts": "ij,ij,j->i"}),
    Case("_npi_einsum", (real(2, 2, 3), real(2, 3, 2)), {"num_args": 2, "subscripts": "...ij,...jk->...ik"}),
    Case("_npi_average", (real(2, 3), positive(2, 3)), {"axis": 1}, outputs=(0,)),
    Case("_npi_average", (real(2, 3), positive(3)), {"axis": (1,), "returned": True}, first="wrong"),
    Case("_npi_average", (real(2, 3),), {"weighted": False}, outputs=(0,)),
    Case("_npi_polyval", (real(3), real(2, 2))),
    Case("_npi_norm", (real(2, 3),), {"ord": 2, "flag": 2}),
]

LINALG = [
    Case("_npi_cholesky", (SPD,), symmetric=(0,)),
    Case("_npi_cholesky", (Array((2, 2, 2), "spd"),), symmetric=(0,)),
    Case("_npi_solve", (SQUARE, real(3)), first="raises"),
    Case("_npi_solve", (SQUARE, real(3, 2))),
    Case("_npi_svd", (real(2, 3),)),
    Case("_npi_svd", (real(2, 3),), outputs=(1,), note="singular values alone"),
    Case("_npi_eigh", (SPD,), symmetric=(0,), first="dropped"),
    Case("_npi_eigh", (SPD,), {"UPLO": "U"}, outputs=(0,), symmetric=(0,), first="dropped"),
    Case("_npi_eigvalsh", (SPD,), symmetric=(0,), first="dropped", seed=1),
    Case("_npi_eig", (SPD,), first="dropped"),
    Case("_npi_eigvals", (SPD,), symmetric=(0,), first="dropped"),
    Case("_npi_pinv", (real(2, 3), literal(1e-15)), wrt=(0,), first="dropped"),
    Case("_npi_pinv_scalar_rcond", (real(2, 3),), first="dropped"),
    Case("_npi_tensorinv", (Array((4, 2, 2), "real"),), {"ind": 1}),
    Case("_npi_tensorsolve", (Array((2, 2, 4), "real"), real(2, 2)), {"a_axes": "()"}),
]

ZERO_OR_UNKNOWN = [
    Case("_npi_argmax", (distinct(3, 4),), {"axis": 1}),
    Case("_npi_argmin", (distinct(3, 4),), {"axis": 0}),
    Case("_np_all", (real(2, 3),), {"axis": (1,)}),
    Case("_np_any", (real(2, 3),), {"axis": (1,)}),
    Case("_npx_nonzero", (real(2, 3),)),
    Case("_npi_unique", (real(4),), first="dropped"),
    Case("_npi_bincount", (literal([0, 1, 1, 2], dtype="int32"), real(4)), {"has_weights": True}, first="dropped"),
    Case("_npi_percentile", (distinct(5),), {"q_scalar": 30.0}, first="dropped"),
    Case("_npi_diag_indices_from", (real(3, 3),)),
    Case(
        "_npi_boolean_mask_assign_scalar",
        (real(2, 3), literal([1, 0], dtype="bool")),
        {"value": 0.5, "start_axis": 0},
        first="raises",
        note="in place only",
    ),
    Case(
        "_npi_boolean_mask_assign_tensor",
        (real(2, 3), literal([1, 0], dtype="bool"), real(1, 3)),
        {"start_axis": 0},
        first="raises",
        note="in place only",
    ),
    Case("_npi_delete", (real(4, 3),), {"int_ind": 1, "axis": 0}, first="raises"),
    Case("_npi_insert_scalar", (real(4), real()), {"int_ind": 1, "axis": 0}, first="raises"),
]

ROWS = (
    [Case(op, (Array((2, 3, 2), domain),), attrs) for op, domain in REDUCTIONS.items() for attrs in AXES]
    + [Case(op, (real(2, 3),), attrs, first="dropped") for op in ("_npi_std", "_npi_var") for attrs in MOMENTS]
    + [Case("_np_sum", (real(),)), Case("_np_sum", (real(2, 3),), {"axis": (0,), "dtype": "float64"})]
    + SHAPES
    + JOINS
    + PRODUCTS
    + LINALG
    + ZERO_OR_UNKNOWN
)
