"""The benchmark's nets in PyTorch: gradient, double backward from scratch, and with the retained graph."""

from __future__ import annotations

from typing import Any, Callable

import numpy as np
import torch
import torch.nn.functional as functional
from cases import LSTM_UNITS, RESNET_BLOCKS, Case

torch.set_num_threads(2)


def _forward(case: Case, w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    if case.name == "resnet20":
        return _resnet(w, x)
    if case.name == "lstm":
        return _lstm(w, x)
    layers = len(w) // 2
    for i in range(layers):
        x = functional.linear(x, w[f"{i}.weight"], w[f"{i}.bias"])
        if i < layers - 1:
            x = x.view(len(x), -1, 5).amax(2) if case.name == "maxout" else torch.relu(x)
    return x


def _resnet(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    def conv_norm(name: str, x: torch.Tensor, stride: int) -> torch.Tensor:
        kernel = w[f"{name}.conv"]
        x = functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)
        return functional.batch_norm(x, None, None, w[f"{name}.gamma"], w[f"{name}.beta"], training=True, eps=1e-5)

    x = torch.relu(conv_norm("stem", x, 1))
    for i, (inputs, outputs, stride) in enumerate(RESNET_BLOCKS):
        way = x if inputs == outputs else conv_norm(f"{i}.shortcut", x, stride)
        x = torch.relu(conv_norm(f"{i}.b", torch.relu(conv_norm(f"{i}.a", x, stride)), 1) + way)
    return functional.linear(x.mean((2, 3)), w["head.weight"], w["head.bias"])


def _lstm(w: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    names = ("i2h.weight", "h2h.weight", "i2h.bias", "h2h.bias")
    flat = [w[f"{layer}.{name}"] for layer in range(2) for name in names]
    state = torch.zeros(2, x.shape[1], LSTM_UNITS)
    output, _, _ = torch.lstm(x, (state, state), flat, True, 2, 0.0, True, False, False)
    return functional.linear(output, w["head.weight"], w["head.bias"]).flatten(0, 1)


def build(case: Case) -> dict[str, Callable[[], Any]]:
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in case.weights}
    parameters = list(weights.values())
    x, y = torch.tensor(case.x), torch.tensor(case.y)
    sizes = [p.numel() for p in parameters]
    direction = [v.view_as(p) for v, p in zip(torch.tensor(case.direction).split(sizes), parameters)]

    def loss() -> torch.Tensor:
        return functional.cross_entropy(_forward(case, weights, x), y)

    def gradient() -> Any:
        return torch.autograd.grad(loss(), parameters)

    def hvp() -> Any:
        first = torch.autograd.grad(loss(), parameters, create_graph=True)
        return torch.autograd.grad(first, parameters, direction)

    kept = torch.autograd.grad(loss(), parameters, create_graph=True)

    def retained() -> Any:
        return torch.autograd.grad(kept, parameters, direction, retain_graph=True)

    return {"gradient": gradient, "hvp": hvp, "hvp retained": retained}


def flat(value: Any) -> np.ndarray:
    return np.concatenate([part.detach().numpy().ravel() for part in value])
