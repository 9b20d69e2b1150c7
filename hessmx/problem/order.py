"""In which order a saved graph takes its inputs, and how that is said."""

from __future__ import annotations

import re
import warnings
from typing import Any, Sequence

from hessmx.errors import HessmxWarning

_NUMBERED = re.compile(r"(.*?)(\d+)\Z")


def in_order(inputs: Sequence[str]) -> list[str]:
    """Names of a graph's inputs as the net took them: data0, data1 ... by number, as `export` writes them.

    A graph lists its variables as it meets them, which is another order. Other names have none; that is warned of.
    """
    found = [_NUMBERED.match(name) for name in inputs]
    if len(inputs) < 2:
        return list(inputs)
    if all(found) and len({match.group(1) for match in found if match}) == 1:
        return sorted(inputs, key=lambda name: int(_NUMBERED.match(name).group(2)))  # type: ignore[union-attr]
    warnings.warn(
        f"the graph's inputs have no numbers: they are taken as they come in it, {', '.join(inputs)}; for another "
        "order use gluon.SymbolBlock.imports with their names", HessmxWarning, stacklevel=3)  # fmt: skip
    return list(inputs)


def mapping(net: Any, given: Sequence[str]) -> str | None:
    """'x0 -> data0, x1 -> data1' for a net with several inputs that have names; None for others."""
    graph = getattr(net, "_cached_graph", None)
    names = [symbol.name for symbol in graph[0]] if graph else []
    if len(names) < 2 or len(names) != len(given):
        return None
    return ", ".join(f"{array} -> {name}" for array, name in zip(given, names))
