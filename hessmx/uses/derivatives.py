"""Derivatives of a net's output by its input, for training: their values, and the gradients of functions of them.

Everything is compiled once per batch shape; parameters are the user's own arrays, read where they are in each step.

    Gradients     g = d(output)/d(input), sample by sample           a gradient, and a product for the way back
    Jacobians     all outputs' gradients                             the same for each output
    Orders        u, u_x, u_xx ... by tangents of tangents           one forward and one backward pass
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.compiled import Compiled
from hessmx.engines.plan import Plan
from hessmx.engines.program import Program
from hessmx.engines.repeated import Order, Repeated, unit_name
from hessmx.errors import DataError, InputError, UnsupportedOps
from hessmx.graph.site import Zero
from hessmx.graph.symbols import scope
from hessmx.graph.trace import names
from hessmx.problem.data import Batch
from hessmx.problem.net import Net
from hessmx.problem.outputs import Output, cotangent

Gradient = dict  # parameter name -> NDArray


class Derivatives:
    """What the three kinds share: one net, one mode, and programs for the batches that come."""

    def __init__(self, net: Net, output: Output, wrt: int, train: bool, seed: int):
        self.net, self.output, self.train, self.seed = net, output, train, seed
        self.loss: Callable[..., Any] | None = output if callable(output) else None
        self.compiled = Compiled(net, self.loss, train, seed)
        self.wrt, self.source = wrt, names("data", wrt + 1)[wrt]
        self.steps = 0

    def batch(self, inputs: list[Any], labels: Any) -> Batch:
        """The next batch; Dropout draws another mask for each, the same for all that is asked about one."""
        self.compiled.forget()
        self.compiled.seed = self.seed + self.steps
        self.steps += 1
        if self.wrt >= len(inputs):
            raise InputError(f"wrt={self.wrt} is not one of the {len(inputs)} input(s), which are numbered from 0")
        return Batch(0, inputs, labels, kept=True)

    def values(self, batch: Batch) -> list[Any]:
        """The derivatives, as arrays of their own."""
        raise NotImplementedError

    def pull_back(self, batch: Batch, cotangents: Sequence[Any]) -> Gradient:
        """Gradient of <cotangents, values> by the parameters; asked for at most once after `values`."""
        raise NotImplementedError

    def gradient(self, batch: Batch, cotangents: Any) -> Any:
        """Gradient by the input of <cotangents, output>, or of the losses' sum where there is a loss."""
        self.checked(batch, ())
        program, plan = self.compiled.program("outputs" if self.loss is None else "loss", batch, (self.source,))
        with program.threads():
            program.forward(self.compiled.feeds(batch, plan))
            program.backward(None if cotangents is None else [cotangents])
        return self.compiled.flat("gradient", (self.source,), plan).views[self.source].copy()

    def mixed(self, batch: Batch, cotangents: Any, along: Any) -> Gradient:
        """Gradients by the parameters of what `gradient` differentiates, of its derivative along an array."""
        self.checked(batch, [self.source])
        kind, seeds = ("outputs-hessian", [cotangents]) if self.loss is None else ("hessian", None)
        which = self.net.names
        state, plan = self.compiled.linearised(kind, batch, (self.source,), which, seeds)
        flat = np.zeros(self.net.size, self.net.dtype) if state is None else state.product(along.asnumpy().ravel())
        return {
            name: mx.nd.array(flat[self.net.slices[name]].reshape(plan.shapes[name]), dtype=self.net.dtypes[name])
            for name in which
        }

    def checked(self, batch: Batch, moving: Sequence[str]) -> Plan:
        plan = self.compiled.plan(batch)
        missing = plan.missing_rules(moving) if moving else {}
        if missing:
            raise UnsupportedOps("reverse-over-forward", missing, "Register rules for them (docs/adding-a-rule.md)")
        shapes, samples = plan.output_shapes, batch.inputs[0].shape[0]
        if len(shapes) != 1 or shapes[0][:1] != (samples,):
            raise DataError(
                f"expected a net with one output (N, ...) for {samples} samples, but it has outputs of shapes "
                f"{list(shapes)}; wrap it in a Block that returns one of them"
            )
        return plan


class Gradients(Derivatives):
    """By the input, of one number a sample; where samples depend on each other (BatchNorm) of the sum over them."""

    def values(self, batch: Batch) -> list[Any]:
        return [self.gradient(batch, self._weights(batch))]

    def pull_back(self, batch: Batch, cotangents: Sequence[Any]) -> Gradient:
        """d/dw <v, g> is the gradient by w of the output's tangent along v: g is linear in v."""
        return self.mixed(batch, self._weights(batch), cotangents[0])

    def _weights(self, batch: Batch) -> Any:
        shape = self.checked(batch, ()).output_shapes[0]
        return None if self.loss is not None else cotangent(self.net, shape, self.output)


class Jacobians(Derivatives):
    """All outputs by the input: (N, outputs, *input shape)."""

    def values(self, batch: Batch) -> list[Any]:
        return [mx.nd.stack(*[self.gradient(batch, weights) for weights in self._rows(batch)], axis=1)]

    def pull_back(self, batch: Batch, cotangents: Sequence[Any]) -> Gradient:
        total: Gradient = {}
        for k, weights in enumerate(self._rows(batch)):
            along = mx.nd.slice_axis(cotangents[0], axis=1, begin=k, end=k + 1).reshape(batch.inputs[self.wrt].shape)
            for name, part in self.mixed(batch, weights, along).items():
                total[name] = total[name] + part if name in total else part
        return total

    def _rows(self, batch: Batch) -> list[Any]:
        shape = self.checked(batch, ()).output_shapes[0]
        return [cotangent(self.net, shape, index) for index in np.ndindex(*shape[1:])]


class Orders(Derivatives):
    """Derivatives by entries of the input, of any order, all in one graph; zeros where one is identically zero."""

    def __init__(self, net: Net, orders: Sequence[Order], wrt: int, train: bool, seed: int):
        super().__init__(net, None, wrt, train, seed)
        self.orders = tuple(orders)

    def values(self, batch: Batch) -> list[Any]:
        program, plan = self._program(batch)
        with program.threads():
            return [head.copy() for head in program.forward(self.compiled.feeds(batch, plan))]

    def pull_back(self, batch: Batch, cotangents: Sequence[Any]) -> Gradient:
        program, plan = self._program(batch)
        with program.threads():
            program.backward(list(cotangents))
        return dict(self.compiled.flat("gradient", self.net.names, plan).views)

    def _program(self, batch: Batch) -> tuple[Program, Plan]:
        plan = self.checked(batch, [self.source])
        held = dict(self.compiled.parameters())  # where an array was exchanged, this lets go of the programs too
        key = ("orders", self.orders)
        if key not in plan.programs:
            plan.programs[key] = self._compile(batch, plan, held)
        program = plan.programs[key]
        assert program is not None
        return program, plan

    def _compile(self, batch: Batch, plan: Plan, held: dict[str, Any]) -> Program:
        if "BatchNorm" in plan.net.ops:
            raise InputError(
                "derivatives by entries of the input need samples that do not depend on each other, but BatchNorm over "
                "batch statistics couples them: use mode='predict', or another normalisation"
            )
        for entry in {entry for order in self.orders for entry in order}:
            held[unit_name(self.source, entry)] = self._unit(plan.shapes[self.source], entry)
        with scope():
            repeated = Repeated(plan, self.source, self.train, self.net.dtype == np.float64)
            output = repeated.head(())
            found = [repeated.head(order) for order in self.orders]
            heads = [mx.sym.zeros_like(output) if isinstance(head, Zero) else head for head in found]
            gradients = self.compiled.flat("gradient", self.net.names, plan).views
            return Program(heads, held, self.compiled.feeds(batch, plan), gradients, self.net.context)

    def _unit(self, shape: tuple, entry: int) -> Any:
        """The direction in which one entry of every sample grows."""
        size = int(np.prod(shape[1:]))
        if entry >= size:
            raise InputError(f"an input of shape {shape[1:]} has {size} entries, so none is number {entry} (from 0)")
        rows = np.zeros((shape[0], size))
        rows[:, entry] = 1
        return mx.nd.array(rows.reshape(shape), ctx=self.net.context, dtype=self.net.dtype)
