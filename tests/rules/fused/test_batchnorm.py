"""BatchNorm's kernel against differences of NumPy's own formula, and of the tangent itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hessmx.rules.fused.batchnorm import BatchNormTangent

EPS = 1e-3
SHAPES = [((5, 3, 4, 2), 1), ((6, 3), 1), ((4, 5, 3), 2), ((1, 2, 7), 1), ((3, 4, 2), 0)]
MOVES = [m for m in itertools.product([True, False], repeat=3) if any(m)]


def norm(x, gamma, beta, axis):
    """BatchNorm over batch statistics, channels on `axis`."""
    over = tuple(i for i in range(x.ndim) if i != axis)
    shape = [-1 if i == axis else 1 for i in range(x.ndim)]
    r = 1 / np.sqrt(x.var(over, keepdims=True) + EPS)
    return gamma.reshape(shape) * r * (x - x.mean(over, keepdims=True)) + beta.reshape(shape)


def statistics(x, axis):
    over = tuple(i for i in range(x.ndim) if i != axis)
    return x.mean(over), 1 / np.sqrt(x.var(over) + EPS)


def drawn(shape, axis, dtype="float64"):
    rng = np.random.default_rng(0)
    row = (shape[axis],)
    x, t, u = (rng.normal(size=shape) + 0.5 for _ in range(3))
    gamma, beta, t_gamma, t_beta = (rng.normal(size=row) for _ in range(4))
    return [a.astype(dtype) for a in (x, gamma, beta, t, t_gamma, t_beta, u)]


def run(x, gamma, given, moves, axis):
    inputs = [x, gamma, *(a.astype(x.dtype) for a in statistics(x, axis)), *given]
    kernel = BatchNormTangent([a.shape for a in inputs], axis=axis, moves=moves)
    y = np.full(x.shape, np.nan, x.dtype)
    kernel.forward(inputs, [y])
    return kernel, inputs, y


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("moves", MOVES)
def test_tangent(shape, axis, moves):
    x, gamma, beta, *tangents, _ = drawn(shape, axis)
    given = [t for t, m in zip(tangents, moves) if m]
    t, t_gamma, t_beta = (a if m else 0 * a for a, m in zip(tangents, moves))
    h = 1e-5
    differences = [norm(x + k * h * t, gamma + k * h * t_gamma, beta + k * h * t_beta, axis) for k in (1, -1)]
    _, _, found = run(x, gamma, given, moves, axis)
    assert np.allclose(found, (differences[0] - differences[1]) / (2 * h), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("shape, axis", SHAPES)
@pytest.mark.parametrize("moves", MOVES)
def test_adjoint_is_the_gradient_of_the_pairing(shape, axis, moves):
    x, gamma, _, *tangents, u = drawn(shape, axis)
    given = [t for t, m in zip(tangents, moves) if m]
    kernel, inputs, _ = run(x, gamma, given, moves, axis)
    found = [np.full(a.shape, np.nan) for a in inputs]
    kernel.adjoint([u], inputs, found)
    assert not found[2].any() and not found[3].any()
    places = [0, 1, *range(4, len(inputs))]
    for place in places:

        def pairing(at, place=place):
            values = [x, gamma, *given]
            values[places.index(place)] = at
            return (run(values[0], values[1], values[2:], moves, axis)[2] * u).sum()

        value, h = inputs[place], 1e-5
        for index in np.ndindex(value.shape):
            step = np.zeros(value.shape)
            step[index] = h
            slope = (pairing(value + step) - pairing(value - step)) / (2 * h)
            assert found[place][index] == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_float32_agrees_with_float64():
    for dtype, tolerance in (("float64", 1e-14), ("float32", 1e-5)):
        x, gamma, _, *tangents, u = drawn((16, 4, 6, 6), 1, dtype)
        kernel, inputs, y = run(x, gamma, tangents, (True,) * 3, 1)
        found = [np.empty_like(a) for a in inputs]
        kernel.adjoint([u], inputs, found)
        results = [y, *found]
        if dtype == "float64":
            expected = results
        for a, b in zip(results, expected):
            assert a.dtype == dtype and np.abs(a - b).max() <= tolerance * max(np.abs(b).max(), 1)


def test_only_what_is_asked_for_is_written():
    x, gamma, _, *tangents, u = drawn((4, 3, 2), 1)
    kernel, inputs, _ = run(x, gamma, tangents, (True,) * 3, 1)
    kernel.adjoint([u], inputs, [None] * len(inputs))
