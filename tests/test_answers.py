"""The facade's questions against the dense float64 Hessian of NumPy jets."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.state import RunState
from hessmx.errors import InputError
from hessmx.results import from_dict
from tests.dense import Problem


@pytest.fixture(scope="module")
def case():
    problem = Problem("tanh", "softmax-ce")
    return problem.curvature(), problem.reference().h


def within(estimate, true: float) -> bool:
    """Within three standard errors (or rounding, where the estimate has become exact)."""
    return abs(estimate.value - true) <= 3 * estimate.stderr + 1e-9 * abs(true)


@pytest.mark.parametrize(("which", "order"), [("LA", slice(None, None, -1)), ("SA", slice(None))])
def test_eigenpairs(case, which, order):
    curv, dense = case
    values, vectors = np.linalg.eigh(dense)
    pairs = curv.eigenpairs(5, which)
    assert np.allclose(pairs.values, values[order][:5], rtol=1e-6)
    assert np.allclose(np.abs(np.sum(pairs.vectors * vectors[:, order][:, :5], axis=0)), 1, atol=1e-5)
    assert np.allclose(pairs.residuals, np.linalg.norm(dense @ pairs.vectors - pairs.vectors * pairs.values, axis=0))
    assert pairs.converged.all()


@pytest.mark.parametrize("method", ["hutchinson", "hutch++", "xtrace"])
def test_trace(case, method):
    curv, dense = case
    estimate = curv.trace(method, budget=40)
    assert estimate.products == 40 and within(estimate, np.trace(dense))


def test_diagonal_frobenius_logdet_and_effective_dimension(case):
    curv, dense = case
    size = len(dense)
    assert np.allclose(curv.diagonal(budget=2 * size).value, np.diag(dense), atol=1e-10)
    assert within(curv.squared_frobenius(budget=200), float(np.sum(dense**2)))
    assert within(curv.logdet(2.0, probes=20), float(np.linalg.slogdet(dense + 2 * np.eye(size))[1]))
    ggn = curv.ggn.to_dense()
    true = float(np.trace(ggn @ np.linalg.inv(ggn + 0.1 * np.eye(size))))
    assert within(curv.effective_dimension(0.1, probes=20), true)


@pytest.mark.parametrize(("method", "matrix"), [("cg", "ggn"), ("minres", "hessian")])
def test_solve(case, method, matrix):
    curv, _ = case
    dense = curv.matrix(matrix).to_dense() + 0.05 * np.eye(curv.num_params)
    answer = curv.solve(damping=0.05, method=method, matrix=matrix, rtol=1e-10)
    assert answer.converged and np.allclose(answer.x, np.linalg.solve(dense, curv.gradient()), atol=1e-6)


def test_sharpness_and_where_gradient_descent_stops_being_stable():
    """Below 2 / lambda_max gradient descent on a quadratic shrinks, above it grows: linear regression is one."""
    problem = Problem(None, "l2")
    curv = problem.curvature()
    edge = curv.sharpness().stable_learning_rate
    top = curv.eigenpairs(1).vectors[:, 0]
    lowest = np.linalg.lstsq(problem.reference().h, -problem.reference().d, rcond=None)[0] + problem.w
    for factor, grows in ((0.99, False), (1.01, True)):
        w = lowest + 1e-2 * top
        for _ in range(50):
            w = w - factor * edge * curv.gradient(at=w)
        assert (np.linalg.norm(w - lowest) > 1e-2) == grows


def test_saddle_is_followed_down(case):
    curv, dense = case
    report = curv.saddle()
    assert report.is_saddle and report.eigenvalue == pytest.approx(np.linalg.eigvalsh(dense)[0], rel=1e-6)
    lowest = curv.loss(at=curv.parameters() + report.best_step * report.direction)
    assert report.goes_down and report.descent == pytest.approx(curv.loss() - lowest, rel=1e-9)


def test_largest_loss_in_a_ball_beats_every_direction_tried(case):
    curv, _ = case
    ball = curv.ball_sharpness(radius=0.1)
    assert ball.loss == pytest.approx(curv.loss(at=curv.parameters() + 0.1 * ball.direction), rel=1e-12)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(50, curv.num_params))
    tried = [curv.loss(at=curv.parameters() + 0.1 * d / np.linalg.norm(d)) for d in directions]
    assert ball.loss > max(tried)


def test_outliers_see_the_largest_gap(case):
    curv, dense = case
    values = np.sort(np.linalg.eigvalsh(dense))[::-1][:6]
    positive = values[values > 0]
    assert curv.outliers(3).count == np.argmax(positive[:-1] / positive[1:]) + 1


def test_layers(case):
    curv, dense = case
    start = 0
    for row in curv.layers().rows:
        block = dense[start : start + row.num_params, start : start + row.num_params]
        start += row.num_params
        assert row.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-6)
        assert row.trace == pytest.approx(np.trace(block), rel=1e-10) and row.trace_stderr == 0
        assert row.share == pytest.approx(np.trace(block) / np.trace(dense), rel=1e-10)
    assert start == len(dense)


def test_large_layers_share_products_of_the_whole(case):
    """Four products for all traces together."""
    curv, dense = case
    spent, start = [], 0
    whole = curv.hessian

    def counted(block):
        spent.append(block.shape[1])
        return dense @ block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(whole, "_products", counted, raising=False)
        rows = curv.layers(budget=4, tol=1e-3).rows
    assert sum(spent) == 4
    for row in rows:
        block = dense[start : start + row.num_params, start : start + row.num_params]
        start += row.num_params
        assert abs(row.trace - np.trace(block)) <= 10 * row.trace_stderr + 1e-9
        assert row.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-3)


def test_a_logarithm_is_refused_before_the_spectrum(case, monkeypatch):
    curv, dense = case
    monkeypatch.setattr(curv, "spectrum", lambda *a, **o: pytest.fail("a spectrum was computed"))
    low = np.linalg.eigvalsh(dense)[0]
    with pytest.raises(InputError, match=r"use a shift above .*matrix='ggn'"):
        curv.logdet(-0.9 * low)


def test_many_dampings_and_what_is_known_of_the_matrix(case):
    curv, _ = case
    ggn, gradient = curv.ggn.to_dense(), curv.gradient()
    for solution in curv.solve(matrix="ggn", damping=[0.1, 1.0], rtol=1e-9):
        exact = np.linalg.solve(ggn + solution.damping * np.eye(len(ggn)), gradient)
        assert solution.converged and np.allclose(solution.x, exact, atol=1e-7)
        assert solution.provenance.matrix == "ggn"
    assert curv.solve(matrix="ggn", damping=0.1).method == "cg" and curv.solve(damping=10.0).method == "minres"
    assert curv.trace(matrix="ggn", budget=12).method == "xnystrace" and curv.trace(budget=12).method == "xtrace"


def test_results_carry_their_provenance_and_survive_json(case):
    curv, _ = case
    result = curv.trace(budget=10, seed=5)
    record = result.provenance
    assert (record.engine, record.matrix, record.mode, record.reduction, record.dtype, record.seed) == (
        "reverse-over-forward",
        "hessian",
        "predict",
        "mean",
        "float64",
        5,
    )
    assert (record.num_samples, record.num_params) == (7, curv.num_params)
    again = from_dict(result.to_dict())
    assert again.value == result.value and again.provenance == record


def test_same_seed_same_answer_other_seed_other_answer(case):
    curv, _ = case
    assert curv.trace(budget=12).value == curv.trace(budget=12).value != curv.trace(budget=12, seed=1).value


def test_a_snapshot_is_refused_for_another_net_and_continued_for_the_same(tmp_path):
    state = tmp_path / "run.npz"
    problem = Problem("tanh", "softmax-ce")
    whole = problem.curvature().spectrum(probes=3, steps=8)
    calls = []

    def stop(done, total, message):
        calls.append(done)
        if done >= 13:
            raise KeyboardInterrupt

    curv = problem.curvature()
    saved = RunState(state, key=curv._identity(curv.hessian), every=0)
    with pytest.raises(KeyboardInterrupt):
        curv.spectrum(probes=3, steps=8, state=saved, progress=stop)
    other = Problem("sigmoid", "softmax-ce").curvature()
    with pytest.raises(InputError, match="belongs to another run"):
        other.spectrum(probes=3, steps=8, state=state)
    again = problem.curvature().spectrum(probes=3, steps=8, state=state)
    assert np.array_equal(again.nodes, whole.nodes) and np.array_equal(again.weights, whole.weights)
