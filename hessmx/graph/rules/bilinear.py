"""Operators that are linear in each of two inputs."""

from __future__ import annotations

from typing import Sequence

from hessmx.graph.rules.kinds import Rule, bilinear, custom
from hessmx.graph.site import Site, Tangent, total


def _affine(s: Site) -> Sequence[Tangent]:
    """y = f(x, W) + b: f(t, W) + f(x, tW) + tb; the moving bias rides on an application that is there anyway."""
    terms: list[Tangent] = []
    moving_bias = s.moves(2)
    if s.moves(1):
        terms += s.again([s.x, s.dense(1)] + [s.dense(2)] * moving_bias, no_bias=not moving_bias)
    if s.moves(0) or (moving_bias and not s.moves(1)):
        alone = moving_bias and not s.moves(1)
        terms += s.again([s.dense(0), s.xs[1]] + [s.dense(2)] * alone, no_bias=not alone)
    return [total(terms)]


RULES: dict[str, Rule] = {op: custom(_affine) for op in ("FullyConnected", "Convolution", "Deconvolution")}

for _op in "elemwise_mul broadcast_mul dot batch_dot _linalg_gemm2 khatri_rao".split():
    RULES[_op] = bilinear()
