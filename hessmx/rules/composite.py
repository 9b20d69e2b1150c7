"""Operators that are replaced by others before tangents are added.

A composition needs no rule of its own, and its gradient is that of its parts. So operators come here that are
short formulas (densities, moments), and operators whose own first gradient in MXNet is wrong, missing or unsafe.
"""

from __future__ import annotations

import math
from typing import Any, Callable, Sequence

from hessmx._mxnet import mx
from hessmx.graph.lower import lowers
from hessmx.graph.site import Site
from hessmx.graph.stacks import STACKS, layouts
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.kinds import shaped
from hessmx.rules.linalg import dot, flip

F = mx.sym
Formula = Callable[[Site], "Sequence[Symbol]"]


def np_call(name: str, *inputs: Symbol, **attrs: Any) -> Symbol:
    return call(name, inputs, attrs)[0]


def composite(*ops: str) -> Callable[[Formula], Formula]:
    """Register the outputs of `ops` in terms of other operators."""

    def add(formula: Formula) -> Formula:
        lowers(*ops)(lambda s, context: formula(s))
        return formula

    return add


# -- first gradient missing, wrong, or written over memory that is not there


@composite("SequenceLast")
def _sequence_last(s: Site) -> Sequence[Symbol] | None:
    """Without lengths MXNet's backward reads indices it never set and writes outside its memory."""
    if s.attr("use_sequence_length", False):
        return None
    axis = s.attr("axis", 0)
    last = F.slice_axis(s.x, axis=axis, begin=-1, end=None)
    return [F.squeeze(last, axis=axis)]


@composite("_grad_add")
def _grad_add(s: Site) -> Sequence[Symbol]:
    return [F.elemwise_add(s.xs[0], s.xs[1])]


@composite("batch_take")
def _batch_take(s: Site) -> Sequence[Symbol]:
    return [F.pick(s.x, s.xs[1], axis=1)]


@composite("khatri_rao")
def _khatri_rao(s: Site) -> Sequence[Symbol]:
    """Column-wise Kronecker product of matrices with k columns."""
    result = s.x
    for x in s.xs[1:]:
        pairs = F.broadcast_mul(F.expand_dims(result, axis=1), F.expand_dims(x, axis=0))
        result = F.reshape(pairs, shape=(-3, 0))
    return [result]


def _moments(s: Site, axes: Any, keepdims: bool) -> tuple[Symbol, Symbol]:
    mean = np_call("_npi_mean", s.x, axis=axes, keepdims=True)
    spread = F.square(F.broadcast_sub(s.x, mean))
    return np_call("_npi_mean", s.x, axis=axes, keepdims=keepdims), np_call(
        "_npi_mean", spread, axis=axes, keepdims=keepdims
    )


@composite("moments")
def _mean_and_variance(s: Site) -> Sequence[Symbol]:
    return list(_moments(s, s.attr("axes", None), s.attr("keepdims", False)))


@composite("_npi_var", "_npi_std")
def _variance(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is zero."""
    axes = s.attr("axis", None)
    axes = (axes,) if isinstance(axes, int) else axes
    shape = s.x_shapes[0]
    count = math.prod(shape if axes is None else [shape[axis] for axis in axes])
    _, variance = _moments(s, axes, s.attr("keepdims", False))
    scaled = variance * (count / (count - s.attr("ddof", 0)))
    return [scaled if s.node.op == "_npi_var" else F.sqrt(scaled)]


@composite("_image_to_tensor")
def _to_tensor(s: Site) -> Sequence[Symbol]:
    """(..., H, W, C) in 0 ... 255 to (..., C, H, W) in 0 ... 1; MXNet's own gradient is a copy."""
    axes = (0, 3, 1, 2) if len(s.x_shapes[0]) == 4 else (2, 0, 1)
    return [F.transpose(s.x, axes=axes) / 255]


@composite("_image_flip_left_right", "_image_flip_top_bottom")
def _image_flip(s: Site) -> Sequence[Symbol]:
    """(..., H, W, C); MXNet's own gradient is a copy."""
    return [F.reverse(s.x, axis=len(s.x_shapes[0]) - (2 if s.node.op == "_image_flip_left_right" else 3))]


@composite("_npi_average")
def _average(s: Site) -> Sequence[Symbol]:
    """With `returned`, MXNet's own gradient leaves out the sum of the weights."""
    axes, shape = s.attr("axis", None), s.x_shapes[0]
    if not s.attr("weighted", True):
        count = math.prod(shape if axes is None else [shape[a] for a in ((axes,) if isinstance(axes, int) else axes)])
        mean = np_call("_npi_mean", s.x, axis=axes)
        return [mean, F.ones_like(mean) * count]
    weights, weight = s.xs[1], np_call("_np_sum", s.xs[1], axis=axes)
    if tuple(s.x_shapes[1]) != tuple(shape):  # one weight for each position along one axis
        axis = axes if isinstance(axes, int) else axes[0]
        layout = [1] * len(shape)
        layout[axis] = shape[axis]
        weights, weight = shaped(weights, layout), np_call("_np_sum", weights)
    return [F.broadcast_div(np_call("_np_sum", F.broadcast_mul(s.x, weights), axis=axes), weight), weight]


@composite("_npi_eigh", "_npi_eigvalsh")
def _eigh(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is zero."""
    u, values = call("_linalg_syevd", [s.x if s.attr("UPLO", "L") == "L" else F.SwapAxis(s.x, dim1=-2, dim2=-1)])
    return [values, F.SwapAxis(u, dim1=-2, dim2=-1)] if s.node.op == "_npi_eigh" else [values]


@composite("_npi_where_lscalar", "_npi_where_rscalar")
def _where_scalar(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is that of the other branch. `lscalar`: where(condition, scalar, x)."""
    constant = F.ones_like(s.xs[1]) * s.attr("scalar", 0.0)
    branches = [constant, s.xs[1]] if s.node.op == "_npi_where_lscalar" else [s.xs[1], constant]
    return [np_call("_npi_where", s.xs[0], *branches)]


@composite("_npi_rot90")
def _rot90(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient turns the wrong way for odd k."""
    turns, (first, second) = s.attr("k", 1) % 4, s.attr("axes", (0, 1))
    if turns == 0:
        return [np_call("_np_copy", s.x)]
    if turns == 2:
        return [F.reverse(s.x, axis=(first, second))]
    if turns == 1:
        return [F.SwapAxis(F.reverse(s.x, axis=second), dim1=first, dim2=second)]
    return [F.reverse(F.SwapAxis(s.x, dim1=first, dim2=second), axis=second)]


@composite("_npi_rarctan2_scalar")
def _reversed_arctan2(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is that of arctan2(x, scalar)."""
    return [np_call("_npi_arctan2", F.ones_like(s.x) * s.attr("scalar"), s.x)]


@composite("_npi_copysign_scalar", "_npi_rcopysign_scalar")
def _copysign(s: Site) -> Sequence[Symbol]:
    """MXNet has no gradient for these."""
    constant = F.ones_like(s.x) * s.attr("scalar")
    return [np_call("_npi_copysign", *([s.x, constant] if s.node.op == "_npi_copysign_scalar" else [constant, s.x]))]


@composite("_np_atleast_1d", "_np_atleast_2d", "_np_atleast_3d")
def _at_least(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is zero."""
    least = int(s.node.op[-2])
    before = {3: lambda n: (3 - n) // 2 + (n == 0)}.get(
        least, lambda n: least - n
    )  # np.atleast_3d puts (N,) in the middle
    shapes = [(1,) * before(len(x)) + tuple(x) for x in s.x_shapes]
    return [shaped(x, shape + (1,) * (least - len(shape))) for x, shape in zip(s.xs, shapes)]


@composite(*STACKS)
def _stacks(s: Site) -> Sequence[Symbol]:
    parts, axis = layouts(s.node.op or "", s.x_shapes)
    return [F.Concat(*(shaped(x, part) for x, part in zip(s.xs, parts)), dim=axis)]


@composite("_npi_norm")
def _norm(s: Site) -> Sequence[Symbol] | None:
    """mx.np.linalg.norm: `flag` -2 and 1 are the Frobenius norm, -1 the vector norm `ord`, 2 the nuclear norm."""
    flag, order = s.attr("flag", -2), s.attr("ord", 2)
    where = {name: s.node.raw[name] for name in ("axis", "keepdims") if name in s.node.raw}
    if flag == 2 and len(s.x_shapes[0]) == 2:
        rows, columns = s.x_shapes[0]
        values = call("_npi_svd", [s.x if rows <= columns else F.SwapAxis(s.x, dim1=0, dim2=1)])[1]
        return [shaped(np_call("_np_sum", values), s.y_shapes[0])]
    if flag in (-2, 1) or (flag == -1 and order == 2):
        return [F.sqrt(np_call("_np_sum", F.square(s.x), **where))]
    if flag == -1 and order > 0:
        return [np_call("_np_sum", F.abs(s.x) ** order, **where) ** (1 / order)]
    return None


@composite("_npi_ediff1d")
def _ediff1d(s: Site) -> Sequence[Symbol]:
    """MXNet's own gradient is wrong where only some of the inputs need one."""
    count, rest = math.prod(s.x_shapes[0]), list(s.xs[1:])
    flat = shaped(s.x, (count,))
    steps = F.slice_axis(flat, axis=0, begin=1, end=None) - F.slice_axis(flat, axis=0, begin=0, end=-1)

    def end(name: str) -> list[Symbol]:
        if s.attr(f"{name}_arr_given", False):
            return [F.reshape(rest.pop(0), shape=(-1,))]
        number = s.attr(f"{name}_scalar")
        return [] if number is None else [F.ones_like(F.slice_axis(flat, axis=0, begin=0, end=1)) * number]

    parts = [*end("to_begin"), steps, *end("to_end")]
    return [F.Concat(*parts, dim=0) if len(parts) > 1 else steps]


@composite("_npi_solve")
def _solve_vector(s: Site) -> Sequence[Symbol] | None:
    """MXNet's own backward refuses one right-hand side without a second axis."""
    if len(s.x_shapes[1]) != len(s.x_shapes[0]) - 1:
        return None
    return [F.squeeze(np_call("_npi_solve", s.x, F.expand_dims(s.xs[1], axis=-1)), axis=-1)]


@composite("_npi_pinv", "_npi_pinv_scalar_rcond")
def _pinv(s: Site) -> Sequence[Symbol]:
    """X = U S V: V' S^+ U', singular values below rcond times the largest are zero. MXNet's gradient is zero."""
    rows, columns = s.x_shapes[0][-2:]
    u, values, v = call("_npi_svd", [s.x if rows <= columns else flip(s.x)])
    limit = s.xs[1] if len(s.xs) > 1 else s.attr("rcond", 1e-15)
    top = F.max(values, axis=-1, keepdims=True)
    floor = F.broadcast_mul(top, F.expand_dims(limit, axis=-1)) if isinstance(limit, Symbol) else top * float(limit)
    kept = F.BlockGrad(F.broadcast_greater(values, floor))
    inverse = kept / (values + (1 - kept))
    result = dot(flip(v), F.broadcast_mul(F.expand_dims(inverse, axis=-1), flip(u)))
    return [result if rows <= columns else flip(result)]


@composite("_npi_tensorinv")
def _tensorinv(s: Site) -> Sequence[Symbol]:
    ind = s.attr("ind", 2)
    rows = math.prod(s.x_shapes[0][:ind])
    return [shaped(F.linalg.inverse(shaped(s.x, (rows, rows))), (*s.x_shapes[0][ind:], *s.x_shapes[0][:ind]))]


@composite("_npi_tensorsolve")
def _tensorsolve(s: Site) -> Sequence[Symbol]:
    shape, axes = tuple(s.x_shapes[0]), s.attr("a_axes", ()) or ()
    moved = [axis % len(shape) for axis in ((axes,) if isinstance(axes, int) else axes)]
    order = [axis for axis in range(len(shape)) if axis not in moved] + moved
    a = F.transpose(s.x, axes=tuple(order)) if moved else s.x
    rows = math.prod(s.x_shapes[1])
    solution = np_call("_npi_solve", shaped(a, (rows, rows)), shaped(s.xs[1], (rows, 1)))
    return [shaped(solution, [shape[axis] for axis in order][len(s.x_shapes[1]) :])]


@composite("_npi_polyval")
def _polyval(s: Site) -> Sequence[Symbol]:
    """Horner's scheme; MXNet's own gradient is wrong where only one of the inputs needs one."""
    result = None
    for i in range(s.x_shapes[0][0]):
        coefficient = shaped(F.slice_axis(s.xs[0], axis=0, begin=i, end=i + 1), ())
        term = F.broadcast_add(F.zeros_like(s.xs[1]), coefficient)
        result = term if result is None else F.elemwise_mul(result, s.xs[1]) + term
    return [result]


_PAD_ROWS = {
    "edge": lambda i, n: min(max(i, 0), n - 1),
    "reflect": lambda i, n: abs((i + n - 1) % (2 * n - 2) - (n - 1)) if n > 1 else 0,
    "symmetric": lambda i, n: min(i % (2 * n), 2 * n - 1 - i % (2 * n)),
}


@composite("_npi_pad")
def _pad(s: Site) -> Sequence[Symbol] | None:
    """MXNet has a gradient for mode 'constant' only; in the others borders are entries, or extrema, along an axis."""
    mode, result = s.attr("mode", "constant"), s.x
    if mode == "constant":
        return None
    for axis, ((before, after), size) in enumerate(zip(s.attr("pad_width"), s.x_shapes[0])):
        if mode in _PAD_ROWS:
            rows = [_PAD_ROWS[mode](i, size) for i in range(-before, size + after)]
            pieces = [F.slice_axis(result, axis=axis, begin=k, end=k + 1) for k in rows]
        else:
            border = (F.max if mode == "maximum" else F.min)(result, axis=axis, keepdims=True)
            pieces = [border] * before + [result] + [border] * after
        if before or after:
            result = F.Concat(*pieces, dim=axis)
    return [result]


@composite("sort")
def _sort(s: Site) -> Sequence[Symbol] | None:
    """Without an axis in so many words MXNet's own backward does not parse."""
    return None if "axis" in s.node.raw else s.again([s.x], axis=-1)
