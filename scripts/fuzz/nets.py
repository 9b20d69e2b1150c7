"""Random nets as text: a Spec is a list of nodes; its text is what runs, what is shrunk and what is printed."""

from __future__ import annotations

import re
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Iterator, Sequence

import numpy as np

from hessmx._mxnet import mx
from scripts.fuzz import grammar

PRELUDE = Path(__file__).with_name("prelude.py").read_text()
LARGEST = 3000  # entries of a tensor for one sample
KINKED = re.compile(r"[Mm]ax|[Mm]in(?!e)|topk|sort")


@dataclass(frozen=True)
class Node:
    """One tensor, computed of others. `layer` is empty, or makes a Gluon layer, or shares one: "=3"."""

    kind: str
    layer: str
    call: str
    inputs: tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """Tensors are numbered: inputs first, then nodes."""

    seed: int
    inputs: tuple[tuple[str, tuple], ...]  # kind, shape of a sample
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    losses: tuple[tuple[str, tuple, str], ...]  # label kind, label shape of a sample, text; one for each output
    batches: tuple[int, ...] = (3,)
    mode: str = "predict"
    hybrid: bool = True
    hybridize: bool = False
    numpy: bool = False

    def text(self) -> str:
        """The net and its loss as Python."""
        args = ", ".join(f"x{i}" for i in range(len(self.inputs)))
        made, steps = [], []
        for k, node in enumerate(self.nodes):
            index = len(self.inputs) + k
            if node.layer and not node.layer.startswith("="):
                made.append(f"            self.f{index} = {node.layer}")
            layer = f"self.f{node.layer[1:] if node.layer.startswith('=') else index}"
            names = [self._name(i) for i in node.inputs]
            steps.append(f"        h{index} = " + _filled(node.call, names, layer))
        results = [self._name(i) for i in self.outputs]
        base = "HybridBlock" if self.hybrid else "Block"
        head = f"hybrid_forward(self, F, {args})" if self.hybrid else f"forward(self, {args})"
        lines = [f"class Net(gluon.{base}):", "    def __init__(self):", "        super().__init__(prefix='net_')"]
        lines += ["        with self.name_scope():", *made] if made else []
        lines += ["", f"    def {head}:"]
        lines += [] if self.hybrid else [f"        F = {'mx' if self.numpy else 'mx.nd'}"]
        result = results[0] if len(results) == 1 else f"[{', '.join(results)}]"
        lines += [*steps, f"        return {result}", "", ""]
        return "\n".join(lines) + "\n" + self._loss_text()

    def _name(self, tensor: int) -> str:
        return f"x{tensor}" if tensor < len(self.inputs) else f"h{tensor}"

    def _loss_text(self) -> str:
        each = [text for _, _, text in self.losses]
        if len(each) == 1:
            return f"loss = {each[0]}\n"
        rows = "".join(f"    {text},\n" for text in each)
        return f"losses = [\n{rows}]\nloss = lambda z, y: sum(f(a, b) for f, a, b in zip(losses, z, y))\n"

    def data(self) -> list[tuple]:
        """Batches (x0, x1, ..., y) of float64 NumPy arrays; y is a list where there are several outputs."""
        batches = []
        for b, size in enumerate(self.batches):
            rest = [self.seed, 7, b]
            xs = [_draw(kind, (size, *shape), [*rest, i]) for i, (kind, shape) in enumerate(self.inputs)]
            ys = [_draw(kind, (size, *shape), [*rest, 100 + i]) for i, (kind, shape, _) in enumerate(self.losses)]
            batches.append((*xs, ys[0] if len(ys) == 1 else ys))
        return batches

    def program(self, dtype: str) -> str:
        """A file that builds this net and asks for a product."""
        seeds = f"[{self.seed}, 7, b"
        xs = "".join(f"draw({kind!r}, (n, *{shape}), {seeds}, {i}]), " for i, (kind, shape) in enumerate(self.inputs))
        ys = [f"draw({kind!r}, (n, *{shape}), {seeds}, {100 + i}])" for i, (kind, shape, _) in enumerate(self.losses)]
        y = ys[0] if len(ys) == 1 else "[" + ", ".join(ys) + "]"
        lines = [PRELUDE, "", self.text(), "import hessmx", "from hessmx.trust.check import check", ""]
        lines += ["mx.npx.set_np()"] if self.numpy else []
        lines += ["net = Net()", "net.initialize()", f"data = [({xs}{y}) for b, n in enumerate({self.batches})]"]
        lines += [f"net(*[mx.{'np' if self.numpy else 'nd'}.array(x, dtype='float32') for x in data[0][:-1]])"]
        lines += [f"net.cast({dtype!r})", f"set_values(net, {self.seed})"]
        lines += ["net.hybridize()"] if self.hybridize else []
        lines += [f"curv = hessmx.Curvature(net, loss, data, mode={self.mode!r})", "print(check(curv))"]
        return "\n".join(lines) + "\n"

    @property
    def kinds(self) -> list[str]:
        return [node.kind for node in self.nodes] + [grammar.kind(text) for _, _, text in self.losses]

    def pruned(self) -> Spec:
        """Without the nodes that no output needs."""
        base = len(self.inputs)
        needed = set(self.outputs)
        for k in reversed(range(len(self.nodes))):
            if base + k in needed:
                node = self.nodes[k]
                needed |= set(node.inputs) | ({int(node.layer[1:])} if node.layer.startswith("=") else set())
        kept = [base + k for k in range(len(self.nodes)) if base + k in needed]
        place = {**{i: i for i in range(base)}, **{old: base + new for new, old in enumerate(kept)}}
        nodes = tuple(_moved(self.nodes[i - base], place) for i in kept)
        return replace(self, nodes=nodes, outputs=tuple(place[i] for i in self.outputs))


def _moved(node: Node, place: dict[int, int]) -> Node:
    layer = f"={place[int(node.layer[1:])]}" if node.layer.startswith("=") else node.layer
    return replace(node, layer=layer, inputs=tuple(place[i] for i in node.inputs))


def _filled(call: str, names: Sequence[str], layer: str) -> str:
    for i, name in enumerate(names):
        call = call.replace(f"{{{i}}}", name)
    return call.replace("{f}", layer)


_PRELUDE_CODE = compile(PRELUDE, "prelude", "exec")
TOOLS: dict[str, Any] = {}
exec(_PRELUDE_CODE, TOOLS)
_draw, set_values = TOOLS["draw"], TOOLS["set_values"]


@contextmanager
def semantics(numpy: bool) -> Iterator[None]:
    """NumPy shapes and arrays, or MXNet's own."""
    with ExitStack() as stack:
        stack.enter_context(mx.util.np_shape(numpy))
        stack.enter_context(mx.util.np_array(numpy))
        yield


def array(value: np.ndarray, dtype: str) -> Any:
    make = mx.np.array if mx.util.is_np_array() else mx.nd.array
    return make(np.asarray(value, dtype), dtype=dtype)


def build(spec: Spec, dtype: str, replaced: dict[str, Any] | None = None) -> tuple[Any, Any]:
    """The net in `dtype` with its values set, and the loss; `replaced` stands in for names of the prelude."""
    space = {}
    exec(_PRELUDE_CODE, space)  # anew: its classes look names up in its own globals
    space.update(replaced or {})
    exec(compile(spec.text(), "net", "exec"), space)
    net = space["Net"]()
    net.initialize()
    with mx.autograd.train_mode():
        net(*[array(x, "float32") for x in spec.data()[0][:-1]])
    net.cast(dtype)
    set_values(net, spec.seed)
    if spec.hybridize and spec.hybrid:
        net.hybridize()
    return net, space["loss"]
