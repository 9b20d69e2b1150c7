"""Nets that unroll the cells of gluon.rnn and gluon.contrib.rnn, through both tracers."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from tests import differences

gluon, nn, rnn, contrib = mx.gluon, mx.gluon.nn, mx.gluon.rnn, mx.gluon.contrib.rnn

BATCH, STEPS, INPUT, UNITS = 3, 4, 2, 3
LENGTHS = np.array([2.0, 4.0, 1.0])


def sequential(*cells: Any) -> Any:
    stack = rnn.HybridSequentialRNNCell()
    for cell in cells:
        stack.add(cell)
    return stack


def _conv(kind: str, dims: int) -> Any:
    shape = {1: (2, 5), 2: (2, 3, 4), 3: (1, 3, 2, 2)}[dims]
    cell = getattr(contrib, f"Conv{dims}D{kind}Cell")
    kernel = (3,) * dims
    made = cell(shape, hidden_channels=2, i2h_kernel=kernel, h2h_kernel=kernel, i2h_pad=(1,) * dims)
    return made, (BATCH, 2, *shape)


FLAT = (BATCH, STEPS, INPUT)

# name -> (cell, shape of the data)
CELLS = {
    "RNNCell tanh": lambda: (rnn.RNNCell(UNITS), FLAT),
    "RNNCell relu": lambda: (rnn.RNNCell(UNITS, activation="relu"), FLAT),
    "LSTMCell": lambda: (rnn.LSTMCell(UNITS), FLAT),
    "GRUCell": lambda: (rnn.GRUCell(UNITS), FLAT),
    "LSTMCell hard": lambda: (rnn.LSTMCell(UNITS, activation="softsign", recurrent_activation="sigmoid"), FLAT),
    "SequentialRNNCell": lambda: (sequential(rnn.LSTMCell(UNITS), rnn.DropoutCell(0.3), rnn.GRUCell(2)), FLAT),
    "BidirectionalCell": lambda: (rnn.BidirectionalCell(rnn.LSTMCell(UNITS), rnn.LSTMCell(UNITS)), FLAT),
    "ZoneoutCell": lambda: (rnn.ZoneoutCell(rnn.GRUCell(UNITS), zoneout_outputs=0.3, zoneout_states=0.2), FLAT),
    "ResidualCell": lambda: (rnn.ResidualCell(rnn.GRUCell(INPUT)), FLAT),
    "VariationalDropoutCell": lambda: (contrib.VariationalDropoutCell(rnn.LSTMCell(UNITS), 0.3, 0.2, 0.1), FLAT),
    "LSTMPCell": lambda: (contrib.LSTMPCell(UNITS, 2), FLAT),
    **{f"Conv{n}D{kind}Cell": partial(_conv, kind, n) for n in (1, 2, 3) for kind in ("RNN", "LSTM", "GRU")},
}
LENGTHENED = ("LSTMCell", "GRUCell", "BidirectionalCell", "SequentialRNNCell")


def unrolling(cell: Any, steps: int, hybrid: bool, lengths: bool) -> Any:
    """A net whose forward unrolls the cell and flattens outputs and states."""

    class Unrolled(nn.HybridBlock if hybrid else gluon.Block):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def hybrid_forward(self, F: Any, x: Any, *length: Any) -> Any:
            self.cell.reset()
            size = 0 if F is mx.sym else BATCH  # float32 if MXNet makes them itself
            known = {"begin_state": self.cell.begin_state(batch_size=size, func=F.zeros, dtype="float64")}
            if lengths:
                known["valid_length"] = length[0]
            y, states = self.cell.unroll(steps, x, layout="NTC", merge_outputs=True, **known)
            return F.concat(F.flatten(y), *[F.flatten(state) for state in states], dim=1)

        def forward(self, *args: Any) -> Any:
            return super().forward(*args) if hybrid else self.hybrid_forward(mx.nd, *args)

    return Unrolled()


def problem(name: str, hybrid: bool, lengths: bool = False, **options: Any) -> tuple[Any, Any, hessmx.Curvature]:
    rng = np.random.default_rng(3)
    cell, shape = CELLS[name]()
    net = unrolling(cell, shape[1], hybrid, lengths)
    net.initialize()
    net.cast("float64")
    inputs = [rng.normal(size=shape), *([LENGTHS] if lengths else [])]
    y = net(*[mx.nd.array(a, dtype="float64") for a in inputs])
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.normal(0, 0.5, parameter.shape), dtype="float64"))
    data = (*inputs, rng.normal(size=y.shape))
    return net, data, hessmx.Curvature(net, gluon.loss.L2Loss(), [data], engine="reverse-over-forward", **options)


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("hybrid", [True, False], ids=["symbol", "tape"])
def test_unrolled_cells(name: str, hybrid: bool) -> None:
    net, data, curv = problem(name, hybrid)
    v = np.random.default_rng(5).normal(size=curv.num_params)
    expected = differences.product(net, gluon.loss.L2Loss(), data, curv.param_names, v)
    assert relative(curv.hvp(v), expected) < 1e-8


@pytest.mark.parametrize("name", LENGTHENED)
@pytest.mark.parametrize("hybrid", [True, False], ids=["symbol", "tape"])
def test_unrolled_cells_with_valid_length(name: str, hybrid: bool) -> None:
    net, data, curv = problem(name, hybrid, lengths=True)
    v = np.random.default_rng(5).normal(size=curv.num_params)
    expected = differences.product(net, gluon.loss.L2Loss(), data, curv.param_names, v)
    assert relative(curv.hvp(v), expected) < 1e-8


@pytest.mark.parametrize("name", ["SequentialRNNCell", "ZoneoutCell", "VariationalDropoutCell"])
def test_train_mode_holds_the_masks_fixed(name: str) -> None:
    _, _, curv = problem(name, hybrid=True, mode="train")
    v = np.random.default_rng(5).normal(size=curv.num_params)
    expected = differences.directional(curv.gradient, curv.parameters(), v, 1e-3)
    assert relative(curv.hvp(v), expected) < 1e-8
    _, _, other = problem(name, hybrid=True, mode="train", seed=1)
    assert curv.loss() != other.loss()
