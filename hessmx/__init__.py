"""hessmx: exact second-order analysis of trained MXNet Gluon nets."""

from __future__ import annotations

from hessmx._mxnet import mx as _mx  # noqa: F401  (first: settles threads and NumPy aliases before MXNet is imported)
from hessmx import blocks, inputs, reference
from hessmx.curvature import Curvature
from hessmx.errors import HessmxError, HessmxWarning
from hessmx.files import load_net
from hessmx.objective import L2Penalty
from hessmx.scales import loss_scale

__version__ = "0.1.0"
__all__ = [
    "Curvature",
    "HessmxError",
    "HessmxWarning",
    "L2Penalty",
    "blocks",
    "inputs",
    "load_net",
    "loss_scale",
    "reference",
]
