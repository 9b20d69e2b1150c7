"""One run of an algorithm: the matrix that is asked, with its products counted, checked and tested for symmetry, and
what every question is given besides (seed, progress, memory, state).

    with Run(operator, **context) as run:       # tells the operator that a question begins and ends
        saved = run.open(task="trace", ...)     # what a killed run has left, if `state` is given
        images = run(block)                     # (P, K): the operator gets all K vectors at once
        run.save(samples=...)
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from functools import reduce
from operator import add
from typing import Any, TypedDict, Union

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from hessmx.algorithms.common import Progress
from hessmx.algorithms.state import RunState
from hessmx.errors import InputError

SMALL = 1e-3  # eigenvalues below this share of the norm are resolved to tol * SMALL of the norm
GIB = 1 << 30
BLOCK = 16  # vectors in one product at most


State = Union[RunState, str, "os.PathLike[str]", None]


class Context(TypedDict, total=False):
    """What every algorithm takes besides its own options."""

    seed: int  # of every random vector
    progress: Progress | None
    memory: int  # bytes for vectors that are kept, 2 GiB
    state: State  # file from which a killed run goes on


class Run:
    """A symmetric matrix (P, P) that counts its products, returns float64, refuses NaN and notices asymmetry."""

    def __init__(self, operator: Any, seed: int = 0, progress: Progress | None = None, memory: int = 2 * GIB,
                 state: State = None):
        self.operator = square(operator)
        self.dim = int(self.operator.shape[0])
        self.dtype = np.dtype(self.operator.dtype or np.float64)
        self.positive: bool | None = getattr(self.operator, "positive", None)
        self.seed, self.progress, self.memory = seed, progress, memory
        self.state = state if isinstance(state, RunState) or state is None else RunState(state)
        self.total = 0  # products that will be spent at most, 0 where nobody knows
        self.message = ""
        self.count = 0
        self.scale = 0.0  # largest ||Av|| / ||v|| met: a lower bound of the norm of A
        self.remarks: list[str] = []
        self._single = getattr(self.operator, "_CustomLinearOperator__matmat_impl", True) is None  # knows only vectors
        self._symmetry = Symmetry(self.dim)
        self._opened = False
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        if hasattr(self.operator, "question"):
            self._stack.enter_context(self.operator.question())
        return self

    def __exit__(self, *error: Any) -> None:
        if self.state:
            self.state.close()
        self._stack.close()

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """A @ (P,) or (P, K), one count per column."""
        if self.state and not self._opened:
            raise InputError("a run of this kind cannot be continued; leave out the state file")
        given = vectors.astype(self.dtype, copy=False)
        if vectors.ndim == 2 and (self._single or vectors.shape[1] == 1):
            out = np.stack([np.asarray(self.operator @ given[:, j], np.float64) for j in range(given.shape[1])], axis=1)
        else:
            out = np.asarray(self.operator @ given, dtype=np.float64)
        self.count += 1 if vectors.ndim == 1 else vectors.shape[1]
        sizes, lengths = np.linalg.norm(out, axis=0), np.linalg.norm(vectors, axis=0)
        if not np.isfinite(sizes).all():
            bad = ~np.isfinite(np.atleast_1d(sizes))
            first = self.count - len(bad) + int(bad.argmax()) + 1
            raise InputError(f"expected finite numbers, but matrix-vector product {first} contains NaN or "
                             "infinity; check parameters and data for NaN, and the loss for overflow or log(0)")
        self.scale = max(self.scale, float(np.max(sizes / np.where(lengths > 0, lengths, 1.0), initial=0.0)))
        self._symmetry.see(vectors, out, lengths, sizes)
        if self.progress:
            self.progress(self.count, self.total or None, self.message)
        return out

    def limits(self, values: np.ndarray | float, tol: float) -> np.ndarray:
        """Residuals at which eigenpairs count as converged: relative to lambda, or to the norm of A for small ones."""
        return np.maximum(tol * np.maximum(np.abs(values), SMALL * self.scale), 10 * self.eps * self.scale)

    @property
    def eps(self) -> float:
        """Rounding of one product."""
        return float(np.finfo(self.dtype).eps)

    @property
    def tiny(self) -> float:
        """Size below which what is left of a vector is rounding, relative to `scale`."""
        return max(1e-13, 10 * self.eps)

    # -- memory

    def affordable(self, dtype: Any = np.float64) -> int:
        """Vectors that `memory` holds."""
        return int(self.memory // (np.dtype(dtype).itemsize * self.dim))

    @property
    def short(self) -> np.dtype:
        """The shortest dtype in which a basis loses nothing that the products have."""
        return np.dtype(np.float32 if self.dtype.itemsize <= 4 else np.float64)

    @property
    def block(self) -> int:
        """Vectors in one product: with their images they take half of `memory` at most."""
        return max(1, min(BLOCK, self.affordable() // 4))

    def storage(self, vectors: int) -> np.dtype | None:
        """dtype in which so many vectors fit into `memory`: float64, else the short one; None where neither."""
        return next((d for d in (np.dtype(np.float64), self.short) if vectors <= self.affordable(d)), None)

    def require(self, vectors: int, advice: str) -> None:
        """Refuse what does not fit."""
        if vectors > self.affordable():
            needed = vectors * self.dim * 8
            raise InputError(f"memory must hold {vectors} vectors of {self.dim} numbers, {needed} bytes, but is "
                             f"{self.memory}; raise it or {advice}")

    # -- state

    def open(self, **signature: Any) -> dict[str, np.ndarray]:
        """What the state file holds of this run, empty for a new one."""
        self._opened = True
        saved = self.state.open(**signature, dim=self.dim, seed=self.seed, memory=self.memory) if self.state else {}
        if saved:
            self.count, self.scale = int(saved["count"]), float(saved["scale"])
        return saved

    def save(self, force: bool = False, **arrays: Any) -> None:
        """Write a snapshot if it is time for one."""
        if self.state and self._opened:
            self.state.save(force, count=self.count, scale=self.scale, **arrays)

    # -- notes

    def note(self, text: str) -> None:
        if text not in self.remarks:
            self.remarks.append(text)

    def notes(self) -> tuple[str, ...]:
        """What must be known before the result is believed."""
        return (*self.remarks, *self._symmetry.notes(self.dtype))


class Symmetry:
    """x'Ay against y'Ax for the first vector x and every later y: products that differ from call to call fail, too.

    Relative to what a random asymmetry of the size of A would give, ||Ax|| ||y|| / sqrt(P), over all pairs.
    """

    def __init__(self, dim: int):
        self.dim = dim
        self.first: tuple[np.ndarray, np.ndarray, float, float] | None = None
        self.found = self.expected = 0.0

    def see(self, vectors: np.ndarray, images: np.ndarray, lengths: Any, sizes: Any) -> None:
        if self.first is None and vectors.size:
            at = (slice(None), 0) if vectors.ndim == 2 else (slice(None),)
            self.first = (vectors[at].copy(), images[at].copy(), float(np.ravel(lengths)[0]), float(np.ravel(sizes)[0]))
        if self.first is not None:
            x, image, length, size = self.first
            self.found += float(np.sum((x @ images - image @ vectors) ** 2))
            self.expected += float(np.sum((size * lengths) ** 2 + (length * sizes) ** 2)) / (2 * self.dim)

    @property
    def ratio(self) -> float:
        return float(np.sqrt(self.found / self.expected)) if self.expected else 0.0

    def notes(self, dtype: np.dtype) -> list[str]:
        if self.ratio <= ASYMMETRY[dtype.itemsize]:
            return []
        return [f"x'Ay and y'Ax differ by {self.ratio:.1e} of their size: the products are not those of one symmetric "
                "matrix (random layers or data, a matrix that is not symmetric, or a wrong derivative); run "
                "hessmx.trust.check.check"]


ASYMMETRY = {2: 1e-1, 4: 1e-3, 8: 1e-6, 16: 1e-6}  # by bytes of the dtype; float32 nets: 1e-7 to 2e-7 measured


def square(operator: Any) -> LinearOperator:
    """The operator as a real square LinearOperator."""
    shape = getattr(operator, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != shape[1] or shape[0] == 0:
        raise InputError(f"expected a square operator or matrix of shape (P, P), got shape {shape}")
    if np.dtype(getattr(operator, "dtype", None) or np.float64).kind not in "fiu":
        raise InputError(f"expected a real operator, got dtype {operator.dtype}; pass float32 or float64")
    operator = aslinearoperator(operator)
    return operator if np.dtype(operator.dtype or float).kind == "f" else operator * 1.0


def taken_apart(operator: Any) -> tuple[float, Any, np.ndarray | None]:
    """(factor, rest, diagonal): the matrix is factor * rest plus parts whose diagonal costs no product.

    `rest` is None where nothing else is left, the diagonal None where there is no such part.
    """
    terms = operator.pieces() if hasattr(operator, "pieces") else [(1.0, operator)]
    rest, diagonal = [], None
    for factor, part in terms:
        known = part.exact_diagonal() if hasattr(part, "exact_diagonal") else None
        if known is None:
            rest.append((factor, part))
        else:
            diagonal = factor * known + (0.0 if diagonal is None else diagonal)
    if len(rest) == 1:
        return rest[0][0], rest[0][1], diagonal
    if diagonal is None:
        return 1.0, operator, None
    return 1.0, reduce(add, (factor * part for factor, part in rest)) if rest else None, diagonal
