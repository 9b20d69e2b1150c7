"""Dense Gluon nets with a loss and data, beside the same problem in NumPy (oracles.py)."""

from __future__ import annotations

import zlib
from typing import Any, Callable

import numpy as np

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from tests import oracles

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss


# what oracles.ACTIVATIONS names, as Gluon's own layers (hessmx.blocks has layers of its own for some)
ACTIVATED: dict[str, Any] = {
    **{name: name for name in ("relu", "tanh", "sigmoid", "softrelu", "softsign", "exp", "sin", "square", "maxout")},
    "log_sigmoid": lambda F, x: -F.Activation(-x, act_type="softrelu"),
    "mish": lambda F, x: x * F.tanh(F.Activation(x, act_type="softrelu")),
    "leaky": lambda: nn.LeakyReLU(0.01),
    "elu": lambda: nn.ELU(1.0),
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "swish": nn.Swish,
    "prelu": nn.PReLU,
}

LOSSES: dict[str, Callable[[], Any]] = {
    "softmax-ce": gluon_loss.SoftmaxCrossEntropyLoss,
    "softmax-ce-dense": lambda: gluon_loss.SoftmaxCrossEntropyLoss(sparse_label=False),
    "l2": gluon_loss.L2Loss,
    "l1": gluon_loss.L1Loss,
    "huber": gluon_loss.HuberLoss,
    "logistic": gluon_loss.LogisticLoss,
    "sigmoid-bce": gluon_loss.SigmoidBinaryCrossEntropyLoss,
    "bce-from-sigmoid": lambda: gluon_loss.SigmoidBinaryCrossEntropyLoss(from_sigmoid=True),
    "hinge": gluon_loss.HingeLoss,
    "squared-hinge": gluon_loss.SquaredHingeLoss,
    "kldiv": lambda: gluon_loss.KLDivLoss(from_logits=False),
    "kldiv-from-logits": gluon_loss.KLDivLoss,
    "poisson": gluon_loss.PoissonNLLLoss,
    "poisson-from-rates": lambda: gluon_loss.PoissonNLLLoss(from_logits=False),
}

_POSITIVE_OUTPUTS = ("bce-from-sigmoid", "poisson-from-rates")  # these losses take the logarithm of an output


def labels(loss: str, samples: int, outputs: int, rng: np.random.Generator) -> np.ndarray:
    if loss == "softmax-ce":
        return rng.integers(0, outputs, samples)
    if loss in ("logistic", "hinge", "squared-hinge"):
        return rng.choice([-1.0, 1.0], (samples, outputs))
    if loss in ("softmax-ce-dense", "kldiv", "kldiv-from-logits"):
        return rng.dirichlet(np.ones(outputs), samples)
    if loss.startswith("poisson"):
        return rng.poisson(2.0, (samples, outputs)).astype(float)
    if "bce" in loss:
        return rng.integers(0, 2, (samples, outputs)).astype(float)
    return rng.normal(size=(samples, outputs))


class Problem:
    """A net 4 -> 5 -> 3 -> 3, parameters and data exact in float32, so that both precisions have one reference."""

    def __init__(self, activation: str | None = "tanh", loss: str = "softmax-ce", dtype: str = "float64", samples=7):
        rng = np.random.default_rng(zlib.crc32(f"{activation} {loss}".encode()))
        hidden = dict(pieces=3) if activation == "maxout" else dict(activation=activation)
        last = "sigmoid" if loss in _POSITIVE_OUTPUTS else None
        self.layers = [oracles.Layer(3, last)]
        sizes = (4, 3)
        if activation is not None:
            self.layers = [oracles.Layer(5, **hidden), oracles.Layer(3, **hidden), *self.layers]
            sizes = (4, 5, 3, 3)
        self.net = dense_net(sizes, ACTIVATED.get(activation, "relu"), pieces=3, dtype=dtype)
        if last:
            self.net.add(nn.Activation(last))
        self.net.initialize(mx.init.Zero())
        parameters = list(self.net.collect_params().values())
        scale = {"exp": 0.15, "square": 0.3}.get(activation, 0.6)  # or the values explode, and float32 with them
        draws = [(scale * rng.normal(size=p.shape)).astype(np.float32) for p in parameters]
        for parameter, draw in zip(parameters, draws):
            parameter.set_data(mx.nd.array(draw, dtype=dtype))
        self.w = np.concatenate([draw.ravel() for draw in draws]).astype(np.float64)
        self.x = rng.normal(size=(samples, 4)).astype(np.float32).astype(np.float64)
        self.y = labels(loss, samples, 3, rng).astype(np.float32).astype(np.float64)
        self.name, self.loss = loss, LOSSES[loss]()

    def reference(self) -> oracles.Jet:
        return oracles.objective(self.layers, self.name, self.w, self.x, self.y)

    def curvature(self, **options: Any) -> Curvature:
        return Curvature(self.net, self.loss, (self.x, self.y), **options)

    def error(self, **options: Any) -> float:
        """Relative error of the dense Hessian in the Frobenius norm; loss and gradient are checked on the way."""
        curv, jet = self.curvature(**options), self.reference()
        rtol = 1e-5 if curv.dtype == np.float32 else 1e-11
        np.testing.assert_allclose(curv.loss(), jet.v, rtol=rtol)
        np.testing.assert_allclose(curv.gradient(), jet.d, atol=rtol * np.abs(jet.d).max())
        return relative(curv.hessian.to_dense(), jet.h)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
