"""Nets, data and penalties that tests compare with PyTorch; all is drawn by NumPy, so that both sides have the same.

A layer is a name and its sizes; `scripts/uses/penalties_torch.py` builds the same nets, and writes penalties.json.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SLOPE, EPS = 0.25, 2.0**-10  # numbers that float32 holds, where MXNet rounds its attributes to it
LENGTH = 0.3  # above which the one-sided penalty begins

DENSE = [("dense", 3, 7), ("tanh",), ("dense", 7, 5), ("tanh",), ("dense", 5, 1)]
CONVOLUTION = [("conv", 2, 3, 1), ("leaky",), ("conv", 3, 4, 2), ("leaky",), ("flatten",), ("dense", 36, 1)]
LAYER_NORM = [("dense", 3, 8), ("layernorm", 8), ("softplus",), ("dense", 8, 6), ("layernorm", 6), ("tanh",)]
LAYER_NORM += [("dense", 6, 1)]
BATCH_NORM = [("dense", 3, 6), ("batchnorm", 6), ("leaky",), ("dense", 6, 5), ("batchnorm", 5), ("tanh",)]
BATCH_NORM += [("dense", 5, 1)]
IMAGE_NORM = [("conv", 2, 3, 1), ("batchnorm", 3), ("leaky",), ("conv", 3, 2, 2), ("batchnorm", 2), ("tanh",)]
IMAGE_NORM += [("flatten",), ("dense", 18, 1)]


def field(activation: str) -> list[tuple]:
    return [("dense", 2, 6), (activation,), ("dense", 6, 5), (activation,), ("dense", 5, 1)]


SMOOTH = ("tanh", "sigmoid", "softplus", "gelu", "silu", "elu")
BURGERS, PLATE = "u_t + u u_x - 0.3 u_xx", "u_xxxx + 2 u_xxtt + u"

CASES: dict[str, tuple[list[tuple], tuple[int, ...], str]] = {
    "dense, wgan-gp": (DENSE, (6, 3), "wgan-gp"),
    "dense, wgan-lp": (DENSE, (6, 3), "wgan-lp"),
    "dense, r1": (DENSE, (6, 3), "r1"),
    "dense, sobolev": (DENSE, (6, 3), "sobolev"),
    "dense, jacobian": ([*DENSE[:-1], ("dense", 5, 4), ("sigmoid",)], (6, 3), "jacobian"),
    "dense, gradient of a loss": ([*DENSE[:-1], ("dense", 5, 4)], (6, 3), "loss"),
    "convolution and LeakyReLU, wgan-gp": (CONVOLUTION, (4, 2, 6, 6), "wgan-gp"),
    "convolution and LeakyReLU, r1": (CONVOLUTION, (4, 2, 6, 6), "r1"),
    "LayerNorm, wgan-gp": (LAYER_NORM, (5, 3), "wgan-gp"),
    "LayerNorm, r1": (LAYER_NORM, (5, 3), "r1"),
    "BatchNorm over the batch, wgan-gp": (BATCH_NORM, (7, 3), "wgan-gp"),
    "BatchNorm over the batch of images, wgan-gp": (IMAGE_NORM, (5, 2, 6, 6), "wgan-gp"),
    **{f"{name}, Burgers": (field(name), (6, 2), BURGERS) for name in SMOOTH},
    "tanh, plate": (field("tanh"), (6, 2), PLATE),
    "LayerNorm, Burgers": ([("dense", 2, 6), ("layernorm", 6), ("tanh",), ("dense", 6, 1)], (6, 2), BURGERS),
}  # fmt: skip


def drawn(name: str) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Values of the trained parameters in order, inputs, targets of the gradient, labels."""
    layers, shape, _ = CASES[name]
    rng = np.random.default_rng(list(CASES).index(name))
    values: list[np.ndarray] = []
    for kind, *sizes in layers:
        if kind == "dense":
            values += [rng.normal(size=(sizes[1], sizes[0])) / np.sqrt(sizes[0]), 0.3 * rng.normal(size=sizes[1])]
        elif kind == "conv":
            inputs, outputs, _ = sizes
            values += [rng.normal(size=(outputs, inputs, 3, 3)) / np.sqrt(9 * inputs), 0.3 * rng.normal(size=outputs)]
        elif kind in ("layernorm", "batchnorm"):
            values += [1 + 0.3 * rng.normal(size=sizes[0]), 0.3 * rng.normal(size=sizes[0])]
    return values, rng.normal(size=shape), rng.normal(size=shape), rng.integers(0, 4, shape[0]).astype(float)


def residual(kind: str, d: Any) -> Any:
    """The PDE's residual; `d(name)` is a derivative, "" the output."""
    if kind == BURGERS:
        return d("t") + d("") * d("x") - 0.3 * d("xx")
    return d("xxxx") + 2 * d("xxtt") + d("")
