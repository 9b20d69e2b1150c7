"""The benchmark's nets in PyTorch: gradients, double backward and Gauss-Newton, from scratch and with retained graphs.

Attention is written out: PyTorch's fused one has no second derivatives on a CPU.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as functional
from cases import DIRECTIONS, HEADS, LAYERS, RESIDUAL, UNITS, Case

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

Weights = dict[str, torch.Tensor]


def _forward(case: Case, w: Weights, x: torch.Tensor) -> torch.Tensor:
    if case.name in RESIDUAL:
        return _resnet(case, w, x)
    if case.name in ("lstm", "gru"):
        return _recurrent(case.name, w, x)
    if case.name == "encoder":
        return _encoder(w, x)
    layers = len(w) // 2
    for i in range(layers):
        x = _layer(w, str(i), x)
        if i < layers - 1:
            x = x.view(len(x), -1, 5).amax(2) if case.name == "maxout" else torch.relu(x)
    return x


def _layer(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return functional.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def _resnet(case: Case, w: Weights, x: torch.Tensor) -> torch.Tensor:
    shape = RESIDUAL[case.name]
    running = {name: [torch.from_numpy(array) for array in pair] for name, pair in case.statistics.items()}

    def conv_norm(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        kernel = w[f"{name}.conv"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        mean, variance = running.get(name, (None, None))
        gamma, beta = w[f"{name}.gamma"], w[f"{name}.beta"]
        return functional.batch_norm(x, mean, variance, gamma, beta, training=mean is None, eps=1e-5)

    x = torch.relu(conv_norm("stem", x, 2 if shape.pooling else 1))
    if shape.pooling:
        x = functional.max_pool2d(x, 3, 2, 1)
    for i, (inputs, outputs, stride) in enumerate(shape.blocks):
        way = x if inputs == outputs else conv_norm(f"{i}.shortcut", x, stride)
        x = torch.relu(conv_norm(f"{i}.b", torch.relu(conv_norm(f"{i}.a", x, stride)), 1) + way)
    return _layer(w, "head", x.mean((2, 3)))


def _recurrent(name: str, w: Weights, x: torch.Tensor) -> torch.Tensor:
    names = ("i2h.weight", "h2h.weight", "i2h.bias", "h2h.bias")
    flat = [w[f"{layer}.{name}"] for layer in range(2) for name in names]
    state = torch.zeros(2, x.shape[1], UNITS)
    if name == "lstm":
        output, _, _ = torch.lstm(x, (state, state), flat, True, 2, 0.0, True, False, False)
    else:
        output, _ = torch.gru(x, state, flat, True, 2, 0.0, True, False, False)
    return _layer(w, "head", output).flatten(0, 1)


def _encoder(w: Weights, x: torch.Tensor) -> torch.Tensor:
    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, x.shape[-1:], w[f"{name}.gamma"], w[f"{name}.beta"], eps=1e-5)

    for i in range(LAYERS):
        parts = _layer(w, f"{i}.qkv", x).chunk(3, 2)
        q, k, v = (part.unflatten(2, (HEADS, -1)).transpose(1, 2) for part in parts)
        shares = torch.softmax(q @ k.transpose(2, 3) / (UNITS // HEADS) ** 0.5, -1)
        mixed = (shares @ v).transpose(1, 2).flatten(2)
        x = norm(f"{i}.norm1", x + _layer(w, f"{i}.out", mixed))
        x = norm(f"{i}.norm2", x + _layer(w, f"{i}.narrow", functional.gelu(_layer(w, f"{i}.wide", x))))
    return _layer(w, "head", x.mean(1))


class _Hessian:
    """H v by double backward (Pearlmutter 1994): the gradient with its graph, and the gradient of g' v."""

    def __init__(self, parameters: list[torch.Tensor], output: torch.Tensor, y: torch.Tensor):
        self.parameters = parameters
        self.gradient = torch.autograd.grad(functional.cross_entropy(output, y), parameters, create_graph=True)

    def product(self, direction: Any, retain: bool, batched: bool = False) -> Any:
        return torch.autograd.grad(
            self.gradient, self.parameters, direction, retain_graph=retain, is_grads_batched=batched
        )


class _GaussNewton:
    """J' (d2 loss) J v: J v is the derivative of J' u by u, the loss's Hessian a double backward from the outputs."""

    def __init__(self, parameters: list[torch.Tensor], output: torch.Tensor, y: torch.Tensor):
        self.parameters, self.output = parameters, output
        self.dummy = torch.zeros_like(output, requires_grad=True)
        self.pulled = torch.autograd.grad(output, parameters, self.dummy, create_graph=True)
        self.end = output.detach().requires_grad_()
        (self.slope,) = torch.autograd.grad(functional.cross_entropy(self.end, y), self.end, create_graph=True)

    def product(self, direction: Any, retain: bool) -> Any:
        (pushed,) = torch.autograd.grad(self.pulled, self.dummy, direction, retain_graph=True)
        (curved,) = torch.autograd.grad(self.slope, self.end, pushed, retain_graph=retain)
        return torch.autograd.grad(self.output, self.parameters, curved, retain_graph=retain)


class _Net:
    """The case's numbers as tensors; graphs that are retained are made at their first product."""

    def __init__(self, case: Case):
        self.case = case
        self.weights = {name: torch.tensor(array, requires_grad=True) for name, array in case.weights}
        self.parameters = list(self.weights.values())
        self.x, self.y = torch.tensor(case.x), torch.tensor(case.y)
        directions = torch.tensor(case.directions).split([p.numel() for p in self.parameters], 1)
        self.block = [rows.reshape(-1, *p.shape) for rows, p in zip(directions, self.parameters)]

    def direction(self, call: int) -> list[torch.Tensor]:
        return [rows[call % DIRECTIONS] for rows in self.block]

    def output(self) -> torch.Tensor:
        return _forward(self.case, self.weights, self.x)

    def gradient(self, call: int) -> Any:
        return torch.autograd.grad(functional.cross_entropy(self.output(), self.y), self.parameters)

    def new(self, matrix: Any) -> Any:
        return matrix(self.parameters, self.output(), self.y)

    @cached_property
    def hessian(self) -> _Hessian:
        return self.new(_Hessian)

    @cached_property
    def ggn(self) -> _GaussNewton:
        return self.new(_GaussNewton)


def build(case: Case) -> dict[str, Callable[[int], Any]]:
    net = _Net(case)
    return {
        "gradient": net.gradient,
        "hvp": lambda call: net.new(_Hessian).product(net.direction(call), retain=False),
        "hvp kept": lambda call: net.hessian.product(net.direction(call), retain=True),
        "hvp block": lambda call: net.hessian.product(net.block, retain=True, batched=True),
        "ggn": lambda call: net.new(_GaussNewton).product(net.direction(call), retain=False),
        "ggn kept": lambda call: net.ggn.product(net.direction(call), retain=True),
    }


def flat(value: Any, rows: int) -> np.ndarray:
    """One vector; of a block, whose parts have an axis (K,) before a parameter's, `rows` after each other."""
    return np.concatenate([part.detach().numpy().reshape(rows, -1) for part in value], axis=1).ravel()
