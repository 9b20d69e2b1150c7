"""What a Gauss quadrature of m nodes says about the distribution it stands for, and what it cannot say.

A rule is (nodes, weights, bounds): `bounds[j]` = beta_m |s_mj|, the coupling of node j to the next Lanczos vector. They
determine the m x m Jacobi matrix and beta_m, hence every rule with one node more that is put at a chosen place, and
every rule with fewer steps (Golub & Meurant 2010, chapters 3 and 6). No further product of the matrix is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ATOM = 1e-6  # a node this close to an eigenvalue, relative to the largest node, is one
TIE = 1e-10  # points this close, relative to the largest node, are one
FAR = 1e6  # a node this far out, relative to the largest, has no weight: the rule without it is the same


class Rule(NamedTuple):
    """Nodes (m,) ascending, weights (m,) that add up to 1, bounds (m,)."""

    nodes: np.ndarray
    weights: np.ndarray
    bounds: np.ndarray


def rule_of(nodes: np.ndarray, weights: np.ndarray, bounds: np.ndarray | None) -> Rule:
    """One probe's rule without its padding."""
    used = np.flatnonzero(weights > 0)
    size = used[-1] + 1 if len(used) else 1
    return Rule(nodes[:size], weights[:size], np.full(size, np.nan) if bounds is None else bounds[:size])


def with_node(rule: Rule, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (G, m + 1) of the rules that have one more node, at each point (Gauss-Radau).

    In the basis of the m Ritz vectors the next Jacobi matrix is an arrow: nodes on its diagonal, couplings beside them,
    and a corner that is chosen such that the point is an eigenvalue.
    """
    nodes, size = rule.nodes, len(rule.nodes)
    couplings = rule.bounds * (-1.0) ** np.arange(size)  # signs of s_1j s_mj alternate
    largest = max(float(np.abs(nodes).max()), float(np.abs(points).max(initial=0.0))) or 1.0
    gaps = nodes - points[:, None]
    gaps = np.where(np.abs(gaps) > 1e-14 * largest, gaps, 1e-14 * largest)
    corner = points + np.sum(couplings**2 / gaps, axis=1)
    arrows = np.zeros((len(points), size + 1, size + 1))
    arrows[:, range(size), range(size)] = nodes
    arrows[:, size, :size] = arrows[:, :size, size] = couplings
    arrows[:, size, size] = np.clip(corner, -FAR * largest, FAR * largest)
    values, turn = np.linalg.eigh(arrows)
    first = np.append(np.sqrt(rule.weights), 0.0)
    return values, (first @ turn) ** 2


def distribution_bounds(rule: Rule, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(G,) lower and upper bounds of the share at or below each point: Chebyshev, Markov and Stieltjes' inequality.

    No better ones exist for a distribution with these 2 m + 1 moments: of all that have them, the rule with a node at
    the point has the least below the point, and with the point's own weight the most. A point that is an eigenvalue
    counts as either side of it. Without couplings: the bounds at the nodes beside the point.
    """
    points = np.asarray(points, float)
    if np.isnan(rule.bounds).any():
        sums = np.concatenate([[0.0, 0.0], np.cumsum(rule.weights), [1.0]])
        at = np.searchsorted(rule.nodes, points)
        return sums[at], sums[at + 2]
    slack = TIE * max(float(np.abs(rule.nodes).max()), 1e-300)
    both = np.concatenate([points - slack, points + slack])
    values, weights = with_node(rule, both)
    at, row = np.abs(values - both[:, None]).argmin(axis=1), np.arange(len(both))
    above = np.cumsum(weights, axis=1)[row, at]
    return (above - weights[row, at])[: len(points)], np.minimum(above[len(points) :], 1.0)


def exact(rule: Rule) -> bool:
    """Whether the Krylov space had ended: the nodes are eigenvalues, and no step is missing."""
    return bool(np.max(rule.bounds) <= ATOM**2 * np.abs(rule.nodes).max())


def smoothed(rule: Rule, grid: np.ndarray, width: float) -> np.ndarray:
    """Density on a grid: a Gaussian of standard deviation `width` at each node."""
    z = (grid[:, None] - rule.nodes) / width
    return (np.exp(-0.5 * z * z) * rule.weights).sum(axis=1) / (width * np.sqrt(2 * np.pi))


def distribution(rule: Rule, grid: np.ndarray, size: float) -> np.ndarray:
    """Share at or below each grid point: it jumps at nodes that are eigenvalues and passes through the middle of the
    jump at all others, which stand for the eigenvalues around them.
    """
    known, above = rule.bounds <= ATOM * size, np.cumsum(rule.weights)
    below, middle = above - rule.weights, above - rule.weights / 2
    heights = np.stack([np.where(known, below, middle), np.where(known, above, middle)], axis=1)
    places = np.repeat(rule.nodes, 2) - 1e-12 * size  # minus: a jump at 0 counts at 0 despite rounding
    return np.interp(grid, places, heights.ravel(), left=0.0, right=1.0)


def fewer_steps(rule: Rule, steps: int) -> Rule:
    """The rule that the same probe gave after fewer steps: Lanczos on the nodes from the weights' roots."""
    if steps >= len(rule.nodes):
        return rule
    start = np.sqrt(rule.weights)
    rows = [start / np.linalg.norm(start)]
    alphas, betas = [], []
    for _ in range(steps):
        vector = rule.nodes * rows[-1]
        alphas.append(float(rows[-1] @ vector))
        basis = np.stack(rows)
        for _ in range(2):
            vector = vector - basis.T @ (basis @ vector)
        betas.append(float(np.linalg.norm(vector)))
        if betas[-1] <= 1e-14 * np.abs(rule.nodes).max():
            break
        rows.append(vector / betas[-1])
    values, turn = np.linalg.eigh(np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1))
    return Rule(values, turn[0] ** 2, betas[-1] * np.abs(turn[-1]))
