"""Stochastic Lanczos quadrature: the spectral distribution from a few random probes."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.linalg import eigh_tridiagonal

from hessmx.algorithms.common import Products, Progress, positive_int, rademacher, require_memory
from hessmx.algorithms.state import RunState, open_state
from hessmx.results import Spectrum


def spectrum(operator: Any, probes: int = 10, steps: int = 64, *, memory: int = 2 << 30, seed: int = 0,
             progress: Progress | None = None, state: RunState | str | os.PathLike | None = None) -> Spectrum:
    """One Gauss quadrature of `steps` nodes for each probe (Golub & Meurant 1994; Ubaru, Chen & Saad 2017, section 3).

    Full reorthogonalisation and a float64 tridiagonal. Cost: at most probes x steps products (fewer where the Krylov
    space ends), `steps` vectors of float64. Defaults: probes and steps of Papyan 2020, figure 15. A run with `state`
    goes on from the last product that was saved.
    """
    probes, steps = positive_int("probes", probes), positive_int("steps", steps)
    products = Products(operator, progress, probes * steps)
    steps = min(steps, products.dim)
    require_memory(memory, steps + 1, products.dim, "steps")
    products.total = probes * steps
    state, saved = open_state(state, task="spectrum", dim=products.dim, probes=probes, steps=steps, seed=seed)
    run = _Run(products, steps, seed, state)
    run.restore(saved)
    while len(run.rules) < probes:
        run.probe()
    nodes, weights, bounds = np.array(run.rules).transpose(1, 0, 2)
    return Spectrum(nodes, weights, products.dim, products.count, steps, seed, bounds)


class _Run:
    """Finished rules and the Lanczos run of the current probe: `basis`, diagonal `alphas`, off-diagonal `betas`."""

    def __init__(self, products: Products, steps: int, seed: int, state: RunState | None):
        self.products, self.steps, self.seed, self.state = products, steps, seed, state
        self.basis = np.empty((steps + 1, products.dim))
        self.rules: list[np.ndarray] = []  # (3, steps): nodes, weights, bounds
        self.alphas: list[float] = []
        self.betas: list[float] = []

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        if saved:
            self.rules = list(saved["rules"])
            self.alphas, self.betas = saved["alphas"].tolist(), saved["betas"].tolist()
            self.basis[: len(saved["basis"])] = saved["basis"]
            self.products.count, self.products.scale = int(saved["count"]), float(saved["scale"])

    def save(self) -> None:
        if self.state:
            self.state.save(rules=np.array(self.rules).reshape(-1, 3, self.steps), alphas=self.alphas, betas=self.betas,
                            basis=self.basis[: len(self.alphas) + 1], count=self.products.count,
                            scale=self.products.scale)

    def probe(self) -> None:
        """Finish the current probe and append its rule."""
        known = f", largest eigenvalue {max(rule[0].max() for rule in self.rules):.6g}" if self.rules else ""
        self.products.message = f"probe {len(self.rules) + 1}{known}"
        if not self.alphas:
            start = rademacher(self.seed, len(self.rules), self.products.dim)
            self.basis[0] = start / np.linalg.norm(start)
        while len(self.alphas) < self.steps and not self.exhausted():
            self.step()
            self.save()
        self.rules.append(_rule(self.alphas, self.betas, self.steps))
        self.alphas, self.betas = [], []

    def step(self) -> None:
        """One product; orthogonalised against the whole basis twice, which leaves no ghosts."""
        j = len(self.alphas)
        done = self.basis[: j + 1]
        vector = self.products(done[j])
        self.alphas.append(float(done[j] @ vector))
        for _ in range(2):
            vector = vector - done.T @ (done @ vector)
        self.betas.append(float(np.linalg.norm(vector)))
        if not self.exhausted():
            self.basis[j + 1] = vector / self.betas[-1]

    def exhausted(self) -> bool:
        """The Krylov space is invariant: the rule is exact, and what is left of the vector is rounding."""
        return bool(self.betas) and self.betas[-1] <= max(1e-13, 10 * self.products.eps) * self.products.scale


def _rule(alphas: list[float], betas: list[float], steps: int) -> np.ndarray:
    """Nodes, weights and residual bounds, padded to `steps` by the last node with weight 0."""
    nodes, vectors = eigh_tridiagonal(alphas, betas[:-1])
    weights, bounds = vectors[0] ** 2, np.abs(betas[-1] * vectors[-1])
    pad = (0, steps - len(nodes))
    return np.stack([np.pad(nodes, pad, mode="edge"), np.pad(weights / weights.sum(), pad), np.pad(bounds, pad)])
