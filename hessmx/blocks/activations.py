"""Activations by name, exact also in float64.

MXNet's LeakyReLU operator is avoided for four kinds. It computes "leaky", "prelu" and "gelu" in float32 whatever the
dtype, so that float64 differences of such nets are noise, and its gradient of "selu" is wrong for negative inputs
(scale * (alpha + y) instead of scale * alpha + y). What is left here: the gradient of erf, so of "gelu", holds a
float32 constant and is 3e-8 off.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Callable

from hessmx._mxnet import mx

nn: Any = mx.gluon.nn

_SCALE, _ALPHA = 1.0507009873554805, 1.6732632423543772  # Klambauer et al. 2017, equation 14
_SLOPE = 0.01  # Maas et al. 2013, section 2


def leaky(F, x):
    """x for x > 0, 0.01 x otherwise."""
    return x * ((x > 0) * (1 - _SLOPE) + _SLOPE)


def gelu(F, x):
    """x Phi(x), Phi the normal distribution function (Hendrycks & Gimpel 2016)."""
    return x * (F.erf(x * math.sqrt(0.5)) + 1) * 0.5


def selu(F, x):
    """1.05 x for x > 0, 1.05 * 1.67 * (e^x - 1) otherwise (Klambauer et al. 2017)."""
    elu = F.LeakyReLU(x, act_type="elu", slope=1)
    return (F.relu(x) * (1 - _ALPHA) + elu * _ALPHA) * _SCALE


class PReLU(nn.PReLU):
    """x for x > 0, alpha x otherwise, with one learnt alpha: (N, units) -> (N, units) (He et al. 2015)."""

    def hybrid_forward(self, F, x, alpha):
        return F.relu(x) - F.broadcast_mul(F.relu(-x), F.reshape(alpha, shape=(1, 1)))


ACTIVATIONS: dict[str, Callable[[], Any]] = {
    **{name: partial(nn.Activation, name) for name in ("relu", "tanh", "sigmoid", "softrelu", "softsign")},
    "elu": nn.ELU,
    "swish": nn.Swish,
    "prelu": PReLU,
    **{function.__name__: partial(nn.HybridLambda, function) for function in (leaky, gelu, selu)},
    **{name: partial(nn.HybridLambda, name) for name in ("exp", "sin", "square")},
}
