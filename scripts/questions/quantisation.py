"""How many bits each weight needs, and MXNet's own int8 (docs/questions/quantisation.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Curvature, digits, mx, publish, run, scientific, started, table, train
from scipy.stats import spearmanr

from hessmx import figures
from hessmx.uses import int8, quantisation
from hessmx.uses.nets import accuracy, measured_at

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
BITS = (2, 3, 4, 5, 6, 8, 10, 12)
BUDGETS = (2.5, 3.0, 4.0, 5.0)


def convolutional() -> Any:
    """Five weights of very different sizes; strides instead of pooling."""
    nn = mx.gluon.nn
    net = nn.HybridSequential(prefix="")
    with net.name_scope():
        net.add(nn.HybridLambda(lambda F, x: F.reshape(x, (-1, 1, 8, 8))),
                nn.Conv2D(8, 3, padding=1, in_channels=1, prefix="conv0_"), nn.Activation("relu"),
                nn.Conv2D(16, 3, padding=1, strides=2, in_channels=8, prefix="conv1_"), nn.Activation("relu"),
                nn.Conv2D(16, 3, padding=1, in_channels=16, prefix="conv2_"), nn.Activation("relu"), nn.Flatten(),
                nn.Dense(32, activation="relu", in_units=256, prefix="dense0_"),
                nn.Dense(10, in_units=32, prefix="dense1_"))
    return net


def trained(short: bool) -> tuple[Curvature, Any]:
    x, y, test_x, test_y = digits(dtype="float32")
    net = train(started(convolutional()), x, y, 1 if short else 40, 3e-3, decay=1e-4)
    return Curvature(net, LOSS, (x[:200], y[:200]) if short else (x, y)), accuracy(test_x, test_y)


def ranks(found: dict[str, quantisation.BitCosts]) -> dict[str, dict[str, Any]]:
    """For each width, and for all: rank correlations with the measured rise, and its distance from the prediction."""
    rows = {}
    columns: dict[str, list[int]] = {f"{bits}": [j] for j, bits in enumerate(BITS)}
    for title, chosen in {**columns, "all": list(range(len(BITS)))}.items():
        truth, guess, rule = (np.concatenate([getattr(c, name)[:, chosen].ravel() for c in found.values()])
                              for name in ("measured", "predicted", "trace_rule"))
        rows[title] = {"predicted": float(spearmanr(guess, truth)[0]), "trace_rule": float(spearmanr(rule, truth)[0]),
                       "error": float(np.linalg.norm(guess - truth) / np.linalg.norm(truth)),
                       "median": float(np.median(np.abs(truth))), "entries": len(truth)}
    return rows


def plans(curv: Curvature, found: quantisation.BitCosts, metric: Any) -> dict[str, dict[str, Any]]:
    rows = {}
    for budget in BUDGETS:
        for rule in quantisation.RULES[:2]:
            plan = quantisation.measure_plan(curv, quantisation.choose_bits(found, budget, rule))
            d = quantisation.rounding_error(curv, dict(zip(plan.weights, plan.bits)))
            score = measured_at(curv, [curv.parameters() + d], metric)[0]
            rows[f"{budget:g} {rule}"] = {"budget": budget, "rule": rule, "bits": plan.bits, "mean": plan.mean_bits,
                                          "joint": plan.joint, "measured": plan.measured, "accuracy": score}
    return rows


def int8_runs(curv: Curvature, metric: Any) -> dict[str, int8.Int8Run]:
    """Nothing kept; the costliest weight kept; all weights but one kept, for each."""
    heavy = quantisation.weights(curv)
    eight = quantisation.costs(curv, (8,), measure=False, trace_budget=0)
    costly = heavy[int(np.abs(eight.predicted[:, 0]).argmax())]
    keeps = {"everything int8": (), f"{costly} in float32": (costly,)}
    keeps.update({f"only {name} int8": tuple(n for n in heavy if n != name) for name in heavy})
    return {title: int8.quantise(curv, keep, metric=metric)[1] for title, keep in keeps.items()}


def main(short: bool, out: Path) -> None:
    curv, metric = trained(short)
    costs = {per: quantisation.costs(curv, BITS, per, trace_budget=4 if short else 20) for per in ("tensor", "channel")}
    tensor, rows = costs["tensor"], ranks(costs)
    planned, runs = plans(curv, tensor, metric), int8_runs(curv, metric)
    numbers = {"loss": curv.loss(), "ranks": rows, "plans": planned, "products": tensor.products,
               "costs": {n: {"predicted": tensor.predicted[i], "measured": tensor.measured[i]}
                         for i, n in enumerate(tensor.weights)},
               "int8": {t: {"rise": r.rise, "weights_only": r.weights_only, "predicted": r.predicted,
                            "accuracy": r.int8_metric, "kept": r.kept, "exclude": r.exclude} for t, r in runs.items()}}

    publish(out, "quantisation", short, numbers, {
        "ranks": table(["bits", "roundings", "median rise", "rank correlation, g'd + d'Hd/2", "HAWQ-V2",
                        "relative error of g'd + d'Hd/2"],
                       [[title, r["entries"], scientific(r["median"], 1), f"{r['predicted']:.3f}",
                         f"{r['trace_rule']:.3f}", f"{r['error']:.2f}"] for title, r in rows.items()]),
        "plans": table(["budget, bits", "rule", *tensor.weights, "mean", "predicted together", "measured", "accuracy"],
                       [[f"{r['budget']:g}", "g'd + d'Hd/2" if r["rule"] == "predicted" else "HAWQ-V2", *r["bits"],
                         f"{r['mean']:.2f}", f"{r['joint']:.4f}", f"{r['measured']:.4f}",
                         f"{100 * r['accuracy']:.1f} %"]
                        for r in planned.values()]),
        "int8": table(["MXNet's int8", "predicted, weights", "measured, weights", "measured, int8 net", "accuracy"],
                      [[t, scientific(r.predicted, 1), scientific(r.weights_only, 1), scientific(r.rise, 1),
                        f"{100 * r.int8_metric:.1f} %"] for t, r in runs.items()]),
    }, {"costs": figures.bit_costs(tensor, quantisation.choose_bits(tensor, 3.0))[0].figure})


if __name__ == "__main__":
    run(main)
