from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.lanczos import eigenpairs
from tests.algorithms.support import dense, ends

SPECTRA = {
    "decay": np.r_[0.7 ** np.arange(8), -0.4, np.zeros(30)],
    "negative": np.r_[-8, 5, -3, 2, -1, np.linspace(-0.1, 0.1, 40)],
    "copies": np.r_[4, 4, 4, 1, 1, np.zeros(30)],
    "pairs": np.r_[5, -5, 2, -2, np.linspace(-0.5, 0.5, 30)],
    "nearly a pair": np.r_[5, -4.999, np.linspace(-1, 1, 30)],
}


@pytest.mark.parametrize(("which", "k"), [("LM", 2), ("LM", 4), ("LA", 1), ("SA", 1)])
@pytest.mark.parametrize("name", SPECTRA)
def test_against_the_true_spectrum(name: str, which: str, k: int) -> None:
    if name == "copies" and which == "SA":
        k = 3
    pairs = eigenpairs(dense(SPECTRA[name]), k, which, "power", max_products=5000)
    found, true = pairs.values, ends(SPECTRA[name], k, which)
    if which == "LM":
        found, true = np.abs(found), np.abs(true)
    np.testing.assert_allclose(found, true, rtol=1e-6, atol=1e-8)
    assert pairs.converged.all()


@pytest.mark.parametrize("a", [3.0, 1e-9, 1e9])
def test_the_pair_at_every_scale(a: float) -> None:
    pairs = eigenpairs(np.diag([a, -a, 0.1 * a]), 2, "LM", "power")
    np.testing.assert_allclose(np.sort(pairs.values), [-a, a], rtol=1e-9)
    assert len(pairs.notes) == 1


def test_a_near_pair_is_not_called_a_pair() -> None:
    assert not eigenpairs(dense(np.r_[5, -4.9, np.linspace(-1, 1, 30)]), 2, "LM", "power").notes


def test_without_convergence_the_value_is_called_a_guess() -> None:
    pairs = eigenpairs(np.diag(np.linspace(0.99, 1, 50)), 1, "LA", "power", max_products=20)
    assert not pairs.converged.any()
    assert "none has converged" in pairs.notes[1]
    assert 0.99 <= pairs.values[0] <= 1
