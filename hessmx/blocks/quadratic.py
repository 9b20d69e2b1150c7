"""Quadratic forms x'A(x)x with a symmetric positive (semi)definite A(x) that a net produces."""

from __future__ import annotations

from typing import Any

from hessmx._mxnet import mx
from hessmx.blocks.dense import dense_net
from hessmx.blocks.options import at_least
from hessmx.errors import InputError, choose

nn: Any = mx.gluon.nn


class _Constant(nn.Dense):
    """The same `units` learnt numbers for every sample: a Dense layer on a column of ones, (N, dim) -> (N, units)."""

    def __init__(self, units, **kwargs):
        super().__init__(units, use_bias=False, in_units=1, **kwargs)

    def hybrid_forward(self, F, x, weight):
        ones = F.ones_like(F.slice_axis(x, axis=1, begin=0, end=1))
        return super().hybrid_forward(F, ones, weight)


def _sizes(hidden) -> tuple[int, ...]:
    if hidden is not None and not isinstance(hidden, (tuple, list)):
        raise InputError(f"hidden must be a tuple of layer sizes, not {hidden!r}: pass e.g. (16,), or () for none")
    return tuple(at_least("each size in hidden", size, 1) for size in hidden or ())


class QuadraticForm(mx.gluon.HybridBlock):
    """f(x) = x'A(x)x = |B(x)x|^2 with A = B'B: (N, dim) -> (N,); A(x) itself by `.matrix(x)`, B(x) by `.factor(x)`.

    hidden: sizes of the hidden layers of the net that makes B's entries from x; () or None for a constant B.
    factor: "full", B is dim x dim; "low-rank", B is rank x dim; "cholesky", B = L' with L lower triangular and a
    positive diagonal (softplus of the net's outputs), so that L is the Cholesky factor of A.
    """

    def __init__(self, dim, hidden=(), factor="full", rank=None, activation="tanh", dtype="float32",
                 weight_initializer=None, bias_initializer="zeros", pieces=5, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.dim = at_least("dim", dim, 1)
        self.kind = choose("factor", factor, ("full", "cholesky", "low-rank"))
        self.rows = self._checked_rank(rank)
        self.hidden = _sizes(hidden)
        entries = self.dim * (self.dim + 1) // 2 if self.kind == "cholesky" else self.rows * self.dim
        with self.name_scope():
            if self.hidden:
                self.entries = dense_net((self.dim, *self.hidden, entries), activation, pieces, dtype=dtype,
                                         weight_initializer=weight_initializer, bias_initializer=bias_initializer)
            else:
                self.entries = _Constant(entries, dtype=dtype, weight_initializer=weight_initializer)

    def _checked_rank(self, rank) -> int:
        if self.kind != "low-rank":
            if rank is not None:
                raise InputError(f"rank is for factor='low-rank' only, not for factor={self.kind!r}: leave it out")
            return self.dim
        if at_least("rank", rank, 1) > self.dim:
            raise InputError(f"rank must be at most dim={self.dim}, not {rank}: use factor='full'")
        return rank

    def hybrid_forward(self, F, x):
        product = F.batch_dot(self._factor(F, x), F.expand_dims(x, axis=2))
        return F.sum(F.square(product), axis=(1, 2))

    def _factor(self, F, x):
        raw = self.entries(x)
        if self.kind != "cholesky":
            return F.reshape(raw, shape=(-1, self.rows, self.dim))
        positive = F.Activation(F.slice_axis(raw, axis=1, begin=0, end=self.dim), act_type="softrelu")
        upper = F.linalg.makediag(positive)
        if self.dim == 1:
            return upper
        strict = F.slice_axis(raw, axis=1, begin=self.dim, end=None)
        return upper + F.linalg.maketrian(strict, offset=1, lower=False)

    def factor(self, x):
        """B(x), (N, rows, dim), for an NDArray x (N, dim)."""
        if not isinstance(x, mx.nd.NDArray) or x.ndim != 2 or x.shape[1] != self.dim:
            came = f"{type(x).__name__} {getattr(x, 'shape', '')}"
            raise InputError(f"x must be an NDArray of shape (N, {self.dim}), not {came}: convert it with mx.nd.array")
        return self._factor(mx.nd, x)

    def matrix(self, x):
        """A(x) = B(x)'B(x), (N, dim, dim), for an NDArray x (N, dim)."""
        factor = self.factor(x)
        return mx.nd.batch_dot(factor, factor, transpose_a=True)

    def __repr__(self):
        size = f"rank={self.rows}, " if self.kind == "low-rank" else ""
        return f"{type(self).__name__}({self.dim} -> 1, factor={self.kind}, {size}hidden={self.hidden})"
