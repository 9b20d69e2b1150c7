"""Layers where MXNet's own kernels need care: ties, written parameters, wrong or crashing gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.trust.testing import check_rule

nn = mx.gluon.nn


def curvature(layers: list, shape: tuple, dtype: str = "float64", mode: str = "predict", shift: float = 0) -> Any:
    """A net of these layers and a Dense layer under the L2 loss, the same numbers in every dtype."""
    mx.random.seed(0)
    rng = np.random.default_rng(0)
    net = nn.HybridSequential()
    net.add(*layers, nn.Dense(2))
    net.initialize(mx.init.Uniform(0.5))
    x, y = rng.standard_normal(shape) + shift, rng.standard_normal((shape[0], 2))
    net(mx.nd.array(x))
    net.cast(dtype)
    data = tuple(mx.nd.array(a, dtype=dtype) for a in (x, y))
    return net, hessmx.Curvature(net, mx.gluon.loss.L2Loss(), data, mode=mode, engine="reverse-over-forward")


def off(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


@pytest.mark.parametrize(
    ("shape", "attrs"),
    [
        ((1, 2, 4, 4), {"kernel": (2, 2), "stride": (2, 2)}),
        ((1, 1, 5, 5), {"kernel": (3, 3), "stride": (2, 2), "pad": (1, 1)}),
        ((2, 1, 6), {"kernel": (3,), "stride": (1,)}),
        ((1, 1, 3, 4, 3), {"kernel": (2, 2, 2)}),
        ((1, 2, 3, 3), {"kernel": (1, 1), "global_pool": True}),
    ],
)
def test_tied_maxima_follow_the_entry_that_mxnet_pays(shape: tuple, attrs: dict) -> None:
    x = np.random.default_rng(0).integers(0, 2, shape).astype(float)
    found = check_rule("Pooling", [x], {**attrs, "pool_type": "max"}, kink=True)
    assert found.adjoint < 1e-12


def test_train_mode_writes_nothing() -> None:
    """MXNet's BatchNorm moves its running statistics, and writes ones into a fixed gamma."""
    net, _ = curvature([nn.Conv2D(3, 3), nn.BatchNorm(scale=False)], (4, 2, 5, 5))
    for p in net.collect_params(".*gamma|.*running.*").values():
        p.set_data(p.data() * 0 + 2)
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    x, y = mx.nd.ones((4, 2, 5, 5), dtype="float64"), mx.nd.ones((4, 2), dtype="float64")
    curv = hessmx.Curvature(net, mx.gluon.loss.L2Loss(), (x, y), mode="train")
    curv.gradient(), curv.hvp(np.ones(curv.num_params))
    for name, p in net.collect_params().items():
        np.testing.assert_array_equal(p.data().asnumpy(), before[name])


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: [nn.Conv2D(2, 1), nn.AvgPool2D(3, 2, ceil_mode=True)], (2, 2, 6, 6)),
        (lambda: [nn.Conv2D(2, 1), nn.AvgPool2D(3, 2, 1, ceil_mode=True)], (2, 2, 5, 5)),
        (lambda: [nn.Conv2DTranspose(2, 2, 2), nn.Swish(), nn.Conv2DTranspose(2, 2, 2, in_channels=2)], (2, 2, 3, 3)),
        (lambda: [nn.Conv2D(2, 1), nn.MaxPool2D(3, 2, 1)], (2, 2, 6, 6)),
        (lambda: [nn.Conv2D(3, 3), nn.BatchNorm(), nn.Activation("relu"), nn.GlobalAvgPool2D()], (4, 2, 6, 6)),
    ],
    ids=["averages over the edge", "averages with padding", "transposed twice", "overlapping maxima", "normalised"],
)
@pytest.mark.parametrize("mode", ["predict", "train"])
def test_float32_agrees_with_float64(layers: Any, shape: tuple, mode: str) -> None:
    """In float32 MXNet's own gradients of the first two are wrong, and of the third it dies."""
    single, double = (curvature(layers(), shape, dtype, mode)[1] for dtype in ("float32", "float64"))
    v = np.random.default_rng(1).standard_normal(double.num_params)
    assert off(single.gradient(), double.gradient()) < 1e-5
    assert off(single.hvp(v), double.hvp(v)) < 1e-5


def test_batch_norm_of_data_far_from_zero() -> None:
    """Mean 300, deviation 1: no more is lost than the data's own rounding."""
    layers = [[nn.BatchNorm(), nn.Dense(3, activation="tanh"), nn.BatchNorm()] for _ in range(2)]
    single, double = (
        curvature(layer, (16, 4), dtype, "train", shift=300)[1] for layer, dtype in zip(layers, ("float32", "float64"))
    )
    v = np.random.default_rng(1).standard_normal(double.num_params)
    assert off(single.hvp(v), double.hvp(v)) < 1e-3


def _normalised(x: np.ndarray, axes: tuple, eps: float) -> np.ndarray:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


EPS, SINGLE = 0.01, float(np.float32(0.01))  # 2e-10 apart: 1e-8 of what small data become
NORMS = [  # layer, mode, its value in NumPy
    (nn.BatchNorm(epsilon=EPS), "train", lambda x: _normalised(x, (0, 2), EPS)),
    (nn.BatchNorm(epsilon=EPS), "predict", lambda x: x / np.sqrt(1 + EPS)),
    (nn.BatchNorm(epsilon=EPS, use_global_stats=True), "train", lambda x: x / np.sqrt(1 + EPS)),
    (nn.LayerNorm(epsilon=EPS), "predict", lambda x: _normalised(x, (2,), SINGLE)),
    (nn.GroupNorm(2, epsilon=EPS), "predict", lambda x: _normalised(x.reshape(6, 2, 6), (2,), SINGLE).reshape(x.shape)),
    (nn.HybridLambda(lambda F, x: F.L2Normalization(x, eps=EPS)), "predict",
     lambda x: x / np.sqrt((x * x).sum((1, 2), keepdims=True) + SINGLE)),
]  # fmt: skip


@pytest.mark.parametrize(("layer", "mode", "value"), NORMS)
def test_epsilon_is_a_double_in_batch_norm_and_a_float_elsewhere(layer: Any, mode: str, value: Any) -> None:
    """Loss and product in float64 against NumPy's, of the last layer's weights: exact to rounding."""
    x, y = np.random.default_rng(0).normal(size=(6, 4, 3)) * 1e-2, np.random.default_rng(1).normal(size=(6, 2))
    net = nn.HybridSequential()
    net.add(layer, nn.Dense(2))
    net.initialize(mx.init.Normal(1))
    net.cast("float64")
    net(mx.nd.array(x, dtype="float64"))
    curv = hessmx.Curvature(net, mx.gluon.loss.L2Loss(), (x, y), mode=mode, params=net[1].collect_params().keys())
    w, b = (p.data().asnumpy() for p in (net[1].weight, net[1].bias))
    z, v = value(x).reshape(6, -1), np.random.default_rng(2).normal(size=curv.num_params)
    direction = z @ v[: w.size].reshape(w.shape).T + v[w.size :]
    np.testing.assert_allclose(curv.loss(), (0.5 * (z @ w.T + b - y) ** 2).mean(), rtol=3e-14)
    np.testing.assert_allclose(v @ curv.hvp(v), (direction**2).mean(), rtol=1e-13)
