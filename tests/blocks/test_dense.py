"""Dense nets against NumPy and SciPy formulas of the activations."""

import numpy as np
import pytest
from scipy import special

from hessmx._mxnet import mx
from hessmx.blocks import Maxout, dense_net
from hessmx.blocks.activations import ACTIVATIONS
from hessmx.errors import InputError
from tests.blocks.support import array, gradient, initialized, normal, reload, set_vector, vector

nn = mx.gluon.nn
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

FORMULAS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "softrelu": lambda z: np.logaddexp(0, z),
    "softsign": lambda z: z / (1 + abs(z)),
    "leaky": lambda z: np.where(z > 0, z, 0.01 * z),
    "elu": lambda z: np.where(z > 0, z, np.expm1(z)),
    "selu": lambda z: SELU_SCALE * np.where(z > 0, z, SELU_ALPHA * np.expm1(z)),
    "gelu": lambda z: z * special.ndtr(z),
    "swish": lambda z: z * special.expit(z),
    "prelu": lambda z: np.where(z > 0, z, 0.25 * z),
    "exp": np.exp,
    "sin": np.sin,
    "square": np.square,
}


def test_every_activation_has_a_formula_here():
    assert FORMULAS.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", FORMULAS)
def test_output_agrees_with_numpy(name, use_bias, dtype, tolerance, tmp_path):
    net = initialized(dense_net((3, 5, 4, 2), name, use_bias=use_bias, dtype=dtype))
    set_vector(net, vector(net) / 2)  # exp of exp must not overflow
    for p in net.collect_params(".*alpha").values():
        p.set_data(array([0.25], dtype))
    x = normal(6, 3)
    expected = x
    layers = [block for block in net if isinstance(block, nn.Dense)]
    for layer in layers:
        bias = layer.bias.data().asnumpy() if use_bias else 0
        z = expected @ layer.weight.data().asnumpy().astype(np.float64).T + bias
        expected = z if layer is layers[-1] else FORMULAS[name](z)
    data = array(x, dtype)
    plain = net(data)
    net.hybridize()
    assert plain.asnumpy().dtype == dtype and (layers[0].bias is not None) == use_bias
    for y in (plain, net(data), reload(net, data, tmp_path)(data)):
        assert np.allclose(y.asnumpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", [*FORMULAS, "maxout"])
def test_gradient_agrees_with_differences(activation):
    net = initialized(dense_net((3, 5, 2), activation, pieces=3, dtype="float64"))
    x, head, start = array(normal(6, 3)), normal(6, 2, seed=1), vector(net)
    v = normal(start.size, seed=2)

    def value(step):
        set_vector(net, start + step * v)
        return (net(x).asnumpy() * head).sum()

    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    set_vector(net, start)
    assert np.isclose(gradient(net, x, head) @ v, expected, rtol=1e-6)


def test_maxout_net_has_hidden_maxout_layers_and_a_linear_output():
    net = dense_net((784, 240, 120, 10), "maxout")
    assert [type(block) for block in net] == [Maxout, Maxout, nn.Dense]
    assert [repr(block) for block in net] == [
        "Maxout(784 -> 240, pieces=5)", "Maxout(240 -> 120, pieces=5)", "Dense(120 -> 10, linear)"]


def test_shapes_are_known_before_the_first_batch():
    net = dense_net((3, 5, 2), prefix="mine_")
    net.initialize()
    assert {name: p.data().shape for name, p in net.collect_params().items()} == {
        "mine_dense0_weight": (5, 3), "mine_dense0_bias": (5,), "mine_dense1_weight": (2, 5), "mine_dense1_bias": (2,)}


def test_initializers_reach_every_layer():
    net = dense_net((3, 5, 2), "maxout", weight_initializer=mx.init.Constant(2), bias_initializer="ones")
    net.initialize()
    values = {name.rsplit("_")[-1]: set(np.unique(p.data().asnumpy())) for name, p in net.collect_params().items()}
    assert values == {"weight": {2.0}, "bias": {1.0}}


def test_images_are_flattened():
    net = initialized(dense_net((4, 3, 2), "tanh"))
    images = normal(5, 1, 2, 2)
    assert (net(array(images, "float32")).asnumpy() == net(array(images.reshape(5, 4), "float32")).asnumpy()).all()


def test_two_sizes_make_a_linear_layer():
    assert [repr(block) for block in dense_net((4, 3))] == ["Dense(4 -> 3, linear)"]


class Cube(mx.gluon.HybridBlock):
    def hybrid_forward(self, F, x):
        return x * x * x


@pytest.mark.parametrize("activation", [Cube, lambda: Cube(), lambda F, x: x * x * x, lambda F, x, power=3: x ** power])
def test_activation_may_be_a_factory_or_a_function(activation):
    net = initialized(dense_net((3, 4, 4, 2), activation, dtype="float64"))
    x = normal(5, 3)
    first, second, last = (b.weight.data().asnumpy() for b in net if isinstance(b, nn.Dense))
    b1, b2, b3 = (b.bias.data().asnumpy() for b in net if isinstance(b, nn.Dense))
    expected = ((x @ first.T + b1) ** 3 @ second.T + b2) ** 3 @ last.T + b3
    net.hybridize()
    assert np.allclose(net(array(x)).asnumpy(), expected, rtol=1e-12)
    assert len({id(block) for block in net}) == len(net)


BAD = [
    (lambda: dense_net((3, 5, 2), "tanhh"), "activation must be one of .*'maxout', not 'tanhh'; did you mean 'tanh'?"),
    (lambda: dense_net((3, 5, 2), nn.GELU()), "activation must be a name, .*pass the class"),
    (lambda: dense_net((3, 5, 2), None), "activation must be a name, .* not None"),
    (lambda: dense_net((3, 5, 2), lambda x: x), r"activation must take \(F, x\), .* not 1 argument"),
    (lambda: dense_net((3, 5, 2), lambda: 3), "activation must make a HybridBlock, .* returned int"),
    (lambda: dense_net((3, 5, 2), dict), "activation <class 'dict'> hides what it takes"),
    (lambda: dense_net((3,)), r"sizes must hold at least an input and an output size, not \(3,\)"),
    (lambda: dense_net(3), "sizes must hold at least"),
    (lambda: dense_net((3, 0, 2)), r"sizes\[1\] must be an integer of at least 1, not 0"),
    (lambda: dense_net((3, 4.5, 2)), r"sizes\[1\] must be an integer of at least 1, not 4.5"),
    (lambda: dense_net((3, 4, 2), "maxout", pieces=0), "pieces must be an integer"),
]


@pytest.mark.parametrize("make, text", BAD)
def test_bad_input_gives_one_clear_line(make, text):
    with pytest.raises(InputError, match=text) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMULAS)
def test_slope_agrees_with_differences(name):
    block = ACTIVATIONS[name]()
    block.initialize(mx.init.Constant(0.25))
    block.cast("float64")
    z = np.linspace(-3, 3, 14)[None]
    x = array(z)
    x.attach_grad()
    with mx.autograd.record():
        y = block(x)
    y.backward()
    f = FORMULAS[name]
    atol = 5e-8 if name == "gelu" else 1e-9
    assert np.allclose(x.grad.asnumpy(), (f(z + 1e-6) - f(z - 1e-6)) / 2e-6, rtol=1e-8, atol=atol)


def test_the_gradient_of_selu_in_mxnet_is_wrong():
    """Why "selu" is not nn.SELU: the premise, so that a change in MXNet is noticed."""
    x = array([-1.0])
    x.attach_grad()
    with mx.autograd.record():
        y = nn.SELU()(x)
    y.backward()
    assert np.allclose(y.asnumpy(), FORMULAS["selu"](np.array([-1.0])), rtol=1e-6)
    truth = SELU_SCALE * SELU_ALPHA * np.exp(-1)
    assert np.isclose(truth, 0.6468, atol=1e-4) and x.grad.asnumpy()[0] < 0.95 * truth
