"""Dense and Convolution layers of a traced net: where they are, their inputs as rows, the gradients at their outputs.

A layer is a weight and the bias that goes with it. Its input a and the gradient g at its output are brought to

    a (N, T, groups, I)      g (N, T, groups, O)      gradient of the weight, sample n, group c: sum_t g_ntc a_ntc'

N samples, T the positions at which one sample uses the weight: pixels of a convolution, steps of a sequence, calls of a
cell; I inputs (of a convolution: a patch), O outputs of a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Iterable, Sequence

import numpy as np

from hessmx.errors import EngineError
from hessmx.graph.node import Entry, Graph, Node

_LAYERS = ("FullyConnected", "Convolution")
_CHANNELS_FIRST = (None, "None", "NCW", "NCHW", "NCDHW")


@dataclass(frozen=True)
class Use:
    """One place where a net applies a layer."""

    node: Node
    x: Entry  # its input
    y: Entry  # its output

    @property
    def groups(self) -> int:
        return int(self.node.attrs.get("num_group", 1)) if self.node.op == "Convolution" else 1

    def leading(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Axes of an output of `shape` that hold samples and steps."""
        if self.node.op == "Convolution" or self.node.attrs.get("flatten", True):
            return tuple(shape[:1])
        return tuple(shape[:-1])

    def rows(self, x: np.ndarray) -> np.ndarray:
        """Inputs as (R, T, groups, I); of a convolution its patches, channels first, as the weight has them."""
        if self.node.op == "FullyConnected":
            lead = self.leading(x.shape)
            return x.reshape(prod(lead), 1, 1, -1)
        return _patches(x, self.node.attrs, self.groups)

    def gradients(self, g: np.ndarray) -> np.ndarray:
        """Gradients at the output as (R, T, groups, O)."""
        if self.node.op == "FullyConnected":
            return g.reshape(prod(self.leading(g.shape)), 1, 1, g.shape[-1])
        split = g.reshape(g.shape[0], self.groups, g.shape[1] // self.groups, -1)
        return split.transpose(0, 3, 1, 2)


@dataclass(frozen=True)
class Layer:
    """A weight, its bias and where the net uses them; None for what is not asked about."""

    name: str
    weight: str | None
    bias: str | None
    uses: tuple[Use, ...]


def find_layers(graph: Graph, selected: Sequence[str]) -> tuple[list[Layer], list[str]]:
    """Layers that hold any of the selected parameters, and the selected parameters that belong to none."""
    readers: dict[str, list[tuple[int, int]]] = {name: [] for name in graph.variables}
    for index, node in enumerate(graph.nodes):
        for place, (source, _) in enumerate(node.inputs):
            if graph.nodes[source].op is None:
                readers[graph.nodes[source].name].append((index, place))
    layers: list[Layer] = []
    for weight, places in readers.items():
        nodes = [(index, graph.nodes[index]) for index, _ in places]
        if not places or any(place != 1 for _, place in places) or not all(_is_layer(node) for _, node in nodes):
            continue
        uses = tuple(Use(node, node.inputs[0], (index, 0)) for index, node in nodes)
        layer = Layer(weight, weight if weight in selected else None, _bias(graph, nodes, readers, selected), uses)
        if layer.weight or layer.bias:
            layers.append(layer)
    held = {name for layer in layers for name in (layer.weight, layer.bias)}
    return layers, [name for name in selected if name not in held]


def _is_layer(node: Node) -> bool:
    return node.op in _LAYERS and node.attrs.get("layout") in _CHANNELS_FIRST


def _bias(graph: Graph, nodes: Sequence[tuple[int, Node]], readers: dict, selected: Sequence[str]) -> str | None:
    """The one bias of all uses of a weight, if nothing else reads it."""
    entries = {node.inputs[2] if len(node.inputs) > 2 else None for _, node in nodes}
    entry = entries.pop()
    if entries or entry is None or graph.nodes[entry[0]].op is not None:
        return None
    name = graph.nodes[entry[0]].name
    alone = sorted(readers[name]) == sorted((index, 2) for index, _ in nodes)
    return name if alone and name in selected else None


def owners(leading: Sequence[int], samples: int, chosen: np.ndarray, moved: np.ndarray, where: str) -> np.ndarray:
    """To which sample each row of a layer belongs: (R,).

    moved (R,) tells which rows a cotangent at the `chosen` samples' (N,) outputs reaches: the first layout of samples
    and steps that agrees is the net's. Samples that reach each other have none.
    """
    rows = prod(leading)
    layouts = []
    if rows % samples == 0:
        layouts.append(np.arange(rows) // (rows // samples))
        layouts.append(np.arange(rows) % samples)
    for axis in range(1, len(leading)):
        if leading[axis] == samples:
            layouts.append(np.indices(leading)[axis].ravel())
    for owner in layouts:
        if not moved[~chosen[owner]].any():
            return owner
    raise EngineError(
        f"K-FAC needs rows that belong to one sample each, but at {where}, with rows {tuple(leading)} for {samples} "
        "samples, samples mix: use mode='predict', or leave this layer's parameters out (params=...)"
    )


def by_sample(array: np.ndarray, owner: np.ndarray, samples: int) -> np.ndarray:
    """Rows (R, T, ...) as (N, R / N * T, ...), in the order in which a sample meets them."""
    ordered = array if (np.diff(owner) >= 0).all() else array[np.argsort(owner, kind="stable")]
    return ordered.reshape(samples, -1, *array.shape[2:])


def chunks(samples: int, width: int, most: int = 1 << 22) -> Iterable[slice]:
    """Samples in pieces of at most `most` numbers, `width` numbers each."""
    step = max(1, most // max(width, 1))
    return (slice(start, min(start + step, samples)) for start in range(0, samples, step))


def _patches(x: np.ndarray, attrs: Any, groups: int) -> np.ndarray:
    """x (R, C, *space) as (R, T, groups, C / groups * kernel)."""
    kernel = attrs["kernel"]
    space = len(kernel)
    stride, dilate = (attrs.get(name) or (1,) * space for name in ("stride", "dilate"))
    pad = attrs.get("pad") or (0,) * space
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, dilate)]
    axes: Any = tuple(range(2, 2 + space))
    windows = np.lib.stride_tricks.sliding_window_view(padded, tuple(spread), axis=axes)
    windows = windows[(slice(None), slice(None), *(slice(None, None, step) for step in (*stride, *dilate)))]
    out = windows.shape[2 : 2 + space]
    split = windows.reshape(x.shape[0], groups, x.shape[1] // groups, prod(out), prod(kernel))
    return split.transpose(0, 3, 1, 2, 4).reshape(x.shape[0], prod(out), groups, -1)
