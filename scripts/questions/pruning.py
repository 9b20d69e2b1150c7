"""Which weights, units and filters can go (docs/questions/pruning.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import publish, run, table
from quantisation import trained
from scipy.stats import spearmanr

from hessmx import figures
from hessmx.uses import pruning

WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
UNITS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def singles(curv: Any) -> dict[str, float]:
    """Every unit and filter alone: saliency against the rise that is measured."""
    found = {m: pruning.saliencies(curv, m, "unit") for m in pruning.METHODS[:3]}
    w, base = np.asarray(curv.parameters(), float), curv.loss()
    rises = []
    for i in range(len(found["exact"].names)):
        moved = w.copy()
        moved[found["exact"].places[found["exact"].starts[i] : found["exact"].starts[i + 1]]] = 0
        rises.append(curv.loss(at=moved) - base)
    truth = np.array(rises)
    order = np.argsort(truth)
    rows = {}
    half = len(order) // 2
    for name, chosen in (("all", order), ("smaller half", order[:half]), ("larger half", order[half:])):
        rows[name] = {m: float(spearmanr(s.values[chosen], truth[chosen])[0]) for m, s in found.items()}
        rows[name]["count"] = len(chosen)
        rows[name]["largest"] = float(truth[chosen].max())
    return rows


def main(short: bool, out: Path) -> None:
    curv, metric = trained(short)
    draws = 4 if short else 50
    weights = [pruning.curve(curv, pruning.saliencies(curv, method, budget=draws), WEIGHTS, metric)
               for method in pruning.METHODS[:2]]
    units = [pruning.curve(curv, pruning.saliencies(curv, method, "unit", budget=draws), UNITS, metric)
             for method in pruning.METHODS]
    alone = singles(curv)
    numbers = {"loss": curv.loss(), "alone": alone,
               **{kind: {c.method: {"measured": c.measured, "joint": c.joint, "separate": list(map(str, c.separate)),
                                    "accuracy": c.metric, "products": c.products} for c in curves}
                  for kind, curves in (("weights", weights), ("units", units))}}

    def rows(curves: list[pruning.PruningCurve]) -> list[list[str]]:
        return [[f"{100 * share:.0f} %", *(text for c in curves for text in (
            f"{c.measured[i]:.3f}", f"{c.joint[i]:.3f}", f"{100 * c.metric[i]:.1f} %"))]
            for i, share in enumerate(curves[0].sparsities)]

    def head(curves: list[pruning.PruningCurve]) -> list[str]:
        return ["removed", *(f"{c.method}: {what}" for c in curves for what in ("rise", "predicted", "accuracy"))]

    publish(out, "pruning", short, numbers, {
        "alone": table(["units and filters, one at a time", "number", "largest rise", *pruning.METHODS[:3]],
                       [[name, r["count"], f"{r['largest']:.3f}", *(f"{r[m]:.3f}" for m in pruning.METHODS[:3])]
                        for name, r in alone.items()]),
        "weights": table(head(weights), rows(weights)),
        "units": table(head(units), rows(units)),
    }, {"weights": figures.pruning(weights, metric="accuracy on held-out digits")[0].figure,
        "units": figures.pruning(units, metric="accuracy on held-out digits")[0].figure})


if __name__ == "__main__":
    run(main)
