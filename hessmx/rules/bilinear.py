"""Operators that are linear in each of two inputs."""

from __future__ import annotations

from typing import Sequence

from hessmx.graph.site import Site, Tangent, total
from hessmx.rules.kinds import Rule, bilinear, custom


def _affine(s: Site) -> Sequence[Tangent]:
    """y = f(x, W) + b: f(t, W) + f(x, tW) + tb; the moving bias rides on an application that is there anyway."""
    terms: list[Tangent] = []
    moving_bias = s.moves(2)
    bias = [s.dense(2)] if moving_bias else []
    if s.moves(1):
        terms += s.again([s.x, s.dense(1), *bias], no_bias=not moving_bias)
    if s.moves(0) or (moving_bias and not s.moves(1)):
        alone = moving_bias and not s.moves(1)
        terms += s.again([s.dense(0), s.xs[1], *(bias if alone else [])], no_bias=not alone)
    return [total(terms)]


RULES: dict[str, Rule] = {op: custom(_affine) for op in ("FullyConnected", "Convolution", "Deconvolution")}

for _op in "elemwise_mul broadcast_mul dot batch_dot".split():
    RULES[_op] = bilinear()
