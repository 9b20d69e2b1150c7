"""Kernels as MXNet operators: one `Custom` operator for all of them, computing on the arrays' own memory.

A call costs 0.1 to 0.2 ms (another thread, Python), whatever the size. MXNet's elementwise operators take about 1 ns an
entry, and read arrays that are in oneDNN's layout through a copy each; NumPy's take 0.15 ns.
"""

from __future__ import annotations

import json
from typing import Any, Sequence

import numpy as np

from hessmx._mxnet import mx, ready_memory
from hessmx.graph.node import Shape
from hessmx.graph.symbols import Symbol, call

Array = np.ndarray

OPERATOR = "hessmx_fused"


class Kernel:
    """An operator for given shapes: outputs of inputs, and the adjoint of their derivative.

    Every place in a program has a kernel of its own; what `forward` keeps in it, the next `adjoint` may use.
    """

    name: str
    y_shapes: Sequence[Shape]  # set by __init__

    def __init__(self, x_shapes: Sequence[Shape], **options: Any):
        self._memory: dict[str, Array] = {}

    def memory(self, name: str, shape: Shape, dtype: Any) -> Array:
        """An array that stays the same from call to call: new memory costs as much as what is done with it."""
        if name not in self._memory:
            self._memory[name] = np.empty(shape, dtype)
        return self._memory[name]

    def forward(self, xs: Sequence[Array], ys: Sequence[Array]) -> None:
        """Write the outputs into `ys`."""
        raise NotImplementedError

    def adjoint(self, gs: Sequence[Array], xs: Sequence[Array], dxs: Sequence[Array | None]) -> None:
        """Write into `dxs` the gradients of sum_k <gs[k], ys[k]> with respect to `xs`; None where nobody asks."""
        raise NotImplementedError


_KERNELS: dict[str, type[Kernel]] = {}


def kernel(cls: type[Kernel]) -> type[Kernel]:
    """Make a kernel known by its name."""
    _KERNELS[cls.name] = cls
    return cls


def fused(cls: type[Kernel], inputs: Sequence[Symbol], shapes: Sequence[Shape], **options: Any) -> list[Symbol]:
    """The outputs of a kernel as Symbols."""
    assert len(inputs) == len(shapes)
    attrs = {"kernel": cls.name, "shapes": json.dumps(shapes), "options": json.dumps(options)}
    return call("Custom", inputs, {"op_type": OPERATOR, **attrs})


@mx.operator.register(OPERATOR)
class _Property(mx.operator.CustomOpProp):
    """What MXNet asks about a kernel; attributes reach it as text.

    `declare_backward_dependency` is left as it is (all arrays): MXNet keeps the answer of one operator for all.
    """

    def __init__(self, kernel: str, shapes: str, options: str):
        super().__init__(need_top_grad=True)
        self.x_shapes = [tuple(shape) for shape in json.loads(shapes)]
        self.make = lambda: _KERNELS[kernel](self.x_shapes, **json.loads(options))
        self.y_shapes = [tuple(shape) for shape in self.make().y_shapes]

    def list_arguments(self) -> list[str]:
        return [f"x{i}" for i in range(len(self.x_shapes))]

    def list_outputs(self) -> list[str]:
        return [f"y{i}" for i in range(len(self.y_shapes))]

    def infer_shape(self, in_shape: Any) -> tuple[list, list, list]:
        return list(self.x_shapes), list(self.y_shapes), []

    def infer_type(self, in_type: list) -> tuple[list, list, list]:
        return [in_type[0]] * len(in_type), [in_type[0]] * len(self.y_shapes), []

    def create_operator(self, ctx: Any, shapes: Any, dtypes: Any) -> _Operator:
        return _Operator(self.make())


class _Operator(mx.operator.CustomOp):
    """One kernel in one program."""

    def __init__(self, kernel: Kernel):
        super().__init__()
        self.kernel = kernel

    def forward(self, is_train: bool, req: list, in_data: list, out_data: list, aux: list) -> None:
        # What is not finite shows in the result, as from any operator.
        with np.errstate(all="ignore"):
            self.kernel.forward([ready_memory(a) for a in in_data], [ready_memory(a) for a in out_data])

    def backward(
        self, req: list, out_grad: list, in_data: list, out_data: list, in_grad: list, aux: list
    ) -> None:
        targets = [None if r == "null" else ready_memory(a) for r, a in zip(req, in_grad)]
        sums = [r == "add" for r in req]
        written = [np.empty_like(t) if s and t is not None else t for s, t in zip(sums, targets)]
        with np.errstate(all="ignore"):
            self.kernel.adjoint([ready_memory(a) for a in out_grad], [ready_memory(a) for a in in_data], written)
        for adds, target, value in zip(sums, targets, written):
            if adds and target is not None and value is not None:
                target += value
