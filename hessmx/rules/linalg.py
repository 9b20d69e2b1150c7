"""Matrix factorisations, inverses and determinants.

T is the tangent of the input X, X' its transpose over the last two axes. Formulas: Giles, "Collected matrix derivative
results" (2008); Seeger et al., "Auto-differentiating linear algebra" (2017) for LQ and the symmetric
eigenproblem; Townsend, "Differentiating the singular value decomposition" (2016).
"""

from __future__ import annotations

from typing import Any, Sequence

from hessmx._mxnet import mx
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol
from hessmx.rules.kinds import Rule, bilinear, custom, shaped

F = mx.sym


def dot(a: Symbol, b: Symbol, **flags: Any) -> Symbol:
    """Matrix product over the last two axes."""
    return F.linalg.gemm2(a, b, **flags)


def flip(a: Symbol) -> Symbol:
    """X'."""
    return F.SwapAxis(a, dim1=-2, dim2=-1)


def _indices(a: Symbol) -> tuple[Symbol, Symbol]:
    """Row numbers (m, 1) and column numbers (1, n) of a matrix."""
    rows, columns = (F.BlockGrad(F.contrib.arange_like(a, axis=axis)) for axis in (-2, -1))
    return F.expand_dims(rows, axis=1), F.expand_dims(columns, axis=0)


def lower_part(a: Symbol, diagonal: float = 1.0) -> Symbol:
    """The strictly lower triangle of a, and `diagonal` times its diagonal."""
    rows, columns = _indices(a)
    return F.broadcast_mul(a, F.broadcast_greater(rows, columns) + diagonal * F.broadcast_equal(rows, columns))


def _gaps(values: Symbol) -> Symbol:
    """1 / (v_j - v_i) for values (..., n), zero on the diagonal."""
    gaps = F.broadcast_sub(F.expand_dims(values, axis=-2), F.expand_dims(values, axis=-1))
    same = F.broadcast_equal(*_indices(gaps))
    return F.broadcast_sub(1 / F.broadcast_add(gaps, same), same)


def _diagonal(a: Symbol) -> Symbol:
    return F.linalg.extractdiag(a)


def _gemm(s: Site) -> Sequence[Tangent]:
    """alpha A B + beta C."""
    terms: list[Tangent] = []
    for i in (0, 1):
        if s.moves(i):
            terms += s.again([s.dense(i) if i == k else x for k, x in enumerate(s.xs)], beta=0.0)
    return [total([*terms, s.attr("beta", 1.0) * s.dense(2)] if s.moves(2) else terms)]


def _syrk(s: Site) -> Sequence[Tangent]:
    """alpha X X' (or X' X): Z + Z' with Z = alpha T X'."""
    turn = s.attr("transpose", False)
    half = dot(s.dense(0), s.x, transpose_a=turn, transpose_b=not turn, alpha=s.attr("alpha", 1.0))
    return [half + flip(half)]


def _trsm(s: Site) -> Sequence[Tangent]:
    """op(A) Y = alpha B: op(A) dY = alpha dB - op(dA) Y."""
    terms: list[Tangent] = []
    if s.moves(1):
        terms += s.again([s.x, s.dense(1)])
    if s.moves(0):
        flags = {name: s.attr(name) for name in ("transpose", "rightside", "lower") if s.attr(name) is not None}
        terms += s.again([s.x, -F.linalg.trmm(s.dense(0), s.y, **flags)], alpha=1.0)
    return [total(terms)]


def _cholesky(s: Site) -> Sequence[Tangent]:
    """X = Y Y': dY = Y phi(Y^-1 T Y'^-1), phi taking the lower triangle and half of the diagonal."""
    lower = s.attr("lower", True)
    y = s.y if lower else flip(s.y)
    inner = F.linalg.trsm(y, F.linalg.trsm(y, s.dense(0)), rightside=True, transpose=True)
    moved = dot(y, lower_part(inner, 0.5))
    return [moved if lower else flip(moved)]


def _potri(s: Site) -> Sequence[Tangent]:
    """Y = (X X')^-1: dY = -(Z + Z') with Z = Y T X^-1."""
    lower = {"lower": s.attr("lower", True)}
    if lower["lower"]:
        half = F.linalg.trsm(s.x, F.linalg.trmm(s.dense(0), s.y, rightside=True), rightside=True)
    else:
        half = F.linalg.trsm(s.x, F.linalg.trmm(s.dense(0), s.y, **lower), **lower)
    return [-(half + flip(half))]


def _inverse(s: Site) -> Sequence[Tangent]:
    """-Y T Y."""
    return [dot(s.y, dot(s.dense(0), s.y), alpha=-1.0)]


def _log_det(s: Site) -> Symbol:
    """tr(X^-1 T)."""
    return F.sum(F.elemwise_mul(flip(F.linalg.inverse(s.x)), s.dense(0)), axis=(-2, -1))


def _det(s: Site) -> Sequence[Tangent]:
    return [F.elemwise_mul(s.y, shaped(_log_det(s), s.y_shapes[0]))]


def _slogdet(s: Site) -> Sequence[Tangent]:
    return [ZERO, shaped(_log_det(s), s.y_shapes[1])] + [ZERO] * (len(s.ys) - 2)


def _sum_log_diag(s: Site) -> Sequence[Tangent]:
    return [shaped(F.sum(F.elemwise_div(_diagonal(s.dense(0)), _diagonal(s.x)), axis=-1), s.y_shapes[0])]


def _syevd(s: Site) -> Sequence[Tangent]:
    """X = U' diag(l) U: M = U T U', dl = diag(M), dU = (F o M)' U with F_ij = 1 / (l_j - l_i)."""
    t = (s.dense(0) + flip(s.dense(0))) * 0.5
    u, values = s.ys[0], s.ys[1]
    inner = dot(u, dot(t, u, transpose_b=True))
    return [dot(F.elemwise_mul(_gaps(values), inner), u, transpose_a=True), _diagonal(inner)]


def _gelqf(s: Site) -> Sequence[Tangent]:
    """X = L Q: M = L^-1 T Q', W = triu(M) - triu(M)' (strictly), dQ = L^-1 T - (M - W) Q, dL = L (M - W)."""
    q, lower = s.ys[0], s.ys[1]
    solved = F.linalg.trsm(lower, s.dense(0))
    inner = dot(solved, q, transpose_b=True)
    upper = inner - lower_part(inner)
    kept = inner - upper + flip(upper)
    return [solved - dot(kept, q), dot(lower, kept)]


def _svd(s: Site) -> Sequence[Tangent]:
    """X = U diag(S) V (U square): K = U' T V', dU = U P, dS = diag K, dV = R V + S^-1 U' T (1 - V' V)."""
    u, values, v = s.ys[0], s.ys[1], s.ys[2]
    turned = dot(u, s.dense(0), transpose_a=True)
    k = dot(turned, v, transpose_b=True)
    column, row = F.expand_dims(values, axis=-1), F.expand_dims(values, axis=-2)
    gaps = _gaps(F.square(values))
    p = gaps * (F.broadcast_mul(k, row) + F.broadcast_mul(flip(k), column))
    r = -gaps * (F.broadcast_mul(k, column) + F.broadcast_mul(flip(k), row))
    outside = F.broadcast_div(turned - dot(k, v), column)
    return [dot(u, p), _diagonal(k), dot(r, v) + outside]


def _solve(s: Site) -> Sequence[Tangent]:
    """X Y = B: dY = X^-1 (dB - T Y)."""
    terms: list[Tangent] = [s.dense(1)] if s.moves(1) else []
    if s.moves(0):
        terms.append(-dot(s.dense(0), s.y))
    return s.again([s.x, total(terms)])


RULES: dict[str, Rule] = {
    "_linalg_gemm": custom(_gemm),
    "_linalg_gemm2": bilinear(),
    "_linalg_trmm": bilinear(),
    "_linalg_trsm": custom(_trsm),
    "_linalg_syrk": custom(_syrk),
    "_linalg_potrf": custom(_cholesky),
    "_linalg_potri": custom(_potri),
    "_linalg_inverse": custom(_inverse),
    "_linalg_det": custom(_det),
    "_linalg_slogdet": custom(_slogdet),
    "_linalg_sumlogdiag": custom(_sum_log_diag),
    "_linalg_syevd": custom(_syevd),
    "_linalg_gelqf": custom(_gelqf),
    "_npi_cholesky": custom(_cholesky),
    "_npi_svd": custom(_svd),
    "_npi_solve": custom(_solve),
}
