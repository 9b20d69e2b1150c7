"""Readers fanned out, because MXNet adds the gradients of eight and more readers of one array in place.

Many of its kernels overwrite where they should add then (docs/mxnet.md), without a word. So every graph that is
differentiated goes through here: an array with many readers is read through a chain of copies, a few readers each.
(Copies side by side would do nothing: MXNet merges equal nodes.)
"""

from __future__ import annotations

from typing import Any

from hessmx._mxnet import mx
from hessmx.graph.node import Entry, Graph, parse
from hessmx.graph.symbols import Symbol, call

READERS = 5  # of one array; with the next copy six gradients are added up, and sums in place start at eight


def fanned(symbol: Symbol) -> Symbol:
    """The same function with the same inputs and outputs, no array of which has more than a few readers."""
    graph = parse(symbol)
    readers = count_readers(graph)
    if max(readers.values(), default=0) <= READERS + 1:
        return symbol
    outputs: list[list[Symbol]] = []
    copies: dict[Entry, tuple[int, Symbol]] = {}

    def read(entry: Entry) -> Symbol:
        plain = outputs[entry[0]][entry[1]]
        if readers[entry] <= READERS + 1:
            return plain
        count, copy = copies.get(entry, (0, plain))
        if count and count % READERS == 0:
            copy = mx.sym.identity(copy)
        copies[entry] = count + 1, copy
        return copy

    variables = _variables(symbol)
    for node in graph.nodes:
        if node.op is None:
            outputs.append([variables[node.name]])
        else:
            outputs.append(call(node.op, [read(entry) for entry in node.inputs], node.raw, node.name))
    return mx.sym.Group([read((i, j)) for i, j in graph.heads])


def count_readers(graph: Graph) -> dict[Entry, int]:
    """How often every entry is read, by operators and as head."""
    found: dict[Entry, int] = {}
    for entry in [entry for node in graph.nodes for entry in node.inputs] + list(graph.heads):
        found[entry] = found.get(entry, 0) + 1
    return found


def _variables(symbol: Symbol) -> dict[str, Any]:
    """The symbol's own variables: their hints of shape and type stay with them."""
    internals = symbol.get_internals()
    return {name: internals[name] for name in symbol.list_inputs()}
