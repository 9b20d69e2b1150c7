"""What is said before numbers are given; the numbers are those of the loss as the user's own net computes it."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.errors import DataError, HessmxWarning

nn, gluon = mx.gluon.nn, mx.gluon
RNG = np.random.default_rng(0)
X, NUMBERS, CLASSES = RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3)), np.array([0.0, 2, 1, 1])


class Net(nn.HybridBlock):
    """3 -> 4 tanh -> 3, and a function of the outputs."""

    def __init__(self, last: Any = None):
        super().__init__()
        self.last = last
        with self.name_scope():
            self.hidden, self.out = nn.Dense(4, activation="tanh", in_units=3), nn.Dense(3, in_units=4)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        z = self.out(self.hidden(x))
        return self.last(F, z) if self.last else z


def made(last: Any = None) -> Any:
    mx.random.seed(1)
    net = Net(last)
    net.initialize(mx.init.Normal(0.5))
    net.cast("float64")
    return net


def told(function: Any) -> tuple[Any, list[str]]:
    """What the function returns, and the texts of its HessmxWarnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function()
    return result, [str(w.message) for w in caught if issubclass(w.category, HessmxWarning)]


def space(z: Any) -> Any:
    return mx.sym if isinstance(z, mx.sym.Symbol) else mx.nd


def through(layer: str, **attrs: Any) -> Any:
    """Squared distance of a loss layer's outputs from the labels."""
    return lambda z, y: space(z).square(getattr(space(z), layer)(z, y, **attrs) - y).sum(axis=1)


def segmentation(z: Any, y: Any) -> Any:
    """Cross-entropy by way of SoftmaxOutput, as segmentation losses are written."""
    F = space(z)
    p = F.SoftmaxOutput(z, y, multi_output=True, use_ignore=True, ignore_label=-1, normalization="valid")
    return -F.pick(F.log(p), y, axis=1)


def squares(z: Any, y: Any) -> Any:
    return space(z).square(z - y).sum(axis=1)


ANOTHER = "sends back the gradient of another function than it returns"
CONSTANT = "sends back a constant gradient whatever follows"
LOSSES = [  # function of the outputs, loss, labels, what is said
    (None, segmentation, CLASSES, f"SoftmaxOutput at softmaxoutput0 {ANOTHER}"),
    (None, through("LinearRegressionOutput", grad_scale=3), NUMBERS, ANOTHER),
    (None, through("MAERegressionOutput"), NUMBERS, ANOTHER),
    (None, through("LogisticRegressionOutput"), NUMBERS, ANOTHER),
    (None, lambda z, y: space(z).square(space(z).SVMOutput(z, y)).sum(axis=1), CLASSES, ANOTHER),
    (None, lambda z, y: space(z).MakeLoss(squares(z, y), grad_scale=0.5), NUMBERS, CONSTANT),
    (None, lambda z, y: space(z).MakeLoss(squares(z, y)) * 3, NUMBERS, CONSTANT),
    (None, lambda z, y: space(z).make_loss(squares(z, y)) * 3, NUMBERS, CONSTANT),
    (None, lambda z, y: space(z).MakeLoss(squares(z, y)), NUMBERS, ""),
    (lambda F, z: F.contrib.gradientmultiplier(z, scalar=-0.3), gluon.loss.L2Loss(), NUMBERS, "multiplies the"),
    (lambda F, z: F.contrib.gradientmultiplier(z, scalar=1), gluon.loss.L2Loss(), NUMBERS, ""),
    (None, lambda z, y: space(z).square(z - space(z).BlockGrad(y)).sum(axis=1), NUMBERS, ""),
    (lambda F, z: z * (F.BlockGrad(z) > 0), gluon.loss.L2Loss(), NUMBERS, ""),
    (None, gluon.loss.L2Loss(), NUMBERS, ""),
]


@pytest.mark.parametrize(("last", "loss", "labels", "said"), LOSSES)
def test_the_value_is_differentiated_and_another_gradient_named(last: Any, loss: Any, labels: Any, said: str) -> None:
    net = made(last)
    curv, texts = told(lambda: hessmx.Curvature(net, loss, (X, labels)))
    assert [said in text for text in texts] == ([True] if said else [])
    start, v = curv.parameters(), np.random.default_rng(2).standard_normal(curv.num_params)

    def own(step: float) -> float:
        """The loss of the user's own net, run as it is."""
        for name, p in net.collect_params().items():
            value = (start + step * v)[curv.param_slices[name]].reshape(p.shape)
            p.set_data(mx.nd.array(value, dtype="float64"))
        return float(loss(*(mx.nd.array(a, dtype="float64") if a is labels else net(mx.nd.array(a, dtype="float64"))
                            for a in (X, labels))).mean().asscalar())  # fmt: skip

    h = 1e-4
    ahead, here, behind = own(h), own(0), own(-h)
    own(0)
    np.testing.assert_allclose(curv.loss(), here, rtol=1e-6)
    np.testing.assert_allclose(curv.gradient() @ v, (ahead - behind) / (2 * h), rtol=1e-5)
    np.testing.assert_allclose(v @ curv.hvp(v), (ahead - 2 * here + behind) / h**2, rtol=1e-4)


def test_a_penalty_that_only_the_gradient_knows() -> None:
    F = mx.sym
    z = F.sigmoid(F.FullyConnected(F.var("data"), num_hidden=3, name="f"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MXNet cannot tell the dtype of the data
        net = gluon.SymbolBlock(F.IdentityAttachKLSparseReg(z, penalty=0.1), [F.var("data")])
    net.initialize(mx.init.Normal(0.5))
    x = mx.nd.array(X)
    net(x)
    curv, texts = told(lambda: hessmx.Curvature(net, gluon.loss.L2Loss(), (x, mx.nd.array(NUMBERS))))
    assert ["adds a penalty to the gradient" in text for text in texts] == [True]
    w, b = (curv.parameters()[curv.param_slices[name]] for name in ("f_weight", "f_bias"))
    p = 1 / (1 + np.exp(-(X @ w.reshape(3, 3).T + b)))
    slope = (p - NUMBERS) * p * (1 - p) / 12
    found = {name: curv.gradient()[place] for name, place in curv.param_slices.items()}
    np.testing.assert_allclose(found["f_weight"].reshape(3, 3), slope.T @ X, atol=1e-7)
    np.testing.assert_allclose(found["f_bias"], slope.sum(0), atol=1e-7)


def test_what_stops_the_gradient_counts_as_a_constant() -> None:
    """z c with c = stop(sigmoid z): the loss moves with c, its derivatives do not."""
    net = made(lambda F, z: z * F.BlockGrad(F.sigmoid(z)))
    curv, texts = told(lambda: hessmx.Curvature(net, gluon.loss.L2Loss(), (X, NUMBERS), params=".*dense1_bias"))
    assert ["stops the gradient: its output counts as a constant" in text for text in texts] == [True]
    hidden = net.hidden(mx.nd.array(X, dtype="float64"))
    z = net.out(hidden).asnumpy()
    c = 1 / (1 + np.exp(-z))
    np.testing.assert_allclose(curv.gradient(), (c * (z * c - NUMBERS)).sum(0) / 12, rtol=1e-12)
    np.testing.assert_allclose(curv.hessian.to_dense(), np.diag((c * c).sum(0) / 12), rtol=1e-12, atol=1e-16)


def test_straight_through_estimators_are_named() -> None:
    net = made(lambda F, z: F.contrib.round_ste(3 * z))
    _, texts = told(lambda: hessmx.Curvature(net, gluon.loss.L2Loss(), (X, NUMBERS)))
    assert any("sends back the gradient of the identity" in text for text in texts)


LINEAR = [
    (lambda F, z: F.log_softmax(z), gluon.loss.SoftmaxCELoss(from_logits=True), CLASSES, True),
    (None, gluon.loss.L1Loss(), NUMBERS, True),
    (None, gluon.loss.SoftmaxCELoss(), CLASSES, False),
]


@pytest.mark.parametrize("decay", [None, 0.1])
@pytest.mark.parametrize(("last", "loss", "labels", "linear"), LINEAR)
def test_losses_that_are_linear_in_the_outputs_have_no_gauss_newton_matrix(
    last: Any, loss: Any, labels: Any, linear: bool, decay: Any
) -> None:
    curv = hessmx.Curvature(made(last), loss, (X, labels), weight_decay=decay)
    v = np.random.default_rng(1).standard_normal(curv.num_params)
    g, texts = told(lambda: [curv.ggn @ v, curv.ggn @ v, curv.block("dense0", matrix="ggn") @ v[: 3 * 4 + 4]][0])
    assert ["the Gauss-Newton matrix is zero on this data" in text for text in texts] == ([True] if linear else [])
    assert np.allclose(g, (decay or 0) * v) == linear


def test_a_direction_that_the_net_ignores_is_no_linear_loss() -> None:
    net = made()
    net.hidden.weight.set_data(mx.nd.array([[1, 0, 0]] * 4, dtype="float64"))
    net.out.weight.set_data(mx.nd.array([[0, 1, 1, 1]] * 3, dtype="float64"))
    curv = hessmx.Curvature(net, gluon.loss.L2Loss(), (X, NUMBERS))
    dead = np.zeros(curv.num_params)
    dead[0] = 1  # into a unit that nothing reads
    g, texts = told(lambda: curv.ggn @ dead)
    assert (g.any(), texts) == (False, [])


def transposed(dtype: str, **attrs: Any) -> Any:
    layer = nn.Conv2DTranspose(2, in_channels=2, **attrs)
    net = nn.HybridSequential()
    net.add(layer)
    net.initialize(mx.init.Normal(1))
    net.cast(dtype)
    return net


def by_definition(x: np.ndarray, w: np.ndarray, stride: int, dilation: int) -> np.ndarray:
    rows, kernel = x.shape[2], w.shape[2]
    y = np.zeros((len(x), w.shape[1], *[(rows - 1) * stride + (kernel - 1) * dilation + 1] * 2))
    for i, j, k, m in np.ndindex(rows, rows, kernel, kernel):
        y[:, :, i * stride + k * dilation, j * stride + m * dilation] += x[:, :, i, j] @ w[:, :, k, m]
    return y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("stride", "dilation", "kernel"), [(2, 2, 2), (3, 2, 3), (2, 1, 3), (1, 2, 3), (2, 2, 1)])
def test_transposed_convolutions_are_right_or_refused(stride: int, dilation: int, kernel: int, dtype: str) -> None:
    """MXNet's own kernel misplaces entries with stride and dilation above 1; oneDNN's, in float32, does not."""
    net = transposed(dtype, kernel_size=kernel, strides=stride, dilation=dilation, use_bias=False)
    x = np.random.default_rng(0).normal(size=(3, 2, 3, 3))
    w = net[0].weight.data().asnumpy().astype(float)
    true = by_definition(x, w, stride, dilation)
    data = mx.nd.array(x, dtype=dtype), mx.nd.zeros(true.shape, dtype=dtype)
    if not np.allclose(net(data[0]).asnumpy(), true, atol=1e-5):
        assert min(stride, dilation, kernel) > 1
        with pytest.raises(DataError, match="computes something else than one"):
            hessmx.Curvature(net, gluon.loss.L2Loss(), data)
        return
    curv = hessmx.Curvature(net, gluon.loss.L2Loss(), data)
    v = np.random.default_rng(1).normal(size=w.shape)
    np.testing.assert_allclose(curv.loss(), (true**2).mean() / 2, rtol=1e-5)
    moved = by_definition(x, v, stride, dilation)
    np.testing.assert_allclose(v.ravel() @ curv.hvp(v.ravel()), (moved**2).mean(), rtol=1e-5)
    np.testing.assert_allclose(curv.gradient(dtype="float64") @ v.ravel(), (moved * true).mean(), rtol=1e-5)


def test_float64_is_where_it_is_refused() -> None:
    net = transposed("float64", kernel_size=2, strides=2, dilation=2)
    x = mx.nd.ones((1, 2, 3, 3), dtype="float64")
    with pytest.raises(DataError, match=r"stride \(2, 2\) and dilation \(2, 2\) .* in float64"):
        hessmx.inputs.gradient(net, x)
