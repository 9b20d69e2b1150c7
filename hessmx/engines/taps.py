"""Inside a net: values of entries of its graph, and gradients at entries, for one batch.

The one place where questions about single layers (K-FAC) touch the compiled graphs.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.compiled import Compiled
from hessmx.engines.plan import Plan
from hessmx.engines.program import Program
from hessmx.errors import DataError
from hessmx.graph.node import Entry, Graph, Shape, infer_shapes
from hessmx.graph.symbols import Symbol, call, scope
from hessmx.graph.trace import names
from hessmx.problem.data import Batch
from hessmx.problem.net import Net

Pull = Callable[[Sequence[np.ndarray]], "list[np.ndarray]"]  # cotangents of the outputs -> gradients at entries
_X = names("data", 1)[0]


def tapped(
    compiled: Compiled, batch: Batch, read: Sequence[Entry], marked: Sequence[Entry]
) -> tuple[list[np.ndarray], list[np.ndarray], Pull]:
    """Values of the entries `read`, the net's outputs, and a function that gives gradients of <r, outputs> at `marked`.

    One forward pass; each call of the function is a forward and a backward pass, as an Executor's second backward pass
    after one forward pass is wrong. Values and gradients come from two programs: a second reader of an array in
    oneDNN's layout spoils max pooling's backward pass.
    """
    held = compiled.parameters()
    plan = compiled.plan(batch)
    feeds = compiled.feeds(batch, plan)
    key = ("tapped", tuple(read), tuple(marked))
    if key not in plan.programs:
        plan.programs[key] = _reader(plan, read, held, feeds, compiled)
        plan.programs[key, "marked"] = _marker(plan, marked, held, feeds, compiled)
    reader: Any = plan.programs[key]
    marker: Any = plan.programs[key, "marked"]
    found = [array.asnumpy() for array in reader.forward(feeds)]
    dtype = compiled.dtype or compiled.net.dtype

    def pull(cotangents: Sequence[np.ndarray]) -> list[np.ndarray]:
        marker.forward(feeds)
        marker.backward([mx.nd.array(r, ctx=compiled.net.context, dtype=dtype) for r in cotangents])
        return [marker.gradients[name].asnumpy() for name in names("tap", len(marked))]

    return found[: len(read)], found[len(read) :], pull


def outputs_of(compiled: Compiled, batch: Batch) -> list[np.ndarray]:
    """The net's outputs. One forward pass."""
    held, plan = compiled.parameters(), compiled.plan(batch)
    feeds = compiled.feeds(batch, plan)
    if "tapped" not in plan.programs:
        plan.programs["tapped"] = _reader(plan, (), held, feeds, compiled)
    reader: Any = plan.programs["tapped"]
    return [array.asnumpy() for array in reader.forward(feeds)]


def _reader(plan: Plan, read: Sequence[Entry], held: Mapping, feeds: Mapping, compiled: Compiled) -> Program:
    with scope():
        built = _built(plan.net, plan.shapes, {})
        heads = [mx.sym.identity(built[i][j]) for i, j in (*read, *plan.net.heads)]
        return Program(heads, held, feeds, {}, compiled.net.context)


def _marker(plan: Plan, marked: Sequence[Entry], held: Mapping, feeds: Mapping, compiled: Compiled) -> Program:
    """To each marked entry a zero is added, whose gradient is that of the entry."""
    with scope():
        shapes = infer_shapes(plan.net, plan.shapes)
        zeros = {name: mx.nd.zeros(shapes[entry], ctx=compiled.net.context, dtype=compiled.dtype or compiled.net.dtype)
                 for name, entry in zip(names("tap", len(marked)), marked)}  # fmt: skip
        built = _built(plan.net, plan.shapes, dict(zip(marked, zeros)))
        gradients = {name: mx.nd.zeros_like(zero) for name, zero in zeros.items()}
        heads = [built[i][j] for i, j in plan.net.heads]
        return Program(heads, {**held, **zeros}, feeds, gradients, compiled.net.context)


def _built(graph: Graph, shapes: Mapping[str, Shape], added: Mapping[Entry, str]) -> list[list[Symbol]]:
    """Outputs of every node, a variable added to some."""
    built: list[list[Symbol]] = []
    for index, node in enumerate(graph.nodes):
        if node.op is None:
            built.append([mx.sym.Variable(node.name, shape=shapes.get(node.name))])
            continue
        outputs = call(node.op, [built[i][j] for i, j in node.inputs], node.raw, node.name)
        for place in range(len(outputs)):
            if (index, place) in added:
                outputs[place] = mx.sym.elemwise_add(outputs[place], mx.sym.Variable(added[index, place]))
        built.append(outputs)
    return built


class AtOutputs:
    """Gradients and Hessians of the per-sample losses with respect to the net's output, in float64.

    p - p^2 of a net that is sure of a class would be rounding in float32.
    """

    def __init__(self, loss: Callable[..., Any], compiled: Compiled):
        with scope():
            block = _Shifted()
        block.initialize(ctx=compiled.net.context)
        block.cast("float64")
        self._compiled = Compiled(Net(block), loss, compiled.train, compiled.seed, dtype=np.float64)

    def gradient(self, z: np.ndarray, batch: Batch) -> np.ndarray:
        """dl_i / dz_i (N, ...)."""
        own, plan = self._batch(z, batch)
        program, _ = self._compiled.program("loss", own, (_X,))
        program.forward(self._compiled.feeds(own, plan))
        program.backward()
        return self._compiled.flat("gradient", (_X,), plan).read().reshape(z.shape)

    def hessian(self, z: np.ndarray, batch: Batch) -> np.ndarray:
        """d2 l_i / dz_i2 (N, K, K) with K entries of z per sample: K products of the loss alone."""
        own, _ = self._batch(z, batch)
        size = z[0].size
        columns = np.zeros((len(z), size, size))
        state, _ = self._compiled.linearised("hessian", own, (_X,), (_X,))
        for k in range(size):
            if state is None:  # a loss that is linear in z
                break
            unit = np.zeros((len(z), size))
            unit[:, k] = 1
            columns[:, :, k] = state.product(unit.ravel()).reshape(len(z), size)
        return columns

    def _batch(self, z: np.ndarray, batch: Batch) -> tuple[Batch, Plan]:
        array = mx.nd.array(z, ctx=self._compiled.net.context, dtype="float64")
        own = Batch(batch.index, [array], batch.labels, kept=False)
        plan = self._compiled.plan(own)
        if plan.samples != len(z):
            raise DataError(f"the loss returned {plan.samples} values for {len(z)} samples, expected one per sample")
        return own, plan


class _Shifted(mx.gluon.HybridBlock):
    """The identity, as a net with a parameter: a net without any has no dtype and no context."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.shift = self.params.get("shift", shape=(1,), init="zeros")

    def hybrid_forward(self, F: Any, x: Any, shift: Any) -> Any:
        return x + shift if mx.util.is_np_array() else F.broadcast_add(x, shift)
