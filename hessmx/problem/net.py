"""The user's net, read without being changed.

Everything that would write to a parameter (moved weights, running statistics, gradients) is done on copies that are
lent to the net for the time of a call: the Parameter's array is swapped, never written, so the user's values are
bit for bit the same whatever happens. What the net's code writes into its own attributes meanwhile is put back too.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import Any, Callable, Iterator, Mapping, Sequence, Union

import numpy as np

from hessmx._mxnet import mx
from hessmx._threads import alone, ours
from hessmx.errors import InputError, ParameterError
from hessmx.problem.code import Code, digest

_ROUNDING = 1e-4  # a norm divided out twice, in float32 and over many entries
Selection = Union[None, str, Callable[[Any], bool], Sequence[Any]]


class Net:
    """A Gluon block and the parameters that are differentiated."""

    def __init__(self, block: Any, selection: Selection = None):
        if not isinstance(block, mx.gluon.Block):
            kind = type(block).__name__
            raise InputError(f"net must be a Gluon Block, not {kind}; wrap Symbols in gluon.SymbolBlock")
        self.block = block
        self.all = dict(block.collect_params().items())
        self._check_initialized()
        self.parameters = select(self.all, selection)
        self.names = tuple(self.parameters)
        self.context = next(iter(self.parameters.values())).list_ctx()[0]
        # Of the arrays: a SymbolBlock that was imported and cast has Parameters without a shape.
        self.shapes = {name: tuple(self.array(name).shape) for name in self.names}
        self.sizes = {name: int(np.prod(shape)) for name, shape in self.shapes.items()}
        ends = np.cumsum(list(self.sizes.values()))
        self.size = int(ends[-1])
        self.slices = {name: slice(int(end) - self.sizes[name], int(end)) for name, end in zip(self.names, ends)}
        self.dtypes = {name: np.dtype(p.dtype) for name, p in self.parameters.items()}
        self.dtype = np.result_type(np.float32, *self.dtypes.values())
        self._kinds = {name: _kind(p) for name, p in self.all.items()}
        self._code = Code(block)
        self._borrowed = 0  # how often parameters are lent, one within the other

    def _check_initialized(self) -> None:
        missing = [name for name, p in self.all.items() if p._data is None]
        if missing:
            raise ParameterError(
                f"the net is not initialized: {len(missing)} parameter(s) have no values, the first is {missing[0]!r}; "
                "call net.initialize() and run one batch through the net, or load its parameters"
            )

    def check_same(self) -> None:
        """Raise ParameterError if the net no longer has the parameters it had, in dtype, shape and place.

        Not while others are lent to it: those are meant to differ, and the user's own come back.
        """
        if self._borrowed:
            return
        told = self._differences()
        if told:
            more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
            raise ParameterError(
                f"the net has other parameters than when this object was made: {told[0]}{more}; make a new one"
            )

    def is_same(self) -> bool:
        """Whether the net has the parameters it had."""
        return not self._differences()

    @alone
    def _differences(self) -> list[str]:
        now = dict(self.block.collect_params().items())
        told = [f"{name!r} is new" for name, p in now.items() if self.all.get(name) is not p]
        told += [f"{name!r} is gone" for name in self.all if name not in now]
        told += [
            f"{name!r} was {self._kinds[name]} and is {_kind(p)}"
            for name, p in self.all.items()
            if name in now and not told and _kind(p) != self._kinds[name]
        ]
        return told

    def check_unwritten(self, lent: Mapping[str, Any], given: Mapping[str, Any], read: Sequence[str]) -> None:
        """Raise ParameterError if running the net gave its `lent` arrays, of those that are `read`, other values.

        They were the net's own, or those `given`.
        """
        for name in read:
            if name in lent:
                before = (given[name] if name in given else self.array(name)).asnumpy()
                after = lent[name].asnumpy()
                scale = np.abs(before).max(initial=0)
                if not np.allclose(after, before, rtol=_ROUNDING, atol=_ROUNDING * scale, equal_nan=True):
                    raise ParameterError(
                        f"running the net changes its parameter {name!r} (by set_data, in forward or a hook), so its "
                        "values are not those that the net computes with: run one batch through the net first; if "
                        "that does not settle them, write the change into forward without set_data"
                    )

    def array(self, name: str) -> Any:
        """The parameter's array (memory of the user: read only), off any tape; a dense copy of a row_sparse one."""
        with ours:
            parameter = self.all[name]
            if is_sparse(parameter):  # Parameter.data() gives its rows to a Trainer only
                return parameter._data[0].tostype("default")
            try:
                return parameter.data(self.context).detach()
            except RuntimeError:  # it is elsewhere by now
                self.check_same()
                raise

    @alone
    def handles(self) -> list[Any]:
        """What tells whether a parameter has been given another array since."""
        return [p._data[0] for p in self.all.values()]

    def check_finite(self) -> None:
        for name in self.all:
            if not np.isfinite(self.array(name).asnumpy()).all():
                raise ParameterError(f"parameter {name!r} holds NaN or infinite values: retrain or reload")

    def digest(self, given: Mapping[str, Any]) -> int:
        """Of the values of all parameters, with those `given` in their place."""
        arrays = (given.get(name, self.array(name)) for name in self.all)
        return hash(tuple(digest(array, array.size) for array in arrays))

    @alone
    def values(self) -> np.ndarray:
        """All selected parameters as one vector (P,)."""
        return np.concatenate([self.array(name).asnumpy().ravel() for name in self.names]).astype(self.dtype)

    def positions(self, which: Sequence[str]) -> np.ndarray:
        """Where the entries of the named parameters stand in the vector (P,)."""
        return np.concatenate([np.arange(self.slices[name].start, self.slices[name].stop) for name in which])

    def embed(self, vector: np.ndarray, which: Sequence[str]) -> np.ndarray:
        """A vector over the named parameters as one over all, zeros elsewhere."""
        whole = np.zeros(self.size)
        whole[self.positions(which)] = vector
        return whole

    @contextmanager
    def lent(self, values: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Within, the net computes with copies of its parameters (or with `values`); yields name -> array.

        To one thread at a time: all threads see the same Parameters.
        """
        with ours, self._code.kept():
            yield from self._lent(values or {})

    def _lent(self, values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        self.check_same()
        saved = {name: (p._data, p._grad) for name, p in self.all.items()}
        lent = {name: values.get(name) for name in self.all}
        active = _deactivate(self.block)
        self._borrowed += 1
        try:
            for name, p in self.all.items():
                array = lent[name] if lent[name] is not None else self.array(name).copy().detach()
                lent[name] = array
                p._data, p._grad = [array] * len(saved[name][0]), None
                if is_sparse(p):
                    p.row_sparse_data = lambda rows, array=array: array
            yield lent
        finally:
            self._borrowed -= 1
            for name, p in self.all.items():
                p._data, p._grad = saved[name]
                p.__dict__.pop("row_sparse_data", None)
            for block, was in active:
                block._active = was


def _kind(parameter: Any) -> str:
    """What may not change: dtype, shape and device, in words."""
    if parameter._data is None:
        return "not initialized"
    array = parameter._data[0]
    return f"{np.dtype(array.dtype)} {tuple(array.shape)} on {', '.join(str(a.context) for a in parameter._data)}"


def is_sparse(parameter: Any) -> bool:
    """Whether the parameter's values are stored by rows (gluon.contrib.nn.SparseEmbedding)."""
    return bool(parameter._stype != "default")


def _deactivate(block: Any) -> list[tuple[Any, bool]]:
    """Un-hybridize without dropping what hybridization has cached; returns what to put back."""
    found: list[tuple[Any, bool]] = []

    def visit(child: Any) -> None:
        if getattr(child, "_active", False):
            found.append((child, True))
            child._active = False

    block.apply(visit)
    return found


def select(parameters: Mapping[str, Any], selection: Selection) -> dict[str, Any]:
    """The chosen parameters in the order of the net; by default all that are trained (grad_req is not null)."""
    if selection is None:
        chosen = {name for name, p in parameters.items() if p.grad_req != "null"}
        asked = "trainable parameters (grad_req other than 'null')"
    elif isinstance(selection, str):
        try:
            pattern = re.compile(selection)
        except re.error as error:
            raise ParameterError(f"params={selection!r} is not a regular expression: {error}") from error
        chosen = {name for name, p in parameters.items() if pattern.search(name) and _floating(p)}
        asked = f"parameters whose name matches {selection!r}"
    elif callable(selection):
        chosen = {name for name, p in parameters.items() if selection(p)}
        asked = "parameters accepted by the predicate"
    else:
        chosen = {_known(item, parameters) for item in selection}
        asked = "parameters in the list"
    if not chosen:
        raise ParameterError(f"no {asked}; the net has {', '.join(list(parameters)[:8])}")
    return {name: p for name, p in parameters.items() if name in chosen}


def _known(item: Any, parameters: Mapping[str, Any]) -> str:
    name = item if isinstance(item, str) else getattr(item, "name", None)
    if name not in parameters:
        has = ", ".join(list(parameters)[:8])
        raise ParameterError(f"params lists {name!r}, which is not a parameter of this net; it has {has}")
    return str(name)


def _floating(parameter: Any) -> bool:
    return np.issubdtype(np.dtype(parameter.dtype), np.floating)
