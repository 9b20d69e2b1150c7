from __future__ import annotations

import numpy as np

from hessmx.algorithms.frobenius import squared_frobenius
from tests.algorithms.support import counted, dense, rotated

SPECTRUM = np.random.default_rng(2).standard_normal(80)


def test_intervals_cover_the_sum_of_squared_eigenvalues() -> None:
    matrix = dense(SPECTRUM)
    runs = [squared_frobenius(matrix, 40, seed=s).interval() for s in range(200)]
    assert np.mean([low <= np.sum(SPECTRUM**2) <= high for low, high in runs]) >= 0.92


def test_exact_on_identity_and_exact_budget() -> None:
    assert squared_frobenius(2 * np.eye(10), 5).value == 40
    operator, columns = counted(rotated(SPECTRUM))
    assert squared_frobenius(operator, 23).products == sum(columns) == 23
