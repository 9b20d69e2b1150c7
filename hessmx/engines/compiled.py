"""From a batch to a program: traces the net and the loss, plans each batch shape once, compiles each product once."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx._threads import alone
from hessmx.engines.frozen import Frozen
from hessmx.engines.kept import Kept
from hessmx.engines.linearised import Linearised, State
from hessmx.engines.plan import Plan, make_plan
from hessmx.engines.products import PRODUCTS
from hessmx.engines.program import Flat, Program
from hessmx.engines.whole import end_symbols, join
from hessmx.errors import DataError
from hessmx.graph.node import Graph, build
from hessmx.graph.symbols import scope
from hessmx.graph.trace import Piece, flatten, names, trace_loss, trace_net
from hessmx.problem.code import Code
from hessmx.problem.data import Batch
from hessmx.problem.labels import check_classes
from hessmx.problem.net import Net, is_sparse
from hessmx.problem.notices import refuse_wrong_values


class Compiled:
    """The programs of one net and one loss.

    held   name -> array for some parameters; the others are the user's own arrays (read only), so that training
           on shows in the next product
    dtype  of the arithmetic; by default the net's own (float32 for float16 nets, whose values are kept)
    """

    def __init__(
        self,
        net: Net,
        loss: Callable[..., Any] | None,
        train: bool,
        seed: int,
        held: Mapping[str, Any] | None = None,
        dtype: Any = None,
    ):
        self.net, self.loss, self.train, self.seed = net, loss, train, seed
        self.dtype = None if dtype is None else np.dtype(dtype)
        self._given = held  # missing ones are the net's own
        self._code = Code(net.block, loss)
        self._flats: dict[Any, Flat] = {}
        self.frozen = Frozen(net, self._wanted)
        self.kept = Kept()
        self._handles: list[Any] = []
        self._arrays = net.handles()
        self._start()

    def _start(self) -> None:
        """Trace and compile anew from here on."""
        self._pieces: tuple[Piece, Piece | None] | None = None
        self._taped: dict[int, tuple[Batch, tuple[Piece, Piece | None], int | None]] = {}
        self._plans: dict[Any, Plan] = {}
        self._lifted: dict[str, Any] = {}
        self._drawn: dict[int, tuple[Batch, Plan, dict[str, Any]]] = {}
        self._checked: dict[int, Batch] = {}
        self._values: int | None = None
        self.kept.clear()

    def forget(self) -> None:
        """Let go of batches that will not come again; graphs and programs stay."""
        for kept in (self._taped, self._drawn, self._checked):
            kept.clear()

    # -- tracing and planning

    def _renew(self) -> None:
        """Forget what was traced if Python's side of the net or the loss has changed since."""
        self._values = None
        arrays, changed = self.net.handles(), self._code.changed()
        if changed or len(arrays) != len(self._arrays) or any(a is not b for a, b in zip(arrays, self._arrays)):
            self.net.check_same()
            self._arrays = arrays
        if changed:
            self._start()

    def _digest(self) -> int:
        """Of the parameters' values, as they are for the plan in hand."""
        if self._values is None:
            self._values = self.net.digest(self._given or {})
        return self._values

    def share_pieces(self, other: Compiled) -> None:
        """Take over what another has traced; graphs that hold for some values only say so."""
        self._pieces, self._taped = other._pieces, other._taped

    def pieces(self, batch: Batch) -> tuple[Piece, Piece | None]:
        """Graphs of net and loss; those off a tape hold for one batch and are recorded for each."""
        if self._pieces is not None:
            return self._pieces
        place = batch.index if batch.kept else -1  # of those that are not kept only the one in hand
        known = self._taped.get(place)
        if known is not None and known[0] is batch and known[2] in (None, self._digest()):
            return known[1]
        pieces = self._trace(batch)
        if not any(piece is not None and piece.taped for piece in pieces):
            self._pieces = pieces
        else:
            fixed = any(piece is not None and piece.values for piece in pieces)
            self._taped[place] = (batch, pieces, self._digest() if fixed else None)
        return pieces

    def _trace(self, batch: Batch) -> tuple[Piece, Piece | None]:
        loss, given = None, self._given or {}
        own = {name: array.astype(self.net.all[name].dtype) for name, array in given.items() if name in self.net.all}
        if mx.util.is_np_array():
            own = {name: array.as_np_ndarray() for name, array in own.items()}
        with Code(self.net.block, self.loss).kept():
            with self.net.lent({name: array.copy() for name, array in own.items()}) as parameters:
                net = trace_net(self.net.block, [x.copy() for x in batch.inputs], parameters, self.train)
            self.net.check_unwritten(parameters, own, net.graph.variables)
            if self.loss is not None:
                loss = trace_loss(self.loss, net.result, batch.labels, lambda: self._run(net, batch, own), self.train)
        return net, loss

    def _run(self, net: Piece, batch: Batch, given: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
        """Outputs of the net on a batch, and the labels, as arrays off any tape."""
        if net.taped:
            outputs = [leaf.detach() for leaf in flatten(net.result)]
        else:
            arrays = {**{name: self.net.array(name) for name in self.net.all}, **given}
            arrays.update(zip(names("data", len(batch.inputs)), batch.inputs))
            outputs = evaluate(net.graph, arrays, self.net.context)
        return outputs, [label.copy() for label in flatten(batch.labels)]

    @alone
    def plan(self, batch: Batch) -> Plan:
        """Lowered graphs and shapes for this batch."""
        self._renew()
        net, loss = self.pieces(batch)
        arrays = self._batch_arrays(batch)
        signature = tuple((name, tuple(a.shape), str(a.dtype)) for name, a in arrays.items())
        key = (signature, net.taped and net.graph.digest, loss is not None and loss.taped and loss.graph.digest)
        if key not in self._plans:
            shapes = {name: tuple(self.net.array(name).shape) for name in self.net.all}
            shapes.update({name: tuple(a.shape) for name, a in arrays.items()})
            double = all(self._wanted(np.dtype(p.dtype)) == np.float64 for p in self.net.all.values())
            try:
                graph = None if loss is None else loss.graph
                refuse_wrong_values(net.graph, shapes, self.net.dtype)
                self._plans[key] = make_plan(net.graph, graph, shapes, self.train, double)
            except mx.base.MXNetError as error:
                raise DataError(_shape_message(error, batch)) from error
        return self._plans[key]

    # -- running

    @alone
    def linearised(
        self, kind: str, batch: Batch, moving: Sequence[str], wrt: Sequence[str], seeds: Any = None
    ) -> tuple[State | None, Plan]:
        """The product `kind`, linearised at the parameters and the batch as they are; None where it is zero.

        moving  variables that directions have entries for
        wrt     variables that gradients are taken by
        seeds   cotangents of the net's outputs, where the product has no loss
        """
        plan = self.plan(batch)
        linearised = self.graphs(kind, plan, moving, wrt)
        if linearised.is_zero:
            return None, plan
        tangent = self.flat("tangent", linearised.moving, plan) if linearised.product.tangents else None
        state = self.kept.state(linearised, batch.index, lambda: State(linearised, tangent))
        at_hand = state.epoch == self.frozen.epoch and self.kept.is_trusted(state, batch, seeds)
        if not (batch.kept and at_hand):
            layout, held = self.frozen.layout, self.frozen.refresh()
            if self.frozen.layout != layout:  # a parameter has another shape or dtype now
                self.net.check_same()
                self._plans.clear()
                self.kept.clear()
                return self.linearised(kind, batch, moving, wrt, seeds)
            feeds = self.feeds(batch, plan)
            if not state.holds(feeds, self.frozen.epoch, seeds):
                state.linearise(held, feeds, self.frozen.epoch, seeds)
            self.kept.trust(state, batch, seeds)
        return state, plan

    def graphs(self, kind: str, plan: Plan, moving: Sequence[str], wrt: Sequence[str]) -> Linearised:
        """What a linearised product needs before it has seen any value, made once."""
        key = (kind, tuple(moving), tuple(wrt))
        if key not in plan.linearised:
            plan.linearised[key] = Linearised(PRODUCTS[kind], plan, moving, wrt, self.net.context)
        return plan.linearised[key]

    @alone
    def program(self, kind: str, batch: Batch, wrt: Sequence[str] = ()) -> tuple[Program, Plan]:
        """A program of first order: "loss" or "outputs", and with `wrt` their gradients."""
        self._refresh()
        plan = self.plan(batch)
        key = (kind, tuple(wrt))
        if key not in plan.programs:
            with scope():
                heads = end_symbols(join(plan, kind == "loss"), plan.shapes)
                gradients = self.flat("gradient", wrt, plan).views if wrt else {}
                plan.programs[key] = Program(heads, self._held(), self.feeds(batch, plan), gradients, self.net.context)
        return plan.programs[key], plan

    def flat(self, role: str, which: Sequence[str], plan: Plan) -> Flat:
        """The buffer of tangents or gradients of the named variables, shared by all programs."""
        shapes = {name: plan.shapes[name] for name in which}
        key = (role, tuple(shapes.items()))
        if key not in self._flats:
            held, other = self._held(), self.dtype or self.net.dtype  # data has the net's dtype
            dtypes = {name: np.dtype(held[name].dtype if name in held else other) for name in which}
            self._flats[key] = Flat(shapes, dtypes, self.net.context)
        return self._flats[key]

    def feeds(self, batch: Batch, plan: Plan) -> dict[str, Any]:
        arrays = {**self._batch_arrays(batch), **self._draws(batch, plan)}
        if self._checked.get(batch.index) is not batch:
            check_classes(plan.classes, arrays, batch.index, lambda changed: self._losses(plan, changed))
            if batch.kept:  # what is not kept must not be held on to: memory stays that of one batch
                self._checked[batch.index] = batch
        return arrays

    def _losses(self, plan: Plan, arrays: Mapping[str, Any]) -> np.ndarray:
        """Losses of outputs that are drawn at random: what they have to do with the labels."""
        assert plan.loss is not None
        generator, dtype = np.random.default_rng(0), self.dtype or self.net.dtype
        outputs = {
            name: mx.nd.array(generator.normal(size=shape), ctx=self.net.context, dtype=dtype)
            for name, shape in zip(names("output", len(plan.output_shapes)), plan.output_shapes)
        }
        return evaluate(plan.loss, {**arrays, **outputs}, self.net.context)[0].asnumpy()

    def _batch_arrays(self, batch: Batch) -> dict[str, Any]:
        net, loss = self.pieces(batch)
        arrays = dict(zip(names("data", len(batch.inputs)), batch.inputs))
        labels = flatten(batch.labels)
        arrays.update(zip(names("label", len(labels)), labels))
        arrays.update(net.constants)
        arrays.update(loss.constants if loss is not None else {})
        return {name: self._in_dtype(array) for name, array in arrays.items()}

    def _draws(self, batch: Batch, plan: Plan) -> dict[str, Any]:
        """Random inputs: fixed by the seed, the batch's place and the node's, the same in every pass."""
        if not plan.draws:
            return {}
        known = self._drawn.get(batch.index)
        if known is not None and known[0] is batch and known[1] is plan:
            return known[2]
        made, dtype = {}, self.dtype or self.net.dtype
        for place, draw in enumerate(plan.draws):
            generator = np.random.default_rng([self.seed, batch.index, place])
            made[draw.name] = mx.nd.array(draw.sample(generator), ctx=self.net.context, dtype=dtype)
        if batch.kept:
            self._drawn[batch.index] = (batch, plan, made)
        return made

    # -- parameters

    def dtypes(self) -> dict[str, np.dtype]:
        """Of the selected parameters, as computed with."""
        held = self._held()
        return {name: np.dtype(held[name].dtype) for name in self.net.names}

    def parameters(self) -> Mapping[str, Any]:
        """All parameters as computed with, as they are now."""
        self._refresh()
        return self._held()

    def _held(self) -> Mapping[str, Any]:
        arrays = {name: self.net.array(name) for name in self.net.all}
        for name, array in arrays.items():
            if array.dtype != self._wanted(array.dtype) or is_sparse(self.net.all[name]):
                arrays[name] = self._lifted.setdefault(name, array.astype(self._wanted(array.dtype)))
        return {**arrays, **(self._given or {})}

    def _wanted(self, dtype: Any) -> Any:
        """The dtype to compute in for data of `dtype`; whole numbers stay what they are."""
        if not np.issubdtype(dtype, np.floating):
            return dtype
        return self.dtype or (np.float32 if dtype == np.float16 else dtype)

    def _in_dtype(self, array: Any) -> Any:
        wanted = self._wanted(array.dtype)
        return array if array.dtype == wanted else array.astype(wanted)

    def _refresh(self) -> None:
        """Compile anew where a parameter was given another array; copy those computed with in another dtype."""
        handles = self.net.handles()
        if len(handles) != len(self._handles) or any(a is not b for a, b in zip(handles, self._handles)):
            self.net.check_same()
            self._handles = handles
            self._lifted.clear()
            for plan in self._plans.values():
                plan.programs.clear()
        for name, lifted in self._lifted.items():
            if name not in (self._given or {}):
                lifted[:] = self.net.array(name).astype(lifted.dtype)


def evaluate(graph: Graph, arrays: Mapping[str, Any], context: Any) -> list[Any]:
    """Values of a graph's heads, predict mode, nothing kept."""
    with scope():
        outputs = build(graph, {name: mx.sym.Variable(name) for name in graph.variables})
        symbol = mx.sym.Group([outputs[i][j] for i, j in graph.heads])
        arguments = {name: arrays[name] for name in symbol.list_arguments()}
        auxiliary = {name: arrays[name].copy() for name in symbol.list_auxiliary_states()}
        executor = symbol.bind(context, arguments, grad_req="null", aux_states=auxiliary)
        return [output.copy() for output in executor.forward(is_train=False)]


def _shape_message(error: BaseException, batch: Batch) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if "Error in operator" in line), lines[-1] if lines else "")
    shapes = [tuple(x.shape) for x in batch.inputs], [tuple(y.shape) for y in flatten(batch.labels)]
    return f"inputs of shapes {shapes[0]} and labels of shapes {shapes[1]} do not fit the net and the loss: {reason}"
