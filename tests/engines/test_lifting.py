"""Every operator that the double-backward engine may record: its second derivative by `create_graph`, one by one."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.engines.lifting import DIVIDE, SECOND_ORDER, UNARY, apply, guard

RNG = np.random.default_rng(3)
X = RNG.uniform(0.4, 1.5, (1, 3, 4)) * np.where(RNG.random((1, 3, 4)) < 0.5, -1, 1)
Y = RNG.normal(size=(1, 3, 4))
R = np.where(RNG.random((1, 3, 4)) < 0.3, 0, RNG.normal(size=(1, 3, 4)))  # zero: behind dead units
V = RNG.normal(size=(1, 3, 4))

_SECOND = {  # second derivative; the first is not needed: <r, f>'' v = r f'' v
    "negative": lambda x: 0 * x,
    "_copy": lambda x: 0 * x,
    "relu": lambda x: 0 * x,
    "exp": np.exp,
    "expm1": np.exp,
    "log": lambda x: -(x**-2),
    "sqrt": lambda x: -(x**-1.5) / 4,
    "cbrt": lambda x: -2 / 9 * np.cbrt(x) ** -5,
    "square": lambda x: 2 + 0 * x,
    "tanh": lambda x: -2 * np.tanh(x) * (1 - np.tanh(x) ** 2),
    "sigmoid": lambda x: -np.tanh(x / 2) / np.cosh(x / 2) ** 2 / 4,
    "sin": lambda x: -np.sin(x),
    "cos": lambda x: -np.cos(x),
    "sinh": np.sinh,
    "cosh": np.cosh,
    "arctan": lambda x: -2 * x / (1 + x * x) ** 2,
}


def second_order(function, x, r, v, guarded=False):
    """Hessian of <r, function(x)> times v, the way the engine computes it."""
    arrays = [mx.nd.array(a, dtype="float64") for a in (x, r, v)]
    gradient = mx.nd.zeros_like(arrays[0])
    mx.autograd.mark_variables([arrays[0]], [gradient])
    with mx.autograd.record(train_mode=False):
        y = function(arrays[0])
        heads, grads = [y, mx.nd.square(y)], [arrays[1], mx.nd.zeros_like(y)]
        if guarded:
            head, small = guard(y)
            heads, grads = [*heads, head], [*grads, small]
        (first,) = mx.autograd.grad(heads, [arrays[0]], head_grads=grads, create_graph=True, retain_graph=True)
    mx.autograd.backward([first], head_grads=[arrays[2]])
    return gradient.asnumpy()


@pytest.mark.parametrize("op", UNARY)
def test_unary(op):
    x = np.abs(X) if op in ("log", "sqrt", "cbrt") else X
    found = second_order(lambda a: apply(op, a), x, R, V, guarded=op in DIVIDE)
    np.testing.assert_allclose(found, R * _SECOND[op](x) * V, rtol=1e-6 if op == "cbrt" else 1e-12, atol=1e-15)


# <r, f(x)> with f = exp(x) + terms of first order: the Hessian is r exp(x)
_JOINED = {
    "elemwise_add": (lambda a: apply("elemwise_add", apply("exp", a), a), R * np.exp(X) * V),
    "add_n": (lambda a: apply("add_n", apply("exp", a), a, a), R * np.exp(X) * V),
    "_plus_scalar": (lambda a: apply("exp", apply("_plus_scalar", a, scalar=3.0)), R * np.exp(X + 3) * V),
    "transpose": (lambda a: apply("transpose", apply("exp", apply("transpose", a))), R * np.exp(X) * V),
}


@pytest.mark.parametrize("op", _JOINED)
def test_joined(op):
    function, expected = _JOINED[op]
    np.testing.assert_allclose(second_order(function, X, R, V), expected, rtol=1e-13)


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_batch_dot(transpose_a, transpose_b):
    """x A x' with constant A between, both factors moving; transposes wherever shapes allow."""
    n, m = (4, 4) if transpose_a else (3, 3)
    r = RNG.normal(size=(1, n, m))

    def function(a):
        left = a if transpose_a else apply("_copy", a)
        right = a if transpose_b != transpose_a else apply("transpose", a, axes=(0, 2, 1))
        return apply("batch_dot", left, right, transpose_a=transpose_a, transpose_b=transpose_b)

    # f = x' x or x x': <r, f>'' v = x (r + r') or (r + r') x, with v for x
    both = r[0] + r[0].T
    expected = V[0] @ both if transpose_a else both @ V[0]
    np.testing.assert_allclose(second_order(function, X, r, V)[0], expected, rtol=1e-12)


def test_the_table_is_tested_whole():
    assert {*_SECOND, *_JOINED, "batch_dot"} == SECOND_ORDER
    assert set(UNARY) == set(_SECOND)


@pytest.mark.parametrize("op", sorted(DIVIDE | {"abs"}))
def test_without_a_guard_a_zero_cotangent_gives_nan(op):
    """The reason for DIVIDE, and for lifting abs to relu(x) + relu(-x)."""
    found = second_order(lambda a: getattr(mx.nd, op)(a), np.abs(X), R, V)
    assert np.array_equal(np.isnan(found), R == 0)
