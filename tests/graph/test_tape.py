"""The tape tracer: names, constants, several outputs, and what it must refuse rather than get wrong."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.engines.compiled import evaluate
from hessmx.errors import GraphError
from hessmx.graph.tape import record

A, W = np.arange(6.0).reshape(2, 3), np.array([[1.0, -2.0, 0.5]])


def arrays(**values):
    return {name: mx.nd.array(value, dtype="float64") for name, value in values.items()}


def recorded(function, inputs, parameters):
    """Outputs of what was recorded, computed anew."""
    made = record(function, arrays(**inputs), arrays(**parameters), "net")
    found = evaluate(made.graph, {**arrays(**inputs, **parameters), **made.constants}, mx.cpu())
    return made.graph, made.constants, made.result, [output.asnumpy() for output in found]


def test_inputs_parameters_and_constants_get_their_names():
    parameters = arrays(w=W)
    factor = np.array([[2.0, 3.0, 4.0]])

    def function(a):
        return (a * parameters["w"] + mx.nd.array(factor, dtype="float64")).exp()

    made = record(function, arrays(a=A), parameters, "net")
    graph, constants = made.graph, made.constants
    assert {"a", "w"} < set(graph.variables)
    (name,) = constants
    assert name.startswith("hessmx_net_")
    np.testing.assert_array_equal(constants[name].asnumpy(), factor)
    (found,) = evaluate(graph, {**arrays(a=A, w=W), **constants}, mx.cpu())
    np.testing.assert_allclose(found.asnumpy(), np.exp(A * W + factor), rtol=1e-14)


def test_several_outputs_nested():
    _, _, result, found = recorded(lambda a: (a.exp(), [a.sum(axis=1), a * 2]), dict(a=A), {})
    assert isinstance(result, tuple) and isinstance(result[1], list)
    for output, expected in zip(found, (np.exp(A), A.sum(1), A * 2)):
        np.testing.assert_allclose(output, expected, rtol=1e-14)


def test_an_input_that_is_not_used():
    graph, _, _, found = recorded(lambda a, b: a.tanh(), dict(a=A, b=W), {})
    assert graph.variables == ("a",)
    np.testing.assert_allclose(found[0], np.tanh(A), rtol=1e-14)


def test_loops_and_branches_on_values():
    def function(a):
        for _ in range(3):
            a = a.tanh() if a.max().asscalar() > 0.9 else a * 3
        return a

    expected = np.tanh(A)
    for _ in range(2):
        expected = np.tanh(expected) if expected.max() > 0.9 else expected * 3
    np.testing.assert_allclose(recorded(function, dict(a=A), {})[3][0], expected, rtol=1e-14)


def user_function():
    class Twice(mx.autograd.Function):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    return Twice()


REFUSED = {
    "NumPy on the way": (lambda a: np.exp(a.asnumpy()), "expected arrays, but ndarray"),
    "a number": (lambda a: a.sum().asscalar(), "expected arrays"),
    "nothing": (lambda a: None, "expected arrays"),
    "a constant": (lambda a: mx.nd.ones((2, 3)), "nothing was recorded"),
    "autograd.Function": (lambda a: user_function()(a), "autograd.Function"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    function, message = REFUSED[case]
    with pytest.raises(GraphError, match=message):
        record(function, arrays(a=A), {}, "net")


def test_the_recording_leaves_no_trace():
    replaced = [
        lambda: mx._ctypes.ndarray.c_handle_array,
        lambda: mx.nd.NDArray.asnumpy,
        lambda: mx.nd.NDArray.detach,
        lambda: mx.base._LIB.MXAutogradIsTraining,
        lambda: mx.base._LIB.MXAutogradSetIsTraining,
    ]
    originals = [read() for read in replaced]
    with pytest.raises(ZeroDivisionError):
        record(lambda a: 1 / 0, arrays(a=A), {}, "net")
    assert all(read() is original for read, original in zip(replaced, originals))
    assert not mx.autograd.is_recording()
    assert mx.sym.exp(mx.sym.Variable("x")).name == f"exp{int(mx.sym.exp(mx.sym.Variable('x')).name[3:]) - 1}"
