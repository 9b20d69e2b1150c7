"""The heat equation solved with a Gluon net, and its coefficient found from data (docs/questions/heat-equation.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, mx, publish, run, started, table

from hessmx.blocks import dense_net
from hessmx.training import penalty

nd, record = mx.nd, mx.autograd.record
COEFFICIENT, RATE = 0.1, 2e-2
GRID = np.linspace(0, 1, 41)
POINTS = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), axis=-1).reshape(-1, 2)  # (x, t)


def exact(points: np.ndarray) -> np.ndarray:
    """sin(pi x) exp(-k pi^2 t): u_t = k u_xx, zero at both ends."""
    return np.sin(np.pi * points[:, 0]) * np.exp(-COEFFICIENT * np.pi**2 * points[:, 1])


def column(values: np.ndarray) -> Any:
    return nd.array(values.reshape(-1, 1))


def error(net: Any) -> float:
    """|u - exact| / |exact| over a grid of 41 x 41 points."""
    found, true = net(nd.array(POINTS)).asnumpy()[:, 0], exact(POINTS)
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def residual(u_t: Any, u_xx: Any, k: Any) -> Any:
    return nd.square(u_t - nd.broadcast_mul(k, u_xx))


def field() -> tuple[Any, Any]:
    """A net u(x, t), and the residual of the heat equation for it."""
    net = started(dense_net((2, 20, 20, 1), "tanh"))
    net.hybridize()
    return net, penalty(net, residual, of=("u_t", "u_xx"), coordinates="xt")


def solve(steps: int, every: int) -> tuple[Any, list[tuple[int, float]]]:
    """From the equation, the start sin(pi x) and the ends alone."""
    rng, (net, heat) = np.random.default_rng(0), field()
    edge = rng.random((120, 2))
    edge[:40, 1], edge[40:80, 0], edge[80:, 0] = 0, 0, 1
    inside, at, values = nd.array(rng.random((200, 2))), nd.array(edge), column(exact(edge))
    k = nd.array([[COEFFICIENT]])
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": RATE})
    errors = []
    for step in range(steps):
        if step % every == 0:
            errors.append((step, error(net)))
        trainer.set_learning_rate(RATE * (1 - step / steps))
        with record():
            loss = heat(inside, k) + 10 * nd.square(net(at) - values).mean()
        loss.backward()
        trainer.step(1)
    return net, [*errors, (steps, error(net))]


def identify(steps: int) -> tuple[Any, list[float]]:
    """From 60 noisy values of u inside, without ends or start: the net and k together. k starts at 1."""
    rng, (net, heat) = np.random.default_rng(1), field()
    places = rng.random((60, 2))
    at, values = nd.array(places), column(exact(places) + 0.01 * rng.normal(size=60))
    inside = nd.array(rng.random((200, 2)))
    log_k = mx.gluon.Parameter("log_k", shape=(1, 1), init=mx.init.Zero())
    log_k.initialize()
    trainer = mx.gluon.Trainer([*net.collect_params().values(), log_k], "adam", {"learning_rate": RATE})
    found = []
    for step in range(steps):
        trainer.set_learning_rate(RATE * (1 - step / steps))
        with record():
            loss = heat(inside, nd.exp(log_k.data())) + 10 * nd.square(net(at) - values).mean()
        loss.backward()
        trainer.step(1)
        found.append(float(np.exp(log_k.data().asnumpy().item())))
    return net, found


def draw(net: Any, errors: list[tuple[int, float]], found: list[float]) -> Figure:
    figure = Figure(figsize=(9.6, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    colours = ("#1f5a96", "#5b8fc7", "#e08214", "#b3262e")
    for t, colour in zip((0.0, 0.3, 0.6, 1.0), colours):
        line = np.stack([GRID, np.full(41, t)], axis=1)
        left.plot(GRID, exact(line), color=colour, linewidth=3, alpha=0.35)
        left.plot(GRID, net(nd.array(line)).asnumpy(), color=colour, linewidth=1, label=f"t = {t:g}")
    left.set(xlabel="x", ylabel="u")
    left.legend(frameon=False, fontsize="small")
    left.set_title("net (thin) on the exact solution (wide)", fontsize="medium", loc="left")
    middle.semilogy(*zip(*errors), "o-", color=colours[0], markersize=3)
    middle.axhline(1e-2, color="grey", linestyle="--", linewidth=1)
    middle.set(xlabel="step of Adam", ylabel="relative error over the square")
    middle.set_title(f"solved to {errors[-1][1]:.1e}", fontsize="medium", loc="left")
    right.semilogy(found, color=colours[0])
    right.axhline(COEFFICIENT, color="grey", linestyle="--", linewidth=1)
    right.set(xlabel="step of Adam", ylabel="coefficient k")
    right.set_title(f"k from noisy data: {found[-1]:.4f} for {COEFFICIENT}", fontsize="medium", loc="left")
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize="small")
    return figure


def main(short: bool, out: Path) -> None:
    steps, every = (6, 3) if short else (2000, 100)
    net, errors = solve(steps, every)
    second, found = identify(steps)
    numbers = {
        "error": errors[-1][1],
        "start": errors[0][1],
        "coefficient": found[-1],
        "error with the coefficient unknown": error(second),
    }
    rows = [
        ["relative error of u, equation and edges known", f"{numbers['error']:.2e}"],
        ["k found from 60 values with noise 0.01, no edges (true: 0.1)", f"{numbers['coefficient']:.4f}"],
        ["relative error of u then", f"{numbers['error with the coefficient unknown']:.2e}"],
    ]
    tables = {"found": table([f"after {steps} steps of Adam", "value"], rows)}
    publish(out, "heat_equation", short, numbers, tables, {"solution": draw(net, errors, found)})


if __name__ == "__main__":
    run(main)
