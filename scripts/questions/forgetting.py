"""A second task learnt with and without an EWC penalty (docs/questions/forgetting.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Curvature, Figure, accuracy, array, digits, mx, publish, run, started, table, train

from hessmx.blocks import dense_net
from hessmx.uses import ewc

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
SPLITS = {"digits 0-4": lambda y: y < 5, "digits 5-9": lambda y: y >= 5}
STRENGTHS = (0.0, 1.0, 10.0, 100.0, 1000.0)
COLOURS = ("#8a8a8a", "#e08214", "#1f5a96", "#3a8a5c", "#b3262e")


def second_task(net: Any, loss: Any, x: np.ndarray, y: np.ndarray, epochs: int, watch: Any) -> list[tuple[float, ...]]:
    """Adam on the new task at a constant rate; watch() after every epoch."""
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 1e-3})
    generator, seen = np.random.default_rng(0), [watch()]
    for _ in range(epochs):
        for chosen in np.split(generator.permutation(len(x)), range(32, len(x), 32)):
            with mx.autograd.record():
                losses = loss(net(array(x[chosen])), array(y[chosen]))
            losses.backward()
            trainer.step(len(chosen))
        seen.append(watch())
    return seen


def with_head(net: Any, heads: str, task: int) -> Any:
    """The net, or its five outputs of one task."""
    if heads == "one":
        return net
    whole = mx.gluon.nn.HybridSequential()
    whole.add(net, mx.gluon.nn.HybridLambda(lambda F, z: F.slice_axis(z, axis=1, begin=5 * task, end=5 * task + 5)))
    return whole


def learn_both(short: bool, heads: str, matrix: str, strength: float, seed: int) -> dict[str, Any]:
    """Digits 0-4, then 5-9; accuracies on held-out digits of both after every epoch.

    heads  "one": all ten outputs compete in training and in testing; "two": five outputs a task, which is told.
    """
    x, y, test_x, test_y = digits(seed, dtype="float32")
    first, second = (1, 1) if short else (20, 15)
    old, new = (of(y) for of in SPLITS.values())
    net, below = started(dense_net((64, 64, 10), "relu"), seed), 5 * (heads == "two")
    tasks = [with_head(net, heads, task) for task in range(2)]
    train(tasks[0], x[old], y[old], first, 3e-3, seed)
    curv = Curvature(tasks[0], LOSS, (x[old], y[old]))
    found = ewc.importance(curv, matrix, draws=3 if short else 50) if strength else None
    penalty = ewc.Penalty(net, found, strength=strength) if found is not None else None
    start = curv.loss()

    def watch() -> tuple[float, ...]:
        return tuple(accuracy(task, test_x[of(test_y)], test_y[of(test_y)] - below * i)
                     for i, (task, of) in enumerate(zip(tasks, SPLITS.values())))

    seen = second_task(tasks[1], penalty.loss(LOSS) if penalty else LOSS, x[new], y[new] - below, second, watch)
    return {"epochs": seen, "after": seen[-1], "loss before": start, "loss after": curv.loss()}


def over_seeds(short: bool, heads: str, matrix: str, strength: float) -> dict[str, Any]:
    runs = [learn_both(short, heads, matrix, strength, seed) for seed in range(1 if short else 3)]
    mean = {key: np.mean([r[key] for r in runs], axis=0) for key in runs[0]}
    return {**mean, "heads": heads, "matrix": matrix, "strength": strength}


def draw(found: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    shown = [r for r in found.values() if r["matrix"] == "ggn" and r["heads"] == "two"]
    for i, (ax, name) in enumerate(zip(axes, SPLITS)):
        for result, colour in zip(shown, COLOURS):
            label = f"strength {result['strength']:g}" if result["strength"] else "no penalty"
            ax.plot(100 * np.array(result["epochs"])[:, i], color=colour, linewidth=2, label=label)
        ax.set(xlabel="epochs on digits 5-9")
        ax.set_title(f"{'new' if i else 'old'} task: {name}", loc="left", fontsize="medium")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("held-out digits recognised, %")
    axes[1].legend(frameon=False, fontsize="small", loc="lower right")
    title = "What the old task keeps while the new one is learnt, five outputs a task"
    figure.suptitle(title, fontsize="medium", x=0.01, ha="left")
    return figure


def main(short: bool, out: Path) -> None:
    chosen = [(heads, "ggn", s) for heads in ("two", "one") for s in STRENGTHS] + [("two", "fisher", 100.0)]
    found = {f"{heads} {matrix} {s:g}": over_seeds(short, heads, matrix, s) for heads, matrix, s in chosen}

    def row(result: dict[str, Any]) -> list[str]:
        old, new = 100 * np.array(result["after"])
        names = {"ggn": "Gauss-Newton", "fisher": "empirical Fisher"}
        return [result["heads"], names[result["matrix"]] if result["strength"] else "none", f"{result['strength']:g}",
                f"{old:.1f} %", f"{new:.1f} %", f"{result['loss before']:.3f} -> {result['loss after']:.3f}"]

    publish(out, "forgetting", short, {"tasks": found}, {
        "tasks": table(["heads", "importance", "strength", "old task", "new task", "loss of the old task"],
                       [row(result) for result in found.values()]),
    }, {"tasks": draw(found)})


if __name__ == "__main__":
    run(main)
