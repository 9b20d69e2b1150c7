"""Maxout in plain NumPy, forward and backward: what the Gluon blocks are held against.

Pieces are on the last axis: z (..., units, pieces), y_u = max_p z_up. With j_u = argmax_p z_up the derivative is
dy_u / dz_up = 1 if p = j_u, else 0. At ties j is the first of the tied pieces, so exactly one piece gets the gradient.
A layer has weight W (units, pieces, inputs) and bias b (units, pieces): the weight of `hessmx.blocks.Maxout` reshaped.
"""

from __future__ import annotations

import numpy as np

from hessmx.errors import InputError


def maxout_index(z) -> np.ndarray:
    """j = argmax over the pieces, the first at ties: (..., units, pieces) -> (..., units)."""
    return _pieces("z", z).argmax(axis=-1)


def maxout_forward(z) -> np.ndarray:
    """(..., units, pieces) -> (..., units)."""
    return _pieces("z", z).max(axis=-1)


def maxout_backward(grad, z) -> np.ndarray:
    """Gradient with respect to z: `grad` (..., units) at the winning piece, 0 at the others."""
    z = _pieces("z", z)
    grad = _shaped("grad", grad, z.shape[:-1])
    result = np.zeros(z.shape, np.result_type(grad, z))
    np.put_along_axis(result, z.argmax(axis=-1)[..., None], grad[..., None], axis=-1)
    return result


def maxout_jacobian(z) -> np.ndarray:
    """dy / dz as a matrix of zeros and ones, one 1 a row: (..., units, pieces) -> (..., units, units * pieces)."""
    z = _pieces("z", z)
    units, pieces = z.shape[-2:]
    winners = np.arange(units) * pieces + z.argmax(axis=-1)
    return (winners[..., None] == np.arange(units * pieces)).astype(z.dtype)


def maxout_layer_forward(x, weight, bias=None) -> np.ndarray:
    """max_p (W_up . x + b_up): x (..., inputs), W (units, pieces, inputs), b (units, pieces) -> (..., units)."""
    return maxout_forward(_linear(*_layer(x, weight, bias)))


def maxout_layer_backward(grad, x, weight, bias=None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(dW, db, dx) in the shapes of (W, b, x), from `grad` (..., units); summed over the leading axes."""
    x, weight, bias = _layer(x, weight, bias)
    dz = maxout_backward(grad, _linear(x, weight, bias))
    flat_dz, flat_x = dz.reshape(-1, dz.shape[-2] * dz.shape[-1]), x.reshape(-1, x.shape[-1])
    dweight, dbias = (flat_dz.T @ flat_x).reshape(weight.shape), flat_dz.sum(axis=0).reshape(bias.shape)
    return dweight, dbias, np.tensordot(dz, weight, 2)


def _linear(x, weight, bias) -> np.ndarray:
    return np.tensordot(x, weight, axes=(-1, -1)) + bias


def _floating(name: str, value) -> np.ndarray:
    value = np.asarray(value)
    if value.dtype.kind != "f":
        raise InputError(f"{name} must be a floating-point array, not {value.dtype}: convert it by .astype(float)")
    return value


def _pieces(name: str, value) -> np.ndarray:
    value = _floating(name, value)
    if value.ndim < 2 or not value.shape[-1] or not value.shape[-2]:
        raise InputError(f"{name} must have shape (..., units, pieces), none of them 0, not {value.shape}: "
                         "put the pieces on the last axis")
    return value


def _shaped(name: str, value, shape: tuple) -> np.ndarray:
    value = _floating(name, value)
    if value.shape != shape:
        raise InputError(f"{name} must have shape {shape}, not {value.shape}")
    return value


def _layer(x, weight, bias) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, weight = _floating("x", x), _floating("weight", weight)
    if weight.ndim != 3 or 0 in weight.shape:
        raise InputError(f"weight must have shape (units, pieces, inputs), not {weight.shape}: reshape a Gluon weight "
                         "with .reshape(units, pieces, -1)")
    if x.ndim < 1 or x.shape[-1] != weight.shape[2]:
        raise InputError(f"x must have shape (..., {weight.shape[2]}) to fit weight {weight.shape}, not {x.shape}")
    bias = np.zeros(weight.shape[:2], weight.dtype) if bias is None else _shaped("bias", bias, weight.shape[:2])
    return x, weight, bias
