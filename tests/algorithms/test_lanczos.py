from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.lanczos import eigenpairs
from hessmx.errors import InputError
from tests.algorithms.support import counted, dense, ends, rotated

RNG = np.random.default_rng(11)
P = 2000
SPECTRA = {
    "clusters": np.r_[[10, 10, 10, 10 - 1e-6, 9, 9, 5, 5, 5, 5], np.zeros(999), RNG.uniform(-1, 1, 988), -4, -4, -3],
    "zero block": np.r_[[5, 4, 3, 2, 1], np.zeros(P - 7), [-1, -2]],
    "pair": np.r_[[7, -7], RNG.uniform(-1, 1, P - 2)],
    "pair in noise": np.r_[[7, -7, 6.9, -6.9], RNG.standard_normal(P - 4)],
    "net": np.r_[np.geomspace(20, 1, 10), np.abs(RNG.standard_normal(P - 13)) * 0.1, [-0.5, -0.3, -0.2]],
    "noise": RNG.standard_normal(P),
}
ENDS = [("LA", 10), ("SA", 3), ("LM", 6), ("BE", 6)]


@pytest.mark.parametrize(("which", "k"), ENDS)
@pytest.mark.parametrize("name", SPECTRA)
def test_every_copy_is_found_and_no_ghost(name: str, which: str, k: int) -> None:
    spectrum = SPECTRA[name]
    pairs = eigenpairs(rotated(spectrum), k, which)
    true = ends(spectrum, k, which)
    found = np.abs(pairs.values) if which == "LM" else pairs.values  # +a and -a may come in either order
    np.testing.assert_allclose(found, np.abs(true) if which == "LM" else true, rtol=1e-5, atol=1e-8)
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(k), atol=1e-10)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_top_ten_and_bottom_three_of_a_dense_matrix(block: int) -> None:
    matrix = RNG.standard_normal((300, 300))
    matrix = matrix + matrix.T
    true = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(eigenpairs(matrix, 10, block=block).values, true[::-1][:10], rtol=1e-5)
    np.testing.assert_allclose(eigenpairs(matrix, 3, "SA", block=block).values, true[:3], rtol=1e-5)


def test_agrees_with_eigsh() -> None:
    operator = rotated(SPECTRA["net"])
    own, scipys = (eigenpairs(operator, 8, method=method) for method in ("lanczos", "eigsh"))
    np.testing.assert_allclose(own.values, scipys.values, rtol=1e-8)


def test_float32_operators_converge_to_their_own_rounding() -> None:
    matrix = dense(np.r_[np.geomspace(20, 1, 10), np.linspace(0, 0.1, 190)]).astype(np.float32)
    pairs = eigenpairs(matrix, 10)
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(matrix.astype(float))[::-1][:10], rtol=1e-5)
    assert pairs.converged.all()


@pytest.mark.parametrize("matrix", [np.eye(50), np.zeros((30, 30)), np.array([[3.0]]), np.diag([3.0, -3.0]), -np.eye(3),
                                    np.ones((40, 40)), np.diag([1.0, 1, 1, 0, 0, -2])])
@pytest.mark.parametrize("which", ["LA", "SA", "LM", "BE"])
def test_degenerate_and_tiny(matrix: np.ndarray, which: str) -> None:
    true = np.linalg.eigvalsh(matrix)
    for k in {1, min(2, len(true)), len(true)}:
        pairs = eigenpairs(matrix, k, which)
        found, wanted = pairs.values, ends(true, k, which)
        if which == "LM":
            found, wanted = np.abs(found), np.abs(wanted)
        np.testing.assert_allclose(found, wanted, atol=1e-9)
        assert pairs.converged.all()


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_residuals_and_products_are_true(method: str) -> None:
    operator, columns = counted(rotated(SPECTRA["net"]))
    pairs = eigenpairs(operator, 4, method=method)
    rest = rotated(SPECTRA["net"]) @ pairs.vectors - pairs.vectors * pairs.values
    np.testing.assert_allclose(pairs.residuals, np.linalg.norm(rest, axis=0), atol=1e-12)
    assert pairs.products == sum(columns)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_a_spent_budget_is_said_not_raised(method: str) -> None:
    operator, columns = counted(rotated(SPECTRA["noise"]))
    pairs = eigenpairs(operator, 5, method=method, max_products=40)
    assert sum(columns) <= 40
    assert not pairs.converged.all()
    assert "stopped after" in pairs.notes[0]
    assert (np.abs(pairs.values) <= np.abs(SPECTRA["noise"]).max() + 1e-9).all()


def test_eigsh_without_convergence_gives_what_it_has() -> None:
    pairs = eigenpairs(rotated(SPECTRA["noise"]), 10, method="eigsh", max_products=60)
    assert len(pairs.values) < 10
    assert "eigsh stopped" in pairs.notes[0]


@pytest.mark.parametrize("which", ["LA", "SA", "LM"])
@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_an_opposite_pair_is_named_and_never_averaged(method: str, which: str) -> None:
    for matrix in (np.diag([3.0, -3]), np.diag([3.0, -3, 1, 0.5, 0]), dense(np.r_[3.0, -3.0, np.linspace(-1, 1, 30)])):
        pairs = eigenpairs(matrix, 2 if which == "LM" else 1, which, method)
        np.testing.assert_allclose(np.sort(pairs.values), {"LA": [3], "SA": [-3], "LM": [-3, 3]}[which], rtol=1e-9)
        assert "3 and -3" in pairs.notes[0]


def test_scale_of_the_loss_does_not_matter() -> None:
    spectrum = SPECTRA["net"]
    plain, scaled = (eigenpairs(rotated(s * spectrum), 6, "BE") for s in (1.0, 1e-12))
    np.testing.assert_allclose(scaled.values, 1e-12 * plain.values, rtol=1e-6)
    assert scaled.converged.all()
    assert scaled.products == plain.products


def test_seeds() -> None:
    operator = rotated(SPECTRA["net"])
    a, b, c = (eigenpairs(operator, 2, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.vectors, b.vectors)
    assert not np.array_equal(a.vectors, c.vectors)


def test_memory_budget_is_kept_or_refused() -> None:
    operator = rotated(SPECTRA["net"])
    pairs = eigenpairs(operator, 3, memory=9 * 8 * P)
    np.testing.assert_allclose(pairs.values, ends(SPECTRA["net"], 3, "LA"), rtol=1e-5)
    with pytest.raises(InputError, match="memory of 1000 bytes"):
        eigenpairs(operator, 3, memory=1000)


def test_progress_reports_every_product() -> None:
    seen: list[tuple[int, int]] = []
    pairs = eigenpairs(np.diag([3.0, 2, 1]), progress=lambda done, total, message: seen.append((done, total)))
    assert seen[-1] == (pairs.products, 1100)


NAN = np.full((3, 3), np.nan)
BAD = [
    (np.ones((3, 2)), {}, "square"),
    (np.eye(3) * 1j, {}, "real operator"),
    (np.eye(3), {"k": 4}, "k must be a whole number from 1 to 3"),
    (np.eye(3), {"k": 0}, "k must be"),
    (np.eye(3), {"k": 1.5}, "k must be"),
    (np.eye(3), {"which": "la"}, "which must be one of 'LA'"),
    (np.eye(3), {"method": "lanzcos"}, "did you mean 'lanczos'"),
    (np.eye(3), {"tol": -1}, "tol must be"),
    (np.eye(3), {"seed": None}, "seed must be"),
    (np.eye(3), {"max_products": 1}, "max_products must be"),
    (np.eye(3), {"method": "power", "which": "BE"}, "power iteration works at one end"),
    (np.eye(3), {"method": "eigsh", "state": "x.npz"}, "cannot be continued"),
    (NAN, {}, "product 1 contains NaN"),
]


@pytest.mark.parametrize(("operator", "options", "message"), BAD)
def test_bad_input(operator: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        eigenpairs(operator, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_a_zero_matrix(method: str) -> None:
    pairs = eigenpairs(np.zeros((30, 30)), 2, method=method)
    assert pairs.values.tolist() == [0, 0]
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.vectors.T @ pairs.vectors, np.eye(2), atol=1e-12)
