"""Folded nets: equal outputs, and parameter vectors, gradients and Hessians equal under the permutation."""

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.blocks import Maxout, dense_net, fold_bias, unfold_bias
from hessmx.errors import InputError, ParameterError
from tests.blocks.support import (
    array,
    gradient,
    hessian_by_differences,
    initialized,
    normal,
    reload,
    set_vector,
    trained,
    vector,
)

nn = mx.gluon.nn


def sequence(*blocks, container=nn.HybridSequential):
    net = container()
    net.add(*blocks)
    return net


def built_in_activation():
    return sequence(nn.Dense(4, activation="tanh", in_units=3), nn.Dropout(0.5), nn.Dense(2, in_units=4))


def without_some_biases():
    return sequence(nn.Dense(4, use_bias=False, in_units=3), nn.ELU(), nn.Dense(2, in_units=4))


def nested():
    inner = sequence(nn.Dense(4, in_units=3), nn.GELU())
    return sequence(inner, sequence(Maxout(2, 3, in_units=4), container=nn.Sequential), container=nn.Sequential)


def repeated():
    layer = nn.Dense(3, activation="sigmoid", in_units=3)
    return sequence(layer, layer, nn.Dense(2, in_units=3))


def frozen():
    net = dense_net((3, 4, 3, 2), "softrelu")
    net[2].collect_params().setattr("grad_req", "null")
    return net


def kept_axes():
    return sequence(nn.Dense(4, flatten=False, in_units=3), Maxout(2, 2, flatten=False, in_units=4))


NETS = {
    "tanh": lambda: dense_net((3, 4, 2), "tanh"),
    "prelu": lambda: dense_net((3, 4, 2), "prelu"),
    "function": lambda: dense_net((3, 4, 2), "sin"),
    "maxout": lambda: dense_net((3, 2, 3, 2), "maxout", pieces=2),
    "linear": lambda: dense_net((3, 2)),
    "single layer": lambda: nn.Dense(2, in_units=3),
    "no biases": lambda: dense_net((3, 4, 2), "tanh", use_bias=False),
    "built-in activation": built_in_activation,
    "some biases": without_some_biases,
    "nested": nested,
    "repeated layer": repeated,
    "frozen layer": frozen,
    "kept axes": kept_axes,
}


def made(name, dtype="float64"):
    net = NETS[name]()
    net.cast(dtype)
    return initialized(net)


def data(name):
    return array(normal(5, 2, 3) if name == "kept axes" else normal(5, 3))


@pytest.mark.parametrize("name", NETS)
def test_output_vector_and_gradient_agree(name):
    net, x = made(name), data(name)
    folded = fold_bias(net)
    y, p = net(x), folded.permutation
    head = normal(*y.shape, seed=1)
    assert np.allclose(folded(x).asnumpy(), y.asnumpy(), rtol=1e-12, atol=1e-13)
    assert sorted(p) == list(range(vector(net).size)) and (vector(folded) == vector(net)[p]).all()
    expected = gradient(net, x, head)[p]
    assert np.allclose(gradient(folded, x, head), expected, rtol=1e-11, atol=1e-12)
    assert not any(name.endswith("bias") for name in folded.collect_params())
    folded.hybridize()
    assert np.allclose(gradient(folded, x, head), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["tanh", "prelu", "maxout", "some biases", "repeated layer", "frozen layer"])
def test_hessians_and_spectra_agree(name):
    net, x = made(name), data(name)
    folded = fold_bias(net)
    p, head = folded.permutation, normal(5, 2, seed=1)
    hessian, other = hessian_by_differences(net, x, head), hessian_by_differences(folded, x, head)
    scale = abs(hessian).max()
    assert scale > 1 and np.allclose(other, hessian[p][:, p], rtol=0, atol=1e-8 * scale)
    spectra = [np.linalg.eigvalsh((h + h.T) / 2) for h in (hessian, other)]
    assert np.allclose(*spectra, rtol=0, atol=1e-8 * scale)


@pytest.mark.parametrize("name", NETS)
def test_unfolding_gives_the_net_back(name):
    net, x = made(name), data(name)
    again = unfold_bias(fold_bias(net))
    assert (vector(again) == vector(net)).all()
    assert [p.shape for p in trained(again)] == [p.shape for p in trained(net)]
    assert np.allclose(again(x).asnumpy(), net(x).asnumpy(), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NETS)
def test_export_and_reload(name, tmp_path):
    net, x = made(name, "float32"), data(name).astype("float32")
    folded = fold_bias(net)
    assert np.allclose(reload(folded, x, tmp_path)(x).asnumpy(), net(x).asnumpy(), rtol=1e-4, atol=1e-4)


def test_folding_works_on_copies_and_keeps_the_training_options():
    net, x = made("tanh"), data("tanh")
    net.hybridize()
    before, y = vector(net), net(x).asnumpy()
    net[0].weight.lr_mult = 0.5
    folded = fold_bias(net)
    assert folded[0].weight.lr_mult == 0.5
    set_vector(folded, np.zeros(before.size))
    assert (vector(net) == before).all() and (net(x).asnumpy() == y).all()
    assert (fold_bias(net)(x).asnumpy() != folded(x).asnumpy()).any()


def test_unfolding_follows_training():
    net, x = made("maxout"), data("maxout")
    folded = fold_bias(net)
    moved = vector(folded) + normal(vector(folded).size, seed=4)
    set_vector(folded, moved)
    again = unfold_bias(folded)
    assert (vector(again)[folded.permutation] == moved).all()
    assert np.allclose(again(x).asnumpy(), folded(x).asnumpy(), rtol=1e-12, atol=1e-13)


def test_repr():
    folded = fold_bias(sequence(*made("maxout", "float32"), *made("built-in activation", "float32")))
    assert [repr(block) for block in folded][::3] == ["FoldedDense(3 + 1 -> 2, pieces=2)",
                                                       "FoldedDense(3 + 1 -> 4, Activation(tanh))"]


def sharing():
    first = nn.Dense(3, in_units=3)
    return initialized(sequence(first, nn.Dense(3, in_units=3, params=first.params)))


def half_frozen():
    net = made("tanh")
    net[0].bias.grad_req = "null"
    return net


def convolutional():
    return initialized(sequence(nn.Conv2D(2, 3, in_channels=1), nn.BatchNorm(in_channels=2), nn.Dense(2, in_units=8)))


BAD = [
    (convolutional, InputError, "not on BatchNorm, Conv2D: fold the dense part"),
    (lambda: mx.gluon.rnn.LSTM(3, input_size=2), InputError, "not on LSTM"),
    (lambda: 3, InputError, "not on int"),
    (sharing, InputError, "different layers that share parameters"),
    (half_frozen, ParameterError, "differ in grad_req"),
    (lambda: sequence(nn.Dense(3)), ParameterError, "needs the values of the parameters, 'dense.*_weight' has none"),
]


@pytest.mark.parametrize("make, error, text", BAD)
def test_what_cannot_be_folded_gives_one_clear_line(make, error, text):
    with pytest.raises(error, match=text) as caught:
        fold_bias(make())
    assert "\n" not in str(caught.value)


def test_only_folded_nets_unfold():
    with pytest.raises(InputError, match="takes what fold_bias returned, not HybridSequential"):
        unfold_bias(made("tanh"))
