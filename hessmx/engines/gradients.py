"""First-order evaluation at the net's parameters or anywhere else: per-batch losses and gradients.

`Graphs` runs the traced graphs; `Live` runs the user's own code, for nets that no tracer can read.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Protocol

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.compiled import Compiled
from hessmx.engines.plan import averaged
from hessmx.engines.program import Flat
from hessmx.errors import EngineError
from hessmx.graph.trace import flatten
from hessmx.problem.data import Batch
from hessmx.problem.net import Net


class Gradients(Protocol):
    """Sums over the samples of a batch, at parameters `at` (P,) or, if None, where the net is."""

    def loss(self, batch: Batch, at: np.ndarray | None = None) -> tuple[float, int]: ...

    def gradient(self, batch: Batch, at: np.ndarray | None = None) -> tuple[Any, int]: ...


class Graphs:
    """Through the compiled graphs. Away from the net's own values the parameters live in a buffer of their own."""

    def __init__(self, compiled: Compiled, dtype: Any = None):
        self.compiled = compiled
        self.dtype = dtype  # of the arithmetic away from the net's own values; by default the net's
        self._elsewhere: tuple[Flat, Compiled] | None = None

    def loss(self, batch: Batch, at: np.ndarray | None = None) -> tuple[float, int]:
        compiled = self._at(at)
        program, plan = compiled.program("loss", batch)
        losses = program.forward(compiled.feeds(batch, plan))[0]
        return float(losses.asnumpy().sum(dtype=np.float64)), plan.samples

    def gradient(self, batch: Batch, at: np.ndarray | None = None) -> tuple[Any, int]:
        compiled, which = self._at(at), self.compiled.net.names
        program, plan = compiled.program("loss", batch, which)
        program.forward(compiled.feeds(batch, plan))
        program.backward()
        return compiled.flat("gradient", which, plan).read(), plan.samples

    def _at(self, at: np.ndarray | None) -> Compiled:
        if at is None:
            return self.compiled
        if self._elsewhere is None:
            own = self.compiled
            dtypes = own.dtypes() if self.dtype is None else dict.fromkeys(own.net.names, np.dtype(self.dtype))
            flat = Flat(own.net.shapes, dtypes, own.net.context)
            self._elsewhere = flat, Compiled(own.net, own.loss, own.train, own.seed, flat.views, self.dtype)
            self._elsewhere[1].share_pieces(own)
        flat, compiled = self._elsewhere
        flat.load(at)
        return compiled


class Live:
    """By running the net itself under `autograd.record` with lent parameters."""

    def __init__(self, net: Net, loss: Callable[..., Any], train: bool):
        self.net, self.block_loss, self.train = net, loss, train
        kinds = {type(block).__name__ for block in _blocks(net.block)}
        if not train and net.dtype == np.float32 and any("MaxPool" in kind for kind in kinds):
            raise EngineError(
                "this net cannot be traced, and MXNet's own gradient of float32 max pooling is wrong in predict mode "
                "(it goes to the first entry of each window): cast the net to float64"
            )
        if train and "Dropout" in kinds:
            raise EngineError(
                "this net cannot be traced, so its Dropout masks cannot be held fixed: use mode='predict'"
            )

    def loss(self, batch: Batch, at: np.ndarray | None = None) -> tuple[float, int]:
        mode = mx.autograd.train_mode() if self.train else mx.autograd.predict_mode()
        with self.net.lent(self._values(at)), mode:
            losses = self._losses(batch)
        return float(losses.asnumpy().sum(dtype=np.float64)), losses.shape[0]

    def gradient(self, batch: Batch, at: np.ndarray | None = None) -> tuple[Any, int]:
        with self.net.lent(self._values(at)) as arrays:
            # All, not only the selected: FullyConnected writes a bias's gradient only beside its weight's.
            marked = {name: array for name, array in arrays.items() if self.net.all[name].grad_req != "null"}
            marked.update((name, arrays[name]) for name in self.net.names)
            found = {name: mx.nd.zeros_like(array) for name, array in marked.items()}
            mx.autograd.mark_variables(list(marked.values()), list(found.values()))
            with mx.autograd.record(train_mode=self.train):
                losses = self._losses(batch)
            losses.backward(train_mode=self.train)
        vector = np.concatenate([found[name].asnumpy().ravel() for name in self.net.names])
        return vector, losses.shape[0]

    def _losses(self, batch: Batch) -> Any:
        outputs = self.net.block(*batch.inputs)
        losses = self.block_loss(outputs, batch.labels)
        rows = flatten(outputs)[0].shape[0]
        if not losses.shape or (losses.shape == (1,) and rows > 1):
            raise averaged(rows)
        return losses

    def _values(self, at: np.ndarray | None) -> Mapping[str, Any] | None:
        if at is None:
            return None
        net = self.net
        return {
            name: mx.nd.array(at[net.slices[name]].reshape(net.shapes[name]), ctx=net.context, dtype=net.dtypes[name])
            for name in net.names
        }


def _blocks(block: Any) -> list[Any]:
    found: list[Any] = []
    block.apply(found.append)
    return found
