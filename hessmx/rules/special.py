"""The psi function (digamma), which MXNet lacks, from operators whose derivatives are right; gamma and its logarithm.

psi(x) by upward recurrence to z = x + 8 and the asymptotic series there (Abramowitz and Stegun 6.3.5, 6.3.18); by
reflection (6.3.7) for x < 1/2. Accurate to 1e-13 in float64; its own derivative by MXNet is the trigamma function.
"""

from __future__ import annotations

import math

from hessmx._mxnet import mx
from hessmx.graph.symbols import Symbol
from hessmx.rules.kinds import Rule, elementwise

F = mx.sym

_SHIFT = 8
# B_2k / (2 k), k = 1 ... 9
_SERIES = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12, -3617 / 8160, 43867 / 14364)


def psi(x: Symbol) -> Symbol:
    """d log|Gamma(x)| / dx, elementwise."""
    mirrored = F.BlockGrad(x < 0.5)
    kept = 1 - mirrored
    reflected = mirrored * (1 - x) + kept * x
    angle = math.pi * (mirrored * x + 0.25 * kept)  # anything harmless where it is not used
    return _psi_right(reflected) - mirrored * math.pi * F.cos(angle) / F.sin(angle)


def _psi_right(x: Symbol) -> Symbol:
    z = x + _SHIFT
    inverse2 = 1 / F.square(z)
    series = 0 * x
    for coefficient in reversed(_SERIES):
        series = inverse2 * (series + coefficient)
    shifted = F.log(z) - 0.5 / z - series
    for k in range(_SHIFT):
        shifted = shifted - 1 / (x + k)
    return shifted


RULES: dict[str, Rule] = {
    "gammaln": elementwise(lambda s: psi(s.x)),
    "gamma": elementwise(lambda s: s.y * psi(s.x)),
}
