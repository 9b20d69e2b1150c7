"""Every layer of gluon.nn, gluon.loss and gluon.contrib.nn: H v against float64 differences of MXNet's own gradient."""

from __future__ import annotations

import itertools
import zlib
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx

nn, losses, contrib = mx.gluon.nn, mx.gluon.loss, mx.gluon.contrib.nn

# Central difference of order six along a direction of unit length.
STENCIL = ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60))


class Scaled(nn.HybridBlock):
    """x -> sin(w x): makes the input of a layer depend on a parameter, and curved."""

    def __init__(self, shape: tuple, **kwargs: Any):
        super().__init__(**kwargs)
        with self.name_scope():
            self.w = self.params.get("w", shape=(1, *shape), init=mx.init.Uniform(1.5))

    def hybrid_forward(self, F: Any, x: Any, w: Any) -> Any:
        return F.sin(F.broadcast_mul(x, w))


@dataclass(frozen=True)
class Layer:
    make: Callable[[], Any]
    shape: tuple  # of one sample
    train: tuple = (False,)
    tolerance: float = 1e-7
    step: float = 2e-4
    index: bool = False  # the input is indices below 5
    twin: tuple = ()  # layers that compute the same, where MXNet has its value or gradient right in float32 only
    dtype: str = "float64"


class Chosen(nn.HybridBlock):
    """x where it is positive, below(F, x) elsewhere; for a PReLU below is None."""

    def __init__(self, below: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.below = below
        if below is None:
            self.alpha = self.params.get("alpha", shape=(1,))

    def hybrid_forward(self, F: Any, x: Any, alpha: Any = None) -> Any:
        return F.where(x > 0, x, self.below(F, x) if alpha is None else F.broadcast_mul(x, alpha))


class TurnedConv3D(nn.HybridBlock):
    """A transposed convolution as a convolution of the padded input with the turned kernel."""

    def __init__(self, inputs: int, units: int, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.units = size, units
        self.weight = self.params.get("weight", shape=(inputs, units, size, size, size))

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        padded = F.Pad(x, mode="constant", constant_value=0, pad_width=(0,) * 4 + (self.size - 1,) * 6)
        turned = F.reverse(F.swapaxes(weight, 0, 1), axis=(2, 3, 4))
        return F.Convolution(padded, turned, kernel=(self.size,) * 3, num_filter=self.units, no_bias=True)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
BOTH = (False, True)
LINE, IMAGE, VOLUME = (2, 7), (2, 6, 5), (2, 4, 3, 4)
RANKS = ((1, LINE), (2, IMAGE), (3, VOLUME))
POOLS = {
    "": {},
    ", overlapping": {"pool_size": 3, "strides": 2, "padding": 1},
    ", ceil": {"pool_size": 3, "strides": 2, "ceil_mode": True},
}


def _joined(block: Any, *layers: Any) -> Any:
    block.add(*layers)
    return block


LAYERS = {
    "Dense": Layer(lambda: nn.Dense(3), (4,)),
    "Dense, three axes": Layer(lambda: nn.Dense(3, flatten=False, activation="tanh"), (2, 4)),
    "Dropout": Layer(lambda: nn.Dropout(0.5), (4,)),
    "BatchNorm": Layer(lambda: nn.BatchNorm(), IMAGE, BOTH),
    "BatchNorm of rows": Layer(lambda: nn.BatchNorm(), (5,), BOTH),
    "BatchNorm, last axis": Layer(lambda: nn.BatchNorm(axis=-1), IMAGE, BOTH),
    "BatchNorm, gamma fixed": Layer(lambda: nn.BatchNorm(scale=False), LINE, BOTH),
    "BatchNorm, beta fixed": Layer(lambda: nn.BatchNorm(center=False), LINE, BOTH),
    "BatchNorm, gamma 0": Layer(lambda: nn.BatchNorm(gamma_initializer="zeros"), IMAGE, BOTH),
    "BatchNorm, running statistics": Layer(lambda: nn.BatchNorm(use_global_stats=True), IMAGE, BOTH),
    "BatchNorm of volumes": Layer(lambda: nn.BatchNorm(), VOLUME, BOTH),
    "BatchNormReLU": Layer(lambda: nn.BatchNormReLU(), IMAGE, BOTH, twin=(nn.BatchNorm, lambda: nn.Activation("relu"))),
    "SyncBatchNorm": Layer(lambda: contrib.SyncBatchNorm(num_devices=1), IMAGE, BOTH, twin=(nn.BatchNorm,)),
    "LayerNorm": Layer(lambda: nn.LayerNorm(), (3, 4)),
    "LayerNorm, axis 1": Layer(lambda: nn.LayerNorm(axis=1), (3, 4)),
    "LayerNorm, no scale": Layer(lambda: nn.LayerNorm(scale=False, center=False), (3, 4)),
    "InstanceNorm": Layer(lambda: nn.InstanceNorm(scale=True), IMAGE, twin=(lambda: nn.GroupNorm(num_groups=2),)),
    "GroupNorm": Layer(lambda: nn.GroupNorm(num_groups=2), (4, 5)),
    "Embedding": Layer(lambda: nn.Embedding(5, 3), (4,), index=True),
    "Embedding, sparse gradient": Layer(lambda: nn.Embedding(5, 3, sparse_grad=True), (4,), index=True),
    "Flatten": Layer(lambda: nn.Flatten(), IMAGE),
    "Lambda": Layer(lambda: nn.Lambda(lambda x: x * x.exp()), LINE),
    "HybridLambda": Layer(lambda: nn.HybridLambda("tanh"), LINE),
    "Concurrent": Layer(lambda: _joined(contrib.Concurrent(), nn.Dense(2), nn.Dense(3)), (4,)),
    "HybridConcurrent": Layer(lambda: _joined(contrib.HybridConcurrent(), nn.Dense(2), nn.Dense(3)), (4,)),
    "Identity": Layer(lambda: contrib.Identity(), LINE),
    "ReflectionPad2D": Layer(lambda: nn.ReflectionPad2D(2), IMAGE),
    "PixelShuffle1D": Layer(lambda: contrib.PixelShuffle1D(2), LINE),
    "PixelShuffle2D": Layer(lambda: contrib.PixelShuffle2D((1, 2)), IMAGE),
    "PixelShuffle3D": Layer(lambda: contrib.PixelShuffle3D((1, 2, 1)), VOLUME),
    **{f"Activation {kind}": Layer(lambda kind=kind: nn.Activation(kind), LINE)
       for kind in ("relu", "sigmoid", "tanh", "softrelu", "softsign")},
    "ELU": Layer(nn.ELU, LINE),
    "Swish": Layer(nn.Swish, LINE),
    "PReLU": Layer(nn.PReLU, LINE, twin=(lambda: Chosen(None),)),
    "LeakyReLU": Layer(lambda: nn.LeakyReLU(0.1), LINE, twin=(lambda: Chosen(lambda F, x: 0.1 * x),)),
    "SELU": Layer(nn.SELU, LINE, twin=(lambda: Chosen(lambda F, x: SELU_ALPHA * (F.exp(x) - 1)),
                                       lambda: nn.HybridLambda(lambda F, x: SELU_SCALE * x))),
    "GELU": Layer(nn.GELU, LINE, twin=(lambda: nn.HybridLambda(lambda F, x: 0.5 * x * (1 + F.erf(x / 2**0.5))),)),
    "Conv1D": Layer(lambda: nn.Conv1D(3, 3, strides=2, padding=1), LINE),
    "Conv2D": Layer(lambda: nn.Conv2D(3, (2, 3), dilation=(2, 1), use_bias=False), IMAGE),
    "Conv2D, groups": Layer(lambda: nn.Conv2D(4, 3, groups=2, padding=1, activation="softrelu"), IMAGE),
    "Conv3D": Layer(lambda: nn.Conv3D(2, 2), VOLUME),
    "Conv1DTranspose": Layer(lambda: nn.Conv1DTranspose(3, 3, strides=2, output_padding=1), LINE),
    "Conv2DTranspose": Layer(lambda: nn.Conv2DTranspose(3, (2, 3), strides=2, padding=(1, 0)), IMAGE),
    "Conv3DTranspose": Layer(lambda: nn.Conv3DTranspose(2, 2, use_bias=False), VOLUME, dtype="float32", tolerance=1e-4,
                             twin=(lambda: TurnedConv3D(2, 2, 2),)),
    **{f"{kind}Pool{rank}D{note}": Layer(partial(getattr(nn, f"{kind}Pool{rank}D"), **options), shape)
       for kind in ("Max", "Avg") for rank, shape in RANKS for note, options in POOLS.items()},
    "AvgPool2D, without padding": Layer(lambda: nn.AvgPool2D(3, 1, 1, ceil_mode=True, count_include_pad=False), IMAGE),
    **{f"Global{kind}Pool{rank}D": Layer(getattr(nn, f"Global{kind}Pool{rank}D"), shape)
       for kind in ("Max", "Avg") for rank, shape in RANKS},
}  # fmt: skip

NEEDS_TRAINER = {"SparseEmbedding"}  # MXNet gives out its rows to a Trainer only; see tests/test_sparse_embedding.py
CONTAINERS = {"Block", "HybridBlock", "Sequential", "HybridSequential", "SymbolBlock"}


def net_of(layer: Layer, seed: int) -> tuple[Any, Any, Any]:
    """Scaled, the layer, Dense; a net of the same function that MXNet runs in float64; and a batch for them."""
    rng = np.random.default_rng(seed)
    mx.random.seed(seed)
    draw = rng.integers(0, 5, (4, *layer.shape)) if layer.index else rng.uniform(-2, 2, (4, *layer.shape))
    nets = []
    for middle, dtype in (((layer.make,), layer.dtype), (layer.twin, "float64")):
        net = nn.Sequential()
        net.add(*([] if layer.index else [Scaled(layer.shape)]), *(make() for make in middle), nn.Dense(2))
        net.initialize(mx.init.Uniform(0.7))
        net(mx.nd.array(draw))
        net.cast(dtype)
        nets.append(net)
    net, twin = nets[0], nets[bool(layer.twin)]
    for p, q in zip(net.collect_params().values(), twin.collect_params().values()):
        value = p.data().asnumpy()
        if p.grad_req == "null" and value.all():
            value = rng.uniform(0.5, 1.5, p.shape)
        p.set_data(mx.nd.array(value, dtype=layer.dtype))
        q.set_data(mx.nd.array(value, dtype="float64"))
    return net, twin, mx.nd.array(draw, dtype="float64")


def differences(net: Any, loss: Any, x: Any, y: Any, v: np.ndarray, train: bool, step: float) -> np.ndarray:
    """H v of the mean loss by differences of autograd's gradient of the net itself; `v` has length 1."""
    parameters = [p for p in net.collect_params().values() if p.grad_req != "null"]
    saved = {p: p.data().copy() for p in net.collect_params().values()}
    ends = np.cumsum([saved[p].size for p in parameters])[:-1]

    def gradient(shift: float) -> np.ndarray:
        for p in saved:
            p.set_data(saved[p])
        for p, piece in zip(parameters, np.split(v, ends)):
            p.set_data(saved[p] + mx.nd.array(shift * piece.reshape(p.shape), dtype=p.dtype))
        with mx.autograd.record(train_mode=train):
            value = loss(net(x), y)
        value.backward(train_mode=train)
        return np.concatenate([p.grad().tostype("default").asnumpy().ravel() for p in parameters]) / len(x)

    total = sum(w * (gradient(k * step) - gradient(-k * step)) for k, w in STENCIL) / step
    for p in saved:
        p.set_data(saved[p])
    return total


def error(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.parametrize(("name", "train"), [(name, train) for name, layer in LAYERS.items() for train in layer.train])
def test_layer(name: str, train: bool) -> None:
    layer, seed = LAYERS[name], zlib.crc32(name.encode())
    net, twin, x = net_of(layer, seed)
    rng = np.random.default_rng(seed)
    y, loss = mx.nd.array(rng.standard_normal(twin(x).shape), dtype="float64"), losses.L2Loss()
    own = (a.astype(layer.dtype) for a in (x, y))
    curv = hessmx.Curvature(net, loss, tuple(own), mode="train" if train else "predict", engine="reverse-over-forward")
    v = rng.standard_normal(curv.num_params)
    v /= np.linalg.norm(v)
    assert error(curv.hvp(v), differences(twin, loss, x, y, v, train, layer.step)) < layer.tolerance


def test_all_layers_are_here() -> None:
    tested = {type(layer.make()).__name__ for layer in LAYERS.values()}
    offered = {
        name
        for name in dir(nn)
        if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), mx.gluon.Block)
    }
    assert offered - CONTAINERS <= tested
    assert set(contrib.__all__) - NEEDS_TRAINER <= tested


def _parts(loss: Any) -> Callable[[Any, Any], Any]:
    """A loss of two more arrays, which are joined in the label."""
    return lambda out, y: loss(out, y.slice_axis(axis=1, begin=0, end=3), y.slice_axis(axis=1, begin=3, end=None))


LOSSES = {  # the loss, a label for six samples of three outputs
    "L2Loss": (losses.L2Loss(weight=0.3), lambda rng: rng.standard_normal((6, 3))),
    "L1Loss": (losses.L1Loss(), lambda rng: rng.standard_normal((6, 3))),
    "SigmoidBinaryCrossEntropyLoss": (losses.SigmoidBCELoss(), lambda rng: rng.integers(0, 2, (6, 3))),
    "SigmoidBCELoss": (losses.SigmoidBCELoss(from_sigmoid=True), None),
    "SoftmaxCrossEntropyLoss": (losses.SoftmaxCELoss(), lambda rng: rng.integers(0, 3, 6)),
    "SoftmaxCELoss": (losses.SoftmaxCELoss(sparse_label=False), lambda rng: rng.dirichlet(np.ones(3), 6)),
    "KLDivLoss": (losses.KLDivLoss(from_logits=False), lambda rng: rng.dirichlet(np.ones(3), 6)),
    "HuberLoss": (losses.HuberLoss(rho=0.7), lambda rng: rng.standard_normal((6, 3))),
    "HingeLoss": (losses.HingeLoss(), lambda rng: rng.choice([-1, 1], (6, 3))),
    "SquaredHingeLoss": (losses.SquaredHingeLoss(), lambda rng: rng.choice([-1, 1], (6, 3))),
    "LogisticLoss": (losses.LogisticLoss(), lambda rng: rng.choice([-1, 1], (6, 3))),
    "TripletLoss": (_parts(losses.TripletLoss(margin=5)), lambda rng: rng.standard_normal((6, 6))),
    "PoissonNLLLoss": (losses.PoissonNLLLoss(), lambda rng: rng.poisson(2, (6, 3))),
    "CosineEmbeddingLoss": (
        lambda out, y: losses.CosineEmbeddingLoss()(
            out, y.slice_axis(axis=1, begin=0, end=3), y.slice_axis(axis=1, begin=3, end=4).reshape((-1,))
        ),
        lambda rng: np.column_stack([rng.standard_normal((6, 3)), np.ones(6)]),
    ),
    "SDMLLoss": (losses.SDMLLoss(), lambda rng: rng.standard_normal((6, 3))),
}
ELSEWHERE = {"Loss", "CTCLoss"}
IN_FLOAT32 = {"CosineEmbeddingLoss", "SDMLLoss"}  # they make float32 constants


@pytest.mark.parametrize("name", [name for name, (_, label) in LOSSES.items() if label])
def test_loss(name: str) -> None:
    loss, label = LOSSES[name]
    seed = zlib.crc32(name.encode())
    rng = np.random.default_rng(seed)
    mx.random.seed(seed)
    net = nn.HybridSequential()
    net.add(nn.Dense(5, activation="tanh", in_units=4), nn.Dense(3, in_units=5))
    net.initialize(mx.init.Uniform(0.7))
    dtype, step, tolerance = ("float32", 2e-2, 2e-3) if name in IN_FLOAT32 else ("float64", 2e-4, 1e-7)
    net.cast(dtype)
    x, y = (mx.nd.array(a, dtype=dtype) for a in (rng.standard_normal((6, 4)), label(rng)))
    curv = hessmx.Curvature(net, loss, (x, y), engine="reverse-over-forward")
    v = rng.standard_normal(curv.num_params)
    v /= np.linalg.norm(v)
    true = differences(net, loss, x, y, v, False, step)
    if loss(net(x), y).shape in ((), (1,)):  # a mean over all samples already
        true = true * len(x)
    assert np.linalg.norm(curv.hvp(v) - true) < tolerance * max(np.linalg.norm(true), 1e-2)


def _ctc_reference(z: np.ndarray, label: list) -> float:
    """-log of the sum over all paths that collapse to the label, counted one by one."""
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    total = 0.0
    for path in itertools.product(range(z.shape[1]), repeat=len(z)):
        read = [symbol for symbol, _ in itertools.groupby(path) if symbol != z.shape[1] - 1]
        if read == label:
            total += np.exp(sum(log_p[t, symbol] for t, symbol in enumerate(path)))
    return -np.log(total)


def test_ctc_loss() -> None:
    """MXNet's own computes in float32: value, gradient and H v against all paths and their differences."""
    rng = np.random.default_rng(0)
    labels = [[0, 1], [1, 1], [2]]
    padded = np.array([[*label, *[-1] * (2 - len(label))] for label in labels], dtype=float)
    bias = nn.Dense(12, in_units=3)
    bias.initialize(mx.init.Uniform(1))
    bias.cast("float64")
    x = rng.standard_normal((3, 3))
    ctc = losses.CTCLoss(layout="NTC")
    curv = hessmx.Curvature(
        bias, lambda z, y: ctc(z.reshape((-1, 3, 4)), y), tuple(mx.nd.array(a, dtype="float64") for a in (x, padded))
    )

    def reference(w: np.ndarray) -> float:
        z = x @ w[:36].reshape(12, 3).T + w[36:]
        return float(np.mean([_ctc_reference(a.reshape(3, 4), label) for a, label in zip(z, labels)]))

    w, v, h = curv.parameters(), rng.standard_normal(48), 1e-3
    assert curv.loss() == pytest.approx(reference(w), abs=1e-12)
    slope = sum(c * (reference(w + k * h * v) - reference(w - k * h * v)) for k, c in STENCIL) / h
    assert curv.gradient() @ v == pytest.approx(slope, abs=1e-9)
    bend = (reference(w + h * v) - 2 * reference(w) + reference(w - h * v)) / h**2
    assert v @ curv.hvp(v) == pytest.approx(bend, rel=1e-4)
    u = rng.standard_normal(48)
    ahead, behind = (curv.gradient(at=w + s * h * v) for s in (1, -1))
    assert u @ curv.hvp(v) == pytest.approx(u @ (ahead - behind) / (2 * h), rel=1e-4)


def test_all_losses_are_here() -> None:
    assert set(losses.__all__) - ELSEWHERE == set(LOSSES)
