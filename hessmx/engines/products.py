"""The kinds of products, a line each: what is differentiated locally, and what the backward pass starts from.

    z  outputs of the net, u = J v their tangents      l  per-sample losses, t their tangents

    local     parts of the graph whose tangents are differentiated, node by node, by the values that they read
    loss      whether the loss belongs to it, or the net's outputs are the end
    start     what the pass back to the parameters starts from:
                "injections"  what the local passes found at the values
                "tangents"    the losses, weighted by their tangents
                "given"       cotangents of the ends
                ""            nothing: the ends' tangents are the answer
"""

from __future__ import annotations

from dataclasses import dataclass

NET, LOSS = "net", "loss"


@dataclass(frozen=True)
class Product:
    """One kind of product."""

    local: tuple[str, ...] = ()
    loss: bool = True
    start: str = "injections"
    tangents: bool = True  # whether there is a direction


PRODUCTS: dict[str, Product] = {
    "hessian": Product(local=(NET, LOSS)),  # gradient of sum_i t_i
    "ggn": Product(local=(LOSS,)),  # the same with u held fixed
    "residual": Product(local=(NET,)),  # the same with dl/dz held fixed
    "fisher": Product(start="tangents"),  # gradient of sum_i t_i l_i with t_i held fixed
    "slopes": Product(start=""),  # t_i = <g_i, v>
    "jvp": Product(loss=False, start=""),  # u
    "vjp": Product(loss=False, start="given", tangents=False),  # J' r
    "outputs-hessian": Product(local=(NET,), loss=False),  # gradient of <c, u> for given c
}
