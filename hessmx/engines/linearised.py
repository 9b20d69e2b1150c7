"""Linearised products: values and adjoints once for parameters and a batch, then three runs for every direction.

    z, a    values of all entries that matter, and adjoints: the gradient of the losses' sum by them
    1       tangents, node by node, with values as constants; every curved node's reaching tangents are stopped
    2       their backward pass from the adjoints: one small local pass a node, which gives what each node owes to its
            parameters and to the values that it read (the *injections*)
    3       one ordinary backward pass of the user's graph carries the injections to the parameters

H v is what 2 and 3 give together: the chain rule, taken apart by nodes (Griewank & Walther 2008, section 5.2). By count
of operations 6 forward passes; once for parameters and a batch 3 (a gradient: 3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any, Mapping, Sequence

import numpy as np

from hessmx._mxnet import memory, mx, ready_memory
from hessmx._threads import end_own_team
from hessmx.engines.frozen import same
from hessmx.engines.local import Local, push_locally
from hessmx.engines.plan import Plan
from hessmx.engines.products import Product
from hessmx.engines.program import Flat, Program
from hessmx.engines.recorded import Recording, Tape, added_name
from hessmx.engines.tangents import tangent_name
from hessmx.engines.whole import Whole, join
from hessmx.graph.site import Zero
from hessmx.graph.symbols import scope


class Linearised:
    """What does not depend on values: the graphs of one kind of product, for directions `moving`, gradients `wrt`."""

    def __init__(self, product: Product, plan: Plan, moving: Sequence[str], wrt: Sequence[str], context: Any):
        self.product, self.plan, self.context = product, plan, context
        self.whole: Whole = join(plan, product.loss)
        present = {node.name for i, node in enumerate(self.whole.nodes) if node.op is None and i in self.whole.needed}
        self.moving, self.wrt = tuple(moving), tuple(wrt)
        self.present = [name for name in wrt if name in present]
        with scope():
            moved = [name for name in moving if name in present] if product.tangents else []
            self.local: Local = push_locally(self.whole, product, plan.shapes, moved, self.present)
            read, added = list(self.local.read.values()), list(self.local.curved)
            injected = [entry for name, entry in self.local.read.items() if name in self.local.injected]
            self.recording = Recording(self.whole, read, injected, added)
        # gradients that are asked for: of the parameters, of the curved entries, and of what must be asked beside them
        self.asked = self.recording.beside(self.present) if product.start else []
        self.adjoined = self.recording.beside([added_name(entry) for entry in added]) if added else []
        self._zeros: dict[str, Any] = {}
        self.is_zero = self._is_zero()

    def _is_zero(self) -> bool:
        if self.product.local:
            return not self.local.curved
        if self.product.tangents and all(isinstance(t, Zero) for t in self.local.ends):
            return True
        reached = self.whole.reached_by(self.present)
        return self.product.start != "" and not any(i in reached for i, _ in self.whole.ends)

    def zeros(self, types: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays that are added in the recording: views of one piece of memory for each dtype."""
        if not self._zeros and self.recording.added:
            shapes = {added_name(entry): self.whole.shapes[entry] for entry in self.recording.added}
            found = self.recording.types(types)
            for dtype in set(found.values()):
                names = [name for name in shapes if found[name] == dtype]
                flat = mx.nd.zeros((max(prod(shapes[name]) for name in names),), ctx=self.context, dtype=dtype)
                self._zeros.update((name, flat[: prod(shapes[name])].reshape(shapes[name])) for name in names)
        return self._zeros

    def heads(self) -> list[Any]:
        """What the tangents' program gives: the curved nodes' tangents, or the ends'."""
        if self.product.local:
            return list(self.local.curved.values())
        ends = zip(self.local.ends, self.whole.ends)
        return [mx.sym.zeros(shape=self.whole.shapes[e]) if isinstance(t, Zero) else t for t, e in ends]


@dataclass
class State:
    """A linearisation at one point: `linearise` makes it, `product` and `tangents` use it.

    tangent  the buffer of directions
    """

    linearised: Linearised
    tangent: Flat | None
    epoch: int = -1
    feeds: dict[str, Any] = field(default_factory=dict)  # copies: what the batch held when it was linearised at
    values: list[Any] = field(default_factory=list)
    adjoints: list[Any] = field(default_factory=list)
    program: Program | None = None
    tape: Tape | None = None
    _seeds: Any = None
    _own: dict[str, Any] = field(default_factory=dict)
    _injections: dict[str, Any] = field(default_factory=dict)

    # -- linearising

    def holds(self, feeds: Mapping[str, Any], epoch: int, seeds: Any) -> bool:
        """Whether it stands at these parameters (told by their epoch), this batch and these seeds."""
        return (
            self.epoch == epoch
            and seeds is self._seeds
            and all(same(feeds[name], copy) for name, copy in self.feeds.items())
        )

    def linearise(self, held: Mapping[str, Any], feeds: Mapping[str, Any], epoch: int, seeds: Any = None) -> None:
        """Values and adjoints; `seeds` are cotangents of the ends (ones by default)."""
        end_own_team()
        self.epoch = -1  # an interrupt leaves nothing that looks right
        self._take(feeds)
        lin, recording = self.linearised, self.linearised.recording
        arrays = {**held, **self.feeds}
        arrays.update(lin.zeros({name: array.dtype for name, array in arrays.items()}))
        arrays.update({name: arrays[name].copy() for name in recording.auxiliary})
        marked = list(dict.fromkeys([*lin.asked, *lin.adjoined]))
        self.tape = Tape(recording, arrays, marked, self.values or None)
        self.values = self.values or [output.detach() for output in self.tape.outputs]
        if lin.adjoined:
            ends = self.tape.outputs[len(recording.read) :]
            cotangents = [mx.nd.ones_like(end) for end in ends] if seeds is None else list(seeds)
            found = self.tape.backward(cotangents, lin.adjoined, first=len(recording.read))
            self.adjoints = found[: len(recording.added)]
        self._bind(arrays)
        self.epoch, self._seeds = epoch, seeds

    def _take(self, feeds: Mapping[str, Any]) -> None:
        needed = {name for name in self.linearised.recording.inputs if name in feeds}
        for name in needed:
            if name in self.feeds:
                memory(self.feeds[name])[...] = memory(feeds[name])
            else:
                self.feeds[name] = feeds[name].copy()

    def _bind(self, arrays: Mapping[str, Any]) -> None:
        """The tangents' program over the arrays that keep the values: bound once."""
        if self.program is not None or not self.linearised.product.tangents:
            return
        lin, local = self.linearised, self.linearised.local
        values = dict(zip(local.read, self.values))
        assert self.tangent is not None
        held = {**arrays, **values, **{tangent_name(name): view for name, view in self.tangent.views.items()}}
        self._injections = {name: mx.nd.zeros_like(values[name]) for name in local.read if name in local.injected}
        self._own = {name: mx.nd.zeros_like(arrays[name]) for name in lin.wrt if name in local.own}
        with scope():
            self.program = Program(lin.heads(), held, {}, {**self._injections, **self._own}, lin.context)

    # -- products

    def tangents(self, vector: np.ndarray) -> list[Any]:
        """The ends' tangents along a direction; overwritten by the next call."""
        found = self._forward(vector)
        mx.nd.waitall()  # the buffer of directions must not be read any more when the next one is written
        return found

    def product(self, vector: np.ndarray | None, given: Sequence[Any] = ()) -> np.ndarray:
        """The product with a direction, or of `given` cotangents of the ends: a new vector over `wrt`."""
        start = self.linearised.product.start
        assert self.tape is not None
        if start == "given":
            return self._gathered(self.tape.backward(list(given), self.linearised.asked))
        assert vector is not None
        heads = self._forward(vector)
        if start == "tangents":
            weights = [_over_samples(t) for t in heads]
            return self._gathered(self.tape.backward([*self._dummies(), *weights], self.linearised.asked))
        assert self.program is not None
        self.program.backward(self.adjoints)
        through = self.tape.backward(self._dummies(), self.linearised.asked) if self._injections else []
        return self._gathered(through)

    def _forward(self, vector: np.ndarray) -> list[Any]:
        assert self.program is not None and self.tangent is not None
        self.tangent.load(vector, idle=True)
        with self.program.threads():
            return self.program.forward({})

    def _dummies(self) -> list[Any]:
        """Cotangents of the values: the injections, and anything at all for those behind a BlockGrad."""
        return [self._injections.get(name, value) for name, value in zip(self.linearised.local.read, self.values)]

    def _gathered(self, through: Sequence[Any]) -> np.ndarray:
        """What came through the graph and what local passes gave, in one vector over `wrt`."""
        lin = self.linearised
        found = dict(zip(lin.asked, through))
        parts = [(found.get(name), self._own.get(name)) for name in lin.wrt]
        mx.nd.waitall()
        shapes = [lin.plan.shapes[name] for name in lin.wrt]
        dtype = np.result_type(np.float32, *(a.dtype for pair in parts for a in pair if a is not None))
        result, start = np.empty(sum(map(prod, shapes)), dtype), 0
        for (a, b), shape in zip(parts, shapes):
            target = result[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
            if a is not None and b is not None:
                np.add(ready_memory(a), ready_memory(b), out=target)
            else:
                some = a if a is not None else b
                target[...] = 0 if some is None else ready_memory(some)
        return result

    @property
    def bytes(self) -> int:
        """Memory that it keeps, roughly: values on the tape, adjoints, tangents, injections."""
        arrays = [*self.values, *self.adjoints, *self.adjoints, *self.adjoints, *self._injections.values()]
        return sum(a.size * np.dtype(a.dtype).itemsize for a in arrays)


def _over_samples(tangents: Any) -> Any:
    """Tangents of the per-sample losses, where a sample's loss has entries: of their sum, at each entry."""
    if len(tangents.shape) < 2:
        return tangents
    return mx.nd.broadcast_like(mx.nd.sum(tangents, axis=0, exclude=True, keepdims=True), tangents)
