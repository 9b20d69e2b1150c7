"""Attention blocks, a Transformer encoder layer and a language model, against differences of MXNet's own gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from tests import differences

gluon, nn = mx.gluon, mx.gluon.nn

BATCH, STEPS, WIDTH, HEADS = 2, 3, 4, 2
LENGTHS = np.array([2.0, 3.0])


class Attention(nn.HybridBlock):
    """Multi-head self-attention written with batch_dot; `mask` says how padding is left out."""

    def __init__(self, mask: str = "", bias: bool = True):
        super().__init__()
        self.mask = mask
        with self.name_scope():
            self.joint = nn.Dense(3 * WIDTH, flatten=False, in_units=WIDTH, use_bias=bias)
            self.out = nn.Dense(WIDTH, flatten=False, in_units=WIDTH)

    def apart(self, F: Any, x: Any) -> Any:
        """(N, T, heads d) -> (N heads, T, d)."""
        x = F.transpose(F.reshape(x, shape=(0, 0, HEADS, -1)), axes=(0, 2, 1, 3))
        return F.reshape(x, shape=(-1, 0, 0), reverse=True)

    def weights(self, F: Any, scores: Any, length: Any) -> Any:
        """(N heads, T, T) -> the same, rows adding up to 1."""
        if not self.mask:
            return F.softmax(scores, axis=-1)
        if self.mask == "use_length":
            rows = F.broadcast_axis(F.reshape(length, shape=(-1, 1)), axis=1, size=HEADS * STEPS)
            rows = F.cast(F.reshape(rows, shape=(-1, STEPS)), "int32")
            return F.softmax(scores, rows, axis=-1, use_length=True)
        ones = F.ones_like(F.slice_axis(F.reshape(scores, shape=(-1, HEADS, STEPS, STEPS)), axis=1, begin=0, end=1))
        keys = F.SequenceMask(F.transpose(ones, axes=(3, 0, 1, 2)), length, use_sequence_length=True)
        keep = F.reshape(F.tile(F.transpose(keys, axes=(1, 2, 3, 0)), reps=(1, HEADS, 1, 1)), shape=(-1, STEPS, STEPS))
        if self.mask == "where":
            return F.softmax(F.where(keep, scores, -1e9 * F.ones_like(scores)), axis=-1)
        return F.softmax(scores + 1e9 * (keep - 1), axis=-1) * keep

    def hybrid_forward(self, F: Any, x: Any, length: Any = None) -> Any:
        queries, keys, values = (self.apart(F, part) for part in F.split(self.joint(x), num_outputs=3, axis=2))
        scores = F.batch_dot(queries, keys, transpose_b=True) / np.sqrt(WIDTH // HEADS)
        mixed = F.batch_dot(self.weights(F, scores, length), values)
        mixed = F.transpose(F.reshape(mixed, shape=(-1, HEADS, 0, 0), reverse=True), axes=(0, 2, 1, 3))
        return self.out(F.reshape(mixed, shape=(0, 0, -1)))


class Interleaved(nn.HybridBlock):
    """The same with MXNet's own operators, as GluonNLP uses them: (T, N, ...) inside."""

    def __init__(self, across: bool = False):
        super().__init__()
        self.across = across
        with self.name_scope():
            self.joint = nn.Dense(3 * WIDTH, flatten=False, in_units=WIDTH)
            self.queries = nn.Dense(WIDTH, flatten=False, in_units=WIDTH)
            self.pairs = nn.Dense(2 * WIDTH, flatten=False, in_units=WIDTH)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        x = F.swapaxes(x, 0, 1)
        contrib = F.contrib
        if self.across:
            queries, pairs = self.queries(F.slice_axis(x, axis=0, begin=0, end=2)), self.pairs(x)
            weights = F.softmax(contrib.interleaved_matmul_encdec_qk(queries, pairs, heads=HEADS), axis=-1)
            y = contrib.interleaved_matmul_encdec_valatt(pairs, weights, heads=HEADS)
        else:
            joint = self.joint(x)
            weights = F.softmax(contrib.interleaved_matmul_selfatt_qk(joint, heads=HEADS), axis=-1)
            y = contrib.interleaved_matmul_selfatt_valatt(joint, weights, heads=HEADS)
        return F.flatten(F.swapaxes(y, 0, 1))


class Encoder(nn.HybridBlock):
    """Post-norm Transformer encoder layer (Vaswani et al. 2017, section 3.1)."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.attention = Attention("use_length")
            self.first, self.second = nn.LayerNorm(in_channels=WIDTH), nn.LayerNorm(in_channels=WIDTH)
            self.wide = nn.Dense(6, flatten=False, in_units=WIDTH)
            self.narrow = nn.Dense(WIDTH, flatten=False, in_units=6)
            self.dropout = nn.Dropout(0.2)

    def hybrid_forward(self, F: Any, x: Any, length: Any) -> Any:
        x = self.first(x + self.dropout(self.attention(x, length)))
        hidden = F.Activation(self.wide(x), act_type="softrelu")  # gelu is float32 inside: no sharp differences
        return self.second(x + self.dropout(self.narrow(hidden)))


def filled(net: Any, seed: int = 1) -> Any:
    net.initialize()
    net.cast("float64")
    rng = np.random.default_rng(seed)
    for parameter in net.collect_params().values():
        if parameter.grad_req != "null":
            parameter.set_data(mx.nd.array(rng.normal(0, 0.6, parameter.shape), dtype="float64"))
    return net


def error(net: Any, data: Any, step: float = 1e-3, loss: Any = None) -> float:
    """Hv along one random vector against differences, relative."""
    loss = loss or gluon.loss.L2Loss()
    curv = hessmx.Curvature(net, loss, [data], engine="reverse-over-forward")
    v = np.random.default_rng(2).normal(size=curv.num_params)
    expected = differences.product(net, loss, data, curv.param_names, v, step)
    return float(np.abs(curv.hvp(v) - expected).max() / np.abs(expected).max())


def sequences(*more: Any) -> tuple:
    rng = np.random.default_rng(0)
    return rng.normal(size=(BATCH, STEPS, WIDTH)), *more, rng.normal(size=(BATCH, STEPS, WIDTH))


@pytest.mark.parametrize("mask", ["", "use_length", "where", "additive"])
def test_attention_written_with_batch_dot(mask: str) -> None:
    assert error(filled(Attention(mask)), sequences(*([LENGTHS] if mask else []))) < 1e-8


def dense_interleaved(net: Interleaved, x: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    """Outputs (N, T heads d) in NumPy; on the last axis of a head stand its query, key and value."""

    def dense(layer: Any) -> np.ndarray:
        z = x @ w[layer.weight.name].T + w[layer.bias.name]
        return z.reshape(*z.shape[:2], HEADS, -1, WIDTH // HEADS)  # (N, T, heads, parts, d)

    if net.across:
        queries = dense(net.queries)[:, :2, :, 0]
        keys, values = np.moveaxis(dense(net.pairs), 3, 0)
    else:
        queries, keys, values = np.moveaxis(dense(net.joint), 3, 0)
    scores = np.exp(np.einsum("nqhd,nkhd->nhqk", queries, keys) / np.sqrt(WIDTH // HEADS))
    return np.einsum("nhqk,nkhd->nqhd", scores / scores.sum(-1, keepdims=True), values).reshape(len(x), -1)


@pytest.mark.parametrize("across", [False, True], ids=["self", "encoder-decoder"])
def test_interleaved_attention(across: bool) -> None:
    """MXNet's kernels are float32 only: NumPy's loss, complex step for one derivative, differences for the other."""
    net = filled(Interleaved(across))
    names = "queries|pairs" if across else "joint"
    wanted = [p.name for layer in names.split("|") for p in getattr(net, layer).collect_params().values()]
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(BATCH, STEPS, WIDTH)), rng.normal(size=(BATCH, (2 if across else STEPS) * WIDTH))
    curv = hessmx.Curvature(net, gluon.loss.L2Loss(), (x, y), params=lambda p: p.name in wanted)
    assert curv.engine == "reverse-over-forward"

    def loss(at: np.ndarray) -> Any:
        w = {name: at[curv.param_slices[name]].reshape(curv.param_shapes[name]) for name in curv.param_names}
        return (0.5 * (dense_interleaved(net, x, w) - y) ** 2).mean()

    def gradient(at: np.ndarray) -> np.ndarray:
        return np.array([loss(at + 1e-30j * e).imag / 1e-30 for e in np.eye(at.size)])

    at, v = curv.parameters(), rng.normal(size=curv.num_params)
    expected = differences.directional(gradient, at, v, 1e-3)
    np.testing.assert_allclose(curv.gradient(), gradient(at), atol=1e-13)
    assert np.abs(curv.hvp(v) - expected).max() < 1e-9 * np.abs(expected).max()


def test_transformer_encoder_layer() -> None:
    assert error(filled(Encoder()), sequences(LENGTHS)) < 1e-8


class LanguageModel(nn.HybridBlock):
    """Embedding, LSTM, and a softmax over the vocabulary at each step."""

    def __init__(self, sparse: bool = False):
        super().__init__()
        with self.name_scope():
            self.embedding = nn.Embedding(7, 3, sparse_grad=sparse)
            self.lstm = mx.gluon.rnn.LSTM(4, layout="NTC", input_size=3)
            self.out = nn.Dense(7, flatten=False, in_units=4)

    def hybrid_forward(self, F: Any, words: Any) -> Any:
        return self.out(self.lstm(self.embedding(words)))


def words() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.integers(0, 7, (BATCH, 5)).astype("float64"), rng.integers(0, 7, (BATCH, 5)).astype("float64")


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse gradient"])
def test_language_model(sparse: bool) -> None:
    """With sparse_grad MXNet's gradient is row_sparse; here it is dense, and the same."""
    assert error(filled(LanguageModel(sparse)), words(), loss=gluon.loss.SoftmaxCrossEntropyLoss()) < 1e-8


def test_language_model_with_one_loss_for_each_word() -> None:
    """A loss over (N, T) entries: T losses a sample are averaged, as Gluon does, or are samples of their own."""
    net = filled(LanguageModel())
    each = gluon.loss.SoftmaxCrossEntropyLoss()
    flat = hessmx.Curvature(net, lambda z, y: each(z.reshape((-3, 0)), y.reshape((-1,))), [words()])
    mean = hessmx.Curvature(net, each, [words()])
    assert (flat.num_samples, mean.num_samples) == (10, 2)
    assert flat.loss() == pytest.approx(mean.loss(), rel=1e-13)
    v = np.random.default_rng(2).normal(size=flat.num_params)
    np.testing.assert_allclose(flat.hvp(v), mean.hvp(v), atol=1e-12 * np.abs(mean.hvp(v)).max())
