"""Gluon maxout layers against the NumPy reference, which is held against differences elsewhere."""

import numpy as np
import pytest

from hessmx import reference
from hessmx._mxnet import mx
from hessmx.blocks import Maxout, MaxoutConv2D
from hessmx.errors import InputError
from tests.blocks.support import array, normal, reload


def run(block, x, grad):
    """(output, gradient of every parameter by suffix, gradient of x) as NumPy arrays."""
    x = x.copy()
    x.attach_grad()
    with mx.autograd.record():
        y = block(x)
    y.backward(array(grad, y.dtype))
    gradients = {name.rsplit("_", 1)[1]: p.grad().asnumpy() for name, p in block.collect_params().items()}
    return y.asnumpy(), gradients, x.grad.asnumpy()


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("flatten, shape", [(True, (7, 6)), (True, (7, 2, 3)), (False, (7, 6)), (False, (2, 3, 4, 6))])
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("float64", 1e-13)])
def test_maxout_agrees_with_reference(pieces, use_bias, flatten, shape, dtype, tolerance):
    block = Maxout(4, pieces, use_bias, flatten, dtype, "normal", mx.init.Normal(1))
    block.initialize(mx.init.Normal(1))
    x = array(normal(*shape), dtype)
    block(x)
    weight = normal(4, pieces, 6, seed=1)
    bias = normal(4, pieces, seed=2) * use_bias
    block.weight.set_data(array(weight.reshape(-1, 6), dtype))
    if use_bias:
        block.bias.set_data(array(bias.ravel(), dtype))
    inputs = x.asnumpy().astype(np.float64).reshape((7, 6) if flatten else shape)
    grad = normal(*inputs.shape[:-1], 4, seed=3)
    expected = reference.maxout_layer_forward(inputs, weight, bias)
    dweight, dbias, dx = reference.maxout_layer_backward(grad, inputs, weight, bias)
    for hybrid in (False, True):
        block.hybridize(hybrid)
        y, gradients, gradient = run(block, x, grad)
        assert y.dtype == dtype and y.shape == expected.shape
        assert np.allclose(y, expected, rtol=0, atol=10 * tolerance)
        assert np.allclose(gradients["weight"], dweight.reshape(-1, 6), rtol=0, atol=50 * tolerance)
        assert ("bias" in gradients) == use_bias
        assert not use_bias or np.allclose(gradients["bias"], dbias.ravel(), rtol=0, atol=50 * tolerance)
        assert np.allclose(gradient, dx.reshape(shape), rtol=0, atol=50 * tolerance)


def test_maxout_gradient_agrees_with_differences():
    block = Maxout(3, 4, in_units=2, dtype="float64")
    block.initialize(mx.init.Normal(1))
    x, v, grad = normal(5, 2), normal(12, 2, seed=1), normal(5, 3, seed=2)
    weight = block.weight.data().asnumpy()
    _, gradients, _ = run(block, array(x), grad)

    def value(step):
        block.weight.set_data(array(weight + step * v))
        return (block(array(x)).asnumpy() * grad).sum()

    assert np.isclose((value(1e-6) - value(-1e-6)) / 2e-6, (gradients["weight"] * v).sum(), rtol=1e-7)


TIES = [[1, 2, 2, 0, 2], [3, 3, 3, 3, 3], [0, 0, -1, 0, -2], [-0.0, 0.0, -1, 0.0, -2], [5, 4, 5, 5, 1], [1, 2, 3, 4, 4]]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("z", TIES)
def test_at_ties_one_piece_gets_the_gradient_and_it_is_the_first(z, hybrid, dtype):
    block = Maxout(1, 5, in_units=1, dtype=dtype)
    block.initialize(mx.init.Zero())
    block.bias.set_data(array(z, dtype))
    block.hybridize(hybrid)
    _, gradients, _ = run(block, array([[1.0]], dtype), [[7.0]])
    expected = reference.maxout_backward(np.array([7.0]), np.array([z], float))
    assert (gradients["bias"] == expected.ravel()).all() and (gradients["weight"] == expected.reshape(5, 1)).all()
    assert np.count_nonzero(gradients["bias"]) == 1


def test_mxnet_max_sends_the_gradient_to_every_tied_piece():
    """Why Maxout does not use `max`: the premise, so that a change in MXNet is noticed."""
    z = mx.nd.array([[1.0, 2.0, 2.0]])
    z.attach_grad()
    with mx.autograd.record():
        y = z.max(axis=-1)
    y.backward()
    assert z.grad.asnumpy().tolist() == [[0, 1, 1]]


@pytest.mark.parametrize("position", range(3))
def test_nan_in_any_piece_is_not_hidden(position):
    block = Maxout(2, 3, in_units=1)
    block.initialize(mx.init.One())
    bias = np.zeros(6)
    bias[position] = np.nan
    block.bias.set_data(array(bias, "float32"))
    y = block(mx.nd.ones((1, 1))).asnumpy()[0]
    assert np.isnan(y[0]) and y[1] == 1


CONVOLUTIONS = [
    dict(),
    dict(strides=(2, 1), padding=(1, 0)),
    dict(dilation=(2, 2), padding=2),
    dict(groups=2),
    dict(use_bias=False),
]


@pytest.mark.parametrize("pieces", [1, 2, 3])
@pytest.mark.parametrize("options", CONVOLUTIONS)
def test_convolution_takes_the_largest_map(pieces, options):
    block = MaxoutConv2D(4, pieces, (3, 2), bias_initializer=mx.init.Normal(1), **options)
    block.initialize(mx.init.Normal(1))
    block.cast("float64")
    x = array(normal(2, 2, 8, 7))
    shape = block(x).shape
    linear = mx.gluon.nn.Conv2D(4 * pieces, (3, 2), in_channels=2, **options)
    linear.initialize()
    linear.cast("float64")
    for mine, theirs in zip(block.collect_params().values(), linear.collect_params().values()):
        theirs.set_data(mine.data())
    grad = normal(*shape, seed=1)
    z = np.moveaxis(linear(x).asnumpy().reshape(2, 4, pieces, *shape[2:]), 2, -1)
    dz = np.moveaxis(reference.maxout_backward(grad, z), -1, 2).reshape(2, 4 * pieces, *shape[2:])
    _, expected, dx = run(linear, x, dz)
    for hybrid in (False, True):
        block.hybridize(hybrid)
        y, gradients, gradient = run(block, x, grad)
        assert (y == reference.maxout_forward(z)).all()
        assert gradients.keys() == expected.keys()
        assert all(np.allclose(gradients[name], expected[name], rtol=1e-12, atol=1e-12) for name in expected)
        assert np.allclose(gradient, dx, rtol=1e-12, atol=1e-12)


def test_convolution_gives_ties_to_the_first_map():
    block = MaxoutConv2D(2, 3, 1, in_channels=1)
    block.initialize(mx.init.One())
    _, gradients, _ = run(block, mx.nd.ones((1, 1, 2, 2)), np.ones((1, 2, 2, 2)))
    assert gradients["bias"].tolist() == [4, 0, 0, 4, 0, 0]


@pytest.mark.parametrize("make, shape", [
    (lambda: Maxout(4, 3), (5, 6)),
    (lambda: Maxout(4, 3, flatten=False), (5, 2, 6)),
    (lambda: MaxoutConv2D(4, 3, 3), (5, 2, 6, 6)),
])
def test_export_and_reload(make, shape, tmp_path):
    block = make()
    block.initialize(mx.init.Normal(1))
    x = mx.nd.array(normal(*shape))
    again = reload(block, x, tmp_path)
    other = mx.nd.array(normal(3, *shape[1:], seed=1))
    for batch in (x, other):
        assert (again(batch).asnumpy() == block(batch).asnumpy()).all()
    assert len(again.collect_params().keys()) == 2


REPRS = [
    (lambda: Maxout(4, 3), "Maxout(None -> 4, pieces=3)"),
    (lambda: Maxout(240, 5, in_units=784), "Maxout(784 -> 240, pieces=5)"),
    (lambda: MaxoutConv2D(8, 2, 3, in_channels=1, padding=1),
     "MaxoutConv2D(1 -> 8, pieces=2, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))"),
]


@pytest.mark.parametrize("make, text", REPRS)
def test_repr(make, text):
    assert repr(make()) == text


def test_prefix_and_shared_parameters():
    first = Maxout(2, 3, in_units=4, prefix="hidden_")
    second = Maxout(2, 3, in_units=4, params=first.collect_params())
    first.initialize(mx.init.Normal(1))
    assert list(first.collect_params()) == ["hidden_weight", "hidden_bias"]
    assert second.weight is first.weight and second.bias is first.bias


BAD = [
    (lambda: Maxout(0, 3), "units must be an integer of at least 1, not 0"),
    (lambda: Maxout(4, 2.5), "pieces must be an integer of at least 1, not 2.5"),
    (lambda: Maxout(4, True), "pieces must be an integer"),
    (lambda: MaxoutConv2D(4, 0, 3), "pieces must be"),
    (lambda: MaxoutConv2D(-1, 2, 3), "channels must be"),
    (lambda: MaxoutConv2D(4, 2, 3, layout="NHWC"), "layout must be 'NCHW', not 'NHWC'"),
]


@pytest.mark.parametrize("make, text", BAD)
def test_bad_input_gives_one_clear_line(make, text):
    with pytest.raises(InputError, match=text) as caught:
        make()
    assert "\n" not in str(caught.value)
