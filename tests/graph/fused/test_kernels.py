"""Every kernel in float64 against differences of itself and of MXNet's own operator: values, tangents, adjoint."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.graph.fused.gru import GRU
from hessmx.graph.fused.lstm import LSTM
from hessmx.graph.fused.plain import Relu, Tanh

T, N, WIDTH, UNITS = 4, 3, 5, 2
CELLS = [LSTM, GRU, Tanh, Relu]


def layer(cell):
    """Makes a recurrent layer and its values; `moves` says what has tangents."""
    rows = cell.gates * UNITS
    shapes = [(T, N, rows), (rows, UNITS), (rows,)] + [(1, N, UNITS)] * cell.states
    return shapes, lambda x_shapes, moves: cell(x_shapes, moves=moves)


KERNELS = {cell.name: layer(cell) for cell in CELLS}


def patterns(count):
    """All move, and each alone."""
    return [[True] * count, *([i == k for i in range(count)] for k in range(count))]


ROWS = [(name, moves) for name, (shapes, _) in KERNELS.items() for moves in patterns(len(shapes))]
IDS = [f"{name}-{''.join('01'[m] for m in moves)}" for name, moves in ROWS]


def made(name, moves=None, seed=0):
    """The kernel, its values, its tangents (None where nothing moves)."""
    shapes, make = KERNELS[name]
    moves = [True] * len(shapes) if moves is None else moves
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=shape) for shape in shapes]
    tangents = [rng.normal(size=shape) if m else None for shape, m in zip(shapes, moves)]
    kernel = make([x.shape for x in values + [t for t in tangents if t is not None]], list(moves))
    return kernel, values, tangents


def outputs(kernel, xs):
    ys = [np.full(shape, np.nan) for shape in kernel.y_shapes]
    kernel.forward([x.copy() for x in xs], ys)
    return ys


def adjoint(kernel, gs, xs, asked):
    ys = outputs(kernel, xs)
    dxs = [np.full(x.shape, np.nan) if a else None for x, a in zip(xs, asked)]
    kernel.adjoint([g.copy() for g in gs], [x.copy() for x in xs], ys, dxs)
    return dxs


def differences(function, x, step=1e-4):
    """Gradient of a number by x, central differences of order four; at 60 places drawn at random if x is large."""
    found = np.full_like(x, np.nan)
    places = list(np.ndindex(x.shape))
    if len(places) > 200:
        places = [places[i] for i in np.random.default_rng(4).choice(len(places), 60, replace=False)]
    for place in places:
        at = {}
        for k in (-2, -1, 1, 2):
            moved = x.copy()
            moved[place] += k * step
            at[k] = function(moved)
        found[place] = (8 * (at[1] - at[-1]) - (at[2] - at[-2])) / (12 * step)
    return found


def gradients_by_differences(kernel, gs, xs):
    for i, x in enumerate(xs):
        yield differences(lambda moved, i=i: value(kernel, gs, [*xs[:i], moved, *xs[i + 1 :]]), x)


def value(kernel, gs, xs):
    return sum((g * y).sum() for g, y in zip(gs, outputs(kernel, xs)))


def agree(found, truth, tolerance=1e-8):
    known = np.isfinite(truth)
    assert np.isfinite(found).all()
    return np.abs(found - truth)[known].max() < tolerance * max(1, np.abs(truth[known]).max())


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_layers_have_the_values_of_mxnet(cell):
    kernel, (_, r, br, *states), tangents = made(cell.name)
    rng = np.random.default_rng(5)
    x, w, bw = rng.normal(size=(T, N, WIDTH)), rng.normal(size=(len(br), WIDTH)), rng.normal(size=br.shape)
    ys = outputs(kernel, [x @ w.T + bw, r, br, *states, *tangents])
    flat = np.concatenate([part.ravel() for part in (w, r, bw, br)])
    given = [mx.nd.array(a, dtype="float64") for a in (x, flat, *states)]
    truth = mx.nd.RNN(*given, state_size=UNITS, num_layers=1, mode=cell.name, state_outputs=True)
    for y, expected in zip(ys, truth):
        # MXNet's relu cells round to float32
        assert np.allclose(y, expected.asnumpy(), rtol=0, atol=1e-6 if cell is Relu else 1e-12)


@pytest.mark.parametrize("name, moves", ROWS, ids=IDS)
def test_tangents_are_derivatives_along_the_inputs_tangents(name, moves):
    kernel, values, tangents = made(name, moves)
    still, half = [t for t in tangents if t is not None], len(kernel.y_shapes) // 2
    ys = outputs(kernel, values + still)

    def along(k, step=1e-4):
        moved = [x if t is None else x + k * step * t for x, t in zip(values, tangents)]
        return outputs(kernel, moved + still)[:half]

    up, down, up2, down2 = along(1), along(-1), along(2), along(-2)
    for j in range(half):
        assert agree(ys[half + j], (8 * (up[j] - down[j]) - (up2[j] - down2[j])) / 12e-4, 1e-9)


@pytest.mark.parametrize("name, moves", ROWS, ids=IDS)
def test_adjoint_is_the_gradient(name, moves):
    kernel, values, tangents = made(name, moves)
    xs = values + [t for t in tangents if t is not None]
    rng = np.random.default_rng(1)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    for d, truth in zip(found, gradients_by_differences(kernel, gs, xs)):
        assert agree(d, truth)


@pytest.mark.parametrize("name", KERNELS)
def test_tangents_held_fixed_send_nothing_back(name):
    kernel, values, tangents = made(name)
    xs, half = values + tangents, len(kernel.y_shapes) // 2
    rng = np.random.default_rng(2)
    gs = [rng.normal(size=shape) * (k < half) for k, shape in enumerate(kernel.y_shapes)]
    found = adjoint(kernel, gs, xs, [True] * len(xs))
    assert all(not d.any() for d in found[len(values) :])
    for d, truth in zip(found[: len(values)], gradients_by_differences(kernel, gs, xs)):
        assert agree(d, truth)


@pytest.mark.parametrize("name", KERNELS)
def test_what_nobody_asks_for_is_not_written(name):
    kernel, values, tangents = made(name)
    xs = values + tangents
    rng = np.random.default_rng(3)
    gs = [rng.normal(size=shape) for shape in kernel.y_shapes]
    whole = adjoint(kernel, gs, xs, [True] * len(xs))
    for asked in ([False] * len(xs), *([k == i for k in range(len(xs))] for i in range(len(xs)))):
        found = adjoint(kernel, gs, xs, asked)
        for d, expected, a in zip(found, whole, asked):
            assert np.array_equal(d, expected) if a else d is None
