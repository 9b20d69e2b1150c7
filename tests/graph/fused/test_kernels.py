"""Every kernel in float64 against differences of itself and of MXNet's own operator: values, tangents, adjoint."""

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.graph.fused.gru import GRU
from hessmx.graph.fused.lstm import LSTM
from hessmx.graph.fused.plain import Relu, Tanh

T, N, WIDTH, UNITS = 4, 3, 5, 2
CELLS = [LSTM, GRU, Tanh, Relu]


def outputs(kernel, xs):
    ys = [np.full(shape, np.nan) for shape in kernel.y_shapes]
    kernel.forward([x.copy() for x in xs], ys)
    return ys


def adjoint(kernel, gs, xs, asked):
    kernel.forward([x.copy() for x in xs], [np.empty(shape) for shape in kernel.y_shapes])
    dxs = [np.full(x.shape, np.nan) if a else None for x, a in zip(xs, asked)]
    kernel.adjoint([g.copy() for g in gs], [x.copy() for x in xs], dxs)
    return dxs


def differences(function, x, step=1e-5):
    """Gradient of a number by x, central differences of order four."""
    found = np.empty_like(x)
    for place in np.ndindex(x.shape):
        at = {}
        for k in (-2, -1, 1, 2):
            moved = x.copy()
            moved[place] += k * step
            at[k] = function(moved)
        found[place] = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    return found


def layer(cell, moves, seed=0):
    """Shapes, inputs and tangents (None where nothing moves) of a recurrent layer."""
    rng = np.random.default_rng(seed)
    size = cell.gates * UNITS * (WIDTH + UNITS + 2)
    shapes = [(T, N, WIDTH), (size,)] + [(1, N, UNITS)] * cell.states
    values = [rng.normal(size=shape) for shape in shapes]
    tangents = [rng.normal(size=shape) if m else None for shape, m in zip(shapes, moves)]
    moving = [t for t in tangents if t is not None]
    kernel = cell([x.shape for x in values + moving], moves=list(moves))
    return kernel, values, tangents


def patterns(cell):
    full = [True] * (2 + cell.states)
    alone = [[i == k for i in range(len(full))] for k in range(len(full))]
    return [full, *alone]


ROWS = [(cell, moves) for cell in CELLS for moves in patterns(cell)]
IDS = [f"{cell.name}-{''.join('01'[m] for m in moves)}" for cell, moves in ROWS]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_values_are_those_of_mxnet(cell):
    kernel, values, tangents = layer(cell, [True] * (2 + cell.states))
    ys = outputs(kernel, values + tangents)
    given = [mx.nd.array(x, dtype="float64") for x in values]
    truth = mx.nd.RNN(*given, state_size=UNITS, num_layers=1, mode=cell.name, state_outputs=True)
    for y, expected in zip(ys, truth):
        # MXNet's relu cells round to float32
        assert np.allclose(y, expected.asnumpy(), rtol=0, atol=1e-6 if cell is Relu else 1e-12)


@pytest.mark.parametrize("cell, moves", ROWS, ids=IDS)
def test_tangents_are_derivatives_along_the_inputs_tangents(cell, moves):
    kernel, values, tangents = layer(cell, moves)
    half = 1 + cell.states
    ys = outputs(kernel, values + [t for t in tangents if t is not None])

    def along(k, step=1e-4):
        moved = [x if t is None else x + k * step * t for x, t in zip(values, tangents)]
        still = [t for t in tangents if t is not None]
        return outputs(kernel, moved + still)[:half]

    up, down, up2, down2 = along(1), along(-1), along(2), along(-2)
    for j in range(half):
        truth = (8 * (up[j] - down[j]) - (up2[j] - down2[j])) / 12e-4
        assert np.allclose(ys[half + j], truth, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cell, moves", ROWS, ids=IDS)
def test_adjoint_is_the_gradient(cell, moves):
    kernel, values, tangents = layer(cell, moves)
    xs = values + [t for t in tangents if t is not None]
    rng = np.random.default_rng(1)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    for i, x in enumerate(xs):

        def value(moved, i=i):
            ys = outputs(kernel, [*xs[:i], moved, *xs[i + 1 :]])
            return sum((g * y).sum() for g, y in zip(gs, ys))

        truth = differences(value, x)
        assert np.abs(found[i] - truth).max() < 1e-8 * max(1, np.abs(truth).max()), i


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_tangents_held_fixed_send_nothing_back(cell):
    kernel, values, tangents = layer(cell, [True] * (2 + cell.states))
    xs, half = values + tangents, 1 + cell.states
    rng = np.random.default_rng(2)
    gs = [rng.normal(size=shape) * (k < half) for k, shape in enumerate(kernel.y_shapes)]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    assert all(not d.any() for d in found[len(values) :])

    def value(flat):
        return sum((g * y).sum() for g, y in zip(gs, outputs(kernel, [values[0], flat, *xs[2:]])))

    truth = differences(value, xs[1])
    assert np.allclose(found[1], truth, rtol=0, atol=1e-8)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_what_nobody_asks_for_is_not_written(cell):
    kernel, values, tangents = layer(cell, [True] * (2 + cell.states))
    xs = values + tangents
    rng = np.random.default_rng(3)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    whole = adjoint(kernel, gs, xs, [True] * len(xs))
    for asked in ([False] * len(xs), [k == 1 for k in range(len(xs))], [k == 0 for k in range(len(xs))]):
        found = adjoint(kernel, gs, xs, asked)
        for d, expected, a in zip(found, whole, asked):
            assert np.array_equal(d, expected) if a else d is None
