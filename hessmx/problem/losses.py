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


CONVEX = (  # in the outputs of the net, at every label
    _gluon.SoftmaxCrossEntropyLoss, _gluon.L2Loss, _gluon.L1Loss, _gluon.HuberLoss, _gluon.LogisticLoss,
    _gluon.SigmoidBinaryCrossEntropyLoss, _gluon.HingeLoss, _gluon.SquaredHingeLoss,
)  # fmt: skip


def is_convex(loss: Any) -> bool | None:
    """True where the loss is known to be convex in the outputs of the net, so that its Gauss-Newton matrix is positive;
    None where it is not known.
    """
    known = type(loss) in CONVEX and (loss._weight is None or loss._weight >= 0)
    inner = ("_from_logits", "_from_sigmoid")  # of probabilities instead of scores: not looked into
    return True if known and not any(getattr(loss, name, False) for name in inner) else None


def by_name(name: str) -> Any:
    """The Gluon loss called `name` in the shell."""
    return LOSSES[choose("loss", name, LOSSES)]()
