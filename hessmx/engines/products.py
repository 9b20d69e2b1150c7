"""The scalars whose gradient is the answer (one line each), built from the same rewrite.

    l  per-sample losses      t(z, u)  their tangent      z  outputs of the net      u = J v  their tangent

Each function returns the heads of the graph to compile; their backward pass with ones as cotangent (for `vjp`:
with the cotangent itself) sums over the samples.
"""

from __future__ import annotations

from functools import cached_property
from typing import Callable, Mapping

from hessmx._mxnet import mx
from hessmx.engines.tangents import push
from hessmx.graph.node import Graph, Shape
from hessmx.graph.site import ZERO, Tangent, Zero
from hessmx.graph.symbols import Symbol
from hessmx.graph.trace import names


class Parts:
    """z, u, l, t of one net and loss, each built when it is first asked for."""

    def __init__(self, net: Graph, loss: Graph | None, shapes: Mapping[str, Shape], moving: tuple[str, ...]):
        self.net, self.loss, self.shapes = net, loss, shapes
        present = [name for name in moving if name in net.variables]
        self.seeds = {name: mx.sym.Variable(tangent_name(name), shape=shapes[name]) for name in present}

    @cached_property
    def _net(self) -> tuple[list[Symbol], list[Tangent]]:
        primals = {name: mx.sym.Variable(name, shape=self.shapes.get(name)) for name in self.net.variables}
        return push(self.net, self.shapes, primals, self.seeds)

    @property
    def z(self) -> list[Symbol]:
        return self._net[0]

    @property
    def u(self) -> list[Tangent]:
        return self._net[1]

    def through_loss(self, z: list[Symbol], u: list[Tangent]) -> tuple[Symbol, Tangent]:
        """l(z) and t(z, u)."""
        assert self.loss is not None
        outputs = names("output", len(z))
        primals = {name: mx.sym.Variable(name, shape=self.shapes.get(name)) for name in self.loss.variables}
        primals.update(zip(outputs, z))
        values, tangents = push(self.loss, self.shapes, primals, dict(zip(outputs, u)))
        return values[0], tangents[0]


def tangent_name(name: str) -> str:
    return f"{name}__tangent"


def _stop(tangents: list[Tangent]) -> list[Tangent]:
    return [t if isinstance(t, Zero) else mx.sym.BlockGrad(t) for t in tangents]


def _some(tangents: list[Tangent]) -> list[Symbol]:
    """Heads must be Symbols; a ZERO head has no gradient and is left out."""
    return [t for t in tangents if not isinstance(t, Zero)]


def _loss(p: Parts) -> list[Symbol]:
    return [p.through_loss(p.z, [ZERO] * len(p.z))[0]]


def _hessian(p: Parts) -> list[Symbol]:
    return _some([p.through_loss(p.z, p.u)[1]])


def _ggn(p: Parts) -> list[Symbol]:
    return _some([p.through_loss(p.z, _stop(p.u))[1]])


def _residual(p: Parts) -> list[Symbol]:
    return _some([p.through_loss([mx.sym.BlockGrad(z) for z in p.z], p.u)[1]])


def _fisher(p: Parts) -> list[Symbol]:
    """stop(t_i) l_i: its gradient is sum_i <g_i, v> g_i."""
    loss, tangent = p.through_loss(p.z, p.u)
    return _some([tangent if isinstance(tangent, Zero) else mx.sym.elemwise_mul(mx.sym.BlockGrad(tangent), loss)])


def _jvp(p: Parts) -> list[Symbol]:
    if not _some(p.u):
        return []
    return [mx.sym.zeros_like(z) if isinstance(u, Zero) else u for z, u in zip(p.z, p.u)]


PRODUCTS: dict[str, Callable[[Parts], list[Symbol]]] = {
    "loss": _loss,
    "gradient": _loss,
    "hessian": _hessian,
    "ggn": _ggn,
    "residual": _residual,
    "fisher": _fisher,
    "outputs": lambda p: p.z,
    "vjp": lambda p: p.z,
    "jvp": _jvp,
    "slopes": _hessian,  # t_i itself, sample by sample: its head, no backward pass
}
