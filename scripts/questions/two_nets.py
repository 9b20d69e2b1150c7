"""Paths between two nets, and one net of several (docs/questions/two-nets.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Curvature, accuracy, assign, digits, mx, publish, run, scientific, started, table, train

from hessmx import figures
from hessmx.blocks import dense_net
from hessmx.uses import merging, paths
from hessmx.uses import nets as uses

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
SIZES = (64, 32, 10)


def net(activation: str = "relu") -> Any:
    return dense_net(SIZES, activation)


def between(short: bool) -> dict[str, paths.NetPath]:
    """Two nets from two starts, and straight and bent paths between them."""
    x, y, test_x, test_y = digits(dtype="float32")
    epochs, steps, points = (2, 10, 7) if short else (30, 300, 41)
    two = [train(started(net(), seed), x, y, epochs, 1e-2, seed) for seed in range(2)]
    curv, metric = Curvature(two[0], LOSS, (x, y)), uses.accuracy(test_x, test_y)
    found = {"straight": paths.straight(curv, two[1], points, metric)}
    for kind in paths.KINDS:
        found[kind] = paths.bent(curv, two[1], kind, steps, points=points, metric=metric)
    return found


def curvature_by_differences(path: paths.NetPath) -> float:
    """Largest gap between the curvature on the path and second differences of its own losses, relative, inside."""
    step = path.t[1] - path.t[0]
    seen = (path.losses[2:] - 2 * path.losses[1:-1] + path.losses[:-2]) / step**2
    return float(np.corrcoef(seen, path.curvatures[1:-1])[0, 1])


def regression(seed: int = 0) -> float:
    """Relative distance of merged linear regressions from least squares on all data together."""
    rng = np.random.default_rng(seed)
    tasks = [(rng.normal(size=(n, 8)) * rng.uniform(0.2, 3, 8), rng.normal(size=(n, 3))) for n in (40, 70, 25)]

    def solved(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        w = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
        return np.concatenate([w[:-1].T.ravel(), w[-1]])

    curvs = []
    for task in tasks:
        dense = mx.gluon.nn.Dense(3, in_units=8, dtype="float64")
        dense.initialize()
        assign(dense, solved(*task))
        curvs.append(Curvature(dense, mx.gluon.loss.L2Loss(), task))
    merged = merging.merge(curvs, damping=0, rtol=1e-12)
    together = solved(*(np.concatenate(parts) for parts in zip(*tasks)))
    return float(np.linalg.norm(merged.parameters - together) / np.linalg.norm(together))


def halves(short: bool) -> tuple[dict[str, dict[str, float]], merging.Merged]:
    """One net, trained on by each of two owners: digits 0 to 4 and 5 to 9; then made one again."""
    x, y, test_x, test_y = digits(dtype="float32")
    common, more = (2, 1) if short else (10, 6)
    curvs, owners = [], []
    for low in (True, False):
        chosen = (y < 5) == low
        one = train(started(net(), 0), x, y, common, 1e-2)
        train(one, x[chosen], y[chosen], more, 1e-3, seed=int(low), batch=32)
        curvs.append(Curvature(one, LOSS, (x[chosen], y[chosen])))
        owners.append(one)
    tests = {"digits 0-4": test_y < 5, "digits 5-9": test_y >= 5}
    target, rows = started(net(), 9), {}

    def scored(name: str, values: np.ndarray, **told: float) -> None:
        assign(target, values)
        rows[name] = {**{t: accuracy(target, test_x[c], test_y[c]) for t, c in tests.items()},
                      "all": accuracy(target, test_x, test_y),
                      "loss": float(np.mean([c.loss(at=values) for c in curvs])), **told}

    for name, curv in zip(("trained on with 0-4", "trained on with 5-9"), curvs):
        scored(name, curv.parameters(), products=0)
    best = None
    for method, damping in (("mean", None), ("diagonal", 1e-3), ("full", 1e-1), ("full", 1e-2), ("full", 1e-3)):
        found = merging.merge(curvs, method=method, damping=damping, max_products=60 if short else 400, rtol=1e-4)
        scored("plain mean" if method == "mean" else f"{method}, damping {damping:g}", found.parameters,
               products=found.products)
        best = found if method == "full" and (best is None or found.losses[:, -1].mean() < best.losses[:, -1].mean()) \
            else best
    assert best is not None
    return rows, best


def main(short: bool, out: Path) -> None:
    found = between(short)
    rows, best = halves(short)
    exact = regression()
    numbers = {
        "paths": {name: {"barrier": p.barrier, "peak": p.peak, "length": p.length, "lowest accuracy": p.metric.min(),
                         "ends": p.metric[[0, -1]], "curvature against differences": curvature_by_differences(p)}
                  for name, p in found.items()},
        "halves": rows,
        "regression": exact,
    }
    publish(out, "two_nets", short, numbers, {
        "paths": table(["path", "barrier", "at t", "length", "lowest accuracy", "largest curvature, d²L/dt²"],
                       [[name, f"{p.barrier:.3f}", f"{p.peak:.2f}", f"{p.length:.1f}", f"{100 * p.metric.min():.1f} %",
                         f"{p.curvatures.max():.0f}"] for name, p in found.items()]),
        "halves": table(["net", "digits 0-4", "digits 5-9", "all", "loss, mean of both tasks", "products"],
                        [[name, *(f"{100 * r[t]:.1f} %" for t in ("digits 0-4", "digits 5-9", "all")),
                          f"{r['loss']:.3f}", f"{r['products']:.0f}"] for name, r in rows.items()]),
        "regression": table(["three linear regressions", "merged against least squares on all data"],
                            [["relative difference", scientific(exact)]]),
    }, {"paths": figures.paths(list(found.values()), metric="accuracy on held-out digits")[0].figure,
        "merged": figures.merged(best).figure})


if __name__ == "__main__":
    run(main)
