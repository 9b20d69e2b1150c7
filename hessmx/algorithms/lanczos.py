"""Extreme eigenpairs: `eigenpairs`, by thick-restart block Lanczos, by SciPy's eigsh, or by power iteration.

Own Lanczos because eigsh keeps no budget, gives nothing before it has converged, cannot be continued after a kill,
measures convergence by an absolute size at eigenvalues near 0, and can miss copies of a repeated eigenvalue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

from hessmx.algorithms.common import gaussian, opposite_notes, positive_int, positive_number
from hessmx.algorithms.krylov import Krylov, Ritz, expand
from hessmx.algorithms.power import GUESS, power
from hessmx.algorithms.run import Context, Run
from hessmx.errors import InputError, choose
from hessmx.results import Eigenpairs

if TYPE_CHECKING:
    from typing_extensions import Unpack

RANK = {  # best first
    "LA": lambda values: np.argsort(-values, kind="stable"),
    "SA": lambda values: np.argsort(values, kind="stable"),
    "LM": lambda values: np.argsort(-np.abs(values), kind="stable"),
    "BE": lambda values: _both_ends(np.argsort(-values, kind="stable")),
}


def eigenpairs(operator: Any, k: int = 1, which: str = "LA", method: str = "lanczos", *, tol: float = 1e-6,
               max_products: int | None = None, block: int = 1, **context: Unpack[Context]) -> Eigenpairs:
    """k eigenpairs: largest ("LA"), smallest ("SA"), largest in magnitude ("LM") or from both ends ("BE").

    A pair has converged when ||Av - lambda v|| <= tol max(|lambda|, |lambda|_max / 1000), or is down to the rounding of
    the operator's dtype. At most `max_products` products (default 1000 + 100 k), k of them for the true residuals.
    Lanczos vectors take at most `memory` bytes: fewer of them, or in the operator's own float32, where it is short.
    Sources: Wu & Simon 2000 (thick restart), Zhou & Saad 2008 (block).
    """
    choose("which", which, RANK)
    choose("method", method, ("lanczos", "eigsh", "power"))
    with Run(operator, **context) as run:
        k = positive_int("k", k, 1, run.dim)
        tol = positive_number("tol", tol)
        block = positive_int("block", block, 1, run.dim)
        run.total = positive_int("max_products", 1000 + 100 * k if max_products is None else max_products,
                                 2 * k + block + 1)
        if method == "eigsh" and run.state is not None:
            raise InputError("SciPy's eigsh cannot be continued; use method='lanczos' or leave out the state file")
        saved = run.open(task="eigenpairs", k=k, which=which, method=method, tol=tol, max_products=run.total,
                         block=block)
        if method == "power":
            vectors = power(run, k, which, tol, run.total - k - 1, saved)
        elif method == "eigsh":
            vectors = _eigsh(run, k, which, tol, run.total - k)
        else:
            vectors = _Lanczos(run, k, which, tol, block).vectors(saved)
        return _result(run, k, vectors, method, which, tol)


def _result(run: Run, k: int, vectors: np.ndarray, method: str, which: str, tol: float) -> Eigenpairs:
    """True residuals, after a last Rayleigh-Ritz from the products they cost: it undoes errors of deflation."""
    images = run(vectors) if vectors.size else vectors
    values, turn = np.linalg.eigh((vectors.T @ images + images.T @ vectors) / 2)
    order = np.sort(RANK[which](values)[:k]) if which == "BE" else RANK[which](values)[:k]
    values, vectors, images = values[order], _turned(vectors, turn[:, order]), _turned(images, turn[:, order])
    residuals = np.array([np.linalg.norm(a - v * value) for a, v, value in zip(images.T, vectors.T, values)])
    limits = run.limits(values, tol)
    converged = residuals <= limits
    if GUESS in run.remarks:  # an eigenpair perhaps, but nothing says that it is the one asked for
        converged[:] = False
    elif not converged.all() and not any("stopped after" in remark for remark in run.remarks):
        worst = int(np.argmax(residuals / limits))
        run.note(f"{(~converged).sum()} of {len(values)} residuals stay above their limit ({residuals[worst]:.1e}, not "
                 f"{limits[worst]:.1e}), although the {method} space had converged: products in {run.dtype} carry "
                 "errors of that size, which more products do not lower; use a float64 net or a larger tol")
    return Eigenpairs(values, vectors, residuals, converged, run.count, method, which, run.notes())


def _turned(vectors: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """vectors @ turn, piece by piece in place: at 25 million parameters a copy is a gigabyte."""
    for at in range(0, len(vectors), 1 << 16):
        vectors[at : at + (1 << 16), : turn.shape[1]] = vectors[at : at + (1 << 16)] @ turn
    return vectors[:, : turn.shape[1]]


def _both_ends(descending: np.ndarray) -> np.ndarray:
    """Highest, lowest, second highest, second lowest ..."""
    order = np.empty_like(descending)
    order[0::2], order[1::2] = descending[: (len(order) + 1) // 2], descending[::-1][: len(order) // 2]
    return order


def _eigsh(run: Run, k: int, which: str, tol: float, limit: int) -> np.ndarray:
    """SciPy's ARPACK; what it had when it gave up, if it did."""
    dim = run.dim
    if k >= dim - 1:
        values, vectors = np.linalg.eigh(run(np.eye(dim)))
        run.note("solved as a dense matrix")
        return vectors[:, RANK[which](values)[:k]]
    operator = LinearOperator((dim, dim), matvec=lambda v: run(v.ravel()), dtype=np.float64)
    steps = min(dim, max(2 * k + 1, 20))
    restarts = max(1, (limit - steps) // (steps - k))
    try:
        values, vectors = eigsh(operator, k, which=which, tol=tol, v0=gaussian(run.seed, 0, dim), ncv=steps,
                                maxiter=restarts)
        run.remarks += opposite_notes(values)
        return vectors
    except ArpackNoConvergence as error:
        found = error.eigenvectors
        run.note(f"eigsh stopped after {run.count} products with {found.shape[1]} of {k} pairs")
        return found
    except ArpackError as error:
        if "Starting vector is zero" not in str(error):  # A v = 0 for a random v
            raise
        run.note("the matrix is zero: every vector is an eigenvector")
        return np.eye(dim, k)


class _Lanczos:
    """Thick-restart block Lanczos. Between two expansions `decide` says what to do; nothing changes while it looks."""

    def __init__(self, run: Run, k: int, which: str, tol: float, block: int):
        self.run, self.k, self.rank, self.tol, self.block = run, k, RANK[which], tol, block
        capacity, dtype = _capacity(run, k, block)
        self.space = Krylov(run, capacity, block, dtype=dtype, refill=True)
        self.checking = False  # widening the space once more, in search of copies of repeated eigenvalues

    def vectors(self, saved: dict[str, np.ndarray]) -> np.ndarray:
        space = self.space
        if saved:
            space.restore(saved)
            self.checking = bool(saved["checking"])
        else:
            space.append(np.empty((0, self.run.dim)), self.block)
        while True:
            ritz = space.ritz()
            best = self.rank(ritz.values)
            step = self.decide(ritz, best)
            if step == "stop":
                break
            if step != "expand":
                self.checking = step == "look for copies"
                space.restart(ritz, best[: self.k if self.checking else self.k + (space.capacity - self.k) // 2])
                if self.checking:
                    space.pending = 0
                    space.append(np.empty((0, self.run.dim)), self.block)
            if self.run.count + space.pending > self.run.total - self.k:
                self.run.note(f"stopped after {self.run.count} products"
                              + (" while looking for repeated eigenvalues" if self.checking else ""))
                break
            expand(self.run, [space])
            self.run.save(checking=self.checking, **space.snapshot())
        ritz = space.ritz()
        self.run.remarks += opposite_notes(ritz.values)
        return space.combined(ritz.turn[:, self.rank(ritz.values)[: self.k]])

    def decide(self, ritz: Ritz, best: np.ndarray) -> str:
        """"expand", "restart" the space that is full, "look for copies" once what it holds has converged, or "stop"."""
        space = self.space
        if space.used < self.k:
            return "expand"
        self.run.message = f"eigenvalue {ritz.values[best[0]]:.6g}" + (", looking for copies" if self.checking else "")
        if self.checking and not space.full and not self.settled(ritz, best):
            return "expand"
        if self.converged(ritz, best) or not space.pending:
            return "stop" if self.checking or self.k == 1 or not space.pending else "look for copies"
        return "restart" if space.full else "expand"

    def converged(self, ritz: Ritz, best: np.ndarray) -> bool:
        wanted = best[: self.k]
        return bool((ritz.residuals[wanted] <= 0.3 * self.run.limits(ritz.values[wanted], self.tol)).all())

    def settled(self, ritz: Ritz, best: np.ndarray) -> bool:
        """Whether the runners-up (one for each end) are known well enough to stay behind the wanted ones."""
        if self.space.used < self.k + 2 * self.block + 4:
            return False
        wanted, next_ones = ritz.values[best[: self.k]], best[self.k : self.k + 2]
        gaps = np.abs(ritz.values[next_ones][:, None] - wanted).min(axis=1)
        return bool((ritz.residuals[next_ones] <= 0.1 * gaps).all())


def _capacity(run: Run, k: int, block: int) -> tuple[int, Any]:
    """Vectors that are multiplied before a restart, and their dtype; more cost memory, fewer cost products."""
    wanted = min(run.dim, max(2 * k + 20 + block, 3 * k, 40))
    dtype = run.storage(wanted + block) or run.short
    affordable, least = run.affordable(dtype) - block, min(run.dim, k + 2 * block + 2)
    if affordable < least:
        needed = dtype.itemsize * run.dim * (least + block)
        raise InputError(f"memory of {run.memory} bytes holds {max(affordable + block, 0)} vectors of {run.dim} numbers"
                         f", but {k} eigenpairs need {least + block}; allow at least {needed} bytes or ask for fewer")
    if affordable < wanted:
        run.note(f"memory of {run.memory} bytes holds {affordable} Lanczos vectors instead of {wanted}: it takes more "
                 "products")
    return min(wanted, affordable), dtype
