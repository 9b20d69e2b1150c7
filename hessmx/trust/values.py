"""The user's own net and loss, run as they are: no graph of hessmx takes part.

Parameters, inputs and labels are handed over in float64, so that differences of losses mean something; a net that does
not take them runs in its own dtype. Parameters are lent (problem/net.py): nothing of the user's is written.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Iterator

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import HessmxError
from hessmx.graph.trace import flatten
from hessmx.problem.data import Batch


class OwnNet:
    """Values and MXNet's own gradients of one Curvature's objective, at parameters `at` (P,) or where the net is."""

    def __init__(self, curv: Any, dtype: str):
        self.curv, self.net, self.dtype = curv, curv._net, np.dtype(dtype)
        self.train = curv.mode == "train"
        self._sums: dict[int, float] = {}

    def loss(self, at: np.ndarray | None = None) -> float:
        """The objective. One forward pass over the data."""
        with self.net.lent(self._arrays(at)), self._mode():
            total = self.curv._objective.add_up(self._sum)
        parameters = self.net.values() if at is None else at
        return self.curv._objective.value(total, parameters)

    def gradient(self, at: np.ndarray | None = None) -> np.ndarray:
        """Its gradient (P,) by MXNet's own backward pass. One forward and backward pass over the data."""
        with self.net.lent(self._arrays(at)) as lent:
            trained = {name: lent[name] for name, p in self.net.all.items() if p.grad_req != "null"}
            trained.update((name, lent[name]) for name in self.net.names)
            total = self.curv._objective.add_up(lambda batch: self._gradient(batch, trained))
        parameters = self.net.values().astype(np.float64) if at is None else at
        return self.curv._objective.vector(total, parameters, dtype=np.float64)

    def _arrays(self, at: np.ndarray | None) -> dict[str, Any]:
        arrays = {name: self._cast(self.net.array(name)) for name in self.net.all}
        if at is not None:
            for name in self.net.names:
                value = at[self.net.slices[name]].reshape(self.net.shapes[name])
                made = mx.nd.array(value, ctx=self.net.context, dtype=arrays[name].dtype)
                arrays[name] = made.as_np_ndarray() if mx.util.is_np_array() else made
        return {name: array.copy().detach() for name, array in arrays.items()}

    def _cast(self, array: Any) -> Any:
        return array.astype(self.dtype) if np.dtype(array.dtype).kind == "f" else array

    def _mode(self) -> AbstractContextManager[None]:
        return mx.autograd.train_mode() if self.train else mx.autograd.predict_mode()

    def _sum(self, batch: Batch) -> tuple[float, int]:
        losses, rows = self._losses(batch)
        total = float(losses.asnumpy().sum(dtype=np.float64))
        return total * self._factor(batch, losses, rows, total), rows

    def _gradient(self, batch: Batch, trained: dict[str, Any]) -> tuple[np.ndarray, int]:
        found = {name: mx.nd.zeros_like(a.as_nd_ndarray()) for name, a in trained.items()}
        if mx.util.is_np_array():
            found = {name: array.as_np_ndarray() for name, array in found.items()}
        mx.autograd.mark_variables(list(trained.values()), list(found.values()))
        with mx.autograd.record(train_mode=self.train):
            losses, rows = self._losses(batch)
        losses.backward(train_mode=self.train)
        factor = self._factor(batch, losses, rows, float(losses.asnumpy().sum(dtype=np.float64)))
        pieces = [found[name].asnumpy().ravel() for name in self.net.names]
        return np.concatenate(pieces).astype(np.float64) * factor, rows

    def _losses(self, batch: Batch) -> tuple[Any, int]:
        outputs = self.net.block(*[self._given(x) for x in batch.inputs])
        losses = self.curv._loss(outputs, self._labels(batch.labels))
        return losses, losses.shape[0] if losses.shape and losses.size > 1 else flatten(outputs)[0].shape[0]

    def _labels(self, labels: Any) -> Any:
        return [self._labels(item) for item in labels] if isinstance(labels, (list, tuple)) else self._given(labels)

    def _given(self, array: Any) -> Any:
        copy = self._cast(array).copy()
        return copy.as_np_ndarray() if mx.util.is_np_array() else copy

    def _factor(self, batch: Batch, losses: Any, rows: int, total: float) -> float:
        """A loss that is averaged over the batch (Gluon's PoissonNLLLoss) is told from a sum by the traced one."""
        if losses.size > 1 or rows == 1:
            return 1.0
        if batch.index not in self._sums:
            self._sums[batch.index] = self.curv._selected.gradients.loss(batch)[0]
        known = self._sums[batch.index]
        return float(rows) if abs(total * rows - known) < abs(total - known) else 1.0


def own_net(curv: Any) -> OwnNet | None:
    """The net as it runs, in float64 where it can; None where it draws random numbers that a pass cannot repeat."""
    if any(_draws(curv)):
        return None
    for dtype in dict.fromkeys(("float64", str(curv.dtype))):
        own = OwnNet(curv, dtype)
        try:
            if own.loss() == own.loss():
                return own
        except HessmxError:
            raise
        except Exception:  # user code that does not take float64
            mx.nd.waitall()
    return None


def _draws(curv: Any) -> Iterator[Any]:
    """Random inputs of the graph: masks, noise."""
    if curv.traced:
        compiled = curv._compiled("random inputs")
        for batch in curv._batches:
            yield from compiled.plan(batch).draws
            return
