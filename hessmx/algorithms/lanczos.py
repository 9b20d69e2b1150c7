"""Extreme eigenpairs: `eigenpairs`, by thick-restart block Lanczos, by SciPy's eigsh, or by power iteration.

Own Lanczos because eigsh keeps no budget, gives nothing before it has converged, cannot be continued after a kill,
measures convergence by an absolute size at eigenvalues near 0, and can miss copies of a repeated eigenvalue.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from hessmx.algorithms.common import Products, Progress, gaussian, opposite_notes, positive_int, positive_number
from hessmx.algorithms.power import GUESS, power
from hessmx.algorithms.state import RunState, open_state
from hessmx.errors import InputError, choose
from hessmx.results import Eigenpairs

RANK = {  # best first
    "LA": lambda values: np.argsort(-values, kind="stable"),
    "SA": lambda values: np.argsort(values, kind="stable"),
    "LM": lambda values: np.argsort(-np.abs(values), kind="stable"),
    "BE": lambda values: _both_ends(np.argsort(-values, kind="stable")),
}


def eigenpairs(operator: Any, k: int = 1, which: str = "LA", method: str = "lanczos", *, tol: float = 1e-6,
               max_products: int | None = None, block: int = 1, memory: int = 2 << 30, seed: int = 0,
               progress: Progress | None = None, state: RunState | str | os.PathLike | None = None) -> Eigenpairs:
    """k eigenpairs: largest ("LA"), smallest ("SA"), largest in magnitude ("LM") or from both ends ("BE").

    A pair has converged when ||Av - lambda v|| <= tol max(|lambda|, |lambda|_max / 1000), or is down to the rounding of
    the operator's dtype. At most `max_products` products (default 1000 + 100 k), k of them for the true residuals;
    at most `memory` bytes of Lanczos vectors. Sources: Wu & Simon 2000 (thick restart), Zhou & Saad 2008 (block).
    """
    choose("which", which, RANK)
    choose("method", method, ("lanczos", "eigsh", "power"))
    products = Products(operator, progress)
    k = positive_int("k", k, 1, products.dim)
    tol = positive_number("tol", tol)
    block = positive_int("block", block, 1, products.dim)
    limit = positive_int("max_products", 1000 + 100 * k if max_products is None else max_products, 2 * k + block + 1)
    products.total = limit
    if method == "eigsh" and state is not None:
        raise InputError("SciPy's eigsh cannot be continued; use method='lanczos' or leave out the state file")
    state, saved = open_state(state, task="eigenpairs", dim=products.dim, k=k, which=which, method=method, tol=tol,
                              max_products=limit, block=block, memory=memory, seed=seed)
    if method == "power":
        vectors, notes = power(products, k, which, tol, limit - k - 1, seed, state, saved)
    elif method == "eigsh":
        vectors, notes = _eigsh(products, k, which, tol, limit - k, seed)
    else:
        vectors, notes = _Lanczos(products, k, which, tol, limit - k, block, memory, seed).run(state, saved)
    return _result(products, k, vectors, notes, method, which, tol)


def _result(products: Products, k: int, vectors: np.ndarray, notes: list[str], method: str, which: str,
            tol: float) -> Eigenpairs:
    """True residuals, after a last Rayleigh-Ritz from the products they cost: it undoes errors of deflation."""
    images = np.stack([products(v) for v in vectors.T], axis=1) if vectors.size else vectors
    values, turn = np.linalg.eigh((vectors.T @ images + images.T @ vectors) / 2)
    order = np.sort(RANK[which](values)[:k]) if which == "BE" else RANK[which](values)[:k]
    values, vectors, images = values[order], vectors @ turn[:, order], images @ turn[:, order]
    residuals = np.linalg.norm(images - vectors * values, axis=0)
    converged = residuals <= products.limits(values, tol)
    if GUESS in notes:  # an eigenpair perhaps, but nothing says that it is the one asked for
        converged[:] = False
    return Eigenpairs(values, vectors, residuals, converged, products.count, method, which, tuple(notes))


def _both_ends(descending: np.ndarray) -> np.ndarray:
    """Highest, lowest, second highest, second lowest ..."""
    order = np.empty_like(descending)
    order[0::2], order[1::2] = descending[: (len(order) + 1) // 2], descending[::-1][: len(order) // 2]
    return order


def _eigsh(products: Products, k: int, which: str, tol: float, limit: int, seed: int) -> tuple[np.ndarray, list[str]]:
    """SciPy's ARPACK; what it had when it gave up, if it did."""
    dim = products.dim
    if k >= dim - 1:
        values, vectors = np.linalg.eigh(products(np.eye(dim)))
        return vectors[:, RANK[which](values)[:k]], ["solved as a dense matrix"]
    operator = LinearOperator((dim, dim), matvec=lambda v: products(v.ravel()), dtype=np.float64)
    steps = min(dim, max(2 * k + 1, 20))
    restarts = max(1, (limit - steps) // (steps - k))
    try:
        values, vectors = eigsh(operator, k, which=which, tol=tol, v0=gaussian(seed, 0, dim), ncv=steps,
                                maxiter=restarts)
        return vectors, opposite_notes(values)
    except ArpackNoConvergence as error:
        found = error.eigenvectors
        return found, [f"eigsh stopped after {products.count} products with {found.shape[1]} of {k} pairs"]


class _Lanczos:
    """Orthonormal rows, of which the first `used` have been multiplied and the next `pending` wait to be.

    `projected` is V A V', computed in full, so that restarts, injected vectors and rounding leave it true.
    """

    def __init__(self, products: Products, k: int, which: str, tol: float, limit: int, block: int, memory: int,
                 seed: int):
        dim = products.dim
        self.products, self.k, self.rank, self.tol, self.seed = products, k, RANK[which], tol, seed
        self.limit, self.block = limit, block
        self.capacity = _capacity(dim, k, block, memory)
        self.rows = np.zeros((min(dim, self.capacity + block), dim))
        self.projected = np.zeros((self.capacity, self.capacity))
        self.coupling = np.zeros((block, block))  # of the pending rows to the last multiplied block
        self.used = self.pending = self.drawn = self.last = 0
        self.checking = False  # widening the space once more, in search of copies of repeated eigenvalues

    FIELDS = ("rows", "projected", "coupling", "used", "pending", "drawn", "last", "checking")

    def run(self, state: RunState | None, saved: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
        self.restore(saved)
        notes: list[str] = []
        while not self.done():
            if self.products.count + self.pending > self.limit:
                notes = [f"stopped after {self.products.count} products"
                         + (" while looking for repeated eigenvalues" if self.checking else "")]
                break
            self.expand()
            if state:
                state.save(count=self.products.count, scale=self.products.scale,
                           **{name: getattr(self, name) for name in self.FIELDS})
        values, turn = np.linalg.eigh(self.projected[: self.used, : self.used])
        best = self.rank(values)[: self.k]
        return self.rows[: self.used].T @ turn[:, best], notes + opposite_notes(values)

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        if not saved:
            return self.fill(np.empty((0, self.products.dim)), self.block)
        for name in self.FIELDS:
            setattr(self, name, saved[name] if saved[name].ndim else saved[name].item())
        self.products.count, self.products.scale = int(saved["count"]), float(saved["scale"])

    def done(self) -> bool:
        """Convergence, restarts and the search for copies, between two expansions."""
        if self.used < self.k:
            return False
        full = self.used + self.pending > self.capacity or not self.pending
        values, turn = np.linalg.eigh(self.projected[: self.used, : self.used])
        best = self.rank(values)
        self.products.message = f"eigenvalue {values[best[0]]:.6g}" + (", looking for copies" if self.checking else "")
        if self.checking and not full and not self.settled(values, turn, best):
            return False
        if self.converged(values, turn, best) or not self.pending:
            if self.checking or self.k == 1 or not self.pending:
                return True
            self.restart(values, turn, best[: self.k])
            self.checking, self.pending = True, 0
            self.fill(np.empty((0, self.products.dim)), self.block)
        elif full:
            self.checking = False
            self.restart(values, turn, best[: self.k + (self.capacity - self.k) // 2])
        return False

    def residuals(self, turn: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.coupling @ turn[self.used - self.last: self.used], axis=0)

    def converged(self, values: np.ndarray, turn: np.ndarray, best: np.ndarray) -> bool:
        wanted = best[: self.k]
        limits = 0.3 * self.products.limits(values[wanted], self.tol)
        return bool((self.residuals(turn[:, wanted]) <= limits).all())

    def settled(self, values: np.ndarray, turn: np.ndarray, best: np.ndarray) -> bool:
        """Whether the runners-up (one for each end) are known well enough to stay behind the wanted ones."""
        if self.used < self.k + 2 * self.block + 4:
            return False
        wanted, next_ones = values[best[: self.k]], best[self.k: self.k + 2]
        gaps = np.abs(values[next_ones][:, None] - wanted).min(axis=1)
        return bool((self.residuals(turn[:, next_ones]) <= 0.1 * gaps).all())

    def expand(self) -> None:
        """Multiply the pending rows; orthogonalise the images against everything, twice."""
        used, new = self.used, self.used + self.pending
        images = self.products(self.rows[used:new].T).T
        coefficients = np.zeros((new, self.pending))
        for _ in range(2):
            part = self.rows[:new] @ images.T
            images = images - part.T @ self.rows[:new]
            coefficients += part
        self.projected[:new, used:new] = coefficients
        self.projected[used:new, :new] = coefficients.T
        self.projected[used:new, used:new] = (coefficients[used:new] + coefficients[used:new].T) / 2
        self.used, self.last, self.pending = new, self.pending, 0
        self.fill(images, min(self.block, self.products.dim - new))
        self.coupling = self.rows[new: new + self.pending] @ images.T

    def fill(self, candidates: np.ndarray, count: int) -> None:
        """Append `count` orthonormal rows: candidates, or random ones where a candidate is spent (breakdown)."""
        for i in range(min(count, self.products.dim - self.used)):
            row = self.orthogonal(candidates[i]) if i < len(candidates) else None
            while row is None or np.linalg.norm(row) <= 1e-13 * self.products.scale:
                row = self.orthogonal(gaussian(self.seed, self.drawn, self.products.dim))
                self.drawn += 1
            self.rows[self.used + self.pending] = row / np.linalg.norm(row)
            self.pending += 1

    def orthogonal(self, row: np.ndarray) -> np.ndarray:
        rows = self.rows[: self.used + self.pending]
        for _ in range(2):
            row = row - rows.T @ (rows @ row)
        return row

    def restart(self, values: np.ndarray, turn: np.ndarray, best: np.ndarray) -> None:
        """Keep the Ritz vectors `best` and the pending rows."""
        keep, used = len(best), self.used
        width = max(1, (1 << 24) // (8 * len(values)))
        for at in range(0, self.products.dim, width):  # by columns, so that no second basis is held
            self.rows[:keep, at: at + width] = turn[:, best].T @ self.rows[:used, at: at + width]
        self.rows[keep: keep + self.pending] = self.rows[used: used + self.pending]
        self.projected[:] = 0.0
        self.projected[range(keep), range(keep)] = values[best]
        self.used, self.last = keep, 0
        self.coupling = np.zeros((self.pending, 0))


def _capacity(dim: int, k: int, block: int, memory: int) -> int:
    """Vectors that are multiplied before a restart; more cost memory, fewer cost products."""
    affordable = memory // (8 * dim) - block
    least = min(dim, k + 2 * block + 2)
    if affordable < least:
        raise InputError(f"memory of {memory} bytes holds {max(affordable + block, 0)} vectors of {dim} numbers, but "
                         f"{k} eigenpairs need {least + block}; allow at least {8 * dim * (least + block)} bytes or "
                         "ask for fewer")
    return min(dim, affordable, max(2 * k + 20 + block, 3 * k, 40))
