"""CTCLoss, replaced by its forward recursion: Graves et al. 2006, section 4.1, in logarithms, unrolled over time.

path   the label with a blank before, between and after its symbols: (N, S), S = 2 L + 1
alpha  log of the probability of all ways to have read path[:s] by now: (N, S)
"""

from __future__ import annotations

from typing import Sequence

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol
from hessmx.rules.kernels import count_like, over_columns, over_rows, row_sum

F = mx.sym

_NEVER = -1.0e30  # log 0; an infinity would make NaN of its gradient


@lowers("CTCLoss")
def _ctc_loss(s: Site, context: Lowering) -> Sequence[Symbol]:
    steps, n, classes = s.x_shapes[0]
    blank = classes - 1 if s.attr("blank_label", "first") == "last" else 0
    lengths = [F.reshape(a, shape=(n, 1)) for a in s.xs[2:]]
    data_lengths = lengths.pop(0) if s.attr("use_data_lengths", False) else None
    labels = F.BlockGrad(s.xs[1])
    used = _used(labels, lengths[0] if lengths else None, -1 if blank else 0)
    path = _path(F.broadcast_maximum(labels, F.zeros_like(labels)), blank, n)
    emitted = _emitted(s.x, path, classes)
    from_end = over_columns(2 * row_sum(used), path) - _count_row(path)  # 0: the last blank, 1: the last symbol
    skips = F.broadcast_not_equal(path, _shifted(path, 2, -1)) * (path != blank)
    alpha = _at(emitted, 0) + (_count_row(path) >= 2) * _NEVER
    for step in range(1, steps):
        ways = [alpha, _shifted(alpha, 1, _NEVER), _shifted(alpha, 2, _NEVER) + (1 - skips) * _NEVER]
        new = _log_sum_exp(ways) + _at(emitted, step)
        if data_lengths is not None:
            runs = over_columns(data_lengths > step, path)
            new = runs * new + (1 - runs) * alpha
        alpha = new
    ends = alpha + (1 - (from_end == 0) - (from_end == 1)) * _NEVER
    peak = F.BlockGrad(F.max(ends, axis=1, keepdims=True))
    likelihood = peak + F.log(row_sum(F.exp(ends - over_columns(peak, ends))))
    return [F.reshape(-likelihood, shape=(n,))]


def _used(labels: Symbol, lengths: Symbol | None, padding: int) -> Symbol:
    """1 for the symbols of each label (N, L), 0 from its length on, or from the first padding on."""
    if lengths is None:
        return F.cumsum(labels == padding, axis=1) == 0
    return F.broadcast_lesser(_count_row(labels), over_columns(lengths, labels))


def _count_row(x: Symbol) -> Symbol:
    """(N, S) -> 0 ... S-1 in each row."""
    return over_rows(count_like(F.slice_axis(x, axis=0, begin=0, end=1)), x)


def _path(labels: Symbol, blank: int, n: int) -> Symbol:
    blanks = F.ones_like(labels) * blank
    pairs = F.reshape(F.stack(blanks, labels, axis=2), shape=(n, -1))
    return F.concat(pairs, F.slice_axis(blanks, axis=1, begin=0, end=1), dim=1)


def _emitted(x: Symbol, path: Symbol, classes: int) -> Symbol:
    """Log probabilities of the symbols of the path: (T, N, S)."""
    log_p = F.log_softmax(x, axis=-1)
    each = F.reshape(count_like(F.slice(x, begin=(0, 0, 0), end=(1, 1, classes))), shape=(1, 1, classes))
    chosen = F.BlockGrad(F.broadcast_equal(F.expand_dims(path, axis=2), each))
    return F.transpose(F.batch_dot(chosen, F.transpose(log_p, axes=(1, 2, 0))), axes=(2, 0, 1))


def _at(emitted: Symbol, step: int) -> Symbol:
    return F.reshape(F.slice_axis(emitted, axis=0, begin=step, end=step + 1), shape=(-3, 0))


def _shifted(x: Symbol, by: int, fill: float) -> Symbol:
    """(N, S) with its columns moved to the right."""
    new = F.ones_like(F.slice_axis(x, axis=1, begin=0, end=by)) * fill
    return F.concat(new, F.slice_axis(x, axis=1, begin=0, end=-by), dim=1)


def _log_sum_exp(ways: Sequence[Symbol]) -> Symbol:
    peak = F.BlockGrad(F.broadcast_maximum(F.broadcast_maximum(ways[0], ways[1]), ways[2]))
    return peak + F.log(F.add_n(*[F.exp(way - peak) for way in ways]))
