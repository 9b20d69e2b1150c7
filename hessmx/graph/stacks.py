"""np.hstack, np.dstack and np.column_stack: their layout, since MXNet cannot infer their shapes in a graph.

MXNet writes over the shapes of the inputs while it infers them; run imperatively these operators work.
"""

from __future__ import annotations

from typing import Callable, Sequence

Shape = tuple

# operator -> the shape that an input is given before joining
_LAYOUTS: dict[str, Callable[[Shape], Shape]] = {
    "_npi_hstack": lambda x: x or (1,),
    "_npi_dstack": lambda x: x if len(x) > 2 else (*x, 1) if len(x) == 2 else (1, *(x or (1,)), 1),
    "_npi_column_stack": lambda x: x if len(x) > 1 else (*(x or (1,)), 1),
}
STACKS = frozenset(_LAYOUTS)


def layouts(op: str, shapes: Sequence[Shape]) -> tuple[list[Shape], int]:
    """Shapes of the inputs before they are joined, and the axis that joins them."""
    parts = [_LAYOUTS[op](tuple(shape)) for shape in shapes]
    axis = 2 if op == "_npi_dstack" else min(1, len(parts[0]) - 1)
    return parts, axis


def stacked_shape(op: str, shapes: Sequence[Shape]) -> Shape:
    parts, axis = layouts(op, shapes)
    joined = sum(part[axis] for part in parts)
    return (*parts[0][:axis], joined, *parts[0][axis + 1 :])
