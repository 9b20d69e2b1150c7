"""The kinds of tangent rules. A rule maps a Site to the tangents of its outputs.

    zero          the derivative is zero everywhere it exists (floor, argmax, comparisons)
    linear        linear in the named inputs together: the operator itself, applied to tangents
    bilinear      linear in each of two (or more) inputs: one application for each
    elementwise   y = f(x1, x2 ...), one formula per input: the partial derivative
    custom        any other function of the Site

A rule may use operators whose FIRST derivatives MXNet has right; the backward pass goes through it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Sequence

from hessmx._mxnet import mx
from hessmx.graph.site import ZERO, Site, Tangent, total
from hessmx.graph.symbols import Symbol, call
from hessmx.rules.kernels import plain

Formula = Callable[[Site], Symbol]

ALL = -1  # in place of the inputs' numbers: all inputs, however many


@dataclass(frozen=True)
class Rule:
    """How tangents go through one operator."""

    kind: str
    push: Callable[[Site], Sequence[Tangent]]  # tangents of the outputs


def zero() -> Rule:
    return Rule("zero", lambda s: [ZERO] * len(s.ys))


def linear(*args: int, **changes: object) -> Rule:
    """Linear in inputs `args` together (the first one if none is named)."""

    def push(s: Site) -> Sequence[Tangent]:
        moving = _named(args or (0,), s)
        if not any(s.moves(i) for i in moving):
            return [ZERO] * len(s.ys)
        return s.again([s.dense(i) if i in moving else x for i, x in enumerate(s.xs)], **changes)

    return Rule("linear", push)


def bilinear(*args: int) -> Rule:
    """Linear in each of the inputs `args` (0 and 1 if none is named): one application for each that moves."""

    def push(s: Site) -> Sequence[Tangent]:
        terms: list[Tangent] = []
        for i in _named(args or (0, 1), s):
            if s.moves(i):
                terms += s.again([s.dense(i) if i == k else x for k, x in enumerate(s.xs)])
        return [total(terms)]

    return Rule("bilinear", push)


def _named(args: Sequence[int], s: Site) -> Sequence[int]:
    return range(len(s.xs)) if args == (ALL,) else args


def same() -> Rule:
    """The tangent goes through as it is: y = x + constant."""
    return Rule("linear", lambda s: [s.t])


def elementwise(*partials: Formula | None) -> Rule:
    """One output, one formula per input for the partial derivative; None where it is zero."""

    def push(s: Site) -> Sequence[Tangent]:
        terms: list[Tangent] = []
        for i, partial in enumerate(partials):
            if partial is not None and s.moves(i):
                terms.append(times(s, s.dense(i), partial(s), i))
        return [total(terms)]

    return Rule("elementwise", push)


def times(s: Site, tangent: Symbol, factor: Symbol, index: int) -> Symbol:
    """tangent * factor in the shape of the output; broadcasting only where the shapes differ (it is slow)."""
    if set(s.x_shapes) == {s.y_shapes[0]}:
        return mx.sym.elemwise_mul(plain(tangent, s.y_shapes[0]), factor)
    return spread(s, mx.sym.broadcast_mul(tangent, factor))


def spread(s: Site, value: Symbol) -> Symbol:
    """Broadcast `value` to the shape of the output; unlike broadcast_like, it may have fewer axes."""
    return call("_npi_broadcast_to", [value], {"shape": s.y_shapes[0]})[0]


def shaped(value: Symbol, shape: Sequence[int]) -> Symbol:
    """`value` with another shape; () too."""
    return call("_np_reshape", [value], {"newshape": tuple(shape)})[0]


def custom(push: Callable[[Site], Sequence[Tangent]]) -> Rule:
    return Rule("custom", push)

