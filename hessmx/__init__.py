"""hessmx: exact second-order analysis of trained MXNet Gluon nets."""

from __future__ import annotations

import sys
from importlib import import_module

from hessmx import _command  # noqa: F401  (before all: in the shell an interrupt of what follows is one line)
from hessmx._mxnet import mx as _mx  # noqa: F401  (first: settles threads and NumPy aliases before MXNet is imported)
from hessmx import blocks, inputs, reference
from hessmx.curvature import Curvature
from hessmx.errors import HessmxError, HessmxWarning
from hessmx.files import load_net
from hessmx.problem.objective import L2Penalty
from hessmx.problem.scales import loss_scale

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

# Where users' imports have found things before; the same module objects, so that `register` and results stay one.
_FORMER = {
    "check": "trust.check",
    "coverage": "trust.coverage",
    "testing": "trust.testing",
    "landscape": "uses.landscape",
    "training": "uses.training",
    "losses": "problem.losses",
    "likelihood": "operators.likelihood",
    "graph.rules": "rules",
    "graph.rules.kinds": "rules.kinds",
}
for _old, _new in _FORMER.items():
    sys.modules[f"{__name__}.{_old}"] = _module = import_module(f"{__name__}.{_new}")
    if "." not in _old:
        globals()[_old] = _module
