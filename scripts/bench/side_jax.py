"""The benchmark's nets in JAX, jitted: gradient, jvp of the gradient (a block by vmap), Gauss-Newton by jvp and vjp.

There is no product at kept parameters: a jitted product is a function of them, and whole.
"""

from __future__ import annotations

from typing import Any, Callable

import jax
import jax.numpy as jnp
import numpy as np
from cases import DIRECTIONS, HEADS, LAYERS, RESIDUAL, UNITS, Case
from jax import lax


def _forward(case: Case, w: dict[str, Any], x: Any) -> Any:
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
            x = x.reshape(len(x), -1, 5).max(2) if case.name == "maxout" else jax.nn.relu(x)
    return x


def _layer(w: dict[str, Any], name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _resnet(case: Case, w: dict[str, Any], x: Any) -> Any:
    shape = RESIDUAL[case.name]

    def conv_norm(name: str, x: Any, stride: int) -> Any:
        kernel = w[f"{name}.conv"]
        pad = kernel.shape[2] // 2
        x = lax.conv_general_dilated(x, kernel, (stride, stride), [(pad, pad)] * 2)
        known = case.statistics.get(name) or (x.mean((0, 2, 3)), x.var((0, 2, 3)))
        mean, var, scale, shift = (
            jnp.reshape(part, (1, -1, 1, 1)) for part in (*known, w[f"{name}.gamma"], w[f"{name}.beta"])
        )
        return (x - mean) * lax.rsqrt(var + 1e-5) * scale + shift

    x = jax.nn.relu(conv_norm("stem", x, 2 if shape.pooling else 1))
    if shape.pooling:
        edges = ((0, 0), (0, 0), (1, 1), (1, 1))
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), edges)
    for i, (inputs, outputs, stride) in enumerate(shape.blocks):
        way = x if inputs == outputs else conv_norm(f"{i}.shortcut", x, stride)
        x = jax.nn.relu(conv_norm(f"{i}.b", jax.nn.relu(conv_norm(f"{i}.a", x, stride)), 1) + way)
    return _layer(w, "head", x.mean((2, 3)))


def _recurrent(name: str, w: dict[str, Any], x: Any) -> Any:
    for layer in range(2):
        inputs = _layer(w, f"{layer}.i2h", x)

        def lstm(state: Any, given: Any, layer: int = layer) -> Any:
            h, c = state
            i, f, g, o = jnp.split(given + _layer(w, f"{layer}.h2h", h), 4, axis=1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        def gru(state: Any, given: Any, layer: int = layer) -> Any:
            h, _ = state
            r, z, n = jnp.split(given, 3, axis=1)
            hr, hz, hn = jnp.split(_layer(w, f"{layer}.h2h", h), 3, axis=1)
            z = jax.nn.sigmoid(z + hz)
            h = (1 - z) * jnp.tanh(n + jax.nn.sigmoid(r + hr) * hn) + z * h
            return (h, h), h

        zero = jnp.zeros((x.shape[1], UNITS))
        _, x = lax.scan({"lstm": lstm, "gru": gru}[name], (zero, zero), inputs)
    return _layer(w, "head", x).reshape(-1, 10)


def _encoder(w: dict[str, Any], x: Any) -> Any:
    def norm(name: str, x: Any) -> Any:
        x = (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.gamma"] + w[f"{name}.beta"]

    for i in range(LAYERS):
        parts = jnp.split(_layer(w, f"{i}.qkv", x), 3, axis=2)
        q, k, v = (part.reshape(*part.shape[:2], HEADS, -1).transpose(0, 2, 1, 3) for part in parts)
        shares = jax.nn.softmax(q @ k.swapaxes(2, 3) / (UNITS // HEADS) ** 0.5)
        mixed = (shares @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = norm(f"{i}.norm1", x + _layer(w, f"{i}.out", mixed))
        wide = jax.nn.gelu(_layer(w, f"{i}.wide", x), approximate=False)
        x = norm(f"{i}.norm2", x + _layer(w, f"{i}.narrow", wide))
    return _layer(w, "head", x.mean(1))


def build(case: Case) -> dict[str, Callable[[int], Any]]:
    weights = {name: jnp.asarray(array) for name, array in case.weights}
    names = list(weights)
    cuts = np.cumsum([array.size for _, array in case.weights])[:-1]
    pieces = zip(names, np.split(case.directions, cuts, axis=1))
    block = {name: jnp.asarray(rows.reshape(-1, *weights[name].shape)) for name, rows in pieces}
    directions = [{name: rows[k] for name, rows in block.items()} for k in range(DIRECTIONS)]
    x, y = jnp.asarray(case.x), jnp.asarray(case.y)

    def loss(z: Any) -> Any:
        return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()

    def of_weights(w: dict[str, Any]) -> Any:
        return loss(_forward(case, w, x))

    def product(w: dict[str, Any], v: dict[str, Any]) -> Any:
        return jax.jvp(jax.grad(of_weights), (w,), (v,))[1]

    def gauss_newton(w: dict[str, Any], v: dict[str, Any]) -> Any:
        net = lambda w: _forward(case, w, x)  # noqa: E731
        z, pushed = jax.jvp(net, (w,), (v,))
        curved = jax.jvp(jax.grad(loss), (z,), (pushed,))[1]
        return jax.vjp(net, w)[1](curved)[0]

    def listed(result: dict[str, Any]) -> list[Any]:
        return [jax.block_until_ready(result[name]) for name in names]

    gradient, hvp, ggn = jax.jit(jax.grad(of_weights)), jax.jit(product), jax.jit(gauss_newton)
    hvps = jax.jit(jax.vmap(product, in_axes=(None, 0)))
    return {
        "gradient": lambda call: listed(gradient(weights)),
        "hvp": lambda call: listed(hvp(weights, directions[call % DIRECTIONS])),
        "hvp block": lambda call: listed(hvps(weights, block)),
        "ggn": lambda call: listed(ggn(weights, directions[call % DIRECTIONS])),
    }


def flat(value: Any, rows: int) -> np.ndarray:
    """One vector; of a block, whose parts have an axis (K,) before a parameter's, `rows` after each other."""
    return np.concatenate([np.asarray(part).reshape(rows, -1) for part in value], axis=1).ravel()
