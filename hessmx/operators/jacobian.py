"""The Jacobian of the net's outputs with respect to the parameters, and the NTK."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx._threads import alone
from hessmx.engines.compiled import Compiled
from hessmx.engines.plan import Plan
from hessmx.operators.base import CurvatureOperator, SymmetricOperator
from hessmx.problem.data import Batches


class Jacobian(CurvatureOperator):
    """J (M, P): rows are the outputs of sample 1, 2 ... in the order of the data, no loss, no reduction.

    J v costs 2 forward passes (tangents), J' r 2 (a backward pass), and one more where parameters or data have changed.
    """

    label = "jacobian"

    @alone
    def __init__(self, compiled: Compiled, batches: Batches, which: Sequence[str] | None = None):
        self.compiled, self.batches = compiled, batches
        net = compiled.net
        self.which = net.names if which is None else tuple(which)
        rows = sum(_size(compiled.plan(batch)) for batch in batches)
        super().__init__(net.dtype, (rows, sum(net.sizes[name] for name in self.which)))

    @alone
    def _product(self, vector: np.ndarray) -> np.ndarray:
        parts = []
        for batch in self.batches:
            state, plan = self.compiled.linearised("jvp", batch, self.which, ())
            parts.append(np.zeros(_size(plan), self.dtype) if state is None else _rows(state.tangents(vector), plan))
        return np.concatenate(parts).astype(self.dtype, copy=False)

    @alone
    def _transposed_product(self, vector: np.ndarray) -> np.ndarray:
        total, start = np.zeros(self.shape[1]), 0
        for batch in self.batches:
            state, plan = self.compiled.linearised("vjp", batch, (), self.which)
            piece = vector[start : start + _size(plan)]
            start += _size(plan)
            if state is not None:  # None where the parameters do not reach the outputs
                total += state.product(None, _cotangents(piece, plan, self.compiled))
        return total.astype(self.dtype)

    def question(self) -> AbstractContextManager[Any]:
        """Within, parameters and batches in memory are taken to stay what they are."""
        return self.compiled.kept.question()


class NTK(SymmetricOperator):
    """J J' (M, M), the empirical neural tangent kernel (Jacot et al. 2018). One product: one J' r and one J v."""

    label, positive = "ntk", True

    def __init__(self, jacobian: Jacobian):
        super().__init__(jacobian.dtype, (jacobian.shape[0], jacobian.shape[0]))
        self.jacobian = jacobian

    def _product(self, vector: np.ndarray) -> np.ndarray:
        return np.asarray(self.jacobian.matvec(self.jacobian.rmatvec(vector)))


def _size(plan: Plan) -> int:
    return int(sum(np.prod(shape, dtype=np.int64) for shape in plan.output_shapes))


def _rows(outputs: Sequence[Any], plan: Plan) -> np.ndarray:
    """Outputs (N, ...) each, as rows sample by sample."""
    samples = plan.output_shapes[0][0] if plan.output_shapes[0] else 1
    return np.concatenate([output.asnumpy().reshape(samples, -1) for output in outputs], axis=1).ravel()


def _cotangents(piece: np.ndarray, plan: Plan, compiled: Compiled) -> list[Any]:
    """The inverse of `_rows`: one array per output."""
    samples = plan.output_shapes[0][0] if plan.output_shapes[0] else 1
    table = np.asarray(piece).reshape(samples, -1)
    arrays, start = [], 0
    for shape in plan.output_shapes:
        width = int(np.prod(shape, dtype=np.int64)) // samples
        values = table[:, start : start + width].reshape(shape)
        arrays.append(mx.nd.array(values, ctx=compiled.net.context, dtype=compiled.net.dtype))
        start += width
    return arrays
