"""Every kernel in float64 against differences of itself and of MXNet's own operator: values, tangents, adjoint."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.rules.fused.gru import GRU
from hessmx.rules.fused.lstm import LSTM
from hessmx.rules.fused.plain import Relu, Tanh
from tests.differences import directional

T, N, WIDTH, UNITS = 4, 3, 5, 2
CELLS = [LSTM, GRU, Tanh, Relu]
STEP = 1e-4


def patterns(cell):
    """All move, and each alone."""
    count = 3 + cell.states
    return [[True] * count, *([i == k for i in range(count)] for k in range(count))]


ROWS = [(cell, moves) for cell in CELLS for moves in patterns(cell)]
IDS = [f"{cell.name}-{''.join('01'[m] for m in moves)}" for cell, moves in ROWS]
EVERY_CELL = pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
EVERY_ROW = pytest.mark.parametrize("cell, moves", ROWS, ids=IDS)


def made(cell, moves=None):
    """A layer, its values, its tangents (None where nothing moves)."""
    rows = cell.gates * UNITS
    shapes = [(T, N, rows), (rows, UNITS), (rows,)] + [(1, N, UNITS)] * cell.states
    moves = [True] * len(shapes) if moves is None else moves
    rng = np.random.default_rng(0)
    values = [rng.normal(size=shape) for shape in shapes]
    tangents = [rng.normal(size=shape) if m else None for shape, m in zip(shapes, moves)]
    kernel = cell([x.shape for x in values + [t for t in tangents if t is not None]], moves=list(moves))
    return kernel, values, tangents


def outputs(kernel, xs):
    ys = [np.full(shape, np.nan) for shape in kernel.y_shapes]
    kernel.forward([x.copy() for x in xs], ys)
    return ys


def adjoint(kernel, gs, xs, asked):
    outputs(kernel, xs)
    dxs = [np.full(x.shape, np.nan) if a else None for x, a in zip(xs, asked)]
    kernel.adjoint([g.copy() for g in gs], [x.copy() for x in xs], dxs)
    return dxs


def gradients_by_differences(kernel, gs, xs):
    for i, x in enumerate(xs):

        def value(at, i=i, x=x):
            ys = outputs(kernel, [*xs[:i], at.reshape(x.shape), *xs[i + 1 :]])
            return sum((g * y).sum() for g, y in zip(gs, ys))

        yield np.reshape([directional(value, x.ravel(), e, STEP) for e in np.eye(x.size)], x.shape)


def agree(found, truth, tolerance=1e-8):
    return np.abs(found - truth).max() < tolerance * max(1, np.abs(truth).max())


@EVERY_CELL
def test_layers_have_the_values_of_mxnet(cell):
    kernel, (_, r, br, *states), tangents = made(cell)
    rng = np.random.default_rng(5)
    x, w, bw = rng.normal(size=(T, N, WIDTH)), rng.normal(size=(len(br), WIDTH)), rng.normal(size=br.shape)
    ys = outputs(kernel, [x @ w.T + bw, r, br, *states, *tangents])
    flat = np.concatenate([part.ravel() for part in (w, r, bw, br)])
    given = [mx.nd.array(a, dtype="float64") for a in (x, flat, *states)]
    truth = mx.nd.RNN(*given, state_size=UNITS, num_layers=1, mode=cell.name, state_outputs=True)
    for y, expected in zip(ys, truth):
        # MXNet's relu cells round to float32
        assert np.allclose(y, expected.asnumpy(), rtol=0, atol=1e-6 if cell is Relu else 1e-12)


@EVERY_ROW
def test_tangents_are_derivatives_along_the_inputs_tangents(cell, moves):
    kernel, values, tangents = made(cell, moves)
    still, half = [t for t in tangents if t is not None], len(kernel.y_shapes) // 2
    ys = outputs(kernel, values + still)

    def after(k):
        moved = [x if t is None else x + k[0] * t for x, t in zip(values, tangents)]
        return np.concatenate([y.ravel() for y in outputs(kernel, moved + still)[:half]])

    truth = directional(after, np.zeros(1), np.ones(1), STEP)
    assert agree(np.concatenate([y.ravel() for y in ys[half:]]), truth, 1e-9)


@EVERY_ROW
def test_adjoint_is_the_gradient(cell, moves):
    kernel, values, tangents = made(cell, moves)
    xs = values + [t for t in tangents if t is not None]
    rng = np.random.default_rng(1)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    for d, truth in zip(found, gradients_by_differences(kernel, gs, xs)):
        assert agree(d, truth)


@EVERY_CELL
def test_tangents_held_fixed_send_nothing_back(cell):
    kernel, values, tangents = made(cell)
    xs, half = values + tangents, len(kernel.y_shapes) // 2
    rng = np.random.default_rng(2)
    gs = [rng.normal(size=shape) * (k < half) for k, shape in enumerate(kernel.y_shapes)]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    assert all(not d.any() for d in found[len(values) :])
    for d, truth in zip(found[: len(values)], gradients_by_differences(kernel, gs, xs)):
        assert agree(d, truth)


@EVERY_CELL
def test_what_nobody_asks_for_is_not_written(cell):
    kernel, values, tangents = made(cell)
    xs = values + tangents
    rng = np.random.default_rng(3)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    whole = adjoint(kernel, gs, xs, [True] * len(xs))
    for asked in ([False] * len(xs), *([k == i for k in range(len(xs))] for i in range(len(xs)))):
        found = adjoint(kernel, gs, xs, asked)
        for d, expected, a in zip(found, whole, asked):
            assert np.array_equal(d, expected) if a else d is None
