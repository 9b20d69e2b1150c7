"""User code, run in order to be traced: which mode it is told, and what is noted of it meanwhile.

`autograd.is_training()` answers as the mode asked for would, so that the branch of that mode is taken. The operators
themselves compute in predict mode: no random number is drawn for Dropout, no running statistics are written.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Iterator

from hessmx._mxnet import mx
from hessmx.errors import GraphError
from hessmx.graph.node import Graph, parse

_ctypes_ndarray = mx._ctypes.ndarray
# operators that compute something else when training
MODAL = frozenset({
    "Dropout", "BatchNorm", "BatchNorm_v1", "_contrib_SyncBatchNorm", "_contrib_BatchNormWithReLU", "RNN",
})  # fmt: skip


class Run:
    """What is noted of one run of user code in the mode `train`."""

    def __init__(self, train: bool):
        self.train = self.training = train  # the mode asked for; what is_training() says at this moment
        self.seen: dict[int, Any] = {}  # arrays that operators were given or wrote to, by id
        self.looked = False  # whether Python has looked at values
        self.switched = self.recorded = False  # whether the mode was another one; while something was recorded
        self._left: list[Any] = []  # arrays that were read where the tape does not see it

    def check_mode(self, graph: Graph, symbolic: bool) -> None:
        """Raise GraphError where the graph, in which nodes know of no mode, would not be what the code does."""
        modal = ", ".join(sorted(graph.ops.keys() & MODAL))
        if modal and (self.switched if symbolic else self.recorded):
            raise GraphError(f"it switches between train and predict mode inside forward, and holds {modal}")
        if modal and self.train and any(map(_behind_modal, self._left)):
            raise GraphError(f"it reads values behind {modal}, which when training are others than while it is traced")

    # -- what stands in for functions of MXNet: each is given the original

    def _is_training(self, original: Any, answer: Any) -> int:
        answer._obj.value = self.training
        return 0

    def _set_training(self, original: Any, value: Any, before: Any) -> int:
        before._obj.value, self.training = self.training, bool(value.value)
        self.switched |= self.training != self.train
        return 0

    def _handles(self, original: Any, arrays: Any) -> Any:
        """MXNet collects here what an operator is given."""
        self.seen.update((id(array), array) for array in arrays)
        if not mx.autograd.is_recording():
            self._left.extend(arrays)
        elif self.training != self.train:
            self.recorded = True
        return original(arrays)

    def _asnumpy(self, original: Any, array: Any) -> Any:
        self.looked = True
        self._left.append(array)
        return original(array)

    def _detach(self, original: Any, array: Any) -> Any:
        self._left.append(array)
        return original(array)


@contextmanager
def observed(train: bool) -> Iterator[Run]:
    """Within, user code of the calling thread is told that the mode is `train`, and is watched."""
    run = Run(train)
    with ExitStack() as stack:
        for owner, name, instead in (
            (mx.base._LIB, "MXAutogradIsTraining", run._is_training),
            (mx.base._LIB, "MXAutogradSetIsTraining", run._set_training),
            (_ctypes_ndarray, "c_handle_array", run._handles),
            (mx.nd.NDArray, "asnumpy", run._asnumpy),
            (mx.nd.NDArray, "detach", run._detach),
        ):
            stack.enter_context(_replaced(owner, name, instead))
        yield run


@contextmanager
def _replaced(owner: Any, name: str, instead: Callable[..., Any]) -> Iterator[None]:
    original, ours = getattr(owner, name), threading.get_ident()

    def chosen(*args: Any) -> Any:
        return instead(original, *args) if threading.get_ident() == ours else original(*args)

    setattr(owner, name, chosen)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _behind_modal(array: Any) -> bool:
    """Whether the tape knows the array as computed from an operator that depends on the mode."""
    try:
        symbol = mx.autograd.get_symbol(array.as_nd_ndarray() if hasattr(array, "as_nd_ndarray") else array)
    except mx.base.MXNetError:
        return False
    return bool(parse(symbol).ops.keys() & MODAL)
