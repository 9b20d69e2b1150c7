"""The NumPy maxout against loops, finite differences and hand-made ties."""

import numpy as np
import pytest

from hessmx import reference
from hessmx.errors import InputError

SHAPES = [(4, 3), (2, 4, 3), (2, 1, 3, 1, 5), (0, 4, 3), (3, 1)]


def normal(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def differences(function, x, step=1e-6):
    """d function / d x by central differences, function scalar."""
    result = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[i] += step
        behind[i] -= step
        result[i] = (function(ahead) - function(behind)) / (2 * step)
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_forward_and_index_agree_with_loops(shape, dtype):
    z = normal(*shape, dtype=dtype)
    values, winners = reference.maxout_forward(z), reference.maxout_index(z)
    assert values.dtype == dtype and values.shape == winners.shape == shape[:-1]
    for i in np.ndindex(*shape[:-1]):
        pieces = list(z[i])
        assert (values[i], winners[i]) == (max(pieces), pieces.index(max(pieces)))


@pytest.mark.parametrize("shape", SHAPES)
def test_backward_agrees_with_differences(shape):
    z, grad = normal(*shape), normal(*shape[:-1], seed=1)
    expected = differences(lambda moved: (grad * reference.maxout_forward(moved)).sum(), z)
    assert np.allclose(reference.maxout_backward(grad, z), expected, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_jacobian_times_direction_is_the_derivative(shape):
    z, v = normal(*shape), normal(*shape, seed=1)
    jacobian = reference.maxout_jacobian(z)
    assert jacobian.shape == (*shape[:-2], shape[-2], shape[-2] * shape[-1])
    assert set(np.unique(jacobian)) <= {0.0, 1.0} and (jacobian.sum(axis=-1) == 1).all()
    moved = (reference.maxout_forward(z + 1e-6 * v) - reference.maxout_forward(z - 1e-6 * v)) / 2e-6
    flat = v.reshape(*shape[:-2], shape[-2] * shape[-1])
    assert np.allclose(np.einsum("...ij,...j->...i", jacobian, flat), moved, atol=1e-8)


@pytest.mark.parametrize("z, winner", [([1, 2, 2], 1), ([3, 3, 3], 0), ([-1, -0.0, 0.0], 1), ([np.inf, 0, np.inf], 0)])
def test_at_ties_the_first_piece_gets_everything(z, winner):
    z = np.array([z], np.float32)
    expected = np.zeros((1, 3), np.float32)
    expected[0, winner] = 7
    gradient = reference.maxout_backward(np.array([7], np.float32), z)
    assert (gradient == expected).all() and gradient.dtype == np.float32
    assert reference.maxout_index(z) == [winner]
    assert (reference.maxout_jacobian(z) == expected / 7).all()


def test_nan_is_not_hidden():
    assert np.isnan(reference.maxout_forward(np.array([[0.0, np.nan, 1.0]]))).all()


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (0,)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_gradients_agree_with_differences(lead, bias):
    x, weight = normal(*lead, 4), normal(3, 2, 4, seed=1)
    b, grad = normal(3, 2, seed=2) * bias, normal(*lead, 3, seed=3)

    def value(x=x, weight=weight, b=b):
        return (grad * reference.maxout_layer_forward(x, weight, b)).sum()

    dweight, dbias, dx = reference.maxout_layer_backward(grad, x, weight, b if bias else None)
    assert np.allclose(dweight, differences(lambda w: value(weight=w), weight), atol=1e-8)
    assert np.allclose(dbias, differences(lambda c: value(b=c), b), atol=1e-8)
    assert np.allclose(dx, differences(lambda y: value(x=y), x), atol=1e-8)
    assert [d.shape for d in (dweight, dbias, dx)] == [weight.shape, b.shape, x.shape]


def test_layer_keeps_float32():
    x, weight, bias = normal(2, 4, dtype=np.float32), normal(3, 2, 4, dtype=np.float32), normal(3, 2, dtype=np.float32)
    y = reference.maxout_layer_forward(x, weight, bias)
    assert {y.dtype, *(d.dtype for d in reference.maxout_layer_backward(y, x, weight, bias))} == {np.dtype(np.float32)}


Z, X, W = normal(2, 4, 3), normal(2, 5), normal(4, 3, 5)
BAD = [
    (lambda: reference.maxout_forward(np.ones((2, 3), int)), "z must be a floating-point array, not int64"),
    (lambda: reference.maxout_forward(np.ones(3)), r"z must have shape \(\.\.\., units, pieces\).*not \(3,\)"),
    (lambda: reference.maxout_index(np.ones((3, 0))), r"z must have shape .*not \(3, 0\)"),
    (lambda: reference.maxout_jacobian([["a", "b"]]), "z must be a floating-point array"),
    (lambda: reference.maxout_backward(np.ones((2, 3)), Z), r"grad must have shape \(2, 4\), not \(2, 3\)"),
    (lambda: reference.maxout_backward(np.ones((2, 4), int), Z), "grad must be a floating-point array"),
    (lambda: reference.maxout_layer_forward(X, W.reshape(12, 5)), "weight must have shape .*reshape"),
    (lambda: reference.maxout_layer_forward(X[:, :3], W), r"x must have shape \(\.\.\., 5\)"),
    (lambda: reference.maxout_layer_forward(X, W, np.ones(12)), r"bias must have shape \(4, 3\), not \(12,\)"),
    (lambda: reference.maxout_layer_backward(np.ones((2, 3)), X, W), r"grad must have shape \(2, 4\)"),
]


@pytest.mark.parametrize("call, text", BAD)
def test_bad_input_gives_one_clear_line(call, text):
    with pytest.raises(InputError, match=text) as caught:
        call()
    assert "\n" not in str(caught.value)
