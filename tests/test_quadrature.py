"""Bounds of distributions from their quadratures, against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx.quadrature import Rule, distribution_bounds, fewer_steps, with_node

RNG = np.random.default_rng(3)
VALUES = np.sort(np.r_[np.geomspace(20, 5, 6), RNG.standard_normal(294)])
WEIGHTS = RNG.dirichlet(np.ones(300))


def rule(steps: int) -> Rule:
    """Lanczos with a full basis on a diagonal matrix from the weights' roots."""
    rows, alphas, betas = [np.sqrt(WEIGHTS)], [], []
    for _ in range(steps):
        vector = VALUES * rows[-1]
        alphas.append(rows[-1] @ vector)
        for _ in range(2):
            vector = vector - np.stack(rows).T @ (np.stack(rows) @ vector)
        betas.append(np.linalg.norm(vector))
        rows.append(vector / betas[-1])
    values, turn = np.linalg.eigh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    return Rule(values, turn[0] ** 2, betas[-1] * np.abs(turn[-1]))


@pytest.mark.parametrize("steps", [3, 10, 40])
@pytest.mark.parametrize("points", ["grid", "nodes", "eigenvalues"])
def test_the_distribution_lies_within_its_bounds(steps: int, points: str) -> None:
    at = {"grid": np.linspace(-5, 25, 200), "nodes": rule(steps).nodes, "eigenvalues": VALUES}[points]
    low, high = distribution_bounds(rule(steps), at)
    below, above = (np.array([WEIGHTS[test].sum() for test in tests])
                    for tests in ((VALUES < x - 1e-8 for x in at), (VALUES <= x + 1e-8 for x in at)))
    assert (low <= below + 1e-9).all() and (above <= high + 1e-9).all()


def test_more_steps_bring_the_bounds_together() -> None:
    grid = np.linspace(-2, 2, 50)
    widths = [np.mean(np.subtract(*distribution_bounds(rule(m), grid)[::-1])) for m in (5, 10, 20, 40, 80)]
    assert (np.diff(widths) < 0).all() and widths[-1] < 0.03


def test_a_rule_with_one_node_more_has_it_and_twice_as_many_moments() -> None:
    nodes, weights = (rows[0] for rows in with_node(rule(8), np.array([0.123])))
    assert np.abs(nodes - 0.123).min() < 1e-12
    for power in range(2 * 8 + 1):
        np.testing.assert_allclose(weights @ (nodes / 20) ** power, WEIGHTS @ (VALUES / 20) ** power, rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 20])
def test_fewer_steps_are_those_of_a_shorter_run(steps: int) -> None:
    for found, true in zip(fewer_steps(rule(20), steps), rule(steps)):
        np.testing.assert_allclose(found, true, atol=1e-11)


def test_without_couplings_the_bounds_are_those_at_the_nodes() -> None:
    nodes, weights, _ = rule(10)
    low, high = distribution_bounds(Rule(nodes, weights, np.full(10, np.nan)), np.linspace(-5, 25, 100))
    true = np.array([WEIGHTS[x >= VALUES].sum() for x in np.linspace(-5, 25, 100)])
    assert (low <= true).all() and (true <= high).all()
