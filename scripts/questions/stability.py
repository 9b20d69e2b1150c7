"""Which learning rate is stable, as the optimiser sees it: gradient descent and Adam (docs/questions/stability.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, array, digits, mx, publish, run, started, table

from hessmx.blocks import dense_net
from hessmx.training import FollowCurvature

LOSS = mx.gluon.loss.L2Loss(weight=10)  # half the squared distance to the class's unit vector
RATES = {"sgd": (0.36, 0.42, 0.5), "adam": (0.005, 0.01, 0.02)}
TITLES = {"sgd": "gradient descent: 2 / rate", "adam": "Adam: 38 / rate"}
COLOURS = ("#8fb3d9", "#3d7ab8", "#123f70")
FACTORS = (0.8, 0.95, 1.05, 1.2)


class Run:
    """One net on all data at once, followed by steps."""

    def __init__(self, optimizer: str, rate: float, data: tuple[np.ndarray, np.ndarray], every: int):
        self.x, self.y = map(array, data)
        self.optimizer, self.rate = optimizer, rate
        self.net = started(dense_net((64, 32, 10), "tanh"))
        self.net.hybridize()
        self.trainer = mx.gluon.Trainer(self.net.collect_params(), optimizer, {"learning_rate": rate})
        asked = ("sharpness", "loss")
        self.follow = FollowCurvature(LOSS, data, asked, every, unit="step", trainer=self.trainer, eigenvalues=6)

    def train(self, steps: int, follow: bool = True) -> list[float]:
        """Losses before each step."""
        seen = []
        for _ in range(steps):
            with mx.autograd.record():
                losses = LOSS(self.net(self.x), self.y)
            losses.backward()
            self.trainer.step(len(self.x))
            seen.append(float(losses.mean().asscalar()))
            if follow:
                self.follow.measure(self.net)
        return seen

    @property
    def share(self) -> np.ndarray:
        history = self.follow.history
        return history.of("sharpness") / history.thresholds

    def row(self) -> dict[str, Any]:
        history, share = self.follow.history, self.share
        late = share[-max(1, len(share) // 4) :]
        return {
            "optimizer": self.optimizer,
            "rate": self.rate,
            "threshold": float(history.thresholds[-1]),
            "first": float(share[0]),
            "late": float(np.median(late)),
            "low": float(late.min()),
            "high": float(late.max()),
            "loss": float(history.of("loss")[-1]),
        }


def beyond(data: tuple[np.ndarray, np.ndarray], steps: int, after: int) -> tuple[float, list[float]]:
    """Gradient descent at 0.25, then at shares of the rate that is said to be stable: the loss's largest rise."""
    rises, stable = [], 0.0
    for factor in FACTORS:
        one = Run("sgd", 0.25, data, every=steps)
        before = one.train(steps)[-1]
        stable = float(one.follow.history.of("sharpness")[-1] ** -1 * 2)
        one.trainer.set_learning_rate(factor * stable)
        rises.append(max(one.train(after, follow=False)) / before)
    return stable, rises


def draw(runs: list[Run]) -> Figure:
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    for ax, optimizer in zip(figure.subplots(1, 2, sharey=True), RATES):
        for one, colour in zip([r for r in runs if r.optimizer == optimizer], COLOURS):
            ax.plot(one.follow.history.when, one.share, color=colour, linewidth=1.4, label=f"rate {one.rate:g}")
        ax.axhline(1, color="#b3262e", linestyle="--", linewidth=1)
        ax.set_title(f"{TITLES[optimizer]}", fontsize="medium", loc="left")
        ax.set_xlabel("step (all data)")
        ax.legend(frameon=False, fontsize="small", loc="lower right")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize="small")
        ax.set_ylim(0, 1.4)
    figure.axes[0].set_ylabel("sharpness / threshold")
    figure.suptitle("Training sharpens until the optimiser's own threshold, and stays there", fontsize="medium")
    return figure


def ridges(one: Run) -> Figure:
    history = one.follow.history
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    ax = figure.add_subplot()
    for i in range(6):
        values = history.of(f"eigenvalue {i + 1}")
        ax.plot(history.when, values, color="#1f5a96", alpha=1 - 0.14 * i, linewidth=1.3)
    ax.axhline(2 / one.rate, color="#b3262e", linestyle="--", linewidth=1, label=f"2 / rate = {2 / one.rate:.2g}")
    ax.set(xlabel="step", ylabel="eigenvalue of the Hessian")
    ax.set_ylim(0, None)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    ax.set_title("One eigenvalue after the other comes to the threshold", fontsize="medium", loc="left")
    return figure


def main(short: bool, out: Path) -> None:
    x, y, _, _ = digits(dtype="float32")
    count, steps, every, after = (60, 6, 2, 3) if short else (200, 4000, 40, 150)
    x = x[:count] - x[:count].mean(axis=0)
    data = x, np.eye(10, dtype="float32")[y[:count].astype(int)]
    runs = [Run(optimizer, rate, data, every) for optimizer, rates in RATES.items() for rate in rates]
    for one in runs:
        one.train(steps)
    rows = [one.row() for one in runs]
    stable, rises = beyond(data, *((4, 3) if short else (1000, after)))
    numbers = {"runs": rows, "stable rate": stable, "rises": dict(zip(map(str, FACTORS), rises))}
    names = {"sgd": "gradient descent", "adam": "Adam"}
    publish(
        out,
        "stability",
        short,
        numbers,
        {
            "runs": table(
                ["optimiser", "rate", "threshold", "at the start", "last quarter: median", "from", "to", "loss"],
                [
                    [names[r["optimizer"]], f"{r['rate']:g}", f"{r['threshold']:.4g}", f"{r['first']:.2f}",
                     f"{r['late']:.2f}", f"{r['low']:.2f}", f"{r['high']:.2f}", f"{r['loss']:.4f}"]
                    for r in rows
                ],
            ),
            "beyond": table(
                ["rate, as a share of the stable one", "largest loss in the steps after, over the loss before"],
                [[f"{factor:g}", f"{rise:.3g}"] for factor, rise in zip(FACTORS, rises)],
            ),
        },
        {"runs": draw(runs), "eigenvalues": ridges(runs[len(RATES["sgd"]) - 1])},
    )  # fmt: skip


if __name__ == "__main__":
    run(main)
