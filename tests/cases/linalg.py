"""Matrix products and the linalg operators."""

from __future__ import annotations

from tests.cases.case import Array, Case, positive, real

FLAGS = (False, True)


def _shape(rows: int, columns: int, flip: bool) -> tuple:
    return (columns, rows) if flip else (rows, columns)


def _flags(a: bool, b: bool) -> dict:
    return {"transpose_a": a, "transpose_b": b}


SQUARE, SPD, LOWER = (Array((3, 3), domain) for domain in ("square", "spd", "triangular"))
PAIRS = [(a, b) for a in FLAGS for b in FLAGS]
SIDES = [(transpose, right, lower) for transpose in FLAGS for right in FLAGS for lower in FLAGS]

ROWS = (
    [Case("dot", (real(*_shape(2, 3, a)), real(*_shape(3, 4, b))), _flags(a, b)) for a, b in PAIRS]
    + [Case("batch_dot", (real(2, *_shape(2, 3, a)), real(2, *_shape(3, 2, b))), _flags(a, b)) for a, b in PAIRS]
    + [
        Case("_linalg_gemm2", (real(2, *_shape(2, 3, a)), real(2, *_shape(3, 2, b))), {**_flags(a, b), "alpha": 1.5})
        for a, b in PAIRS
    ]
    + [
        Case(
            "_linalg_gemm",
            (real(*_shape(2, 3, a)), real(*_shape(3, 4, b)), real(2, 4)),
            {**_flags(a, b), "alpha": 1.5, "beta": 0.5},
        )
        for a, b in PAIRS
    ]
    + [
        Case(
            op, (LOWER, real(*_shape(3, 2, right))), {"transpose": t, "rightside": right, "lower": lower, "alpha": 1.5}
        )
        for op in ("_linalg_trmm", "_linalg_trsm")
        for t, right, lower in SIDES
        if lower
    ]
    + [
        Case(
            op,
            (SPD, real(*_shape(3, 2, right))),
            {"transpose": t, "rightside": right, "lower": False},
            note="reads the upper triangle only",
        )
        for op in ("_linalg_trmm", "_linalg_trsm")
        for t, right, lower in SIDES
        if not lower
    ]
    + [
        Case("dot", (real(3), real(3))),
        Case("dot", (real(2, 3), real(3))),
        Case("dot", (real(2, 2, 3), real(3, 2))),
        Case("batch_dot", (real(2, 2, 1, 3), real(2, 2, 3, 2))),
        Case("_linalg_gemm2", (real(3, 2, 2), real(2, 2, 2)), {"axis": 0}, note="matrices over axes 0 and 2"),
        Case("_linalg_gemm", (real(2, 2, 2), real(2, 2, 2), real(2, 2, 2)), {"axis": 0}),
        Case("_linalg_syrk", (real(3, 2),)),
        Case("_linalg_syrk", (real(2, 3, 2),), {"transpose": True, "alpha": 1.5}),
        Case("_linalg_potrf", (SPD,), symmetric=(0,)),
        Case("_linalg_potrf", (Array((2, 2, 2), "spd"),), symmetric=(0,)),
        Case("_linalg_potri", (LOWER,)),
        Case("_linalg_inverse", (SQUARE,)),
        Case("_linalg_inverse", (Array((2, 2, 2), "square"),)),
        Case("_linalg_det", (SQUARE,)),
        Case("_linalg_det", (Array((2, 2, 2), "square"),)),
        Case("_linalg_slogdet", (SQUARE,), outputs=(1,)),
        Case("_linalg_sumlogdiag", (LOWER,)),
        Case("_linalg_sumlogdiag", (Array((2, 2, 2), "triangular"),)),
        Case("_linalg_extractdiag", (real(3, 3),)),
        Case("_linalg_extractdiag", (real(2, 3, 3),), {"offset": 1}),
        Case("_linalg_makediag", (real(3),)),
        Case("_linalg_makediag", (real(2, 3),), {"offset": -1}),
        Case("_linalg_extracttrian", (real(3, 3),)),
        Case("_linalg_extracttrian", (real(2, 3, 3),), {"offset": 1, "lower": False}),
        Case("_linalg_maketrian", (real(6),)),
        Case("_linalg_maketrian", (real(2, 3),), {"offset": -1, "lower": True}),
        Case("_linalg_gelqf", (real(2, 3),)),
        Case("_linalg_gelqf", (Array((3, 3), "square"),)),
        Case("_linalg_syevd", (SPD,), symmetric=(0,)),
        Case("_linalg_syevd", (SPD,), outputs=(1,), symmetric=(0,), note="eigenvalues alone"),
        Case("_linalg_sumlogdiag", (positive(2, 2),)),
    ]
)
