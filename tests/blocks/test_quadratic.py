"""Quadratic forms against NumPy formulas, and what makes the Cholesky factor unique."""

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.blocks import QuadraticForm
from hessmx.errors import InputError
from tests.blocks.support import array, gradient, initialized, normal, reload, set_vector, trained, vector

KINDS = [("full", None), ("cholesky", None), ("low-rank", 1), ("low-rank", 2), ("low-rank", 4)]
HIDDEN = [(), None, (5,), (6, 5)]


def entries(net, x):
    """The numbers the inner net makes, from its weights, in NumPy: (N, entries)."""
    values = [p.data().asnumpy() for p in trained(net)]
    if len(values) == 1:
        return np.repeat(values[0].T, len(x), axis=0)
    layers = list(zip(values[::2], values[1::2]))
    for weight, bias in layers[:-1]:
        x = np.tanh(x @ weight.T + bias)
    return x @ layers[-1][0].T + layers[-1][1]


def factor(kind, raw, dim):
    if kind != "cholesky":
        return raw.reshape(len(raw), -1, dim)
    upper = np.zeros((len(raw), dim, dim))
    upper[:, np.arange(dim), np.arange(dim)] = np.logaddexp(0, raw[:, :dim])
    columns, rows = np.tril_indices(dim, -1)
    upper[:, rows, columns] = raw[:, dim:]
    return upper


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-4), ("float64", 1e-12)])
@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("kind, rank", KINDS)
def test_form_and_matrix_agree_with_numpy(kind, rank, hidden, dtype, tolerance, tmp_path):
    net = initialized(QuadraticForm(4, hidden, kind, rank, dtype=dtype))
    x = normal(7, 4)
    data = array(x, dtype)
    expected = factor(kind, entries(net, x), 4)
    matrix = np.einsum("nki,nkj->nij", expected, expected)
    value = np.einsum("ni,nij,nj->n", x, matrix, x)
    plain = net(data)
    net.hybridize()
    assert plain.asnumpy().dtype == dtype and plain.shape == (7,)
    for y in (plain, net(data), reload(net, data, tmp_path)(data)):
        assert np.allclose(y.asnumpy(), value, rtol=tolerance, atol=tolerance)
    assert np.allclose(net.factor(data).asnumpy(), expected, rtol=tolerance, atol=tolerance)
    assert np.allclose(net.matrix(data).asnumpy(), matrix, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind, rank", KINDS)
def test_matrix_is_symmetric_positive_semidefinite_of_the_stated_rank(kind, rank):
    net = initialized(QuadraticForm(4, (5,), kind, rank, dtype="float64"))
    for matrix in net.matrix(array(normal(7, 4))).asnumpy():
        eigenvalues = np.linalg.eigvalsh(matrix)
        assert np.allclose(matrix, matrix.T, atol=1e-14) and eigenvalues[0] > -1e-12 * eigenvalues[-1]
        assert np.linalg.matrix_rank(matrix) == (rank or 4)


def test_cholesky_factor_is_the_one_that_numpy_finds():
    net = initialized(QuadraticForm(5, (3,), "cholesky", dtype="float64"))
    x = array(normal(7, 5))
    lower = net.factor(x).asnumpy().transpose(0, 2, 1)
    assert np.allclose(lower, np.linalg.cholesky(net.matrix(x).asnumpy()), rtol=1e-9)


@pytest.mark.parametrize("kind, freedoms", [("full", 6), ("cholesky", 0), ("low-rank", 1)])
def test_gradients_span_all_but_the_rotations_of_the_factor(kind, freedoms):
    """A constant B has dim * rank numbers; f fixes them up to rotations B -> QB, rank (rank - 1) / 2 of them."""
    net = initialized(QuadraticForm(4, (), kind, 2 if kind == "low-rank" else None, dtype="float64"))
    jacobian = [gradient(net, array(x[None]), [1.0]) for x in normal(60, 4)]
    assert vector(net).size - np.linalg.matrix_rank(jacobian) == freedoms


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("kind, rank", KINDS)
def test_gradients_agree_with_differences(kind, rank, hidden):
    net = initialized(QuadraticForm(4, hidden, kind, rank, dtype="float64"))
    x, head, start = normal(5, 4), normal(5, seed=1), vector(net)
    v, u = normal(start.size, seed=2), normal(5, 4, seed=3)

    def value(step_weights, step_inputs):
        set_vector(net, start + step_weights * v)
        return (net(array(x + step_inputs * u)).asnumpy() * head).sum()

    by_weights = (value(1e-6, 0) - value(-1e-6, 0)) / 2e-6
    by_inputs = (value(0, 1e-6) - value(0, -1e-6)) / 2e-6
    set_vector(net, start)
    data = array(x)
    data.attach_grad()
    assert np.isclose(gradient(net, data, head) @ v, by_weights, rtol=1e-6)
    assert np.isclose((data.grad.asnumpy() * u).sum(), by_inputs, rtol=1e-6)


@pytest.mark.parametrize("kind, rank", KINDS)
def test_hessian_at_the_origin_is_twice_the_matrix(kind, rank):
    net = initialized(QuadraticForm(4, (5,), kind, rank, dtype="float64"))
    steps = 1e-4 * np.eye(4)
    points = np.array([[a + b, a - b, b - a, -a - b] for a in steps for b in steps]).reshape(-1, 4)
    f = net(array(points)).asnumpy().reshape(4, 4, 4)
    hessian = (f[..., 0] - f[..., 1] - f[..., 2] + f[..., 3]) / 4e-8
    assert np.allclose(hessian, 2 * net.matrix(array(np.zeros((1, 4)))).asnumpy()[0], rtol=1e-5, atol=1e-5)


def test_one_dimension():
    net = initialized(QuadraticForm(1, (), "cholesky", dtype="float64"))
    raw = vector(net)[0]
    assert np.allclose(net(array([[3.0]])).asnumpy(), [9 * np.logaddexp(0, raw) ** 2], rtol=1e-12)


REPRS = [
    (lambda: QuadraticForm(3), "QuadraticForm(3 -> 1, factor=full, hidden=())"),
    (lambda: QuadraticForm(3, (8, 8), "low-rank", 2), "QuadraticForm(3 -> 1, factor=low-rank, rank=2, hidden=(8, 8))"),
]


@pytest.mark.parametrize("make, text", REPRS)
def test_repr(make, text):
    assert repr(make()) == text


def ready():
    net = QuadraticForm(3)
    net.initialize()
    return net


BAD = [
    (lambda: QuadraticForm(0), "dim must be an integer of at least 1, not 0"),
    (lambda: QuadraticForm(3, 8), "hidden must be a tuple of layer sizes, not 8"),
    (lambda: QuadraticForm(3, (8, 0)), "each size in hidden must be an integer"),
    (lambda: QuadraticForm(3, factor="cholesk"), "factor must be one of .*did you mean 'cholesky'"),
    (lambda: QuadraticForm(3, factor="low-rank"), "rank must be an integer of at least 1, not None"),
    (lambda: QuadraticForm(3, factor="low-rank", rank=4), "rank must be at most dim=3, not 4"),
    (lambda: QuadraticForm(3, rank=2), "rank is for factor='low-rank' only, not for factor='full'"),
    (lambda: QuadraticForm(3, (4,), activation="tan"), "activation must be one of"),
    (lambda: ready().matrix(np.ones((2, 3))), r"x must be an NDArray of shape \(N, 3\), not ndarray \(2, 3\)"),
    (lambda: ready().factor(mx.nd.ones((2, 4))), r"x must be an NDArray of shape \(N, 3\), not NDArray \(2, 4\)"),
]


@pytest.mark.parametrize("make, text", BAD)
def test_bad_input_gives_one_clear_line(make, text):
    with pytest.raises(InputError, match=text) as caught:
        make()
    assert "\n" not in str(caught.value)
