"""Densities (`_random_pdf_*`): replaced by their formulas. Sample (..., n), parameters (...)."""

from __future__ import annotations

import math
from typing import Callable, Sequence

from hessmx._mxnet import mx
from hessmx.graph.site import Site
from hessmx.graph.symbols import Symbol
from hessmx.rules.composite import Formula, composite

F = mx.sym


def _density(log_density: Callable[..., Symbol]) -> Formula:
    def outputs(s: Site) -> Sequence[Symbol]:
        missing = len(s.x_shapes[0]) - len(s.x_shapes[1])
        parameters = [F.expand_dims(p, axis=-1) if missing else p for p in s.xs[1:]]
        value = log_density(s.x, *parameters)
        return [value if s.attr("is_log", False) else F.exp(value)]

    return outputs


def _log_normal(x: Symbol, mu: Symbol, sigma: Symbol) -> Symbol:
    scaled = F.broadcast_div(F.broadcast_sub(x, mu), sigma)
    return F.broadcast_sub(-0.5 * F.square(scaled), F.log(sigma) + 0.5 * math.log(2 * math.pi))


def _log_gamma(x: Symbol, alpha: Symbol, beta: Symbol) -> Symbol:
    constant = alpha * F.log(beta) - F.gammaln(alpha)
    return F.broadcast_add(F.broadcast_mul(alpha - 1, F.log(x)) - F.broadcast_mul(beta, x), constant)


def _log_exponential(x: Symbol, rate: Symbol) -> Symbol:
    return F.broadcast_sub(F.log(rate), F.broadcast_mul(rate, x))


def _log_poisson(x: Symbol, rate: Symbol) -> Symbol:
    return F.broadcast_sub(F.broadcast_mul(x, F.log(rate)), rate) - F.gammaln(x + 1)


def _log_uniform(x: Symbol, low: Symbol, high: Symbol) -> Symbol:
    """MXNet does not look whether x is inside."""
    return F.broadcast_sub(F.zeros_like(x), F.log(high - low))


def _log_negative_binomial(x: Symbol, k: Symbol, p: Symbol) -> Symbol:
    constant = k * F.log(p) - F.gammaln(k)
    varying = F.gammaln(F.broadcast_add(x, k)) - F.gammaln(x + 1) + F.broadcast_mul(x, F.log(1 - p))
    return F.broadcast_add(varying, constant)


def _log_generalized_negative_binomial(x: Symbol, mu: Symbol, alpha: Symbol) -> Symbol:
    return _log_negative_binomial(x, 1 / alpha, 1 / (mu * alpha + 1))


for _name, _formula in {
    "normal": _log_normal,
    "gamma": _log_gamma,
    "exponential": _log_exponential,
    "poisson": _log_poisson,
    "uniform": _log_uniform,
    "negative_binomial": _log_negative_binomial,
    "generalized_negative_binomial": _log_generalized_negative_binomial,
}.items():
    composite(f"_random_pdf_{_name}")(_density(_formula))


@composite("_random_pdf_dirichlet")
def _dirichlet(s: Site) -> Sequence[Symbol]:
    """sample (..., n, k), alpha (..., k)."""
    alpha = s.xs[1]
    if len(s.x_shapes[0]) != len(s.x_shapes[1]):
        alpha = F.expand_dims(alpha, axis=-2)
    powers = F.sum(F.broadcast_mul(alpha - 1, F.log(s.x)), axis=-1)
    constant = F.gammaln(F.sum(alpha, axis=-1)) - F.sum(F.gammaln(alpha), axis=-1)
    value = F.broadcast_add(powers, constant)
    return [value if s.attr("is_log", False) else F.exp(value)]
