"""Independent references in plain NumPy float64: second-order Taylor jets, dense nets and losses written over them.

A Jet carries a value, its gradient and its Hessian with respect to all P parameters through every operation, so the
dense Hessian of a hand-written net is exact to rounding. Knows nothing of MXNet and nothing of hessmx.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Sequence

import numpy as np
from scipy.special import erf as _erf


class Jet:
    """Value v (*S), gradient d (*S, P), Hessian h (*S, P, P)."""

    __array_ufunc__ = None  # NumPy arrays on the left leave the operation to the methods here

    def __init__(self, v: np.ndarray, d: np.ndarray, h: np.ndarray):
        self.v, self.d, self.h = v, d, h

    @property
    def shape(self) -> tuple:
        return self.v.shape

    def _each(self, function: Callable[[np.ndarray], np.ndarray]) -> Jet:
        """A function that is linear in the entries and leaves trailing axes alone."""
        return Jet(function(self.v), function(self.d), function(self.h))

    def lift(self, other: Any) -> Jet:
        if isinstance(other, Jet):
            return other
        other, p = np.asarray(other, np.float64), self.d.shape[-1]
        return Jet(other, np.zeros((*other.shape, p)), np.zeros((*other.shape, p, p)))

    def chain(self, f0: np.ndarray, f1: np.ndarray, f2: np.ndarray) -> Jet:
        """f(x) from f, f', f'' at x."""
        square = self.d[..., :, None] * self.d[..., None, :]
        return Jet(f0, f1[..., None] * self.d, f1[..., None, None] * self.h + f2[..., None, None] * square)

    def __neg__(self) -> Jet:
        return self._each(np.negative)

    def __add__(self, other: Any) -> Jet:
        other = self.lift(other)
        a, b = _aligned(self, other)
        return Jet(a.v + b.v, a.d + b.d, a.h + b.h)

    def __mul__(self, other: Any) -> Jet:
        a, b = _aligned(self, self.lift(other))
        cross = a.d[..., :, None] * b.d[..., None, :]
        h = a.v[..., None, None] * b.h + b.v[..., None, None] * a.h + cross + np.swapaxes(cross, -1, -2)
        return Jet(a.v * b.v, a.v[..., None] * b.d + b.v[..., None] * a.d, h)

    def __matmul__(self, other: Any) -> Jet:
        """(n, k) @ (k, m)."""
        other = self.lift(other)
        a = Jet(self.v[:, :, None], self.d[:, :, None], self.h[:, :, None])
        return (a * Jet(other.v[None], other.d[None], other.h[None])).sum(1)

    def __truediv__(self, other: Any) -> Jet:
        return self * (reciprocal(other) if isinstance(other, Jet) else 1.0 / np.asarray(other))

    def __sub__(self, other: Any) -> Jet:
        return self + -other

    def __rsub__(self, other: Any) -> Jet:
        return -self + other

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, key: Any) -> Jet:
        return self._each(lambda a: a[key])

    def reshape(self, *shape: int) -> Jet:
        trailing = self.d.shape[-1:]
        return Jet(self.v.reshape(shape), self.d.reshape(*shape, *trailing), self.h.reshape(*shape, *trailing * 2))

    @property
    def T(self) -> Jet:
        return self._each(lambda a: np.swapaxes(a, 0, 1))

    def sum(self, axis: int) -> Jet:
        return self._each(lambda a: a.sum(axis))

    def mean(self, axis: int) -> Jet:
        return self.sum(axis) / self.shape[axis]


def _aligned(a: Jet, b: Jet) -> tuple[Jet, Jet]:
    """Both with the same number of axes, so that NumPy broadcasts values, gradients and Hessians alike."""
    ndim = max(a.v.ndim, b.v.ndim)
    return tuple(j.reshape(*(1,) * (ndim - j.v.ndim), *j.shape) for j in (a, b))  # type: ignore[return-value]


def _unary(f0: Callable, f1: Callable, f2: Callable) -> Callable[[Jet], Jet]:
    return lambda x: x.chain(f0(x.v), f1(x.v), f2(x.v))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(x / 2))


exp = _unary(np.exp, np.exp, np.exp)
log = _unary(np.log, np.reciprocal, lambda x: -(x**-2))
reciprocal = _unary(np.reciprocal, lambda x: -(x**-2), lambda x: 2 * x**-3)
square = _unary(np.square, lambda x: 2 * x, lambda x: np.full_like(x, 2))
sin = _unary(np.sin, np.cos, lambda x: -np.sin(x))
tanh = _unary(np.tanh, lambda x: np.cosh(x) ** -2, lambda x: -2 * np.tanh(x) * np.cosh(x) ** -2)
sigmoid = _unary(
    _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x), lambda x: _sigmoid(x) * _sigmoid(-x) * (1 - 2 * _sigmoid(x))
)
erf = _unary(
    _erf, lambda x: 2 / np.sqrt(np.pi) * np.exp(-(x**2)), lambda x: -4 / np.sqrt(np.pi) * x * np.exp(-(x**2))
)
softplus = _unary(lambda x: np.logaddexp(0, x), _sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x))
absolute = _unary(np.abs, np.sign, np.zeros_like)


def where(mask: np.ndarray, a: Jet, b: Jet) -> Jet:
    return a * mask.astype(float) + b * (~mask).astype(float)


def relu(x: Jet) -> Jet:
    return x * (x.v > 0)


def best(x: Jet) -> Jet:
    """Maximum over the last axis; the first of several equal ones."""
    winner = np.argmax(x.v, axis=-1)
    return x[(*np.indices(winner.shape), winner)]


def log_softmax(z: Jet) -> Jet:
    shifted = z - z.v.max(-1, keepdims=True)
    return shifted - log(exp(shifted).sum(1)).reshape(-1, 1)


_SELU = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, section 3

ACTIVATIONS: dict[str, Callable[..., Jet]] = {
    "relu": relu,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "softrelu": softplus,
    "softsign": lambda x: x / (1 + absolute(x)),
    "log_sigmoid": lambda x: -softplus(-x),
    "mish": lambda x: x * tanh(softplus(x)),
    "leaky": lambda x: where(x.v > 0, x, 0.01 * x),
    "elu": lambda x: where(x.v > 0, x, exp(x) - 1),
    "selu": lambda x: _SELU[0] * where(x.v > 0, x, _SELU[1] * (exp(x) - 1)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "swish": lambda x: x * sigmoid(x),
    "exp": exp,
    "sin": sin,
    "square": square,
}


def prelu(x: Jet, slope: Jet) -> Jet:
    return where(x.v > 0, x, x * slope)


def _bce(z: Jet, y: np.ndarray) -> Jet:
    return (softplus(z) - z * y).mean(1)


def _bce_of_probabilities(p: Jet, y: np.ndarray) -> Jet:
    return -(log(p + 1e-12) * y + log(1 - p + 1e-12) * (1 - y)).mean(1)


def _huber(z: Jet, y: np.ndarray) -> Jet:
    e = absolute(z - y)
    return where(e.v > 1, e - 0.5, 0.5 * square(e)).mean(1)


def _kl(log_p: Jet, y: np.ndarray) -> Jet:
    return (y * (np.log(y + 1e-12) - log_p)).sum(1)


# per-sample losses (N,) of outputs (N, K); labels as each takes them
LOSSES: dict[str, Callable[[Jet, np.ndarray], Jet]] = {
    "softmax-ce": lambda z, y: -log_softmax(z)[np.arange(len(y)), y.astype(int)],
    "softmax-ce-dense": lambda z, y: -(log_softmax(z) * y).sum(1),
    "l2": lambda z, y: 0.5 * square(z - y).mean(1),
    "l1": lambda z, y: absolute(z - y).mean(1),
    "huber": _huber,
    "logistic": lambda z, y: _bce(z, (y + 1) / 2),
    "sigmoid-bce": _bce,
    "bce-from-sigmoid": _bce_of_probabilities,
    "hinge": lambda z, y: relu(1 - z * y).mean(1),
    "squared-hinge": lambda z, y: square(relu(1 - z * y)).mean(1),
    "kldiv": lambda z, y: _kl(log_softmax(z), y),
    "kldiv-from-logits": _kl,
    "poisson": lambda z, y: (exp(z) - z * y).mean(1),
    "poisson-from-rates": lambda z, y: (z - log(z + 1e-8) * y).mean(1),
}


@dataclass(frozen=True)
class Layer:
    """Dense layer (units, inputs) with bias, then an activation by name; pieces > 1: maxout instead."""

    units: int
    activation: str | None = None
    pieces: int = 1
    bias: bool = True

    def __call__(self, x: Any, take: Callable[[int, int], Jet]) -> Jet:
        weight = take(self.units * self.pieces, x.shape[1])
        z = (weight @ x.T).T if isinstance(x, Jet) else weight.lift(x) @ weight.T
        if self.bias:
            z = z + take(1, self.units * self.pieces)
        if self.pieces > 1:
            return best(z.reshape(len(z.v), self.units, self.pieces))
        if self.activation == "prelu":
            return prelu(z, take(1, 1))
        return z if self.activation is None else ACTIVATIONS[self.activation](z)


def forward(layers: Sequence[Layer], w: np.ndarray, x: np.ndarray) -> Jet:
    """Outputs (N, K) of a dense net with parameters w (P,), layer by layer: weight, bias, slope."""
    whole = Jet(w, np.eye(w.size), np.zeros((w.size,) * 3))
    position = 0

    def take(*shape: int) -> Jet:
        nonlocal position
        piece = whole[position : position + int(np.prod(shape))].reshape(*shape)
        position += int(np.prod(shape))
        return piece

    z: Any = x
    for layer in layers:
        z = layer(z, take)
    assert position == w.size, f"the layers take {position} of {w.size} parameters"
    return z


def objective(layers: Sequence[Layer], loss: str, w: np.ndarray, x: np.ndarray, y: np.ndarray) -> Jet:
    """Mean over the samples: .v the loss, .d its gradient (P,), .h its Hessian (P, P)."""
    return LOSSES[loss](forward(layers, w, x), y).mean(0)


def numerical(function: Callable[[np.ndarray], np.ndarray], w: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Jacobian of a function of w (P,) by central differences of fourth order."""
    columns = []
    for e in np.eye(w.size) * step:
        near, far = function(w + e) - function(w - e), function(w + 2 * e) - function(w - 2 * e)
        columns.append((8 * near - far) / (12 * step))
    return np.stack(columns, axis=-1)
