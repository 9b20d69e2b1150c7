"""Derivatives of a net's output with respect to its input, sample by sample.

Asked for "the gradient" of a batch of vectors, MXNet returns the gradient of their sum. Here every function says which
number of each sample is differentiated:

    output=None            the output itself where it is one number a sample, else the sum of its entries
    output=2 or (0, 3)     that entry
    output=weights         <weights, z>, weights of the shape of one sample's output
    output=callable        any per-sample function of the output, such as lambda z: loss(z, y)

Samples must not depend on each other (predict mode is used), so one backward pass serves all of them. x is (N, ...)
in the shape the net takes; results are NumPy arrays in the net's dtype.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.compiled import Compiled
from hessmx.engines.plan import Plan
from hessmx.errors import DataError, UnsupportedOps
from hessmx.graph.trace import names
from hessmx.problem.data import Batch, Batches
from hessmx.problem.net import Net
from hessmx.problem.outputs import Output, broadcast, cotangent

_X = names("data", 1)[0]
_READ = object()  # parameters are read only: frozen ones will do


def gradient(net: Any, x: Any, output: Output = None) -> np.ndarray:
    """Gradient (N, *input shape) of one number per sample. One forward and backward pass."""
    return _Question(net, x, output).gradient()


def jacobian(net: Any, x: Any) -> np.ndarray:
    """Jacobian (N, outputs, *input shape): `outputs` gradients."""
    question = _Question(net, x, None)
    count = question.outputs
    rows = [_Question(net, x, index, question).gradient() for index in np.ndindex(*question.plan.output_shapes[0][1:])]
    return np.stack(rows, axis=1).reshape(question.samples, count, *question.x.shape[1:])


def jvp(net: Any, x: Any, v: Any) -> np.ndarray:
    """J v (N, *output shape) for v (N, *input shape) or (*input shape,). One tangent forward pass."""
    return _Question(net, x, None).jvp(v)


def vjp(net: Any, x: Any, r: Any) -> np.ndarray:
    """J' r (N, *input shape) for r (N, *output shape) or (*output shape,). One forward and backward pass."""
    question = _Question(net, x, None)
    return question.pulled(broadcast(question.net, r, question.plan.output_shapes[0], "r"))


def hvp(net: Any, x: Any, v: Any, output: Output = None) -> np.ndarray:
    """Input Hessian times v: (N, *input shape) for v (N, *input shape) or (*input shape,). One product."""
    return _Question(net, x, output).hvp(v)


def hessian(net: Any, x: Any, output: Output = None) -> np.ndarray:
    """Input Hessian (N, *input shape, *input shape): one product per entry of the input."""
    question = _Question(net, x, output)
    shape = question.x.shape[1:]
    columns = [question.hvp(unit.reshape(shape)) for unit in np.eye(int(np.prod(shape)))]
    return np.stack(columns, axis=-1).reshape(question.samples, *shape, *shape)


def mixed(net: Any, x: Any, v: Any, output: Output = None, params: Any = None) -> dict[str, np.ndarray]:
    """d/dw of the derivative of the output along v in the input, summed over samples: parameter name -> its shape.

    With v the unit vector of a pixel this is the influence of that pixel on every weight's gradient. One product.
    """
    return _Question(net, x, output, params=params).mixed(v)


class _Question:
    """One net, one batch, one number per sample."""

    def __init__(self, net: Any, x: Any, output: Output, like: _Question | None = None, params: Any = _READ):
        function = output if callable(output) else None
        self.net: Net = like.net if like else Net(net, _readable(net) if params is _READ else params)
        self.x: Any = like.x if like else _input(Batches([], self.net.dtype, self.net.context), x)
        self.compiled: Compiled = like.compiled if like else Compiled(self.net, function, train=False, seed=0)
        self.batch: Batch = like.batch if like else Batch(0, [self.x], [], kept=True)
        self.plan: Plan = self.compiled.plan(self.batch)
        self.samples = self.x.shape[0]
        self.function = function
        shapes = self.plan.output_shapes
        if len(shapes) != 1 or shapes[0][:1] != (self.samples,):
            raise DataError(
                f"expected a net with one output (N, ...) for {self.samples} samples, but it has outputs of shapes "
                f"{list(shapes)}; wrap it in a Block that returns one of them"
            )
        self.weights = None if function else cotangent(self.net, shapes[0], output)
        self._seeds = [self.weights]  # one object: the linearisation is known by it

    @property
    def outputs(self) -> int:
        return int(np.prod(self.plan.output_shapes[0][1:]))

    def gradient(self) -> np.ndarray:
        if self.function is None:
            return self.pulled(self.weights)
        program, plan = self.compiled.program("loss", self.batch, (_X,))
        program.forward(self.compiled.feeds(self.batch, plan))
        program.backward()
        return self.compiled.flat("gradient", (_X,), plan).read().reshape(self.x.shape)

    def hvp(self, v: Any) -> np.ndarray:
        self._check_rules()
        return self._product(v, _X)

    def jvp(self, v: Any) -> np.ndarray:
        self._check_rules()
        state, _ = self.compiled.linearised("jvp", self.batch, (_X,), ())
        if state is None:
            return np.zeros(self.plan.output_shapes[0], self.net.dtype)
        return state.tangents(self._direction(v))[0].asnumpy()

    def mixed(self, v: Any) -> dict[str, np.ndarray]:
        self._check_rules()
        which = self.net.names
        flat = self._product(v, *which)
        return {name: flat[self.net.slices[name]].reshape(self.net.shapes[name]) for name in which}

    def pulled(self, cotangent: Any) -> np.ndarray:
        """J' r (N, *input shape) of an array of cotangents."""
        state, _ = self.compiled.linearised("vjp", self.batch, (), (_X,))
        if state is None:
            return np.zeros(self.x.shape, self.net.dtype)
        return state.product(None, [cotangent]).reshape(self.x.shape)

    def _product(self, v: Any, *wrt: str) -> np.ndarray:
        """Gradient by `wrt` of the derivative along v in the input of what is asked about."""
        kind, seeds = ("hessian", None) if self.function else ("outputs-hessian", self._seeds)
        state, _ = self.compiled.linearised(kind, self.batch, (_X,), wrt, seeds)
        size = self.x.shape if wrt == (_X,) else (self.net.size,)
        if state is None:
            return np.zeros(size, self.net.dtype)
        return state.product(self._direction(v)).reshape(size)

    def _direction(self, v: Any) -> np.ndarray:
        return broadcast(self.net, v, tuple(self.x.shape), "v").asnumpy().ravel()


    def _check_rules(self) -> None:
        missing = self.plan.missing_rules([_X])
        if missing:
            raise UnsupportedOps("reverse-over-forward", missing, "Register rules for them (docs/adding-a-rule.md)")


def _readable(net: Any) -> str | None:
    """Those that are trained; all where none is."""
    frozen = isinstance(net, mx.gluon.Block) and all(p.grad_req == "null" for p in net.collect_params().values())
    return ".*" if frozen else None


def _input(batches: Batches, x: Any) -> Any:
    array = batches.array(x, "x")
    if not array.shape or array.shape[0] == 0:
        raise DataError(f"x must hold at least one sample on its first axis, but has shape {tuple(array.shape)}")
    return array
