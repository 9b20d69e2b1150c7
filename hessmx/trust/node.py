"""One application of an operator, alone: its tangent by its rule, and the backward pass of that, against the operator.

    y = op(x)    t  a direction, drawn at random    c  a cotangent, drawn at random    phi = <c, y> + <y, y> / 2

| error     | what is compared                                            | with what                                  |
|-----------|-------------------------------------------------------------|--------------------------------------------|
| tangent   | the rule's tangent of y along t                             | differences of op along t                  |
| adjoint   | <c, tangent>                                                | <MXNet's own backward(c), t>               |
| product   | gradient of <dphi/dy, tangent>: the Hessian of phi times t  | differences of MXNet's own gradient of phi |
| float32   | tangent and product in float32                              | the same in float64                        |

The square in phi makes the product of a linear operator something other than zero. `check_rule` (testing.py) asks at
drawn values, `locate` (locate.py) at those that a net has on its data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.tangents import push
from hessmx.errors import InputError
from hessmx.graph.lower import lower
from hessmx.graph.node import parse
from hessmx.graph.site import Zero
from hessmx.graph.symbols import _handle, call, scope
from hessmx.trust.layouts import alone, local_pass

Arrays = Sequence[np.ndarray]

# Central difference of order six: with STEP, truncation and rounding both stay near 1e-12 of a first derivative.
STEP = 5e-4
STENCIL = tuple((sign * k, sign * w) for k, w in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)) for sign in (1, -1))
SURE = 1e-3  # entries that two steps give this far apart, relative to the largest, sit on a kink


@dataclass(frozen=True)
class RuleCheck:
    """Largest errors found, relative to the largest entry of the truth; NaN where a comparison means nothing."""

    op: str
    tangent: float
    adjoint: float
    product: float
    float32: float


@dataclass(frozen=True)
class Call:
    """The operator, its inputs, and what is asked of it."""

    op: str
    inputs: tuple
    attrs: Mapping[str, str]
    movable: tuple  # the inputs that can move
    wrt: tuple  # those of them that do
    outputs: tuple | None
    train: bool
    symmetric: tuple
    kink: bool
    own_gradient: bool
    seed: int
    step: float
    single: bool
    own_values: bool = False  # those of a net: directions are scaled to them, and entries at kinks are left out
    blocked: bool = False  # and float32 inputs are in oneDNN's layout

    @property
    def numpy(self) -> bool:
        return self.op.startswith(("_np_", "_npi_", "_npx_"))

    def filled(self, moving: Arrays) -> list[np.ndarray]:
        values = list(self.inputs)
        for i, value in zip(self.wrt, moving):
            values[i] = np.asarray(value, dtype=self.inputs[i].dtype)
        return values

    def chosen(self, ys: Sequence[Any]) -> list[Any]:
        """The outputs that carry a gradient: those asked for, or all floating ones."""
        picked = range(len(ys)) if self.outputs is None else self.outputs
        return [ys[j] for j in picked if np.dtype(ys[j].dtype).kind == "f"]

    def scaled(self, direction: np.ndarray, x: np.ndarray) -> np.ndarray:
        size = float(np.sqrt(np.mean(np.square(x, dtype=np.float64)))) if self.own_values and x.size else 1.0
        return direction * (size or 1.0)

    def symmetrised(self, arrays: Arrays) -> list[np.ndarray]:
        return [(a + np.swapaxes(a, -1, -2)) / 2 if i in self.symmetric else a for i, a in zip(self.wrt, arrays)]


def check_node(case: Call) -> RuleCheck:
    """Errors of one application; `case` says which parts mean something there."""
    rng = np.random.default_rng(case.seed)
    point = [case.inputs[i] for i in case.wrt]
    t = case.symmetrised([case.scaled(_random(rng, x.shape), x) for x in point])
    own = _Own(case)
    values = own.forward(point)
    if not values:
        raise InputError(f"{case.op} has no floating output to differentiate")
    c = [_random(rng, y.shape) for y in values]
    tangent, product = _Ruled(case).run(point, t, c)
    product = case.symmetrised(product)
    adjoint = off = off_product = float("nan")
    if case.own_gradient:
        adjoint = _adjoint_error(c, tangent, own.gradient(point, c), t)
    if not case.kink:
        off = _error(tangent, *_surely(case, own.forward, point, t))
        off_product = _product_error(case, own, point, t, c, product, rng)
    elif not all(np.isfinite(p).all() for p in product):
        off_product = float("inf")
    single = _in_float32(case, point, t, c, tangent, product) if case.single else float("nan")
    return RuleCheck(case.op, off, adjoint, off_product, single)


def _adjoint_error(c: Arrays, tangent: Arrays, gradient: Arrays, t: Arrays) -> float:
    """|<c, tangent> - <gradient, t>| relative to the sum of the sizes of what is added, which may cancel."""
    size = sum(float(np.sum(np.abs(g * d))) for g, d in zip(gradient, t))
    error = abs(_inner(c, tangent) - _inner(gradient, t)) / (size if size > 1e-7 else 1.0)
    return error if np.isfinite(error) else float("inf")


def _product_error(
    case: Call, own: _Own, point: Arrays, t: Arrays, c: Arrays, product: Arrays, rng: np.random.Generator
) -> float:
    """Without a gradient to take differences of: <a, product> against second differences of phi along three a."""
    if case.own_gradient:
        true, sure = _surely(case, lambda x: own.phi_gradient(x, c), point, t)
        return _error(product, case.symmetrised(true), sure)
    step = 8 * case.step  # second differences divide rounding errors by its square
    found, true = [], []
    for _ in range(3):
        a = case.symmetrised([_random(rng, x.shape) for x in point])
        true += _along(partial(_phi_slope, own, c, a, step), point, t, step)
        found.append(np.asarray(_inner(a, product)))
    return _error(found, true)


def _phi_slope(own: _Own, c: Arrays, a: Arrays, step: float, x: Arrays) -> list[np.ndarray]:
    return _along(lambda z: own.phi(z, c), x, a, step)


def _in_float32(case: Call, point: Arrays, t: Arrays, c: Arrays, tangent: Arrays, product: Arrays) -> float:
    if case.own_values:
        node = alone(_graph(case, {f"x{i}": x.shape for i, x in enumerate(case.inputs)}, True))
        if node is not None and len(node.inputs) == len(case.inputs):
            passes = [
                local_pass(node, case.filled(point), case.wrt, t, c, case.train, dtype, case.blocked)
                for dtype in (np.float32, np.float64)
            ]
            return max((_error([a], [b]) for a, b in zip(*passes)), default=0.0)
    small = _Ruled(case, np.float32).run(point, t, c)
    return max(_error(small[0], tangent), _error(case.symmetrised(small[1]), product))


class _Own:
    """The operator as MXNet runs it, imperatively."""

    def __init__(self, case: Call):
        self.case = case

    def _run(self, values: Arrays, record: bool) -> tuple[list[Any], list[Any]]:
        inputs = [_array(value) for value in values]
        for i in self.case.movable:  # all of them: where only some need one, MXNet gets several gradients wrong
            inputs[i].attach_grad()
        keys, texts = list(self.case.attrs), list(self.case.attrs.values())
        with mx.autograd._RecordingStateScope(record, self.case.train):
            ys = mx._ctypes.ndarray._imperative_invoke(_handle(self.case.op), inputs, keys, texts, None, False, True)
        return [inputs[i] for i in self.case.wrt], self.case.chosen(ys)

    def forward(self, moving: Arrays) -> list[np.ndarray]:
        return [_numpy(y) for y in self._run(self.case.filled(moving), False)[1]]

    def gradient(self, moving: Arrays, heads: Arrays) -> list[np.ndarray]:
        xs, ys = self._run(self.case.filled(moving), True)
        mx.autograd.backward(ys, [_array(h, y.dtype) for h, y in zip(heads, ys)], train_mode=self.case.train)
        return [_numpy(x.grad) for x in xs]

    def phi(self, moving: Arrays, c: Arrays) -> list[np.ndarray]:
        ys = self.forward(moving)
        return [np.asarray(_inner(c, ys) + _inner(ys, ys) / 2)]

    def phi_gradient(self, moving: Arrays, c: Arrays) -> list[np.ndarray]:
        return self.gradient(moving, [a + y for a, y in zip(c, self.forward(moving))])


class _Ruled:
    """The operator, lowered and with tangents pushed through it, bound to arrays of one dtype."""

    def __init__(self, case: Call, dtype: Any = None):
        self.case = case
        self.dtypes = {f"x{i}": dtype if dtype and x.dtype.kind == "f" else x.dtype for i, x in enumerate(case.inputs)}
        self.shapes = {f"x{i}": x.shape for i, x in enumerate(case.inputs)}
        with scope():
            graph = _graph(case, self.shapes, any(kind == np.float64 for kind in self.dtypes.values()))
            primals = {name: mx.sym.Variable(name, shape=self.shapes[name]) for name in graph.variables}
            seeds = {f"x{i}": mx.sym.Variable(f"t{i}", shape=self.shapes[f"x{i}"]) for i in case.wrt}
            self.ys, self.us = push(graph, self.shapes, primals, seeds)

    def run(self, point: Arrays, t: Arrays, c: Arrays) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Tangents of the outputs, and the Hessian of phi times t.

        The outputs come first in the graph: what reads the inputs after the operator must not spoil its backward pass.
        """
        arrays = {f"x{i}": _array(x, self.dtypes[f"x{i}"]) for i, x in enumerate(self.case.filled(point))}
        arrays.update({f"t{i}": _array(v, self.dtypes[f"x{i}"]) for i, v in zip(self.case.wrt, t)})
        heads: list[Any] = []
        moved = []
        for (j, dtype), cotangent in zip(self._picked().items(), c):
            moved.append(not isinstance(self.us[j], Zero))
            if moved[-1]:
                arrays[f"c{j}"] = _array(cotangent, dtype)
                slope = mx.sym.elemwise_add(mx.sym.Variable(f"c{j}", shape=cotangent.shape), self.ys[j])
                heads += [mx.sym.elemwise_mul(slope, self.us[j]), mx.sym.BlockGrad(self.us[j])]
        outputs, products = self._bound(heads, arrays, point) if heads else ([], [np.zeros(x.shape) for x in point])
        tangents = iter(outputs[1::2])
        return [next(tangents) if moves else np.zeros(a.shape) for moves, a in zip(moved, c)], products

    def _picked(self) -> dict[int, np.dtype]:
        """The outputs that carry a gradient, and their dtypes."""
        symbol = mx.sym.Group(self.ys)
        known = {name: dtype for name, dtype in self.dtypes.items() if name in symbol.list_arguments()}
        kinds = [np.dtype(kind) for kind in symbol.infer_type(**known)[1]]
        return {j: kind for j, kind in enumerate(kinds) if kind.kind == "f"}

    def _bound(
        self, heads: list[Any], arrays: Mapping[str, Any], point: Arrays
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        symbol = mx.sym.Group(heads)
        arguments, auxiliary = symbol.list_arguments(), symbol.list_auxiliary_states()
        names = [f"x{i}" for i in self.case.movable if f"x{i}" in arguments]
        executor = symbol.bind(
            mx.cpu(),
            {name: arrays[name] for name in arguments},
            args_grad={name: mx.nd.zeros_like(arrays[name]) for name in names},
            grad_req={name: "write" if name in names else "null" for name in arguments},
            aux_states={name: arrays[name] for name in auxiliary},
        )
        outputs = [_numpy(y) for y in executor.forward(is_train=True)]
        executor.backward([mx.nd.ones_like(y) for y in executor.outputs])
        found = {name: _numpy(executor.grad_dict[name]) for name in names}
        return outputs, [found.get(f"x{i}", np.zeros(x.shape)) for i, x in zip(self.case.wrt, point)]


def _graph(case: Call, shapes: Mapping[str, tuple], double: bool) -> Any:
    variables = [mx.sym.Variable(name, shape=shape) for name, shape in shapes.items()]
    ys = call(case.op, variables, case.attrs)
    traced = parse(mx.sym.Group(ys if case.outputs is None else [ys[j] for j in case.outputs]))
    lowered, draws = lower(traced, shapes, case.train, double=double)
    if draws:
        raise InputError(f"{case.op} draws random numbers here: it has no fixed derivative to compare with")
    return lowered


def _array(value: np.ndarray, dtype: Any = None) -> Any:
    value = np.asarray(value, dtype=dtype)
    if value.ndim:
        return mx.nd.array(value, dtype=value.dtype)
    return mx.np.array(value, dtype=value.dtype).as_nd_ndarray()


def _numpy(array: Any) -> np.ndarray:
    return array.asnumpy().astype(np.float64)


def _random(rng: np.random.Generator, shape: tuple) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(0.5, 1.5, shape)


def _inner(left: Arrays, right: Arrays) -> float:
    return float(sum(np.sum(a * b) for a, b in zip(left, right)))


def _along(function: Callable[[Arrays], Arrays], point: Arrays, direction: Arrays, step: float) -> list[np.ndarray]:
    """Directional derivative of a function of arrays, entry by entry; truncation error of order step**6."""
    terms = [[w / step * y for y in function([x + k * step * d for x, d in zip(point, direction)])] for k, w in STENCIL]
    return [np.asarray(sum(parts)) for parts in zip(*terms)]


def _surely(
    case: Call, function: Callable[[Arrays], Arrays], point: Arrays, direction: Arrays
) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """Directional derivative, and at a net's own values where it is sure: at kinks two steps differ."""
    true = _along(function, point, direction, case.step)
    if not case.own_values:
        return true, None
    step = case.step / 8
    near = _along(function, point, direction, step)
    left, here, right = (function([x + k * step * d for x, d in zip(point, direction)]) for k in (-1, 0, 1))
    sure = []
    for a, b, low, mid, high in zip(true, near, left, here, right):
        allowed = SURE * np.abs(b).max(initial=1e-300)
        bent = np.abs(high + low - 2 * mid) / step  # where the value itself sits on a kink, both steps agree
        sure.append((np.abs(a - b) <= allowed) & (bent <= allowed + 1e-14 / step * np.abs(mid)))
    return near, sure


def _error(found: Arrays, true: Arrays, sure: Arrays | None = None) -> float:
    """Largest difference relative to the largest entry of the truth; absolute where the truth is zero."""
    if sure is not None:
        found, true = ([np.where(k, a, 0.0) for a, k in zip(arrays, sure)] for arrays in (found, true))
    largest = np.max([0.0] + [np.abs(b).max() for b in true if b.size])
    worst = np.max([0.0] + [np.abs(a - b).max() for a, b in zip(found, true) if b.size])
    error = float(worst / (largest if largest > 1e-7 else 1.0))
    return error if np.isfinite(error) else float("inf")
