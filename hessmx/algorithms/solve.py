"""Inverse products: (A + damping I) x = b by block CG and SciPy's MINRES, with true residuals."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse.linalg import LinearOperator, minres

from hessmx.algorithms.common import gaussian, positive_int, positive_number
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.nystrom import Nystrom
from hessmx.algorithms.run import Context, Run
from hessmx.errors import InputError, choose
from hessmx.results import Solution

if TYPE_CHECKING:
    from typing_extensions import Unpack

ROUNDS = 8  # solvers stop by their own estimate: they go on, tighter, until the true residual agrees
LOOK = 40  # products at most for the smallest eigenvalue, once CG has met negative curvature


def solve(operator: Any, b: np.ndarray, damping: float = 0.0, method: str = "auto", *, rtol: float = 1e-6,
          max_products: int | None = None, preconditioner: Any = None, **context: Unpack[Context]) -> Solution:
    """x with ||b - (A + damping I) x|| <= rtol ||b||, for b (P,) or each column of b (P, K); at most `max_products`.

    "auto": "cg" where A is known to be positive, else "minres". "cg": block CG (O'Leary 1980, in Dubrulle's 2001 form
    BCGrQ), which needs A + damping I positive definite; all columns share one Krylov space. "minres" (Paige & Saunders
    1975) takes any symmetric matrix. One product for each column of each round gives true residuals. Default: 10 P + 10
    products, at most 10,000.

    preconditioner: a positive definite operator near (A + damping I)^-1, such as `curv.kfac().inverse(damping)`, or the
    rank of a randomized Nystrom one, which costs as many products and keeps as many vectors: it pays where eigenvalues
    decay down to the damping (Frangella, Tropp & Udell 2023).
    """
    choose("method", method, ("auto", "cg", "minres"))
    with Run(operator, **context) as run:
        right, rtol = _right_sides(b, run.dim), positive_number("rtol", rtol)
        if not (np.isscalar(damping) and np.isfinite(damping) and damping >= 0):
            raise InputError(f"damping must be a finite number of at least 0, not {damping!r}")
        if method == "auto":
            method = "cg" if run.positive else "minres"
        limit = min(10 * run.dim + 10, 10_000) * right.shape[1] if max_products is None else max_products
        run.total = positive_int("max_products", limit, 2)
        if isinstance(preconditioner, (int, np.integer)):
            rank = positive_int("preconditioner", preconditioner, 1, run.dim)
            preconditioner = nystrom_inverse(run, float(damping), rank)
        solver = (_BlockCG if method == "cg" else _Minres)(run, float(damping), preconditioner)
        x = np.zeros_like(right)
        rest = right.copy()
        for at in range(0, right.shape[1], run.block):
            columns = slice(at, at + run.block)
            x[:, columns], rest[:, columns] = _refined(run, solver, right[:, columns], float(damping), rtol)
        lengths = np.linalg.norm(right, axis=0)
        relative = float(np.max(np.linalg.norm(rest, axis=0) / np.where(lengths > 0, lengths, 1.0)))
        notes = _advice(run, solver, float(damping), relative, rtol)
        return Solution(x if np.ndim(b) == 2 else x[:, 0], relative, relative <= rtol, run.count, method,
                        float(damping), (*notes, *run.notes()))


def _refined(run: Run, solver: Any, right: np.ndarray, damping: float, rtol: float) -> tuple[np.ndarray, np.ndarray]:
    """Solution and true residual: solved for the residual again until it is small enough."""
    width, targets = right.shape[1], rtol * np.linalg.norm(right, axis=0)
    x, rest, tight = np.zeros_like(right), right, 1.0
    for _ in range(ROUNDS):
        left = run.total - run.count
        if (left < 4 * width and run.count) or (np.linalg.norm(rest, axis=0) <= targets).all():
            break
        better = x + solver(rest, tight * targets, max(left - 3 * width, 1))
        new = right - run(better) - damping * better
        if np.linalg.norm(new) >= np.linalg.norm(rest):  # an indefinite matrix: keep what was better
            break
        x, rest, tight = better, new, tight / 10
    return x, rest


class _BlockCG:
    """Block CG; `curvature` is the least v'(A + damping I) v / v'v where it met one that is not positive."""

    def __init__(self, run: Run, damping: float, preconditioner: Any):
        self.run, self.damping, self.preconditioner = run, damping, preconditioner
        self.curvature: float | None = None

    def __call__(self, right: np.ndarray, targets: np.ndarray, steps: int) -> np.ndarray:
        """`targets`: norms that the columns of the residual are to have."""
        basis, near, turn, lengths = self.normed(right)
        x, direction, size = np.zeros_like(right), near, turn
        while (lengths > targets).any() and steps >= right.shape[1]:
            steps -= right.shape[1]
            image = self.run(direction) + self.damping * direction
            curvature = direction.T @ image
            least = float(np.linalg.eigvalsh((curvature + curvature.T) / 2)[0])
            if least <= 0:
                self.curvature = least / float(np.max(np.linalg.norm(direction, axis=0)) ** 2)
                break
            step = np.linalg.inv(curvature)
            x += direction @ (step @ size)
            basis, near, turn, lengths = self.normed(basis - image @ step, size)
            direction, size = near + direction @ turn.T, turn @ size
        return x

    def normed(self, rest: np.ndarray, size: np.ndarray | None = None) -> tuple[np.ndarray, ...]:
        """(Q, M Q, C, lengths) with rest = Q C and Q'M Q = I; lengths of the residuals rest @ size.

        Columns may be dependent or zero: they then get directions of no consequence, and C is singular.
        """
        basis, turn = np.linalg.qr(rest)
        lengths = np.linalg.norm(turn if size is None else turn @ size, axis=0)
        if self.preconditioner is None:
            return basis, basis, turn, lengths
        near = np.asarray(self.preconditioner @ basis, np.float64)
        lower = np.linalg.cholesky(basis.T @ near)
        inverse = np.linalg.inv(lower).T
        return basis @ inverse, near @ inverse, lower.T @ turn, lengths


class _Minres:
    """SciPy's MINRES, column by column."""

    curvature = None

    def __init__(self, run: Run, damping: float, preconditioner: Any):
        self.damped = LinearOperator((run.dim,) * 2, matvec=lambda v: run(v.ravel()) + damping * v.ravel(),
                                     dtype=np.float64)
        self.preconditioner = preconditioner
        self.option = "rtol" if "rtol" in inspect.signature(minres).parameters else "tol"  # SciPy before 1.12

    def __call__(self, right: np.ndarray, targets: np.ndarray, steps: int) -> np.ndarray:
        found, share = np.zeros_like(right), max(1, steps // right.shape[1])
        for j, (column, target) in enumerate(zip(right.T, targets)):
            length = float(np.linalg.norm(column))
            if length > target:
                options = {self.option: min(0.5, target / length)}
                found[:, j] = minres(self.damped, column, maxiter=share, M=self.preconditioner, **options)[0]
        return found


def nystrom_inverse(run: Run, damping: float, rank: int) -> LinearOperator:
    """(M + damping I)^-1 up to a factor, M a Nystrom approximation of A (Frangella, Tropp & Udell 2023, section 5)."""
    run.require(3 * rank, "ask for a preconditioner of lower rank")
    sketch = Nystrom(run, lambda i: gaussian(run.seed, (3, i), run.dim))
    sketch.grow(rank)
    tests = np.stack([sketch.test(i) for i in range(rank)], axis=1)
    turn, sizes, _ = np.linalg.svd(sketch.corner @ sketch.inverse(tests))
    values = np.maximum(sizes**2 - sketch.ridge, 0.0) + damping
    vectors, factors = turn.T @ sketch.basis, values[-1] / np.where(values > 0, values, 1.0) - 1

    def apply(block: np.ndarray) -> np.ndarray:
        return block + (vectors.T * factors) @ (vectors @ block)

    return LinearOperator((run.dim,) * 2, matvec=apply, matmat=apply, dtype=np.float64)


def _right_sides(b: Any, dim: int) -> np.ndarray:
    """(P, K)."""
    array = np.asarray(b, dtype=np.float64)
    if array.ndim not in (1, 2) or array.shape[0] != dim or not array.size:
        raise InputError(f"b must be a vector of shape ({dim},) or a block ({dim}, K), not {array.shape}")
    if not np.isfinite(array).all():
        raise InputError("b must be finite, but contains NaN or infinity")
    return array.reshape(dim, -1)


def _advice(run: Run, solver: Any, damping: float, relative: float, rtol: float) -> tuple[str, ...]:
    if relative <= rtol:
        return ()
    failed = f"relative residual {relative:.2g} instead of {rtol:.2g}; "
    if solver.curvature is None:
        return (f"{failed}try more damping or a preconditioner, or allow more products",)
    left = min(LOOK, run.total - run.count)
    low = solver.curvature - damping
    if left >= 4:
        lowest = eigenpairs(run.operator, 1, "SA", max_products=left, tol=1e-2, seed=run.seed)
        run.count += lowest.products
        low = min(low, float(lowest.values[0] - lowest.residuals[0]))
    if low >= 0:
        return (f"{failed}the matrix may be singular: try more damping, or method='minres'",)
    return (f"{failed}the matrix is indefinite, with an eigenvalue of about {low:.3g}: use a damping above "
            f"{-1.1 * low:.2g}, or method='minres'",)
