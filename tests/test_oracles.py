"""The references themselves: jets against differences of plain NumPy functions written a second time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import ndtr

from tests import oracles

PLAIN = {
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "softrelu": lambda x: np.log1p(np.exp(x)),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "log_sigmoid": lambda x: -np.log1p(np.exp(-x)),
    "mish": lambda x: x * np.tanh(np.log1p(np.exp(x))),
    "leaky": lambda x: np.maximum(x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "gelu": lambda x: x * ndtr(x),
    "swish": lambda x: x / (1 + np.exp(-x)),
    "exp": np.exp,
    "sin": np.sin,
    "square": lambda x: x * x,
}


@pytest.mark.parametrize("name", oracles.ACTIVATIONS)
def test_activations(name):
    x = np.array([-2.3, -0.7, -0.2, 0.3, 0.9, 2.1])
    jet = oracles.ACTIVATIONS[name](oracles.Jet(x, np.eye(6), np.zeros((6, 6, 6))))
    np.testing.assert_allclose(jet.v, PLAIN[name](x), rtol=1e-12)
    np.testing.assert_allclose(jet.d, oracles.numerical(PLAIN[name], x), atol=1e-9)
    again = oracles.numerical(lambda w: oracles.ACTIVATIONS[name](oracles.Jet(w, np.eye(6), np.zeros((6, 6, 6)))).d, x)
    np.testing.assert_allclose(jet.h, again, atol=1e-9)


@pytest.mark.parametrize("loss", oracles.LOSSES)
def test_a_net_against_differences_of_its_values(loss):
    rng = np.random.default_rng(5)
    kinds = [dict(units=2, activation="tanh"), dict(units=2, pieces=2), dict(units=1, activation="prelu")]
    layers = [oracles.Layer(**kind) for kind in kinds] + [oracles.Layer(2, "sigmoid")]
    w, x = rng.normal(size=6 + 12 + 4 + 4), rng.normal(size=(3, 2))
    y = np.array([1, 0, 1]) if loss == "softmax-ce" else rng.uniform(0.1, 0.9, (3, 2))
    jet = oracles.objective(layers, loss, w, x, y)

    def value_and_gradient(at):
        moved = oracles.objective(layers, loss, at, x, y)
        return np.append(moved.v, moved.d)

    found = oracles.numerical(value_and_gradient, w)
    np.testing.assert_allclose(jet.d, found[0], atol=1e-8)
    np.testing.assert_allclose(jet.h, found[1:], atol=1e-8)
