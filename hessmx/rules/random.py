"""Random operators: the numbers are drawn outside the graph, once, with the seed; parameters may move.

Where the parameters are numbers any distribution will do. Where they are arrays (mx.np.random only), the sample is
a smooth function of them and of noise with a fixed distribution, as in MXNet's own gradient.
"""

from __future__ import annotations

from typing import Any, Callable, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx.graph.lower import Lowering, lowers
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol

F = mx.sym
Generator = np.random.Generator
Sampler = Callable[..., np.ndarray]

# operator stem: attributes with their defaults, sampler(generator, shape, *attributes)
NUMBERS: dict[str, tuple[dict[str, float], Sampler]] = {
    "uniform": ({"low": 0.0, "high": 1.0}, lambda g, shape, low, high: g.uniform(low, high, shape)),
    "normal": ({"loc": 0.0, "scale": 1.0}, lambda g, shape, loc, scale: g.normal(loc, scale, shape)),
    "gamma": ({"alpha": 1.0, "beta": 1.0}, lambda g, shape, alpha, beta: g.gamma(alpha, beta, shape)),
    "exponential": ({"lam": 1.0}, lambda g, shape, lam: g.exponential(1 / lam, shape)),
    "poisson": ({"lam": 1.0}, lambda g, shape, lam: g.poisson(lam, shape)),
    "negative_binomial": ({"k": 1, "p": 1.0}, lambda g, shape, k, p: g.poisson(g.gamma(k, (1 - p) / p, shape))),
    "generalized_negative_binomial": (
        {"mu": 1.0, "alpha": 1.0},
        lambda g, shape, mu, alpha: g.poisson(g.gamma(1 / alpha, mu * alpha, shape) if alpha else np.full(shape, mu)),
    ),
}


def _drawn(names: dict[str, float], sample: Sampler) -> Callable[[Site, Lowering], Sequence[Symbol]]:
    def lowering(s: Site, context: Lowering) -> Sequence[Symbol]:
        values = [float(s.attr(name, default)) for name, default in names.items()]
        shape = tuple(s.y_shapes[0])
        return [context.draw(s.node.name, shape, lambda generator: sample(generator, shape, *values))]

    return lowering


for _stem, (_names, _sample) in NUMBERS.items():
    lowers(f"_random_{_stem}", f"_random_{_stem}_like")(_drawn(_names, _sample))

lowers("_random_randint")(
    _drawn({"low": 0, "high": 1}, lambda g, shape, low, high: g.integers(int(low), int(high), shape))
)


def _affine(noise: Symbol, loc: Any, scale: Any) -> Symbol:
    return _plus(loc, _times(scale, noise))


def _times(a: Any, b: Symbol) -> Symbol:
    return F.broadcast_mul(a, b) if isinstance(a, Symbol) else a * b


def _plus(a: Any, b: Symbol) -> Symbol:
    return F.broadcast_add(a, b) if isinstance(a, Symbol) else a + b


def _over(a: Symbol, b: Any) -> Symbol:
    return F.broadcast_div(a, b) if isinstance(b, Symbol) else a / b


def _standard_uniform(g: Generator, shape: Sequence[int]) -> np.ndarray:
    return g.random(shape)


def _standard_exponential(g: Generator, shape: Sequence[int]) -> np.ndarray:
    return g.exponential(1.0, shape)


# operator: attributes, noise, the sample as a function of noise and parameters (arrays or numbers)
ARRAYS: dict[str, tuple[Sequence[str], Sampler, Callable[..., Symbol]]] = {
    "_npi_normal": (("loc", "scale"), lambda g, shape: g.standard_normal(shape), _affine),
    "_npi_normal_n": (("loc", "scale"), lambda g, shape: g.standard_normal(shape), _affine),
    "_npi_logistic": (("loc", "scale"), lambda g, shape: g.logistic(0.0, 1.0, shape), _affine),
    "_npi_gumbel": (("loc", "scale"), lambda g, shape: g.gumbel(0.0, 1.0, shape), _affine),
    "_npi_uniform": (
        ("low", "high"),
        _standard_uniform,
        lambda u, low, high: _plus(_times(low, 1 - u), _times(high, u)),
    ),
    "_npi_uniform_n": (
        ("low", "high"),
        _standard_uniform,
        lambda u, low, high: _plus(_times(low, 1 - u), _times(high, u)),
    ),
    "_npi_exponential": (("scale",), _standard_exponential, lambda e, scale: _times(scale, e)),
    "_npi_rayleigh": (("scale",), _standard_exponential, lambda e, scale: _times(scale, F.sqrt(2 * e))),
    "_npi_weibull": (("a",), _standard_exponential, lambda e, a: F.exp(_over(F.log(e), a))),
    "_npi_pareto": (("a",), _standard_exponential, lambda e, a: F.expm1(_over(e, a))),
    "_npi_powerd": (("a",), _standard_exponential, lambda e, a: F.exp(-_over(e, a))),
}


def _reparametrised(names: Sequence[str], noise: Sampler, formula: Callable[..., Symbol]) -> Callable:
    def lowering(s: Site, context: Lowering) -> Sequence[Symbol]:
        rest = iter(s.xs)
        parameters = [next(rest) if s.attr(name) is None else float(s.attr(name)) for name in names]
        shape = tuple(s.y_shapes[0])
        return [formula(context.draw(s.node.name, shape, lambda generator: noise(generator, shape)), *parameters)]

    return lowering


for _op, _parts in ARRAYS.items():
    lowers(_op)(_reparametrised(*_parts))


@lowers("_npi_gamma")
def _gamma(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """Parameters that are numbers only."""
    if s.xs:
        return None
    shape, k, scale = tuple(s.y_shapes[0]), float(s.attr("shape", 1.0)), float(s.attr("scale", 1.0))
    return [context.draw(s.node.name, shape, lambda generator: generator.gamma(k, scale, shape))]


@lowers("_npi_bernoulli")
def _bernoulli(s: Site, context: Lowering) -> Sequence[Symbol] | None:
    """Parameters that are numbers only."""
    if s.xs:
        return None
    logit, shape = s.attr("logit"), tuple(s.y_shapes[0])
    prob = float(s.attr("prob")) if logit is None else 1 / (1 + np.exp(-float(logit)))
    return [context.draw(s.node.name, shape, lambda generator: (generator.random(shape) < prob).astype(float))]
