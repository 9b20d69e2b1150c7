"""Every matrix against dense float64 references: per-sample Jacobians and loss Hessians from NumPy jets."""

from __future__ import annotations

import numpy as np
import pytest

import hessmx
from hessmx.errors import EngineError, InputError, ParameterError
from tests import oracles
from tests.dense import Problem

LOSSES = ("softmax-ce", "l2", "sigmoid-bce", "huber")
TOLERANCE = 1e-8


class Reference:
    """J_i, per-sample gradients g_i, loss Hessians in z, and the matrices made of them."""

    def __init__(self, problem: Problem, loss: str):
        z = oracles.forward(problem.layers, problem.w, problem.x)
        self.jacobians = z.d  # (N, K, P)
        at_z = [self._loss_jet(z.v[i : i + 1], loss, problem.y[i : i + 1]) for i in range(len(z.v))]
        self.slopes = np.array([jet.d[0] for jet in at_z])  # (N, K)
        self.loss_hessians = np.array([jet.h[0] for jet in at_z])  # (N, K, K)
        self.gradients = np.einsum("nk,nkp->np", self.slopes, self.jacobians)
        samples = len(z.v)
        self.hessian = oracles.objective(problem.layers, loss, problem.w, problem.x, problem.y).h
        self.ggn = np.einsum("nkp,nkl,nlq->pq", self.jacobians, self.loss_hessians, self.jacobians) / samples
        self.residual = np.einsum("nk,nkpq->pq", self.slopes, z.h) / samples
        self.fisher = self.gradients.T @ self.gradients / samples

    @staticmethod
    def _loss_jet(z: np.ndarray, loss: str, y: np.ndarray) -> oracles.Jet:
        outputs = z.shape[1]
        jet = oracles.Jet(z, np.eye(outputs)[None], np.zeros((1, outputs, outputs, outputs)))
        return oracles.LOSSES[loss](jet, y)


def relative(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.abs(found - true).max() / np.abs(true).max())


@pytest.fixture(scope="module", params=LOSSES)
def case(request):
    problem = Problem("tanh", request.param)
    return problem, problem.curvature(batch_size=3), Reference(problem, request.param), request.param


@pytest.mark.parametrize("name", ["hessian", "ggn", "residual", "fisher"])
def test_matrix_equals_the_reference(case, name):
    _, curv, reference, _ = case
    assert relative(curv.matrix(name).to_dense(), getattr(reference, name)) < TOLERANCE


def test_jacobian_its_transpose_and_ntk(case):
    _, curv, reference, _ = case
    true = reference.jacobians.reshape(-1, curv.num_params)
    assert relative(curv.jacobian.to_dense(), true) < TOLERANCE
    assert relative(curv.jacobian @ np.eye(curv.num_params), true) < TOLERANCE
    assert relative(curv.jacobian.rmatmat(np.eye(len(true))), true.T) < TOLERANCE
    assert relative(curv.jacobian.T.to_dense(), true.T) < TOLERANCE
    assert relative(curv.ntk.to_dense(), true @ true.T) < TOLERANCE


def test_gradient_covariance(case):
    _, curv, reference, _ = case
    assert relative(curv.gradient_covariance.to_dense(), np.cov(reference.gradients.T, bias=True)) < TOLERANCE


def test_labels_from_the_model_give_gauss_newton(case):
    """E over labels of g g' is the Gauss-Newton matrix; the mean over draws must lie within its own scatter."""
    _, curv, reference, loss = case
    if loss == "huber":
        with pytest.raises(EngineError, match="SoftmaxCrossEntropyLoss"):
            curv.fisher("mc")
        return
    v = np.random.default_rng(3).normal(size=curv.num_params)
    true = v @ reference.ggn @ v
    single = [v @ case[0].curvature(seed=seed).fisher("mc", draws=5).matvec(v) for seed in range(30)]
    z_score = (np.mean(single) - true) / (np.std(single, ddof=1) / np.sqrt(len(single)))
    assert abs(z_score) < 3.5
    assert np.std(single) > 0.01 * true  # different seeds draw different labels


def test_one_fisher_is_one_matrix(case):
    _, curv, _, loss = case
    if loss != "huber":
        fisher = curv.fisher("mc")
        dense = fisher.to_dense()
        assert np.array_equal(dense, fisher.to_dense())
        assert relative(dense, dense.T) < 1e-12


def test_blocks_are_the_diagonal_of_the_whole(case):
    _, curv, reference, _ = case
    start, whole = 0, np.zeros_like(reference.hessian)
    for block in curv.blocks().values():
        cut = slice(start, start + block.shape[0])
        assert relative(block.to_dense(), reference.hessian[cut, cut]) < TOLERANCE
        whole[cut, cut] = reference.hessian[cut, cut]
        start += block.shape[0]
    assert start == curv.num_params
    assert relative(curv.block_diagonal().to_dense(), whole) < TOLERANCE
    traces = sum(np.trace(block.to_dense()) for block in curv.blocks("parameter").values())
    assert traces == pytest.approx(np.trace(reference.hessian), rel=1e-12)


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_restricted_to_weights_or_biases(case, kind):
    _, curv, reference, _ = case
    chosen = np.concatenate([np.r_[s] for name, s in curv.param_slices.items() if name.endswith(kind)])
    assert relative(curv.block(f"_{kind}$", "ggn").to_dense(), reference.ggn[np.ix_(chosen, chosen)]) < TOLERANCE
    assert relative(curv.blocks("kind")[kind].to_dense(), reference.hessian[np.ix_(chosen, chosen)]) < TOLERANCE


def test_sums_scalings_shifts_products_and_submatrices(case):
    _, curv, reference, _ = case
    h, g, size = reference.hessian, reference.ggn, curv.num_params
    rows, columns = [4, 0, 7], [2, 9]
    rows_of = {
        "shift": (curv.hessian.shift(0.3), h + 0.3 * np.eye(size)),
        "difference": (curv.hessian - 0.5 * curv.ggn, h - 0.5 * g),
        "negative": (-curv.hessian / 2, -h / 2),
        "product": (curv.hessian @ curv.ggn, h @ g),
        "transposed product": ((curv.hessian @ curv.ggn).T, g @ h),
        "submatrix": (curv.hessian.submatrix(rows, columns), h[np.ix_(rows, columns)]),
        "transposed submatrix": (curv.hessian.submatrix(rows, columns).T, h[np.ix_(columns, rows)]),
    }
    for name, (operator, true) in rows_of.items():
        assert relative(operator.to_dense(), true) < TOLERANCE, name


def test_penalty_belongs_to_hessian_and_gauss_newton_only():
    problem = Problem("tanh", "softmax-ce")
    plain, decayed = problem.curvature(), problem.curvature(weight_decay=0.25)
    for name, extra in {"hessian": 0.25, "ggn": 0.25, "residual": 0, "fisher": 0}.items():
        difference = decayed.matrix(name).to_dense() - plain.matrix(name).to_dense()
        assert np.allclose(difference, extra * np.eye(plain.num_params), atol=1e-12), name
    assert relative((decayed.hessian - decayed.ggn).to_dense(), decayed.residual.to_dense()) < TOLERANCE


def test_dtype_is_that_of_the_net():
    curv = Problem("tanh", "l2", dtype="float32").curvature()
    assert curv.hessian.dtype == np.float32 and (curv.hessian @ np.ones(curv.num_params)).dtype == np.float32
    assert curv.jacobian.dtype == np.float32


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda c: c.matrix("hesian"), InputError, "did you mean 'hessian'"),
        (lambda c: c.fisher("true"), InputError, "'empirical', 'mc'"),
        (lambda c: c.fisher("mc", draws=0), InputError, "at least 1"),
        (lambda c: c.block("no_such"), ParameterError, "no parameters whose name matches"),
        (lambda c: c.blocks({"a": ["nothing"]}), ParameterError, "must list some of the parameters"),
        (lambda c: c.blocks(matrix="ntk"), InputError, "no blocks"),
        (lambda c: c.hessian.submatrix([0], [10**6]), InputError, "columns must be whole numbers"),
        (lambda c: c.hessian @ np.full(c.num_params, np.nan), InputError, "NaN"),
        (lambda c: c.hessian @ np.full(c.num_params, 1j), InputError, "real numbers"),
    ],
)
def test_bad_questions(ask, error, text):
    with pytest.raises(error, match=text):
        ask(Problem("tanh", "softmax-ce").curvature())


@pytest.mark.parametrize("name", ["hessian", "ggn", "residual", "fisher", "ntk"])
def test_what_is_called_positive_has_no_negative_eigenvalue(case, name):
    _, curv, _, _ = case
    matrix = curv.matrix(name)
    assert matrix.positive is (True if name in ("ggn", "fisher", "ntk") else None)
    if matrix.positive:
        values = np.linalg.eigvalsh(matrix.to_dense())
        assert values[0] > -1e-12 * values[-1]


def test_an_unknown_loss_leaves_gauss_newton_unknown():
    problem = Problem("tanh", "l2")
    curv = hessmx.Curvature(problem.net, lambda z, y: ((z - y) ** 2 - (z - y) ** 4).sum(axis=1), (problem.x, problem.y))
    assert curv.ggn.positive is None
