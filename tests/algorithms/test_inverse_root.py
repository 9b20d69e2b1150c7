"""Inverse square roots against dense ones."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.inverse_root import inverse_root
from hessmx.errors import InputError

RNG = np.random.default_rng(0)


def matrix(values):
    turn = np.linalg.qr(RNG.normal(size=(len(values), len(values))))[0]
    return turn @ np.diag(values) @ turn.T


def dense(a, b, damping):
    values, vectors = np.linalg.eigh(a)
    return vectors @ ((vectors.T @ b) / np.sqrt(values + damping))


@pytest.mark.parametrize("values", [np.geomspace(1e-3, 10, 60), np.r_[np.zeros(40), np.ones(20)], np.ones(5), [2.0]])
@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_against_the_dense_root(values, damping):
    a, b = matrix(np.asarray(values)), RNG.normal(size=len(values))
    if damping == 0 and min(values) == 0:
        pytest.skip("singular")
    found = inverse_root(a, b, damping, rtol=1e-10)
    assert found.converged and found.products <= len(values)
    np.testing.assert_allclose(found.x, dense(a, b, damping), atol=1e-9 * np.linalg.norm(found.x))


def test_the_residual_bounds_the_error():
    a, b = matrix(np.geomspace(1e-2, 10, 80)), RNG.normal(size=80)
    for steps in (5, 10, 20, 40):
        found = inverse_root(a, b, 0.0, rtol=1e-12, steps=steps)
        error = np.linalg.norm(found.x - dense(a, b, 0.0))
        assert not found.converged and found.products == steps
        assert error <= found.residual * np.linalg.norm(b) / np.sqrt(1e-2)


def test_covariance_is_the_inverse():
    a = matrix(np.geomspace(0.1, 3, 6))
    roots = np.stack([inverse_root(a, z, 0.2, rtol=1e-10).x for z in np.eye(6)])
    np.testing.assert_allclose(roots.T @ roots, np.linalg.inv(a + 0.2 * np.eye(6)), atol=1e-8)


def test_zero_and_bad_input():
    assert not inverse_root(np.eye(3), np.zeros(3), 0.0).x.any()
    with pytest.raises(InputError, match="must be positive definite"):
        inverse_root(np.diag([1.0, -2.0]), np.ones(2), 0.5)
    with pytest.raises(InputError, match="fewer steps"):
        inverse_root(np.eye(100), np.ones(100), 0.5, memory=800)
