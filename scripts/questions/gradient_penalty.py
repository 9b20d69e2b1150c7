"""Training a WGAN-GP in MXNet: exact gradients of a gradient penalty (docs/questions/gradient-penalty.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, array, mx, publish, run, scientific, started, table

from hessmx import inputs
from hessmx.training import penalty
from tests.uses.penalty_cases import CASES, drawn
from tests.uses.penalty_nets import STORED, built, gradient, of

nn, nd, record = mx.gluon.nn, mx.nd, mx.autograd.record
CENTRES = 2 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)
WIDTH, CRITIC_STEPS, BATCH, RATE = 0.05, 5, 256, 2e-3
SHOWN = {"gradient penalty": "penalty", "weights clipped to ±0.1": "clip", "neither": "none"}


def against_pytorch() -> dict[str, tuple[float, float]]:
    """Case -> relative differences of value and of gradient from PyTorch's create_graph, float64."""
    found = {}
    for name, (layers, _, _) in CASES.items():
        values, x, target, labels = drawn(name)
        net = built(layers, values)
        function, extra, options = of(name, net, target, labels)
        with record():
            value = function(array(x), *extra, **options)
        value.backward()
        stored = np.array(STORED[name]["gradient"])
        gap = np.abs(gradient(net) - stored).max() / np.abs(stored).max()
        found[name] = abs(float(value.asscalar()) / STORED[name]["value"] - 1), float(gap)
    return found


def mlp(inputs: int, outputs: int, seed: int) -> Any:
    net = nn.HybridSequential()
    net.add(nn.Dense(64, in_units=inputs), nn.LeakyReLU(0.2), nn.Dense(64, in_units=64), nn.LeakyReLU(0.2))
    net.add(nn.Dense(outputs, in_units=64))
    net.hybridize()
    return started(net, seed)


def ring(count: int, rng: np.random.Generator) -> Any:
    """Eight normal distributions on a circle of radius 2."""
    return nd.array(CENTRES[rng.integers(0, 8, count)] + WIDTH * rng.normal(size=(count, 2)))


def noise(count: int, rng: np.random.Generator) -> Any:
    return nd.array(rng.normal(size=(count, 2)))


class Game:
    """Generator and critic; `kind` is how the critic is kept smooth."""

    def __init__(self, kind: str, seed: int = 0):
        self.kind, self.rng = kind, np.random.default_rng(seed)
        self.generator, self.critic = mlp(2, 2, seed), mlp(2, 1, seed + 1)
        settings = {"learning_rate": RATE, "beta1": 0.5, "beta2": 0.9}
        self.trainers = [
            mx.gluon.Trainer(net.collect_params(), "adam", settings) for net in (self.generator, self.critic)
        ]
        self.penalty = penalty(self.critic, "wgan-gp")
        self.distances: list[float] = []

    def play(self, steps: int) -> None:
        for step in range(steps):
            for trainer in self.trainers:
                trainer.set_learning_rate(RATE * (1 - step / steps))
            for _ in range(CRITIC_STEPS):
                distance = self.teach_critic()
            self.distances.append(float(distance.asscalar()))
            with record():
                loss = -self.critic(self.generator(noise(BATCH, self.rng))).mean()
            loss.backward()
            self.trainers[0].step(1)

    def teach_critic(self) -> Any:
        real, fake = ring(BATCH, self.rng), self.generator(noise(BATCH, self.rng)).detach()
        share = nd.array(self.rng.random((BATCH, 1)))
        with record():
            distance = self.critic(real).mean() - self.critic(fake).mean()
            loss = -distance
            if self.kind == "penalty":
                loss = loss + self.penalty(share * real + (1 - share) * fake)
        loss.backward()
        self.trainers[1].step(1)
        if self.kind == "clip":
            for p in self.critic.collect_params().values():
                p.set_data(nd.clip(p.data(), -0.1, 0.1))
        return distance

    def verdict(self) -> dict[str, Any]:
        """Share of 4000 samples within 5 widths of a centre, and how many centres have at least 40 of them."""
        samples = self.generator(noise(4000, np.random.default_rng(99))).asnumpy()
        gaps = np.linalg.norm(samples[:, None] - CENTRES, axis=2)
        near, good = gaps.argmin(axis=1), gaps.min(axis=1) < 5 * WIDTH
        slopes = np.linalg.norm(inputs.gradient(self.critic, ring(1000, np.random.default_rng(98))), axis=1)
        return {"good": float(good.mean()), "modes": int((np.bincount(near[good], minlength=8) >= 40).sum()),
                "slope": float(np.median(slopes))}  # fmt: skip


def seconds_per_step(with_penalty: bool, repeats: int) -> float:
    """Fastest of the critic's steps."""
    game = Game("penalty" if with_penalty else "none")
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        game.teach_critic().wait_to_read()
        nd.waitall()
        times.append(time.perf_counter() - start)
    return min(times)


def draw(games: dict[str, Game]) -> Figure:
    """Samples over the critic's level sets."""
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    grid = np.linspace(-3, 3, 61)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    for ax, (title, game) in zip(figure.subplots(1, len(games), sharey=True), games.items()):
        heights = game.critic(nd.array(points)).asnumpy().reshape(61, 61)
        ax.contourf(grid, grid, heights, levels=15, cmap="Greys", alpha=0.5)
        samples = game.generator(noise(1000, np.random.default_rng(5))).asnumpy()
        ax.plot(*ring(1000, np.random.default_rng(6)).asnumpy().T, ".", color="#e08214", markersize=2, label="data")
        ax.plot(*samples.T, ".", color="#1f5a96", markersize=2, label="generated")
        found = game.verdict()
        ax.set_title(f"{title}:\n{found['good']:.0%} near a mode, slope {found['slope']:.3g}", fontsize="medium")
        ax.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
        ax.tick_params(labelsize="small")
    ax.legend(loc="upper right", fontsize="small", markerscale=4)
    figure.suptitle("With the penalty fewer samples fall between the modes (grey: the critic's level sets)")
    return figure


def main(short: bool, out: Path) -> None:
    steps, repeats = (3, 3) if short else (2500, 300)
    differences = against_pytorch()
    games = {title: Game(kind) for title, kind in SHOWN.items()}
    verdicts = {}
    for title, game in games.items():
        game.play(steps)
        verdicts[title] = game.verdict()
    times = [seconds_per_step(with_penalty, repeats) for with_penalty in (False, True)]
    numbers = {
        "largest difference from PyTorch": max(gap for gaps in differences.values() for gap in gaps),
        "games": verdicts,
        "share near a mode": verdicts["gradient penalty"]["good"],
        "milliseconds": {"without": 1e3 * times[0], "with": 1e3 * times[1]},
    }
    publish(
        out,
        "gradient_penalty",
        short,
        numbers,
        {
            "pytorch": table(
                ["net and penalty", "value", "gradient"],
                [[name, *(scientific(gap) for gap in gaps)] for name, gaps in differences.items()],
            ),
            "games": table(
                ["critic", "samples near a mode", "modes found", "median slope of the critic at data"],
                [[title, f"{v['good']:.0%}", v["modes"], f"{v['slope']:.2f}"] for title, v in verdicts.items()],
            ),
            "cost": table(
                ["step of the critic", "milliseconds"],
                [["without penalty", f"{1e3 * times[0]:.1f}"], ["with it", f"{1e3 * times[1]:.1f}"]],
            ),
        },
        {"ring": draw(games)},
    )


if __name__ == "__main__":
    run(main)
