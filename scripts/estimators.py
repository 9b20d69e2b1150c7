"""Errors and coverage of all estimators on spectra that are known: the numbers of docs/estimators.md.

    python scripts/estimators.py [--seeds 400] [--out docs/estimators.json]

Dense matrices of 200 rows with random eigenvectors; for each estimator and spectrum the root mean squared error over
the truth, and the share of 95 % intervals that hold it. Needs NumPy and SciPy only.
"""

from __future__ import annotations

import argparse
import json
import sys
import types
from pathlib import Path

import numpy as np
from scipy import stats

PACKAGE = Path(__file__).resolve().parent.parent / "hessmx"
P, TALL = 200, 400


def spectra() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    wishart = rng.standard_normal((P, TALL)) / np.sqrt(TALL)
    return {
        "spiked": np.r_[np.geomspace(100, 5, 8), np.abs(rng.standard_normal(P - 8)) * 0.1],
        "power law": 10 * np.arange(1.0, P + 1) ** -1.5,
        "flat": np.linspace(1, 2, P),
        "Marchenko-Pastur": np.linalg.eigvalsh(wishart @ wishart.T),
        "rank one": np.r_[5.0, np.zeros(P - 1)],
    }


def dense(values: np.ndarray) -> np.ndarray:
    q = np.linalg.qr(np.random.default_rng(1).standard_normal((P, P)))[0]
    matrix = (q * values) @ q.T
    return (matrix + matrix.T) / 2


def estimators() -> dict[str, tuple]:
    """Name: (run(matrix, seed) -> Estimate or VectorEstimate, truth(matrix, values))."""
    package = types.ModuleType("hessmx")  # the algorithms alone, without MXNet
    package.__path__ = [str(PACKAGE)]  # type: ignore[attr-defined]
    sys.modules["hessmx"] = package
    from hessmx.algorithms.diagonal import diagonal
    from hessmx.algorithms.frobenius import squared_frobenius
    from hessmx.algorithms.functions import trace_of
    from hessmx.algorithms.slq import spectrum
    from hessmx.algorithms.trace import trace

    def total(matrix: np.ndarray, values: np.ndarray) -> float:
        return float(values.sum())

    found: dict[str, tuple] = {}
    for budget in (6, 12, 40):
        for name in ("hutchinson", "hutch++", "xtrace", "xnystrace"):
            found[f"trace, {budget} products: {name}"] = (
                lambda a, s, name=name, budget=budget: trace(a, name, budget, seed=s), total)
    for name in ("hutchinson", "xdiag", "xnysdiag"):
        found[f"diagonal, 40 products: {name}"] = (
            lambda a, s, name=name: diagonal(a, name, 40, seed=s), lambda a, values: np.diag(a))
    found["squared Frobenius norm, 40 products"] = (
        lambda a, s: squared_frobenius(a, 40, seed=s), lambda a, values: float(np.sum(values**2)))
    functions = {"log(x + 0.1)": lambda x: np.log(x + 0.1), "x / (x + 0.1)": lambda x: x / (x + 0.1), "x^2": np.square}
    for name, f in functions.items():
        def truth(a: np.ndarray, values: np.ndarray, f=f) -> float:
            return float(f(values).sum())
        found[f"tr {name}, 6 x 16 products: quadrature"] = (
            lambda a, s, f=f: spectrum(a, 6, 16, seed=s).trace_of(f), truth)
        found[f"tr {name}, 6 x 16 products: Krylov-aware"] = (lambda a, s, f=f: trace_of(a, f, 6, 16, seed=s), truth)
    return found


def measured(run, truth, values: np.ndarray, seeds: int) -> tuple[float, float]:
    """Root mean squared error over the truth, and coverage; of diagonals over all entries."""
    matrix = dense(values)
    true = truth(matrix, values)
    errors, hits = [], []
    for seed in range(seeds):
        result = run(matrix, seed)
        errors.append(np.linalg.norm(result.value - true))
        if hasattr(result, "half_width"):
            width = result.half_width()
        else:
            width = stats.norm.ppf(0.975) * result.stderr
        hits.append(np.mean(np.abs(result.value - true) <= width + 1e-13 * np.abs(true)))
    return float(np.sqrt(np.mean(np.square(errors))) / np.linalg.norm(true)), float(np.mean(hits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=400)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table: dict[str, dict[str, list[float]]] = {}
    known = spectra()
    print("| estimator | " + " | ".join(known) + " |\n| --- |" + " --- |" * len(known), flush=True)
    for name, (run, truth) in estimators().items():
        table[name] = {kind: list(measured(run, truth, values, options.seeds)) for kind, values in known.items()}
        cells = [f"{error:.1e} ({share:.0%})" for error, share in table[name].values()]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
        if options.out:
            options.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
