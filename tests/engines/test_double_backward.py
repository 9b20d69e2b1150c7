"""`create_graph` on lifted graphs: right where it answers, and a list of operators where it does not."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import EngineError, UnsupportedOps
from tests import oracles
from tests.dense import Problem, relative

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
TOLERANCE = {"float32": 1e-5, "float64": 1e-12}
EXACT = [
    *[(activation, "softmax-ce") for activation in ("tanh", "sigmoid", "exp", "square", "sin", "relu", None)],
    *[("tanh", loss) for loss in ("softmax-ce-dense", "l2", "l1", "kldiv", "poisson", "bce-from-sigmoid")],
    *[("relu", loss) for loss in ("l2", "l1")],
    (None, "l2"),
]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("activation", "loss"), EXACT)
def test_against_the_dense_hessian(activation, loss, dtype):
    assert Problem(activation, loss, dtype).error(engine="double-backward") < TOLERANCE[dtype]


def bare_recipe(problem):
    """What the public recipe returns: the gradient of the sum of the gradient, by create_graph, layer by layer."""
    parameters = list(problem.net.collect_params().values())
    x, y = (mx.nd.array(a, dtype="float64") for a in (problem.x, problem.y))
    w1, b1, w2, b2, w3, b3 = (p.data().copy() for p in parameters)
    variables = [w1, b1, w2, b2, w3, b3]
    mx.autograd.mark_variables(variables, [mx.nd.zeros_like(v) for v in variables])
    with mx.autograd.record(train_mode=False):
        hidden = mx.nd.tanh(mx.nd.FullyConnected(x, w1, b1, num_hidden=5))
        hidden = mx.nd.tanh(mx.nd.FullyConnected(hidden, w2, b2, num_hidden=3))
        z = mx.nd.FullyConnected(hidden, w3, b3, num_hidden=3)
        losses = mx.nd.square(mx.nd.elemwise_add(z, -y))
        scale = [mx.nd.full(losses.shape, 0.5 / losses.size, dtype="float64")]
        first = mx.autograd.grad([losses], variables, head_grads=scale, create_graph=True, retain_graph=True)
    mx.autograd.backward(first)
    return np.concatenate([v.grad.asnumpy().ravel() for v in variables])


def test_the_bare_recipe_is_wrong_on_the_same_dense_net():
    problem = Problem("tanh", "l2")
    expected = problem.reference().h.sum(1)
    assert relative(bare_recipe(problem), expected) > 0.1
    for engine in ("double-backward", "reverse-over-forward"):
        assert relative(problem.curvature(engine=engine).hvp(np.ones(expected.size)), expected) < 1e-12


def test_the_bare_recipe_raises_on_a_gluon_net():
    problem = Problem("tanh", "softmax-ce")
    parameters = [p.data() for p in problem.net.collect_params().values()]
    with mx.autograd.record():
        losses = problem.loss(problem.net(mx.nd.array(problem.x, dtype="float64")), mx.nd.array(problem.y))
        first = mx.autograd.grad([losses], parameters, create_graph=True, retain_graph=True)
    with pytest.raises(mx.base.MXNetError, match="non-differentiable"):
        first[0].backward()


def test_dead_units_and_weights_of_zero():
    """Cotangents that are exactly zero, where MXNet's own kernels would give NaN."""
    problem = Problem("tanh", "l2")
    problem.net.add(nn.Activation("relu"), nn.Dense(2, in_units=3, dtype="float64"))
    problem.net[-1].initialize(mx.init.Normal(1))
    problem.layers[-1:] = [oracles.Layer(3, "relu"), oracles.Layer(2)]
    last = [p.data().asnumpy().ravel() for p in problem.net[-1].collect_params().values()]
    problem.w, problem.y = np.concatenate([problem.w, *last]), problem.y[:, :2]
    problem.net[-3].bias.set_data(mx.nd.full((3,), -1, dtype="float64"))
    problem.w[-11:-8] = -1
    hidden = oracles.forward(problem.layers[:-1], problem.w[:-8], problem.x).v
    assert (hidden == 0).all(axis=1).any(), "a sample behind dead units only"
    assert problem.error(engine="double-backward") < 1e-12


USER_LOSSES = {  # of the same value as an oracle's
    "l2": lambda z, y: (z - y).square().mean(axis=1) / 2,
    "softmax-ce": lambda z, y: -z.log_softmax().pick(y),
    "poisson": lambda z, y: (z.exp() - z * y).mean(axis=1),
}


@pytest.mark.parametrize("name", USER_LOSSES)
def test_user_losses(name):
    problem = Problem("sigmoid", name)
    problem.loss = USER_LOSSES[name]
    assert problem.error(engine="double-backward") < 1e-12


def test_blocks_of_early_layers_behind_relu():
    """Only the first layer moves, nothing behind it is curved: MXNet's second pass would see symbolic zeros only."""
    problem = Problem("relu", "l1")
    curv = problem.curvature(engine="double-backward", params="dense0")
    size = curv.num_params
    np.testing.assert_allclose(curv.hessian.to_dense(), problem.reference().h[:size, :size], atol=1e-14)


class HalfUsed(mx.gluon.HybridBlock):
    """Holds two layers, uses one."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.used, self.unused = (nn.Dense(3, in_units=4, dtype="float64", prefix=p) for p in ("used_", "unused_"))

    def hybrid_forward(self, F, x):
        return self.used(x)


def test_parameters_that_the_loss_does_not_reach_have_zero_rows():
    net, problem = HalfUsed(), Problem(None)
    net.initialize(mx.init.Normal(1))
    curv = Curvature(net, problem.loss, (problem.x, problem.y), engine="double-backward")
    dense, half = curv.hessian.to_dense(), curv.num_params // 2
    expected = oracles.objective([oracles.Layer(3)], "softmax-ce", curv.parameters()[:half], problem.x, problem.y).h
    assert relative(dense[:half, :half], expected) < 1e-12
    assert not dense[half:].any() and not dense[:, half:].any()


REFUSED = [
    (lambda: nn.Conv2D(3, 3, in_channels=1), {"Convolution"}, (4, 1, 5, 5)),
    (lambda: nn.Dense(3, in_units=4, activation="softrelu"), {"Activation"}, (4, 4)),
    (lambda: nn.Swish(), {"elemwise_mul"}, (4, 4)),
    (lambda: nn.LayerNorm(in_channels=4), {"LayerNorm"}, (4, 4)),
    (lambda: nn.Dense(3, in_units=4, flatten=False), {"FullyConnected"}, (4, 2, 4)),
]


@pytest.mark.parametrize(("make", "ops", "shape"), REFUSED)
def test_refused_with_all_operators(make, ops, shape):
    net = nn.HybridSequential()
    net.add(nn.Dense(shape[-1], in_units=shape[-1], flatten=False), make())
    net.initialize()
    y = np.zeros(net(mx.nd.zeros(shape)).shape)
    with pytest.raises(UnsupportedOps, match=r"double-backward.*Use engine='auto'") as caught:
        Curvature(net, gluon_loss.HuberLoss(), (np.ones(shape), y), engine="double-backward")
    assert ops | {"_greater_scalar"} <= set(caught.value.ops)


def test_train_mode_dropout_is_refused_and_predict_mode_is_not():
    problem = Problem("tanh", "softmax-ce")
    net = nn.HybridSequential()
    net.add(problem.net, nn.Dropout(0.5), nn.Dense(3, in_units=3, dtype="float64"))
    net[-1].initialize()
    data = (problem.x, problem.y)
    with pytest.raises(UnsupportedOps, match="elemwise_mul"):
        Curvature(net, problem.loss, data, mode="train", engine="double-backward")
    exact = Curvature(net, problem.loss, data).hessian.to_dense()
    assert relative(Curvature(net, problem.loss, data, engine="double-backward").hessian.to_dense(), exact) < 1e-12


def test_only_the_hessian():
    with pytest.raises(EngineError, match="Hessian"):
        Problem().curvature(engine="double-backward").matrix("ggn").matvec(np.ones(55))
