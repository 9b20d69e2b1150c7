"""Derivatives known from values alone: forward passes of a float64 copy of the net, run imperatively.

See hessmx/trust/differences.py for what is believed of them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, Iterator, Sequence

import numpy as np

from hessmx._mxnet import memory, mx
from hessmx.trust.differences import Known, Path
from scripts.fuzz.nets import Spec, array, build

nn = mx.gluon.nn

class _Formula(mx.gluon.HybridBlock):
    """MXNet computes these in float32 inside, or has no float64 at all; values by their definition instead."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__()
        self.args = args


class _Leaky(_Formula):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        return (x > 0) * x + (x <= 0) * x * self.args[0]


class _Selu(_Formula):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        alpha, scale = (float(np.float32(c)) for c in (1.6732632423543772, 1.0507009873554805))
        return scale * ((x > 0) * x + (x <= 0) * alpha * (((x <= 0) * x).exp() - 1))


class _Gelu(_Formula):
    def hybrid_forward(self, F: Any, x: Any) -> Any:
        erf = F.npx.erf if mx.util.is_np_array() else F.erf
        return 0.5 * x * (1 + erf(x / np.sqrt(2)))


class _Prelu(nn.PReLU):
    def _alias(self) -> str:
        return "prelu"

    def hybrid_forward(self, F: Any, x: Any, alpha: Any) -> Any:
        if not isinstance(x, mx.nd.NDArray):  # Gluon infers shapes
            return super().hybrid_forward(F, x, alpha)
        return (x > 0) * x + (x <= 0) * x * alpha.reshape((1,) * x.ndim)  # one slope for all


class InstanceNorm(nn.InstanceNorm):
    def hybrid_forward(self, F: Any, x: Any, gamma: Any, beta: Any) -> Any:
        if 0 in self.gamma.shape:  # Gluon is inferring it
            return super().hybrid_forward(F, x, gamma, beta)
        if isinstance(x, mx.nd.NDArray) and x.ndim < 3:
            raise ValueError("InstanceNorm takes 3 axes or more")
        rows = F.reshape(x, shape=(0, 0, -1))
        away = F.broadcast_sub(rows, F.mean(rows, axis=2, keepdims=True))
        y = F.broadcast_div(away, F.sqrt(F.mean(F.square(away), axis=2, keepdims=True) + 1e-5))
        gamma, beta = (F.reshape(a, shape=(1, -1, 1)) for a in (gamma, beta))
        return F.reshape_like(F.broadcast_add(F.broadcast_mul(y, gamma), beta), x)


class _Names:
    """gluon.nn with some layers written anew."""

    LeakyReLU, SELU, GELU, PReLU = _Leaky, _Selu, _Gelu, _Prelu

    def __getattr__(self, name: str) -> Any:
        return getattr(nn, name)


class Truth:
    """Values and derivatives of one spec's objective, over all batches. `names` fix the order of the parameters."""

    def __init__(self, spec: Spec, names: Sequence[str], like: Any = None, seed: int = 0):
        self.spec, self.names, self.seed, self.batch = spec, names, seed, 0
        plain = replace(spec, hybridize=False)
        stand_ins = {"nn": _Names(), "InstanceNorm": InstanceNorm, "Dropout": self._dropout}
        self.net, self.loss = build(plain, "float64", stand_ins)
        self.parameters = [self.net.collect_params()[name] for name in names]
        if like is not None:  # the values of a net in another dtype
            for name, p in self.net.collect_params().items():
                p.set_data(array(like.collect_params()[name].data().asnumpy(), "float64"))
        self.batches = [([array(x, "float64") for x in xs], _label(y)) for *xs, y in spec.data()]
        self.w = np.concatenate([p.data().asnumpy().ravel() for p in self.parameters])
        self.samples = sum(spec.batches)

    def _dropout(self, rate: float) -> Any:
        """Identity, or the mask that hessmx documents: of (seed, batch, 0), the only random input of the net."""
        truth = self

        class Masked(_Formula):
            def hybrid_forward(self, F: Any, x: Any) -> Any:
                if not isinstance(x, mx.nd.NDArray) or truth.spec.mode == "predict":
                    return x
                kept = np.random.default_rng([truth.seed, truth.batch, 0]).random(x.shape) < 1 - rate
                return x * array(kept / (1 - rate), "float64").astype(x.dtype)

        return Masked(rate)

    # -- values

    def move(self, w: np.ndarray) -> None:
        start = 0
        for p in self.parameters:
            array = p.data()
            memory(array)[...] = w[start : start + array.size].reshape(array.shape)
            start += array.size

    def at(self, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All outputs (M,) and all per-sample losses (N,) at w."""
        self.move(w)
        outputs, losses = [], []
        for xs, y in self._each():
            z = self.net(*xs)
            outputs.append(_rows(_leaves(z)))
            losses.append(self.loss(z, y))
        return np.concatenate(outputs), _flat(losses)

    def _each(self) -> Iterator[tuple[Any, Any]]:
        with mx.autograd.train_mode() if self.spec.mode == "train" else mx.autograd.predict_mode():
            for place, (xs, y) in enumerate(self.batches):
                self.batch = place
                yield xs, y

    def losses_of(self, z: np.ndarray) -> np.ndarray:
        """Per-sample losses (N,) of given outputs (M,)."""
        losses, start = [], 0
        for (_, y), shapes in zip(self._each(), self._output_shapes):
            sizes = [int(np.prod(shape[1:])) for shape in shapes]
            rows = z[start : start + shapes[0][0] * sum(sizes)].reshape(shapes[0][0], -1)
            start += rows.size
            pieces = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
            leaves = [array(piece.reshape(shape), "float64") for piece, shape in zip(pieces, shapes)]
            losses.append(self.loss(leaves if len(leaves) > 1 else leaves[0], y))
        return _flat(losses)

    @cached_property
    def _output_shapes(self) -> list[list[tuple]]:
        self.move(self.w)
        return [[tuple(leaf.shape) for leaf in _leaves(self.net(*xs))] for xs, _ in self._each()]

    @cached_property
    def here(self) -> tuple[np.ndarray, np.ndarray]:
        return self.at(self.w)

    def own_gradient(self) -> np.ndarray:
        """Gradient (P,) of the mean loss by MXNet's own backward pass."""
        self.move(self.w)
        total = np.zeros(len(self.w))
        train = self.spec.mode == "train"
        for place, (xs, y) in enumerate(self.batches):
            self.batch = place
            for p in self.parameters:
                p.grad()[:] = 0
            with mx.autograd.record(train_mode=train):
                losses = self.loss(self.net(*xs), y)
            losses.backward(train_mode=train)
            total += np.concatenate([p.grad().asnumpy().ravel() for p in self.parameters])
        return total / self.samples

    # -- derivatives

    def along(self, d: np.ndarray) -> Path:
        """Outputs (0) and losses (1) along d."""
        return Path(lambda t: self.at(self.w + t * d), self.here)

    def bend_of_loss(self, u: np.ndarray) -> Known:
        """Second derivative of the losses along outputs that move in a straight line, z + t u."""
        z, losses = self.here
        size = float(np.linalg.norm(z)) / (float(np.linalg.norm(u)) or 1.0) or 1.0
        path = Path(lambda t: (self.losses_of(z + t * size * u),), (losses,))
        return path.second(0) / size**2


def _label(y: Any) -> Any:
    return [array(a, "float64") for a in y] if isinstance(y, list) else array(y, "float64")


def _leaves(value: Any) -> list[Any]:
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, (list, tuple)) else [value]


def _rows(leaves: Sequence[Any]) -> np.ndarray:
    """Outputs (N, ...) as one vector, sample by sample."""
    return np.concatenate([a.asnumpy().reshape(len(a), -1) for a in leaves], axis=1).ravel()


def _flat(arrays: Sequence[Any]) -> np.ndarray:
    return np.concatenate([a.asnumpy().astype("float64").ravel() for a in arrays])
