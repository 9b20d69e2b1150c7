"""What a rule sees: one place in the graph where an operator is applied.

The vocabulary of every rule, in code, documentation and tests:

    s.xs, s.x     primal inputs (Symbols); the first one          s.x_shapes   their shapes
    s.ys, s.y     primal outputs; the first one                   s.y_shapes   their shapes
    s.ts, s.t     tangents of the inputs; the first one           s.attr(...)  an attribute, typed
    ZERO          the tangent of what does not move: a symbol, never an array
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence, Union

from hessmx._mxnet import mx
from hessmx.graph.node import Node, Shape
from hessmx.graph.symbols import Symbol, call


class Zero:
    """Type of `ZERO`."""

    def __repr__(self) -> str:
        return "ZERO"


ZERO = Zero()
Tangent = Union[Symbol, Zero]


@dataclass(frozen=True)
class Site:
    """An operator with its inputs, outputs, tangents and shapes."""

    node: Node
    xs: Sequence[Symbol]
    ys: Sequence[Symbol]
    ts: Sequence[Tangent]
    x_shapes: Sequence[Shape]
    y_shapes: Sequence[Shape]

    @property
    def x(self) -> Symbol:
        return self.xs[0]

    @property
    def y(self) -> Symbol:
        return self.ys[0]

    @property
    def t(self) -> Tangent:
        return self.ts[0]

    def attr(self, name: str, default: Any = None) -> Any:
        """Attribute `name` as Python value; `default` is the operator's own default, which MXNet leaves out."""
        return self.node.attrs.get(name, default)

    def moves(self, index: int) -> bool:
        """Whether input `index` exists and has a tangent other than ZERO."""
        return index < len(self.ts) and self.ts[index] is not ZERO

    def again(self, inputs: Sequence[Symbol], **changes: Any) -> list[Symbol]:
        """The same operator with the same attributes on other inputs; a change to None drops an attribute."""
        attrs = {**self.node.raw, **changes}
        return call(self.node.op or "", inputs, {k: v for k, v in attrs.items() if v is not None})

    def dense(self, index: int) -> Symbol:
        """Tangent of input `index` as an array of its shape, zeros where it is ZERO."""
        tangent = self.ts[index]
        return mx.sym.zeros_like(self.xs[index]) if isinstance(tangent, Zero) else tangent


def total(terms: Sequence[Tangent]) -> Tangent:
    """Sum of tangents of one shape, ZERO terms left out."""
    present = [term for term in terms if not isinstance(term, Zero)]
    if not present:
        return ZERO
    result = present[0]
    for term in present[1:]:
        result = mx.sym.elemwise_add(result, term)
    return result
