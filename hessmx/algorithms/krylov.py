"""The Lanczos process: an orthonormal basis Q of a Krylov space, grown by blocks, and T = Q A Q' on it.

Eigenpairs, spectra, f(A) b, solves with many shifts and traces of f(A) are all read off one of these. How much of the
basis is kept decides what it costs and what T means:

    "full"     every new row is orthogonalised against all rows, twice: no ghosts. All rows are held.
    "partial"  against the last two blocks, and against all rows where the estimated loss of orthogonality (Simon 1984,
               section 3) reaches the square root of the rounding unit: T is as accurate, and rows on a disk are read
               seldom. Blocks of one.
    "none"     against the last two blocks, the only ones held: T gets copies ("ghosts") of eigenvalues that have
               converged, whose weights add up to the right ones (Greenbaum 1989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Sequence

import numpy as np

from hessmx.algorithms.common import gaussian
from hessmx.algorithms.run import Run

PIECE = 1 << 22  # numbers of a basis that are converted to float64 at a time


@dataclass(frozen=True)
class Ritz:
    """Eigenvalues (n,) of T, ascending, eigenvectors (n, n) in columns, residuals ||A Q's - theta Q's|| (n,)."""

    values: np.ndarray
    turn: np.ndarray
    residuals: np.ndarray


class Krylov:
    """Rows of which the first `used` have been multiplied and the next `pending` wait to be.

    `projected` is Q A Q', filled from the coefficients of the orthogonalisation, so that restarts, rows put in from
    elsewhere and rounding leave it true. With "none" the first `offset` rows have been forgotten. Where a Krylov space
    ends, random rows go on from there if `refill`; otherwise nothing waits any more, and T is exact.
    """

    COUNTS = ("used", "pending", "last", "drawn", "offset")

    def __init__(self, run: Run, capacity: int, block: int = 1, keep: str = "full", dtype: Any = np.float64,
                 refill: bool = False, rows: np.ndarray | None = None):
        self.run, self.block, self.keep, self.refill = run, block, keep, refill
        self.most = run.dim if keep != "none" else capacity + block  # rows that are orthogonal cannot be more than P
        self.capacity, self.mapped = min(capacity, self.most), rows is not None
        held = min(run.dim, self.capacity + block) if keep != "none" else 3 * block
        self.rows = np.zeros((held, run.dim), dtype) if rows is None else rows
        self.projected = np.zeros((self.capacity, self.capacity))
        self.coupling = np.zeros((block, 0))  # of the pending rows to the last multiplied block
        self.used = self.pending = self.last = self.drawn = self.offset = 0
        self._watch = _Orthogonality(max(float(np.finfo(self.rows.dtype).eps), 1e-16)) if keep == "partial" else None

    @property
    def waiting(self) -> np.ndarray:
        """The rows to be multiplied (b, P)."""
        at = self.used - self.offset
        return self.rows[at : at + self.pending]

    @property
    def full(self) -> bool:
        """Whether no more rows can be multiplied."""
        return self.used + self.pending > self.capacity or not self.pending

    def absorb(self, images: np.ndarray) -> None:
        """Take A times the waiting rows (b, P), which is overwritten; what is left of them waits next."""
        used, new = self.used, self.used + self.pending
        rows = self.rows[: new - self.offset]
        near = max(0, len(rows) - self.pending - self.last) if self._watch else 0
        coefficients = np.zeros((new, self.pending))
        _orthogonalise(images, rows[near:], coefficients[self.offset + near :])
        if near and self._watch and self._watch.lost(self.projected, coefficients, images[0], self.run.scale):
            _orthogonalise(images, rows, coefficients)
        self.projected[:new, used:new] = coefficients
        self.projected[used:new, :new] = coefficients.T
        self.projected[used:new, used:new] = (coefficients[used:new] + coefficients[used:new].T) / 2
        self.used, self.last, self.pending = new, self.pending, 0
        if self.keep == "none":
            self.rows[: self.last] = rows[-self.last :].copy()
            self.offset = new - self.last
        self.append(images, self.block)
        self.coupling = times(self.waiting, images)

    def append(self, candidates: np.ndarray, count: int) -> Krylov:
        """`count` more orthonormal rows: candidates, and random ones where a candidate is spent."""
        limit = (1e-13 if self.refill else self.run.tiny) * self.run.scale
        for i in range(min(count, self.most - self.used)):
            row = self._complement(candidates[i], fresh=False) if i < len(candidates) else None
            while row is None or np.linalg.norm(row) <= limit:
                if not self.refill:
                    break
                row = self._complement(gaussian(self.run.seed, self.drawn, self.run.dim), fresh=True)
                self.drawn += 1
            else:
                self.rows[self.used - self.offset + self.pending] = row / np.linalg.norm(row)
                self.pending += 1
        return self

    def ritz(self) -> Ritz:
        values, turn = np.linalg.eigh(self.projected[: self.used, : self.used])
        residuals = np.linalg.norm(self.coupling @ turn[self.used - self.last : self.used], axis=0)
        return Ritz(values, turn, residuals)

    def combined(self, coefficients: np.ndarray) -> np.ndarray:
        """Q' times coefficients (used, k): vectors (P, k)."""
        out = np.empty((coefficients.shape[1], self.run.dim))
        for at in _pieces(self.rows[: self.used]):
            out[:, at] = coefficients.T @ self.rows[: self.used, at]
        return out.T

    def restart(self, ritz: Ritz, best: np.ndarray) -> None:
        """Keep the Ritz vectors `best` and the waiting rows (Wu & Simon 2000)."""
        keep, used = len(best), self.used
        for at in _pieces(self.rows[:used]):  # so that no second basis is held
            self.rows[:keep, at] = ritz.turn[:, best].T @ self.rows[:used, at]
        self.rows[keep : keep + self.pending] = self.rows[used : used + self.pending]
        self.projected[:] = 0.0
        self.projected[range(keep), range(keep)] = ritz.values[best]
        self.used, self.last = keep, 0
        self.coupling = np.zeros((self.pending, 0))

    def _complement(self, row: np.ndarray, fresh: bool) -> np.ndarray:
        """What is left of a row that has seen none of the others (`fresh`), or all but those that wait beside it.

        One of which little was left has lost digits, and sees all of them once more.
        """
        row = np.array(row, dtype=np.float64)[None]
        held = self.used - self.offset + self.pending
        few = not fresh and (self.keep != "full" or np.linalg.norm(row) > 1e-6 * self.run.scale)
        rows = self.rows[held - self.pending if few else 0 : held]
        _orthogonalise(row, rows, np.zeros((len(rows), 1)))
        return row[0]

    # -- snapshots

    def snapshot(self, name: str = "") -> dict[str, Any]:
        """All that goes on from here, for `Run.save`; several spaces are told apart by their names."""
        held = {"projected": self.projected[: self.used, : self.used], "coupling": self.coupling,
                "counts": [getattr(self, count) for count in self.COUNTS]}
        if self._watch:
            held |= {"lost": np.concatenate([[], *self._watch.estimates]), "again": self._watch.again}
        if self.mapped:
            self.rows.flush()  # type: ignore[attr-defined]
        else:
            held["rows"] = self.rows[: self.used - self.offset + self.pending]
        return {f"{name}.{key}": value for key, value in held.items()}

    def restore(self, saved: dict[str, np.ndarray], name: str = "") -> Krylov:
        for count, value in zip(self.COUNTS, saved[f"{name}.counts"]):
            setattr(self, count, int(value))
        self.projected[: self.used, : self.used] = saved[f"{name}.projected"]
        self.coupling = saved[f"{name}.coupling"]
        if self._watch:
            lost = saved[f"{name}.lost"]
            self._watch.estimates = np.split(lost, [len(lost) // 2]) if len(lost) else []
            self._watch.again = bool(saved[f"{name}.again"])
        if not self.mapped:
            self.rows[: len(saved[f"{name}.rows"])] = saved[f"{name}.rows"]
        return self


def expand(run: Run, spaces: Sequence[Krylov]) -> None:
    """One step of every space; the operator gets all their rows together."""
    images = run(np.concatenate([space.waiting for space in spaces]).T).T
    at = 0
    for space in spaces:
        at, start = at + space.pending, at
        space.absorb(np.ascontiguousarray(images[start:at]))


class _Orthogonality:
    """Estimates of q_j'q_k for the last two rows j and all k, by the recurrence that these numbers obey."""

    def __init__(self, unit: float):
        self.unit = unit
        self.estimates: list[np.ndarray] = []  # of the row before the last, and of the last
        self.again = False  # orthogonality is put right in two consecutive steps

    def lost(self, projected: np.ndarray, coefficients: np.ndarray, rest: np.ndarray, scale: float) -> bool:
        j, beta = len(coefficients) - 1, float(np.linalg.norm(rest))
        alphas = np.append(np.diag(projected)[:j], coefficients[j, 0])
        betas = np.append(np.diag(projected, 1)[: j - 1], coefficients[j - 1, 0])
        before, now = self.estimates or (_settled(j, self.unit), _settled(j + 1, self.unit))
        k = np.arange(j)
        new = betas[k] * now[k + 1] + (alphas[k] - alphas[j]) * now[k] - betas[j - 1] * before[k]
        new[1:] += betas[k[:-1]] * now[k[:-1]]
        new = (new + np.copysign(2 * self.unit * scale, new)) / max(beta, self.unit * scale)
        bad = self.again or bool(np.abs(new).max() > np.sqrt(self.unit))
        self.again = bad and not self.again
        new = np.full(j, self.unit) if bad else new
        self.estimates = [now, np.concatenate([new, [self.unit, 1.0]])]
        return bad


def _settled(size: int, unit: float) -> np.ndarray:
    return np.append(np.full(size - 1, unit), 1.0)


def times(rows: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """rows (r, P) of any storage times vectors (b, P): (r, b) in float64."""
    total = np.zeros((len(rows), len(vectors)))
    for at in _pieces(rows):
        piece = np.asarray(rows[:, at], np.float64)
        total += piece @ vectors[:, at].T if len(vectors) > 1 else (piece @ vectors[0, at])[:, None]
    return total


def _orthogonalise(vectors: np.ndarray, rows: np.ndarray, coefficients: np.ndarray) -> None:
    """Take the rows out of the vectors, twice; `coefficients` gets what was taken added."""
    for _ in range(2):
        part = times(rows, vectors)
        for at in _pieces(rows):
            vectors[:, at] -= part.T @ np.asarray(rows[:, at], np.float64)
        coefficients += part


def _pieces(rows: np.ndarray) -> list[slice]:
    """The columns, all at once where rows are float64 in memory."""
    if rows.dtype == np.float64 and not isinstance(rows, np.memmap):
        return [slice(None)]
    width = max(1, PIECE // max(1, len(rows)))
    return [slice(at, at + width) for at in range(0, rows.shape[1], width)]
