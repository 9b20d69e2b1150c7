"""Class numbers out of range: MXNet's `pick` takes the nearest class for them, without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hessmx.errors import DataError
from hessmx.graph.node import Entry, Graph, Shape, infer_shapes

_SAME_NUMBERS = frozenset("""
    Reshape expand_dims squeeze Flatten transpose SwapAxis Cast amp_cast _copy identity slice slice_axis slice_like
    reshape_like BlockGrad round rint floor _np_copy _npi_copy _np_reshape _npx_reshape
""".split())


@dataclass(frozen=True)
class Slot:
    """A variable whose entries are class numbers 0 .. classes - 1 of a node."""

    variable: str
    classes: int


def slots(graph: Graph, shapes: Mapping[str, Shape], prefix: str) -> tuple[Slot, ...]:
    """Variables called `prefix...` that `pick` is given, as they are or in another shape or dtype."""
    picks = [node for node in graph.nodes if node.op == "pick" and node.attrs.get("mode", "clip") == "clip"]
    if not picks:
        return ()
    entries = infer_shapes(graph, shapes)
    found = []
    for node in picks:
        name = _variable(graph, node.inputs[1])
        axis = node.attrs.get("axis", -1)
        if name.startswith(prefix) and axis is not None:
            found.append(Slot(name, int(entries[node.inputs[0]][axis])))
    return tuple(dict.fromkeys(found))


def _variable(graph: Graph, entry: Entry) -> str:
    """The name of the variable that an entry holds the numbers of; '' if it is computed."""
    node = graph.nodes[entry[0]]
    while node.op is not None:
        if node.op not in _SAME_NUMBERS:
            return ""
        node = graph.nodes[node.inputs[0][0]]
    return node.name


def check_classes(
    found: Sequence[Slot], arrays: Mapping[str, Any], index: int, losses: Callable[[Mapping[str, Any]], np.ndarray]
) -> None:
    """Raise DataError for labels that are no class numbers, unless it makes no difference which class they are.

    `losses(arrays)` computes the losses with other labels: those that are weighted with zero (padding) may be anything.
    """
    for slot in found:
        label = arrays[slot.variable].asnumpy()
        wrong = (label < 0) | (label >= slot.classes) | (label != np.floor(label))
        if wrong.any() and _matters(slot, label, wrong, arrays, losses):
            raise DataError(
                f"labels must be class numbers 0 to {slot.classes - 1} for {slot.classes} outputs, but batch {index} "
                f"holds {label[wrong][0]:g} ({wrong.sum()} of {label.size} labels are none): number the classes from 0"
            )


def _matters(slot: Slot, label: np.ndarray, wrong: np.ndarray, arrays: Mapping[str, Any], losses: Any) -> bool:
    found = []
    for number in (0, slot.classes - 1):
        changed = arrays[slot.variable].copy()
        changed[:] = np.where(wrong, number, label)
        found.append(losses({**arrays, slot.variable: changed}))
    return slot.classes == 1 or not np.array_equal(found[0], found[1], equal_nan=True)
