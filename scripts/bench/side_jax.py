"""The benchmark's nets in JAX: jitted gradient, and jitted jvp of the gradient."""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
from cases import LSTM_UNITS, RESNET_BLOCKS, Case
from jax import lax


def _forward(case: Case, w: dict[str, Any], x: Any) -> Any:
    if case.name == "resnet20":
        return _resnet(w, x)
    if case.name == "lstm":
        return _lstm(w, x)
    layers = len(w) // 2
    for i in range(layers):
        x = x @ w[f"{i}.weight"].T + w[f"{i}.bias"]
        if i < layers - 1:
            x = x.reshape(len(x), -1, 5).max(2) if case.name == "maxout" else jax.nn.relu(x)
    return x


def _resnet(w: dict[str, Any], x: Any) -> Any:
    def conv_norm(name: str, x: Any, stride: int) -> Any:
        kernel = w[f"{name}.conv"]
        pad = kernel.shape[2] // 2
        x = lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2)
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        scale, shift = w[f"{name}.gamma"].reshape(1, -1, 1, 1), w[f"{name}.beta"].reshape(1, -1, 1, 1)
        return (x - mean) * lax.rsqrt(var + 1e-5) * scale + shift

    x = jax.nn.relu(conv_norm("stem", x, 1))
    for i, (inputs, outputs, stride) in enumerate(RESNET_BLOCKS):
        way = x if inputs == outputs else conv_norm(f"{i}.shortcut", x, stride)
        x = jax.nn.relu(conv_norm(f"{i}.b", jax.nn.relu(conv_norm(f"{i}.a", x, stride)), 1) + way)
    return x.mean((2, 3)) @ w["head.weight"].T + w["head.bias"]


def _lstm(w: dict[str, Any], x: Any) -> Any:
    for layer in range(2):
        inputs = x @ w[f"{layer}.i2h.weight"].T + w[f"{layer}.i2h.bias"] + w[f"{layer}.h2h.bias"]
        recurrent = w[f"{layer}.h2h.weight"].T

        def step(state: Any, given: Any, recurrent: Any = recurrent) -> Any:
            h, c = state
            i, f, g, o = jnp.split(given + h @ recurrent, 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[1], LSTM_UNITS))
        _, x = lax.scan(step, (zero, zero), inputs)
    return (x @ w["head.weight"].T + w["head.bias"]).reshape(-1, 10)


def build(case: Case) -> dict[str, Callable[[], Any]]:
    weights = {name: jnp.asarray(array) for name, array in case.weights}
    names = list(weights)
    cuts = np.cumsum([array.size for _, array in case.weights])[:-1]
    pieces = np.split(case.direction, cuts)
    direction = {name: jnp.asarray(piece.reshape(weights[name].shape)) for name, piece in zip(names, pieces)}
    x, y = jnp.asarray(case.x), jnp.asarray(case.y)

    def loss(w: dict[str, Any]) -> Any:
        scores = jax.nn.log_softmax(_forward(case, w, x))
        return -jnp.take_along_axis(scores, y[:, None], 1).mean()

    gradient = jax.jit(jax.grad(loss))
    product = jax.jit(lambda w, v: jax.jvp(jax.grad(loss), (w,), (v,))[1])

    def listed(result: dict[str, Any]) -> list[Any]:
        return [jax.block_until_ready(result[name]) for name in names]

    return {"gradient": lambda: listed(gradient(weights)), "hvp": lambda: listed(product(weights, direction))}


def flat(value: Any) -> np.ndarray:
    return np.concatenate([np.asarray(part).ravel() for part in value])
