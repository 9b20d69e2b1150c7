"""Differences of gradients for what has no rule; the error estimate is honest, and the warning names the operators."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from hessmx import Curvature, HessmxWarning
from hessmx._mxnet import mx
from hessmx.errors import EngineError, GraphError, UnsupportedOps
from tests.dense import Problem, relative

nn = mx.gluon.nn
pytestmark = [  # what MXNet itself says on the way; pytest.warns would say it again as an error
    pytest.mark.filterwarnings(f"ignore:{text}:DeprecationWarning") for text in ("Please import", "NameManager")
]
SMOOTH = [("tanh", "softmax-ce"), ("sigmoid", "l2"), ("softrelu", "logistic"), ("exp", "poisson"), ("gelu", "l2")]


@pytest.mark.parametrize("length", [1e-3, 1.0, 1000.0])
@pytest.mark.parametrize(("activation", "loss"), SMOOTH)
def test_the_error_estimate_is_honest(activation, loss, length):
    problem = Problem(activation, loss)
    curv, v = problem.curvature(engine="finite-difference"), np.random.default_rng(1).normal(size=problem.w.size)
    v *= length / np.linalg.norm(v)
    error = relative(curv.hvp(v), problem.reference().h @ v)
    assert error < 1e-8
    assert error / 20 < curv.error_estimate < 20 * error


def test_exact_engines_have_no_error_estimate():
    assert Problem().curvature().error_estimate is None
    assert Problem().curvature(engine="double-backward").error_estimate is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float32_nets_are_differenced_in_float64(dtype):
    assert Problem("tanh", "softmax-ce", dtype).error(engine="finite-difference") < 2e-7


def test_only_the_hessian():
    with pytest.raises(EngineError, match="Hessian only"):
        Problem().curvature(engine="finite-difference").matrix("ggn").matvec(np.ones(55))


# -- user code that MXNet cannot look into: tanh written in NumPy


class TanhOp(mx.operator.CustomOp):
    def forward(self, is_train, req, in_data, out_data, aux):
        self.assign(out_data[0], req[0], mx.nd.tanh(in_data[0]))

    def backward(self, req, out_grad, in_data, out_data, in_grad, aux):
        self.assign(in_grad[0], req[0], out_grad[0] * (1 - out_data[0] ** 2))


@mx.operator.register("hessmx_test_tanh")
class TanhProp(mx.operator.CustomOpProp):
    def __init__(self):
        super().__init__(need_top_grad=True)

    def infer_shape(self, in_shape):
        return in_shape, in_shape, []

    def infer_type(self, in_type):
        return in_type, in_type, []

    def create_operator(self, ctx, shapes, dtypes):
        return TanhOp()


class TanhFunction(mx.autograd.Function):
    def forward(self, x):
        y = mx.nd.tanh(x)
        self.save_for_backward(y)
        return y

    def backward(self, dy):
        (y,) = self.saved_tensors
        return dy * (1 - y * y)


class WithFunction(mx.gluon.Block):
    """A dense net whose units are user code."""

    def __init__(self, layers):
        super().__init__()
        self.inner = nn.Sequential()
        self.inner.add(*layers)

    def forward(self, x):
        first, second, third = self.inner
        return third(TanhFunction()(second(TanhFunction()(first(x)))))


def with_custom_op(problem):
    first, second, third = (problem.net[i] for i in (0, 2, 4))
    net = nn.HybridSequential()
    tanh = nn.HybridLambda(lambda F, x: F.Custom(x, op_type="hessmx_test_tanh"))
    net.add(first, tanh, second, tanh, third)
    return net


def with_function(problem):
    return WithFunction([problem.net[i] for i in (0, 2, 4)])


USER_CODE = {
    "Custom": (with_custom_op, {"float32": 1e-6, "float64": 1e-8}),
    "autograd.Function": (with_function, {"float32": 3e-3, "float64": 1e-8}),  # runs in the net's own precision
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", USER_CODE)
def test_user_code(kind, dtype):
    make, tolerance = USER_CODE[kind]
    problem = Problem("tanh", "softmax-ce", dtype)
    problem.net = make(problem)
    with pytest.warns(HessmxWarning, match=f"finite differences.*{kind}") as caught:
        curv = problem.curvature()
    assert sum(issubclass(warning.category, HessmxWarning) for warning in caught) == 1
    assert curv.engine == "finite-difference"
    reference, v = problem.reference(), np.random.default_rng(0).normal(size=problem.w.size)
    assert relative(curv.gradient(), reference.d) < 1e-5
    error = relative(curv.hvp(v), reference.h @ v)
    assert error < tolerance[dtype]
    assert error / 30 < curv.error_estimate < 30 * error + 1e-9


def test_biases_alone():
    """In float32 MXNet writes a bias's gradient only together with its weight's."""
    problem = Problem("tanh", "softmax-ce", "float32")
    problem.net = with_function(problem)
    curv = problem.curvature(params="bias$", engine="finite-difference")
    reference = problem.reference()
    biases = np.r_[20:25, 40:43, 52:55]
    np.testing.assert_allclose(curv.gradient(), reference.d[biases], atol=1e-6)
    assert relative(curv.hessian.to_dense(), reference.h[np.ix_(biases, biases)]) < 1e-2


@pytest.mark.parametrize("kind", USER_CODE)
@pytest.mark.parametrize("engine", ["reverse-over-forward", "double-backward"])
def test_exact_engines_refuse_user_code(kind, engine):
    problem = Problem("tanh", "softmax-ce")
    problem.net = USER_CODE[kind][0](problem)
    with pytest.raises((UnsupportedOps, GraphError), match=kind):
        problem.curvature(engine=engine)


def test_asked_for_by_name_there_is_no_warning():
    problem = Problem("tanh", "softmax-ce")
    problem.net = with_custom_op(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error", HessmxWarning)
        Curvature(problem.net, problem.loss, (problem.x, problem.y), engine="finite-difference")


def test_untraceable_dropout_in_train_mode_is_refused():
    problem = Problem("tanh", "softmax-ce")
    net = with_function(problem)
    net.drop = nn.Dropout(0.5)
    with pytest.raises(EngineError, match=r"Dropout.*mode='predict'"):
        Curvature(net, problem.loss, (problem.x, problem.y), mode="train", engine="finite-difference")


def test_the_zero_vector():
    problem = Problem()
    assert not problem.curvature(engine="finite-difference").hvp(np.zeros(problem.w.size)).any()
