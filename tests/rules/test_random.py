"""Random operators: drawn outside the graph from MXNet's own distribution, once for a seed; parameters move."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ks_2samp

from hessmx._mxnet import mx
from hessmx.engines.tangents import push
from hessmx.graph.lower import lower
from hessmx.graph.node import parse
from hessmx.graph.symbols import call
from hessmx.rules import UNSUPPORTED

N = 20000
NUMBERS = {
    "_random_uniform": {"low": -1.0, "high": 2.5},
    "_random_normal": {"loc": 0.5, "scale": 2.0},
    "_random_gamma": {"alpha": 2.0, "beta": 1.5},
    "_random_exponential": {"lam": 2.0},
    "_random_poisson": {"lam": 3.0},
    "_random_negative_binomial": {"k": 3, "p": 0.4},
    "_random_generalized_negative_binomial": {"mu": 2.0, "alpha": 0.3},
    "_random_randint": {"low": -2, "high": 5},
    "_npi_normal": {"loc": 0.5, "scale": 2.0},
    "_npi_normal_n": {"loc": 0.5, "scale": 2.0},
    "_npi_uniform": {"low": -1.0, "high": 2.5},
    "_npi_logistic": {"loc": 0.5, "scale": 2.0},
    "_npi_gumbel": {"loc": 0.5, "scale": 2.0},
    "_npi_exponential": {"scale": 2.0},
    "_npi_rayleigh": {"scale": 2.0},
    "_npi_weibull": {"a": 1.7},
    "_npi_pareto": {"a": 3.0},
    "_npi_powerd": {"a": 2.0},
    "_npi_gamma": {"shape": 2.0, "scale": 1.5},
    "_npi_bernoulli": {"prob": 0.3, "logit": None, "is_logit": False},
}


def _shaped(op: str, attrs: dict, shape: tuple) -> dict:
    return {**attrs, "size" if op.startswith("_npi") else "shape": shape}


def _lowered(op: str, attrs: dict, seed: int, shape: tuple = (N,)) -> np.ndarray:
    with mx.util.np_shape(op.startswith("_npi")):
        graph, draws = lower(parse(call(op, [], _shaped(op, attrs, shape))[0]), {}, False)
        values = {d.name: mx.nd.array(d.sample(np.random.default_rng(seed)), dtype="float64") for d in draws}
        variables = {d.name: mx.sym.Variable(d.name, shape=d.shape) for d in draws}
        outputs, _ = push(graph, {d.name: d.shape for d in draws}, variables, {})
        return outputs[0].bind(mx.cpu(), values, grad_req="null").forward()[0].asnumpy()


def _mxnets_own(op: str, attrs: dict) -> np.ndarray:
    with mx.util.np_shape(op.startswith("_npi")):
        mx.random.seed(5)
        return call(op, [], _shaped(op, attrs, (N,)))[0].bind(mx.cpu(), {}).forward()[0].asnumpy()


@pytest.mark.parametrize("op", NUMBERS)
def test_distribution_is_mxnets_own(op):
    """Kolmogorov-Smirnov, two samples at fixed seeds; a factor of 1.05 in the scale gives p < 1e-6."""
    ours, theirs = _lowered(op, NUMBERS[op], 0), _mxnets_own(op, NUMBERS[op])
    assert ks_2samp(ours, theirs).pvalue > 1e-3


ARRAYS = {
    "_sample_normal": ([-1.0, 3.0], [0.5, 2.0]),
    "_sample_uniform": ([-1.0, 0.0], [0.5, 2.0]),
    "_sample_exponential": ([0.5, 2.0],),
}


@pytest.mark.parametrize("op", ARRAYS)
def test_samplers_with_array_parameters(op):
    """One row of samples for each parameter, from MXNet's own distribution."""
    parameters = [np.array(p) for p in ARRAYS[op]]
    shapes = {f"p{i}": (2,) for i in range(len(parameters))}
    traced = call(op, [mx.sym.Variable(name, shape=shape) for name, shape in shapes.items()], {"shape": (N,)})[0]
    given = {f"p{i}": mx.nd.array(p) for i, p in enumerate(parameters)}
    mx.random.seed(5)
    theirs = traced.bind(mx.cpu(), given, grad_req="null").forward()[0].asnumpy()
    graph, draws = lower(parse(traced), shapes, False)
    given |= {d.name: mx.nd.array(d.sample(np.random.default_rng(0))) for d in draws}
    variables = {name: mx.sym.Variable(name) for name in given}
    shapes |= {d.name: d.shape for d in draws}
    ours = push(graph, shapes, variables, {})[0][0].bind(mx.cpu(), given, grad_req="null").forward()[0].asnumpy()
    assert ours.shape == theirs.shape == (2, N)
    assert all(ks_2samp(a, b).pvalue > 1e-3 for a, b in zip(ours, theirs))


@pytest.mark.parametrize("op", ["_random_normal", "_npi_weibull"])
def test_same_seed_same_numbers(op):
    first, again, other = (_lowered(op, NUMBERS[op], seed, (5,)) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


PARAMETERS = {  # sample as a function of standard noise e and parameters: d/d(parameter), by hand
    "_npi_normal": (("loc", "scale"), lambda y, loc, scale: (np.ones_like(y), (y - loc) / scale)),
    "_npi_gumbel": (("loc", "scale"), lambda y, loc, scale: (np.ones_like(y), (y - loc) / scale)),
    "_npi_logistic": (("loc", "scale"), lambda y, loc, scale: (np.ones_like(y), (y - loc) / scale)),
    "_npi_uniform": (("low", "high"), lambda y, a, b: ((b - y) / (b - a), (y - a) / (b - a))),
    "_npi_exponential": (("scale",), lambda y, scale: (y / scale,)),
    "_npi_rayleigh": (("scale",), lambda y, scale: (y / scale,)),
    "_npi_weibull": (("a",), lambda y, a: (-y * np.log(y) / a,)),
    "_npi_pareto": (("a",), lambda y, a: (-(1 + y) * np.log1p(y) / a,)),
    "_npi_powerd": (("a",), lambda y, a: (-y * np.log(y) / a,)),
}


@pytest.mark.parametrize("op", PARAMETERS)
def test_samples_move_with_array_parameters(op):
    names, partials = PARAMETERS[op]
    rng = np.random.default_rng(7)
    values = [rng.uniform(0.5, 1.5, 4) + i for i in range(len(names))]
    t = [rng.standard_normal(4) for _ in names]
    with mx.util.np_shape(True):
        variables = [mx.sym.Variable(f"p{i}", shape=(4,)) for i in range(len(names))]
        traced = parse(call(op, variables, {**dict.fromkeys(names), "size": (4,)})[0])
        shapes = {f"p{i}": (4,) for i in range(len(names))}
        graph, draws = lower(traced, shapes, False)
        shapes.update({d.name: d.shape for d in draws})
        seeds = {f"p{i}": mx.sym.Variable(f"t{i}", shape=(4,)) for i in range(len(names))}
        primals = {name: mx.sym.Variable(name, shape=shape) for name, shape in shapes.items()}
        heads = [part[0] for part in push(graph, shapes, primals, seeds)]
        arrays = {f"p{i}": v for i, v in enumerate(values)} | {f"t{i}": v for i, v in enumerate(t)}
        arrays |= {d.name: d.sample(np.random.default_rng(3)) for d in draws}
        symbol = mx.sym.Group(heads)
        given = {k: mx.nd.array(arrays[k], dtype="float64") for k in symbol.list_arguments()}
        y, u = (a.asnumpy() for a in symbol.bind(mx.cpu(), given, grad_req="null").forward())
    np.testing.assert_allclose(u, sum(p * d for p, d in zip(partials(y, *values), t)), rtol=1e-12)


def test_samplers_without_a_gradient_say_so():
    for op in ("_sample_poisson", "_sample_gamma", "_sample_multinomial"):
        assert "distribution whose parameters are arrays" in UNSUPPORTED[op]
