"""Loss functions by the names that the shell uses."""

from __future__ import annotations

from typing import Any

from hessmx._mxnet import mx
from hessmx.errors import choose

_gluon = mx.gluon.loss

LOSSES = {
    "softmax-ce": lambda: _gluon.SoftmaxCrossEntropyLoss(),
    "softmax-ce-dense": lambda: _gluon.SoftmaxCrossEntropyLoss(sparse_label=False),
    "l2": lambda: _gluon.L2Loss(),
    "l1": lambda: _gluon.L1Loss(),
    "huber": lambda: _gluon.HuberLoss(),
    "logistic": lambda: _gluon.LogisticLoss(),
    "sigmoid-bce": lambda: _gluon.SigmoidBinaryCrossEntropyLoss(),
    "hinge": lambda: _gluon.HingeLoss(),
    "squared-hinge": lambda: _gluon.SquaredHingeLoss(),
    "kldiv": lambda: _gluon.KLDivLoss(from_logits=False),
    "poisson": lambda: _gluon.PoissonNLLLoss(),
}


def by_name(name: str) -> Any:
    """The Gluon loss called `name` in the shell."""
    return LOSSES[choose("loss", name, LOSSES)]()
