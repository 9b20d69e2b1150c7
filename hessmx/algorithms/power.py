"""Power iteration with deflation: float64, no momentum, opposite pairs resolved."""

from __future__ import annotations

from typing import Any

import numpy as np

from hessmx.algorithms.common import gaussian, opposite_notes
from hessmx.algorithms.run import Run
from hessmx.errors import InputError

GUESS = "none has converged: the value is where the iteration stood"
Pairs = list[tuple[float, np.ndarray]]


def power(run: Run, k: int, which: str, tol: float, limit: int, saved: dict[str, np.ndarray]) -> np.ndarray:
    """Vectors (P, k) of up to k eigenpairs, each found on the complement of those before it.

    Two dominant eigenvalues of opposite sign, between which the bare iteration swings for ever, are both read off by
    Rayleigh-Ritz on span{v, Av}. "LA" and "SA" shift the matrix once the dominant value has the wrong sign.
    """
    if which == "BE":
        raise InputError("power iteration works at one end of the spectrum: which must be 'LA', 'SA' or 'LM', not 'BE';"
                         " or use method='lanczos'")
    iteration = _Iteration(run, which, tol)
    iteration.restore(saved)
    while len(iteration.values) < k and run.count + 2 <= limit:
        iteration.step()
        run.save(**iteration.snapshot())
    if len(iteration.values) < k:
        run.note(f"stopped after {run.count} products with {len(iteration.values)} of {k} pairs found")
    if not len(iteration.values):
        run.note(GUESS)
        return iteration.current[:, None]
    return iteration.vectors.T


class _Iteration:
    """Works on sign * A + shift on the complement of the vectors found."""

    def __init__(self, run: Run, which: str, tol: float):
        self.run, self.tol = run, 0.3 * tol
        self.sign, self.one_sided = (-1.0 if which == "SA" else 1.0), which != "LM"
        self.values, self.vectors = np.empty(0), np.empty((0, run.dim))
        self.shift, self.started, self.current = 0.0, 0, np.empty(0)
        self.start()

    def snapshot(self) -> dict[str, Any]:
        return {"values": self.values, "vectors": self.vectors, "current": self.current, "shift": self.shift,
                "started": self.started, "notes": np.array(self.run.remarks, dtype=str)}

    def restore(self, saved: dict[str, np.ndarray]) -> None:
        if saved:
            self.values, self.vectors, self.current = saved["values"], saved["vectors"], saved["current"]
            self.shift, self.started = float(saved["shift"]), int(saved["started"])
            self.run.remarks = [str(note) for note in saved["notes"]]

    def start(self) -> None:
        """A random unit vector of the complement."""
        vector = self.complement(gaussian(self.run.seed, self.started, self.run.dim))
        self.current, self.started = vector / np.linalg.norm(vector), self.started + 1

    def complement(self, vector: np.ndarray) -> np.ndarray:
        for _ in range(2):
            vector = vector - self.vectors.T @ (self.vectors @ vector)
        return vector

    def apply(self, vector: np.ndarray) -> np.ndarray:
        return self.complement(self.sign * self.run(vector) + self.shift * vector)

    def step(self) -> None:
        """Two products: v -> w = Av -> Aw, then look at w alone and at span{w, v}."""
        first = self.apply(self.current)
        size = float(np.linalg.norm(first))
        if size <= self.run.eps * self.run.scale:
            return self.accept([(-self.shift, self.current)])  # only zero eigenvalues are left
        vector = first / size
        second = self.apply(vector)
        value = float(vector @ second)
        self.run.message = f"eigenvalue {self.sign * (value - self.shift):.6g}"
        if np.linalg.norm(second - value * vector) <= self.run.limits(value - self.shift, self.tol):
            return self.accept([(value - self.shift, vector)])
        pair = _opposite_pair(np.stack([vector, self.current], 1), np.stack([second, first], 1))
        if pair and all(residual <= self.run.limits(value, self.tol) for value, _, residual in pair):
            self.run.remarks += opposite_notes(self.sign * np.array([value for value, _, _ in pair]))
            return self.accept([(value, vector) for value, vector, _ in pair])
        self.current = second / np.linalg.norm(second)

    def accept(self, pairs: Pairs) -> None:
        """Keep pairs of the right sign; a wrong one tells how far to shift."""
        for value, vector in sorted(pairs, key=lambda pair: -pair[0]):
            if self.one_sided and not self.shift and value < 0:
                self.shift = -value
            else:
                vector = self.complement(vector)
                self.values = np.append(self.values, value)
                self.vectors = np.vstack([self.vectors, vector / np.linalg.norm(vector)])
        if len(self.values) < self.run.dim:
            self.start()


def _opposite_pair(basis: np.ndarray, images: np.ndarray) -> list[tuple[float, np.ndarray, float]]:
    """Rayleigh-Ritz on two vectors: (value, vector, residual) of both pairs if their signs differ, else nothing."""
    q, r = np.linalg.qr(basis)
    if abs(r[1, 1]) < 1e-8:  # the two vectors are one: no pair
        return []
    image = images @ np.linalg.inv(r)
    values, turn = np.linalg.eigh((q.T @ image + image.T @ q) / 2)
    vectors = q @ turn
    residuals = np.linalg.norm(image @ turn - vectors * values, axis=0)
    if values[0] < 0 < values[1]:
        return [(float(values[i]), vectors[:, i], float(residuals[i])) for i in (0, 1)]
    return []
