"""Loss layers of the symbolic interface, and samplers whose parameters are arrays: taken by what they return.

A loss layer (SoftmaxOutput ...) returns one function and sends back the gradient of another, whatever comes from
above. Here it is the function that it returns: derivatives are those of the numbers that the net computes, and the
loss is the caller's (`problem/notices.py` says so). Samplers are smooth functions of their parameters and of noise
that is drawn outside the graph.
"""

from __future__ import annotations

from typing import Callable, Sequence

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol

F = mx.sym


@lowers("SoftmaxOutput")
def _softmax_output(s: Site, context: Lowering) -> Sequence[Symbol]:
    shape = s.x_shapes[0]
    if s.attr("multi_output", False) and len(shape) > 2:
        return [F.softmax(s.x, axis=1)]
    if s.attr("preserve_shape", False) or len(shape) == 2:
        return [F.softmax(s.x, axis=-1)]
    return [F.reshape(F.softmax(F.Flatten(s.x)), shape=shape)]


@lowers(
    *"LinearRegressionOutput MAERegressionOutput SVMOutput MakeLoss make_loss".split(),
    *"IdentityAttachKLSparseReg _contrib_gradientmultiplier".split(),
)
def _identity(s: Site, context: Lowering) -> Sequence[Symbol]:
    return [F.identity(s.x)]


@lowers("LogisticRegressionOutput")
def _logistic_output(s: Site, context: Lowering) -> Sequence[Symbol]:
    return [F.Activation(s.x, act_type="sigmoid")]


@lowers("_contrib_SparseEmbedding")
def _sparse_embedding(s: Site, context: Lowering) -> Sequence[Symbol]:
    return [F.Embedding(*s.xs, **{name: s.node.raw[name] for name in ("input_dim", "output_dim")})]


def _sampled(noise: Callable, formula: Callable[..., Symbol]) -> Callable[[Site, Lowering], Sequence[Symbol]]:
    """Parameters (...), samples (..., *shape)."""

    def lowering(s: Site, context: Lowering) -> Sequence[Symbol]:
        shape, known = tuple(s.y_shapes[0]), tuple(s.x_shapes[0])
        drawn = context.draw(s.node.name, shape, lambda generator: noise(generator, shape))
        layout = known + (1,) * (len(shape) - len(known))
        return [formula(drawn, *(F.reshape(x, shape=layout) if layout != known else x for x in s.xs))]

    return lowering


def _normal(e: Symbol, mu: Symbol, sigma: Symbol) -> Symbol:
    return F.broadcast_add(mu, F.broadcast_mul(sigma, e))


def _uniform(u: Symbol, low: Symbol, high: Symbol) -> Symbol:
    return F.broadcast_add(F.broadcast_mul(low, 1 - u), F.broadcast_mul(high, u))


lowers("_sample_normal")(_sampled(lambda g, shape: g.standard_normal(shape), _normal))
lowers("_sample_uniform")(_sampled(lambda g, shape: g.random(shape), _uniform))
lowers("_sample_exponential")(_sampled(lambda g, shape: g.exponential(1.0, shape), F.broadcast_div))
