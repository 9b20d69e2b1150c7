from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import trapezoid

from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.state import RunState
from hessmx.errors import InputError
from tests.algorithms.support import counted, dense, rotated

RNG = np.random.default_rng(12)
P = 2000
MARGIN = np.array([-0.02, 0.02])


@pytest.fixture(scope="module")
def papyan() -> tuple[np.ndarray, np.ndarray]:
    """Papyan 2020, figure 15a: diag(5, 4, 3, 0 ...) plus a Wishart matrix; with its eigenvalues."""
    z = np.random.default_rng(100).standard_normal((P, P))
    matrix = z @ z.T / P
    matrix[range(3), range(3)] += [5, 4, 3]
    return matrix, np.linalg.eigvalsh(matrix)


@pytest.mark.parametrize(("steps", "best_peer"), [(32, 0.027), (64, 0.037), (128, 0.039)])
def test_papyan_benchmark(papyan: tuple[np.ndarray, np.ndarray], steps: int, best_peer: float) -> None:
    """L1 error of the masses of 40 bins from 10 probes, against the best published row."""
    matrix, true = papyan
    edges = np.linspace(true[0], true[-1], 41)
    cdf = spectrum(matrix, 10, steps).cdf(edges[1:-1])
    masses = np.diff(np.r_[0, cdf, 1])
    assert np.abs(masses - np.histogram(true, edges)[0] / P).sum() <= best_peer


SPECTRA = {
    "net": np.r_[np.geomspace(20, 5, 10), np.abs(RNG.standard_normal(P - 10))],
    "two bulks": np.r_[RNG.uniform(-3, -1, P // 2), RNG.uniform(2, 3, P // 2)],
    "noise": RNG.standard_normal(P),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_distribution_and_density_against_the_truth(name: str) -> None:
    true = SPECTRA[name]
    found = spectrum(rotated(true), 10, 50)
    grid = np.linspace(true.min() - 1, true.max() + 1, 200)
    assert np.abs(found.cdf(grid) - (true <= grid[:, None]).mean(axis=1)).max() < 0.02
    width = found.default_width()
    kernel = np.exp(-0.5 * ((grid[:, None] - true) / width) ** 2).mean(axis=1) / (width * np.sqrt(2 * np.pi))
    assert trapezoid(np.abs(found.density(grid) - kernel), grid) < 0.06
    np.testing.assert_allclose(trapezoid(found.density(grid), grid), 1, atol=0.02)


def test_zero_block_is_a_jump() -> None:
    true = np.r_[np.zeros(1500), RNG.uniform(1, 2, 480), RNG.uniform(-2, -1, 20)]
    found = spectrum(rotated(true), 10, 40)
    np.testing.assert_allclose(found.cdf([-1e-9, 0.0, 0.5]), [0.01, 0.76, 0.76], atol=0.01)
    np.testing.assert_allclose(found.sides(), [0.01, 0.75, 0.24], atol=0.01)


def test_log_view_integrates_to_each_side() -> None:
    found = spectrum(rotated(np.r_[np.geomspace(1e-6, 1, 1500), -np.geomspace(1e-3, 1, 500)]), 5, 60)
    grid = np.linspace(-12, 2, 4000)
    negative, _, positive = found.sides()
    np.testing.assert_allclose(trapezoid(found.log_density(grid), grid), positive, atol=1e-3)
    np.testing.assert_allclose(trapezoid(found.log_density(grid, sign=-1), grid), negative, atol=1e-3)


LOW_RANK = dense(np.r_[2, 1, np.zeros(38)])


@pytest.mark.parametrize(("matrix", "products"), [(np.eye(40), 1), (np.zeros((40, 40)), 1), (LOW_RANK, 3)])
def test_breakdown_is_exact(matrix: np.ndarray, products: int) -> None:
    found = spectrum(matrix, 4, 20)
    assert found.products == 4 * products
    assert np.isfinite(found.nodes).all()
    np.testing.assert_allclose(found.weights.sum(axis=1), 1)
    true = np.linalg.eigvalsh(matrix)
    distance = np.abs(found.nodes[..., None] - true).min(axis=-1)
    assert distance.max() < 1e-12


def test_smoothing_does_not_depend_on_the_scale_of_the_loss() -> None:
    plain, scaled = (spectrum(rotated(s * SPECTRA["net"]), 3, 30) for s in (1.0, 1e-9))
    grid = np.linspace(-1, 22, 100)
    np.testing.assert_allclose(scaled.density(1e-9 * grid) * 1e-9, plain.density(grid), rtol=1e-5, atol=1e-9)


def test_no_ghosts_after_many_steps() -> None:
    """Without reorthogonalisation 150 steps on this spectrum give copies of the outliers."""
    true = np.r_[np.geomspace(100, 10, 10), RNG.uniform(0, 1, 490)]
    found = spectrum(rotated(true), 3, 150)
    assert ((found.nodes > 5).sum(axis=1) == 10).all()


FUNCTIONS = [
    ("logdet", 0.1, lambda x: np.log(x + 0.1)),
    ("effective_dimension", 0.1, lambda x: x / (x + 0.1)),
]


@pytest.mark.parametrize(("name", "shift", "function"), FUNCTIONS)
def test_traces_of_functions(name: str, shift: float, function) -> None:
    true = SPECTRA["net"]
    estimate = getattr(spectrum(rotated(true), 20, 60), name)(shift)
    assert abs(estimate.value - function(true).sum()) < 3 * estimate.stderr
    assert estimate.stderr < 0.02 * abs(estimate.value)


def test_function_of_identity_has_no_error() -> None:
    estimate = spectrum(2 * np.eye(30), 3, 5).trace_of(np.exp)
    np.testing.assert_allclose([estimate.value, estimate.stderr], [30 * np.exp(2), 0], atol=1e-9)


def test_indefinite_logdet_is_refused() -> None:
    with pytest.raises(InputError, match="use a shift above 1"):
        spectrum(np.diag([2.0, -1.0]), 2, 2).logdet(0.5)


def test_stderr_is_the_spread_over_probes() -> None:
    """Standard errors over 40 repetitions match the spread of the repetitions."""
    matrix = dense(np.linspace(0, 1, 60))
    runs = [spectrum(matrix, 8, 15, seed=s) for s in range(40)]
    spread = np.std([r.cdf([0.5])[0] for r in runs], ddof=1)
    assert 0.75 < np.sqrt(np.mean([r.cdf_stderr([0.5])[0] ** 2 for r in runs])) / spread < 1.33


def test_seeds_budget_and_memory() -> None:
    operator, columns = counted(rotated(SPECTRA["net"]))
    a = spectrum(operator, 3, 20, seed=1)
    assert a.products == sum(columns) == 60
    assert np.array_equal(a.nodes, spectrum(operator, 3, 20, seed=1).nodes)
    assert not np.isclose(a.weights, spectrum(operator, 3, 20, seed=2).weights).any()
    assert np.array_equal(a.nodes[:2], spectrum(operator, 2, 20, seed=1).nodes)  # probes do not depend on their number


@pytest.mark.parametrize("together", [1, 2])
def test_probes_go_to_the_operator_together_as_far_as_memory_holds_them(together: int) -> None:
    operator, columns = counted(rotated(SPECTRA["net"]))
    found = spectrum(operator, 2, 20, memory=together * 21 * 8 * P)
    assert set(columns) == {together}
    np.testing.assert_allclose(found.nodes, spectrum(operator, 2, 20).nodes, atol=1e-9)


NET = np.load(Path(__file__).parent / "data" / "dense_net.npy").astype(float)
"""All eigenvalues of the demo's dense net (seed 0), from its dense Hessian of 6,570 products in float64."""


def test_shares_of_a_trained_net_lie_between_their_limits_which_close_with_steps() -> None:
    widths = []
    for probes, steps in ((10, 64), (3, 256)):
        found = spectrum(rotated(NET), probes, steps)
        for beyond in (1e-6, 1e-4, 1e-3):
            shares = found.shares(beyond=beyond)
            true = {"negative": np.mean(-beyond > NET), "zero": np.mean(np.abs(NET) <= beyond),
                    "positive": np.mean(beyond < NET)}
            for side, (low, high) in shares.items():
                assert low <= true[side] <= high, (steps, beyond, side)
            widths.append(shares["negative"][1] - shares["negative"][0])
    assert (np.array(widths[3:]) < 0.6 * np.array(widths[:3])).all()


@pytest.mark.parametrize("name", SPECTRA)
def test_bounds_of_the_distribution_hold_for_random_probes(name: str) -> None:
    true = SPECTRA[name]
    grid = np.linspace(true.min() - 1, true.max() + 1, 60)
    low, high = spectrum(rotated(true), 5, 30).cdf_bounds(grid)
    exact = (true <= grid[:, None]).mean(axis=1)
    assert (low <= exact + 1e-9).all() and (exact <= high + 1e-9).all()
    assert np.mean(high - low) < 0.15


@pytest.mark.parametrize(("name", "function"), [
    ("logdet", lambda x: np.log(x + 0.1)), ("effective_dimension", lambda x: x / (x + 0.1)),
])
def test_traces_of_a_positive_matrix_lie_between_gauss_and_radau(name: str, function) -> None:
    """On a matrix known to be positive, few steps: the truncation error is a bound, and closes with steps."""
    true = np.geomspace(1e-6, 10, 300)
    wide, narrow = (replace(spectrum(dense(true), 5, steps), floor=0.0) for steps in (5, 20))
    estimates = [getattr(s, name)(0.1) for s in (wide, narrow)]
    for estimate in estimates:
        low, high = estimate.interval()
        assert low <= function(true).sum() <= high
    assert 0 < estimates[1].truncation < 0.1 * estimates[0].truncation


GHOSTS = np.r_[[100, 90, 80], RNG.uniform(0, 1, 1997)]


def test_a_basis_in_float32_has_no_ghosts() -> None:
    matrix = dense(GHOSTS[:300]).astype(np.float32)
    whole, half = spectrum(matrix, 3, 80), spectrum(matrix, 3, 80, memory=81 * 4 * 300)
    np.testing.assert_allclose(half.nodes, whole.nodes, atol=2e-3)
    assert ((half.nodes > 5).sum(axis=1) == 3).all()


def test_without_a_basis_ghosts_are_joined_and_counted() -> None:
    """150 steps on outliers give copies of them: joined, the distribution is that of the run that keeps its basis."""
    whole, bare = spectrum(rotated(GHOSTS), 4, 150), spectrum(rotated(GHOSTS), 4, 150, memory=50 * 8 * P)
    assert ((bare.nodes * (bare.weights > 0) > 5).sum(axis=1) == 3).all()
    copies = int((bare.weights == 0).sum())
    assert copies > 0 and f"{copies} of 600 nodes were copies" in bare.notes[1]
    grid = np.r_[np.linspace(-0.1, 1.1, 50), 85, 95]
    np.testing.assert_allclose(bare.cdf(grid), whole.cdf(grid), atol=0.01)
    low, high = bare.cdf_bounds(grid)
    true = (GHOSTS <= grid[:, None]).mean(axis=1)
    assert ((low <= true + 1e-9) & (true <= high + 1e-9)).all()


def test_a_basis_in_a_file_beside_the_state(tmp_path) -> None:
    """Partial reorthogonalisation from the disk: the same rule, and nothing is left beside the state."""
    state = RunState(tmp_path / "s.npz", every=0)
    whole, mapped = spectrum(rotated(GHOSTS), 2, 100), spectrum(rotated(GHOSTS), 2, 100, memory=10 * 8 * P, state=state)
    np.testing.assert_allclose(mapped.nodes, whole.nodes, atol=1e-6)
    np.testing.assert_allclose(mapped.weights, whole.weights, atol=1e-9)
    assert "s.npz.basis" in mapped.notes[0]
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]
