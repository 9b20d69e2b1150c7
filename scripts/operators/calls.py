"""Calls one operator of the registry by its canonical name, on NumPy arrays, with head gradients of our choice."""

from __future__ import annotations

import ctypes
from typing import Callable, Sequence

import numpy as np

from hessmx._mxnet import mx
from tests.cases.case import Case

Arrays = Sequence[np.ndarray]

# Central difference of order six: a step this long keeps float32 kernels inside float64 operators measurable.
STEPS = {"float64": 4e-3, "float32": 1e-2}
STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))


def handle(op: str) -> int:
    found = mx.base.OpHandle()
    mx.base.check_call(mx.base._LIB.NNGetOpHandle(mx.base.c_str(op), ctypes.byref(found)))
    return found.value


def invoke(case: Case, inputs: Sequence) -> list:
    """The operator's visible outputs; recorded if autograd records."""
    attrs = case.attributes
    numpy_ops = case.numpy_shapes
    return mx._ctypes.ndarray._imperative_invoke(
        handle(case.op), list(inputs), list(attrs), list(attrs.values()), None, numpy_ops, True
    )


def differentiable(case: Case, outputs: Sequence) -> list:
    chosen = range(len(outputs)) if case.outputs is None else case.outputs
    return [outputs[i] for i in chosen if np.dtype(outputs[i].dtype).kind == "f"]


def array(value: np.ndarray, case: Case) -> object:
    make = mx.np.array if case.numpy_shapes else mx.nd.array
    return make(value, dtype=value.dtype)


class Operator:
    """One case as functions of its moving inputs."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.fixed = case.draw()

    def arrays(self, moving: Arrays) -> tuple[list, list]:
        """All inputs, and those of them that carry a gradient, as fresh MXNet arrays."""
        values = list(self.fixed)
        for i, value in zip(self.case.moving, moving):
            values[i] = value
        inputs = [array(value, self.case) for value in values]
        chosen = [inputs[i] for i in self.case.moving]
        stype = "row_sparse" if self.case.sparse else None
        for x in chosen:
            x.attach_grad(stype=stype) if stype else x.attach_grad()
        return inputs, chosen

    def point(self) -> list[np.ndarray]:
        return [self.fixed[i] for i in self.case.moving]

    def _run(self, inputs: Sequence) -> list:
        return differentiable(self.case, invoke(self.case, inputs))

    def forward(self, moving: Arrays) -> list[np.ndarray]:
        inputs, _ = self.arrays(moving)
        with mx.autograd._RecordingStateScope(False, self.case.train):
            return [y.asnumpy() for y in self._run(inputs)]

    def gradient(self, moving: Arrays, heads: Arrays, layered: bool = False) -> list[np.ndarray]:
        """MXNet's own first gradient of <heads, outputs> (or of <heads, sigmoid(outputs)>)."""
        inputs, chosen = self.arrays(moving)
        with mx.autograd.record(train_mode=self.case.train):
            outputs = self._layered(inputs) if layered else self._run(inputs)
        mx.autograd.backward(outputs, [array(h, self.case) for h in heads], train_mode=self.case.train)
        return [x.grad.asnumpy() for x in chosen]

    def double(self, moving: Arrays, heads: Arrays, seeds: Arrays, layered: bool) -> list[np.ndarray]:
        """Gradient of <seeds, gradient> by create_graph. Head gradients are constants to the tape, so only
        a following layer (here sigmoid, whose second derivative is right) shows what the operator does to them.
        """
        inputs, chosen = self.arrays(moving)
        cotangents = [array(h, self.case) for h in heads]
        with mx.autograd.record(train_mode=self.case.train):
            outputs = self._layered(inputs) if layered else self._run(inputs)
            first = mx.autograd.grad(
                outputs, chosen, head_grads=cotangents, create_graph=True, retain_graph=True, train_mode=self.case.train
            )
        mx.autograd.backward(first, [array(v, self.case) for v in seeds], train_mode=self.case.train)
        return [x.grad.asnumpy() for x in chosen]

    def _layered(self, inputs: Sequence) -> list:
        layer = mx.npx.sigmoid if self.case.numpy_shapes else mx.nd.sigmoid
        return [layer(y) for y in self._run(inputs)]


def differences(function: Callable, point: Arrays) -> list[np.ndarray]:
    """Gradient of a scalar function of arrays, entry by entry; the truncation error is of order step**6."""
    return [
        np.array([_slope(function, point, k, i) for i in range(x.size)]).reshape(x.shape) for k, x in enumerate(point)
    ]


def _slope(function: Callable, point: Arrays, k: int, entry: int) -> float:
    step = STEPS[str(point[k].dtype)]

    def at(shift: float) -> float:
        moved = [x.copy() for x in point]
        moved[k].flat[entry] += shift
        return function(moved)

    return sum(weight * (at(m * step) - at(-m * step)) for m, weight in STENCIL) / step


def inner(left: Arrays, right: Arrays) -> float:
    return float(sum(np.sum(a * b, dtype=np.float64) for a, b in zip(left, right)))
