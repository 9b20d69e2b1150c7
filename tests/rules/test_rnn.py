"""Fused LSTM, GRU and RNN layers against second-order jets of the recurrences written in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Iterator, Sequence

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.errors import GraphError
from tests.differences import directional
from tests.oracles import Jet, relu, sigmoid, square, tanh

gluon, nn, rnn = mx.gluon, mx.gluon.nn, mx.gluon.rnn

STEPS, BATCH, INPUT, UNITS = 3, 2, 2, 2


def joined(parts: Sequence[Jet], axis: int) -> Jet:
    """Concatenation of jets of one rank."""
    assert axis >= 0
    return Jet(*(np.concatenate([getattr(part, name) for part in parts], axis) for name in "vdh"))


def lstm(into: Jet, back: Jet, h: Jet, c: Jet) -> tuple[Jet, Jet]:
    i, f, g, o = ((into + back)[:, k * UNITS : (k + 1) * UNITS] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def gru(into: Jet, back: Jet, h: Jet, c: Jet) -> tuple[Jet, Jet]:
    (xr, xz, xn), (hr, hz, hn) = ([a[:, k * UNITS : (k + 1) * UNITS] for k in range(3)] for a in (into, back))
    z = sigmoid(xz + hz)
    return (1 - z) * tanh(xn + sigmoid(xr + hr) * hn) + z * h, c


CELLS: dict[str, tuple[int, Callable]] = {
    "lstm": (4, lstm),
    "gru": (3, gru),
    "rnn_tanh": (1, lambda into, back, h, c: (tanh(into + back), c)),
    "rnn_relu": (1, lambda into, back, h, c: (relu(into + back), c)),
}


@dataclass(frozen=True)
class Row:
    """A stack of fused layers."""

    mode: str
    layers: int = 1
    bidirectional: bool = False
    layout: str = "NTC"
    states: bool = False  # given and returned
    dropout: float = 0.0
    hybrid: bool = True

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def places(self) -> int:
        return self.layers * self.directions

    def __str__(self) -> str:
        flags = [name for name in ("bidirectional", "states", "dropout") if getattr(self, name)]
        return "-".join([self.mode, str(self.layers), self.layout, *flags, "symbol" if self.hybrid else "tape"])

    def layer(self) -> Any:
        options = dict(num_layers=self.layers, layout=self.layout, dropout=self.dropout)
        options["bidirectional"] = self.bidirectional
        if self.mode.startswith("rnn"):
            return rnn.RNN(UNITS, activation=self.mode[4:], input_size=INPUT, **options)
        return {"lstm": rnn.LSTM, "gru": rnn.GRU}[self.mode](UNITS, input_size=INPUT, **options)


ROWS = [
    *(Row(mode, layers, two) for mode in CELLS for layers, two in ((1, False), (2, False), (1, True))),
    Row("lstm", 2, True),
    Row("lstm", 2, states=True, layout="TNC"),
    Row("lstm", 1, True, states=True),
    Row("gru", 2, states=True, layout="TNC"),
    Row("rnn_tanh", 1, True, states=True, layout="TNC"),
    Row("lstm", 2, dropout=0.4),
    Row("gru", 2, True, dropout=0.4),
    Row("lstm", 2, hybrid=False),
    Row("gru", 1, True, states=True, hybrid=False),
]


def whole(row: Row) -> Any:
    """The layer with batch-major inputs and, where states are given, its last states beside its outputs."""
    base = nn.HybridBlock if row.hybrid else gluon.Block

    class Whole(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.layer = row.layer()

        def hybrid_forward(self, F: Any, x: Any, *states: Any) -> Any:
            x = x if row.layout == "NTC" else F.swapaxes(x, 0, 1)
            if not states:
                y, ends = self.layer(x), []
            else:
                y, ends = self.layer(x, [F.swapaxes(state, 0, 1) for state in states])
            y = y if row.layout == "NTC" else F.swapaxes(y, 0, 1)
            return F.concat(F.flatten(y), *[F.flatten(F.swapaxes(end, 0, 1)) for end in ends], dim=1)

        def forward(self, *args: Any) -> Any:
            return super().forward(*args) if row.hybrid else self.hybrid_forward(mx.nd, *args)

    return Whole()


def problem(row: Row, dtype: str = "float64", **options: Any) -> tuple[hessmx.Curvature, list[np.ndarray], np.ndarray]:
    rng = np.random.default_rng(7)
    net = whole(row)
    net.initialize()
    net.cast(dtype)
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(rng.normal(0, 0.7, parameter.shape), dtype=dtype))
    inputs = [rng.normal(size=(BATCH, STEPS, INPUT))]
    if row.states:
        inputs += [rng.normal(size=(BATCH, row.places, UNITS)) for _ in range(2 if row.mode == "lstm" else 1)]
    width = STEPS * row.directions * UNITS + (len(inputs) - 1) * row.places * UNITS
    y = rng.normal(size=(BATCH, width))
    mode = "train" if row.dropout else "predict"
    data = [([a.astype(dtype) for a in inputs], y.astype(dtype))]
    options = {"engine": "reverse-over-forward", "mode": mode, **options}
    return hessmx.Curvature(net, gluon.loss.L2Loss(), [(*data[0][0], data[0][1])], **options), inputs, y


def reference(row: Row, w: np.ndarray, inputs: list[np.ndarray], y: np.ndarray) -> Jet:
    """Mean over the samples of the loss; parameters in Gluon's order: W, R, bw, br by layer and direction."""
    gates, cell = CELLS[row.mode]
    whole = Jet(w, np.eye(w.size), np.zeros((w.size,) * 3))
    position, rows = 0, gates * UNITS

    def take(*shape: int) -> Jet:
        nonlocal position
        piece = whole[position : position + int(np.prod(shape))].reshape(*shape)
        position += int(np.prod(shape))
        return piece

    xs = [whole.lift(inputs[0][:, t]) for t in range(STEPS)]
    starts = [np.swapaxes(a, 0, 1) for a in inputs[1:]] or [np.zeros((row.places, BATCH, UNITS))] * 2
    ends: list[tuple[Jet, Jet]] = []
    for layer in range(row.layers):
        width = INPUT if layer == 0 else UNITS * row.directions
        if layer and row.dropout:
            draws = np.random.default_rng([0, 0, layer - 1]).random((STEPS, BATCH, width))
            xs = [x * ((draws[t] < 1 - row.dropout) / (1 - row.dropout)) for t, x in enumerate(xs)]
        runs = []
        for direction in range(row.directions):
            weights = take(rows, width), take(rows, UNITS), take(1, rows), take(1, rows)
            h, c = whole.lift(starts[0][len(ends)]), whole.lift(starts[-1][len(ends)])
            outs = []
            for x in xs[:: -1 if direction else 1]:
                h, c = cell((weights[0] @ x.T).T + weights[2], (weights[1] @ h.T).T + weights[3], h, c)
                outs.append(h)
            runs.append(outs[:: -1 if direction else 1])
            ends.append((h, c))
        xs = [joined([run[t] for run in runs], 1) for t in range(STEPS)]
    assert position == w.size
    kept = [[end[k] for end in ends] for k in range(len(inputs) - 1)]
    z = joined([*xs, *(state for states in kept for state in states)], 1)
    return (0.5 * square(z - y)).mean(1).mean(0)


def agree(curv: hessmx.Curvature, truth: Jet, tolerance: float) -> None:
    """Gradient, and Hessian times three random vectors."""
    vectors = np.random.default_rng(2).normal(size=(curv.num_params, 3))
    expected = truth.h @ vectors
    np.testing.assert_allclose(curv.gradient(), truth.d, atol=tolerance * abs(truth.d).max())
    np.testing.assert_allclose(curv.hessian @ vectors, expected, atol=tolerance * abs(expected).max())


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_fused_layers_have_the_exact_hessian(row: Row) -> None:
    curv, inputs, y = problem(row)
    truth = reference(row, curv.parameters(), inputs, y)
    assert curv.loss() == pytest.approx(float(truth.v), rel=1e-13)
    agree(curv, truth, 1e-11)


@pytest.mark.parametrize("row", [r for r in ROWS if r.hybrid and r.mode != "rnn_relu"], ids=str)
def test_the_fused_kernel_in_float32_agrees_with_float64(row: Row) -> None:
    """float32 runs MXNet's fused kernel and its own tangent rule, float64 (but for LSTM) single steps."""
    curv, inputs, y = problem(row, "float32")
    truth = reference(row, curv.parameters().astype(np.float64), [a.astype("f4") for a in inputs], y.astype("f4"))
    agree(curv, truth, 1e-5)


@pytest.mark.parametrize("mode", CELLS)
def test_products_are_right_where_only_what_comes_before_the_layer_moves(mode: str) -> None:
    """MXNet's float64 kernel is wrong where the parameters' gradient is not asked for."""
    net = nn.HybridSequential()
    net.add(nn.Dense(INPUT, in_units=2, flatten=False, use_bias=False), Row(mode, 2).layer(), nn.Dense(1, in_units=6))
    net.initialize(mx.init.Normal(0.7))
    net.cast("float64")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, STEPS, 2)), rng.normal(size=(2, 1))
    everything = hessmx.Curvature(net, gluon.loss.L2Loss(), (x, y))
    first = hessmx.Curvature(net, gluon.loss.L2Loss(), (x, y), params="dense.*weight", engine="reverse-over-forward")
    part = np.concatenate([np.arange(*everything.param_slices[name].indices(10**6)) for name in first.param_names])
    np.testing.assert_allclose(first.gradient(), everything.gradient()[part], rtol=1e-11, atol=1e-14)
    expected = everything.hessian.to_dense()[np.ix_(part, part)]
    np.testing.assert_allclose(first.hessian.to_dense(), expected, rtol=1e-9, atol=1e-13)


def test_what_mxnet_has_on_gpus_only_is_refused_in_one_line() -> None:
    layer = rnn.LSTM(2, projection_size=1, input_size=2, layout="NTC")
    layer.initialize()
    data = np.zeros((2, 3, 2)), np.zeros((2, 3, 1))
    with pytest.raises(GraphError, match=r"projection_size.*GPUs only"):
        hessmx.Curvature(layer, gluon.loss.L2Loss(), data, engine="reverse-over-forward")


@pytest.fixture
def numpy_semantics() -> Iterator[None]:
    mx.npx.set_np()
    yield
    mx.npx.reset_np()


@pytest.mark.parametrize("container", [nn.HybridSequential, nn.Sequential], ids=lambda block: block.__name__)
def test_nets_with_numpy_semantics(container: Any, numpy_semantics: None) -> None:
    """Their initial states, of shape (layers, 0, units) as Symbols, are known on the tape only."""
    net = container()
    net.add(rnn.LSTM(3, 2, layout="NTC", input_size=2), nn.Dense(3, in_units=3 * STEPS))
    net.initialize(mx.init.Normal(0.7))
    net.cast("float64")
    rng = np.random.default_rng(1)
    data = rng.normal(size=(4, STEPS, 2)), np.array([0, 2, 1, 1])
    curv = hessmx.Curvature(net, gluon.loss.SoftmaxCrossEntropyLoss(), data, engine="reverse-over-forward")
    v = rng.normal(size=curv.num_params)
    expected = directional(curv.gradient, curv.parameters(), v, 1e-3)
    np.testing.assert_allclose(curv.hvp(v), expected, atol=1e-8 * abs(expected).max())
