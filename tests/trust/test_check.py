"""The checker believes right products and must not believe wrong ones."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.curvature import Curvature
from hessmx.errors import InputError
from hessmx.trust.check import check

RNG = np.random.default_rng(5)
X, Y = RNG.normal(size=(50, 6)), RNG.integers(0, 3, 50)


def curvature(activation="tanh", dtype="float64", engine="auto"):
    mx.random.seed(1)
    net = dense_net((6, 8, 3), activation, dtype=dtype)
    net.initialize(mx.init.Xavier())
    return Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), engine=engine, weight_decay=0.01)


NETS = [
    # activation, dtype, engine, how close the products come
    ("tanh", "float64", "auto", 1e-8),
    ("tanh", "float32", "auto", 1e-5),
    ("relu", "float64", "auto", 1e-8),
    ("maxout", "float64", "auto", 1e-8),
    ("maxout", "float32", "auto", 1e-5),
    ("tanh", "float64", "double-backward", 1e-8),
    ("tanh", "float32", "finite-difference", 1e-5),
]


@pytest.mark.smoke
@pytest.mark.parametrize("activation, dtype, engine, close", NETS)
def test_right_products_are_trusted(activation, dtype, engine, close):
    found = check(curvature(activation, dtype, engine))
    assert found.trusted, found.verdict
    assert max(found.difference, found.asymmetry) < close
    assert found.reference == "float64"
    assert "\n" not in found.verdict


def scaled(curv):
    return lambda v: 1.01 * type(curv).hvp(curv, v)


def skewed(curv):
    def product(v):
        return type(curv).hvp(curv, v) + 0.1 * np.roll(v, 1)

    return product


def noisy(curv):
    generator = np.random.default_rng(0)
    return lambda v: type(curv).hvp(curv, v) * generator.normal(1, 0.01)


def nothing(curv):
    return lambda v: np.zeros_like(v)


def not_a_number(curv):
    return lambda v: v * np.nan


WRONG = [(scaled, "rule is wrong"), (skewed, "not symmetric"), (noisy, "random"), (nothing, "rule is wrong"),
         (not_a_number, "random")]


@pytest.mark.parametrize("spoil, said", WRONG)
def test_wrong_products_are_not_trusted(monkeypatch, spoil, said):
    curv = curvature()
    monkeypatch.setattr(curv, "hvp", spoil(curv), raising=False)
    found = check(curv)
    assert not found.trusted
    assert "can NOT be trusted" in found.verdict
    assert said in found.verdict


def test_the_net_is_left_as_it_was():
    curv = curvature()
    before = curv.parameters().copy()
    check(curv)
    assert np.array_equal(curv.parameters(), before)


def test_too_few_vectors():
    with pytest.raises(InputError, match="vectors"):
        check(curvature(), vectors=1)
