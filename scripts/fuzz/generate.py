"""Random specs. A net grows on real values: a line that fails, explodes or dies out is not taken."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hessmx._mxnet import mx
from scripts.fuzz import grammar
from scripts.fuzz.nets import KINKED, LARGEST, TOOLS, Node, Spec, _filled, array, build, semantics
from scripts.fuzz.truth import InstanceNorm

SHAPES = {  # of a sample, by the number of axes with that of the samples
    2: lambda r: (r(2, 9),),
    3: lambda r: (r(2, 7), r(3, 7)),
    4: lambda r: (r(1, 4), r(4, 9), r(4, 9)),
    5: lambda r: (r(1, 3), r(3, 5), r(3, 5), r(3, 5)),
}
STEMS = {
    2: "nn.Dense(<units>, activation=<act>)",
    3: "nn.Conv1D(<channels>, <1|3>, padding=1, activation=<act>)",
    4: "nn.Conv2D(<channels>, <1|3>, padding=1, activation=<act>)",
    5: "nn.Conv3D(<channels>, <1|2>, activation=<act>)",
}
MAKERS = ("nn.", "rnn.", "Dropout", "InstanceNorm", "unrolled", "Attention")
TRIES = 60


def generate(seed: int, mode: str | None = None, most: int = 8) -> Spec:
    """The random net of this seed, grown by `most` steps at the most."""
    rng = np.random.default_rng(seed)
    numpy = bool(rng.random() < 0.12)
    with semantics(numpy), mx.name.NameManager():
        return _Growth(seed, rng, numpy, mode).spec(most)


class _Growth:
    def __init__(self, seed: int, rng: np.random.Generator, numpy: bool, mode: str | None):
        self.rng, self.numpy = rng, numpy
        self.hybrid = bool(rng.random() < 0.65)
        self.mode = mode or str(rng.choice(["predict", "train"], p=[0.65, 0.35]))
        rows = tuple(int(n) for n in rng.integers(2, 5, rng.choice([1, 1, 2, 3])))
        hybridize = bool(rng.random() < 0.5)
        self.base = Spec(seed, (), (), (), (), rows, self.mode, self.hybrid, hybridize, numpy)
        self.inputs: list[tuple[str, tuple]] = []
        self.nodes: list[Node] = []
        self.values: list[Any] = []  # float64 values of all tensors, on the first batch
        self.layers: dict[int, Any] = {}

    def spec(self, most: int) -> Spec:
        self._start()
        for _ in range(int(self.rng.integers(1, most + 1))):
            self._grow()
        if self.rng.random() < 0.5:
            self._fan()
        outputs, losses = self._end()
        spec = replace(self.base, inputs=tuple(self.inputs), nodes=tuple(self.nodes), outputs=outputs, losses=losses)
        spec = spec.pruned()
        if spec.hybrid and not _runs(replace(spec, hybridize=True)):  # arrays broadcast where Symbols do not
            spec = replace(spec, hybrid=False)
        return spec if _runs(spec) else replace(spec, batches=spec.batches[:1])

    # -- growing

    def _start(self) -> None:
        dims = [int(self.rng.choice([2, 3, 4, 5], p=[0.3, 0.27, 0.38, 0.05]))]
        if self.rng.random() < 0.25:
            dims.append(int(self.rng.choice([dims[0], 2])))
        words = not self.numpy and self.rng.random() < 0.12
        for d in dims:
            shape = SHAPES[d](lambda low, high: int(self.rng.integers(low, high)))
            same = [s for k, s in self.inputs if len(s) == d - 1]
            self.inputs.append(("real", same[0] if same else shape))
        if words:
            self.inputs.append(("whole:7", (int(self.rng.integers(3, 6)),)))
        for i, (kind, shape) in enumerate(self.inputs):
            drawn = TOOLS["draw"](kind, (self.base.batches[0], *shape), [self.base.seed, 7, 0, i])
            self.values.append(array(drawn, "float64"))
        if words:
            self._add(grammar.fill("nn.Embedding(7, <few>)", self.rng), (len(self.inputs) - 1,))
        for i, d in enumerate(dims):  # behind a layer, or nothing that follows would move with the parameters
            stem = STEMS[d] if self.rng.random() < 0.8 else "nn.Dense(<few>, flatten=False, activation=<act>)"
            for _ in range(5):
                if self._add(grammar.fill(stem, self.rng), (i,)):
                    break

    def _grow(self) -> bool:
        for _ in range(TRIES):
            place = self._pick()
            if self._add(grammar.fill(str(self.rng.choice(self._lines(place))), self.rng), (place,)):
                return True
        return False

    def _fan(self) -> None:
        """One tensor gets 3 to 12 more readers."""
        hub = self._pick()
        readers = int(self.rng.integers(3, 13))
        for _ in range(4 * readers):
            line = grammar.fill(str(self.rng.choice(self._lines(hub))), self.rng)
            if self._add(line, (hub,) * 3):
                readers -= 1
            if not readers:
                return

    def _pick(self) -> int:
        usable = range(len(self.inputs), len(self.values)) if self.nodes else [0]
        chance = self.rng.random()
        if chance < 0.05:
            return 0
        if chance < 0.25:  # a hub: the first tensor is read again and again
            return usable[0]
        return usable[-1] if chance < 0.7 else int(self.rng.choice(usable))

    def _whole(self, place: int) -> bool:
        return place < len(self.inputs) and self.inputs[place][0] != "real"

    def _lines(self, place: int) -> list[str]:
        tables = [grammar.NUMPY] if self.numpy else [grammar.HYBRID] + ([] if self.hybrid else [grammar.IMPERATIVE])
        own = [line for table in tables for line in grammar.lines(table.get(str(self.values[place].ndim), ""))]
        anyway = [line for table in tables for line in grammar.lines(table["any"])]
        chosen = own if own and self.rng.random() < 0.5 else anyway
        return [line for line in chosen if line.startswith(MAKERS)] or chosen if self.rng.random() < 0.25 else chosen

    def _add(self, filled: str, first: tuple[int, ...]) -> bool:
        """Take the node if it runs and its values are of a size to learn from."""
        layer, call = "", filled
        if filled.startswith(MAKERS):
            layer, _, call = (part.strip() for part in filled.partition(";"))
            call = call or "{f}({0})"
        count = max((i + 1 for i in range(3) if f"{{{i}}}" in call), default=1)
        inputs = self._partners(first, count)
        if len(inputs) < count:
            return False
        node = Node(grammar.kind(filled), layer, call, inputs)
        if node.kind == "Dropout" and self.mode == "train" and any(n.kind == "Dropout" for n in self.nodes):
            return False  # one mask can be known from outside, more cannot
        if layer and self.rng.random() < 0.1:
            node = self._sharing(node)
        value = self._value(node)
        if value is None:
            return False
        self.nodes.append(node)
        self.values.append(value)
        return True

    def _partners(self, first: tuple[int, ...], count: int) -> tuple[int, ...]:
        shape = self.values[first[0]].shape
        alike = [i for i, v in enumerate(self.values) if v.shape == shape and not self._whole(i)]
        return tuple((list(first) + [int(self.rng.choice(alike)) for _ in range(count - 1)])[:count])

    def _sharing(self, node: Node) -> Node:
        for k, other in enumerate(self.nodes):
            made = other.layer and not other.layer.startswith("=") and other.kind not in ("Dropout", "Embedding")
            alike = self.values[other.inputs[0]].shape == self.values[node.inputs[0]].shape
            if made and alike and other.call == node.call:
                return replace(node, kind=other.kind, layer=f"={len(self.inputs) + k}")
        return node

    def _value(self, node: Node) -> Any:
        xs = [self.values[i] for i in node.inputs]
        if KINKED.search(node.call + node.layer) and any(_tied(x.asnumpy()) for x in xs):
            return None
        try:
            value = self._run(node, xs)
            found = value.asnumpy()
        except Exception:  # whatever it is that does not fit
            return None
        if value.dtype != np.float64 or found.ndim < 2 or found.ndim > 5 or found.shape[0] != self.base.batches[0]:
            return None
        if found[0].size > LARGEST or not 0 < found[0].size or not np.isfinite(found).all():
            return None
        return value if 1e-3 < np.abs(found).mean() and np.abs(found).max() < 30 else None

    def _run(self, node: Node, xs: list[Any]) -> Any:
        space = {**TOOLS, "F": mx if self.numpy and not self.hybrid else mx.nd, "InstanceNorm": InstanceNorm}
        names = {f"a{i}": x for i, x in enumerate(xs)}
        space.update(names)
        layer = self.layers.get(int(node.layer[1:])) if node.layer.startswith("=") else None
        if node.layer and layer is None:
            layer = eval(node.layer, space)
            layer.initialize()
            with mx.autograd.train_mode():
                layer(*[x.astype("float32") for x in xs[:1]])
            layer.cast("float64")
            TOOLS["set_values"](layer, self.base.seed)
        space["layer"] = layer
        train = self.mode == "train" and node.kind != "Dropout"
        with mx.autograd.train_mode() if train else mx.autograd.predict_mode():
            value = eval(_filled(node.call, list(names), "layer"), space)
        if isinstance(value, (list, tuple)):
            raise TypeError("several tensors")
        if layer is not None and not node.layer.startswith("="):
            self.layers[len(self.values)] = layer
        return value

    # -- the end: every tensor that nobody reads goes into an output

    def _end(self) -> tuple[tuple[int, ...], tuple[tuple[str, tuple, str], ...]]:
        read = {i for node in self.nodes for i in node.inputs}
        loose = [i for i in range(len(self.inputs), len(self.values)) if i not in read] or [len(self.values) - 1]
        whole = [i for i in range(len(self.inputs)) if not self._whole(i)]
        heads = [self._head(i) for i in loose if self._head(i) is not None] or [self._head(whole[0])]
        count = 2 if len(heads) > 1 and self.rng.random() < 0.3 else 1
        units = int(self.rng.integers(2, 7))
        outputs = tuple(self._join(heads[i::count], units) for i in range(count))
        return outputs, tuple(self._loss(output) for output in outputs)

    def _head(self, place: int) -> int | None:
        value = self.values[place]
        if value.ndim > 2 and self.rng.random() < 0.4:
            axes = tuple(range(2, value.ndim))
            line = f"F.np.mean({{0}}, axis={axes})" if self.numpy else f"F.mean({{0}}, axis={axes})"
            if self._add(line, (place,)):
                return len(self.values) - 1
        return place

    def _join(self, heads: list[int], units: int) -> int:
        """Dense(units) of each, added up; sometimes the tensor itself."""
        if len(heads) == 1 and heads[0] >= len(self.inputs) and self.rng.random() < 0.15:
            return heads[0]
        if self.rng.random() < 0.7:
            heads = [self._beside(heads)]
        total = None
        for place in heads:
            if not self._add(f"nn.Dense({units})", (place,)):
                self._add(f"nn.Dense({units}, activation='tanh')", (place,))
            part = len(self.values) - 1
            if total is not None and self._same(total, part):
                self._take("{0} + {1}", (total, part), self.values[total] + self.values[part])
            total = len(self.values) - 1
        assert total is not None
        return total

    def _beside(self, heads: list[int]) -> int:
        """All of them flattened, in one row."""
        flat = "F.npx.reshape({{{}}}, (-2, -1))" if self.numpy else "F.flatten({{{}}})"
        parts = ", ".join(flat.format(i) for i in range(len(heads)))
        call = f"F.np.concatenate([{parts}], axis=1)" if self.numpy else f"F.concat({parts}, dim=1)"
        rows = [self.values[i].asnumpy().reshape(self.base.batches[0], -1) for i in heads]
        return self._take(call, tuple(heads), array(np.concatenate(rows, axis=1), "float64"))

    def _take(self, call: str, inputs: tuple[int, ...], value: Any) -> int:
        self.nodes.append(Node(grammar.kind(call), "", call, inputs))
        self.values.append(value)
        return len(self.values) - 1

    def _same(self, a: int, b: int) -> bool:
        return a != b and self.values[a].shape == self.values[b].shape

    def _loss(self, output: int) -> tuple[str, tuple, str]:
        shape = tuple(self.values[output].shape[1:])
        while True:
            kind, _, text = grammar.fill(str(self.rng.choice(grammar.lines(grammar.LOSSES))), self.rng).partition(" ; ")
            if len(shape) == 1 and shape[0] > 1 and self._fits(output, kind, text):
                return (f"class:{shape[0]}", (), text) if kind == "class" else (kind, shape, text)
            if len(shape) != 1 or shape[0] == 1:
                return ("real", shape, "gluon.loss.L2Loss()")

    def _fits(self, output: int, kind: str, text: str) -> bool:
        """Not every loss takes NumPy arrays."""
        shape = tuple(self.values[output].shape)
        label = TOOLS["draw"](f"class:{shape[1]}", shape[:1], 0) if kind == "class" else TOOLS["draw"](kind, shape, 0)
        try:
            losses = eval(text, dict(TOOLS))(self.values[output], array(label, "float64")).asnumpy()
        except Exception:
            return False
        return losses.shape == shape[:1] and bool(np.isfinite(losses).all()) and np.abs(losses).max() < 1e3


def _runs(spec: Spec) -> bool:
    try:
        net, _ = build(spec, "float32")
        for *xs, _ in spec.data():
            net(*[array(x, "float32") for x in xs])
        mx.nd.waitall()
    except Exception:
        return False
    return True


def _tied(x: np.ndarray) -> bool:
    """Equal or nearly equal entries other than 0: max and its kin have no derivative there."""
    values = np.sort(x.reshape(len(x), -1), axis=1)
    gaps = np.diff(values, axis=1)
    return bool(((gaps < 1e-6) & (values[:, 1:] != 0)).any())
