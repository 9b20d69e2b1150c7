"""Derivatives of the output with respect to the input, sample by sample (docs/questions/inputs.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, accuracy, array, digits, mx, publish, run, scientific, started, table, train

from hessmx import inputs
from hessmx.blocks import dense_net

SHOWN = 6


def mxnet_gradient(net: Any, x: np.ndarray, reduce: Any) -> np.ndarray:
    """What MXNet leaves in x.grad after backward() on a function of the outputs."""
    given = array(x)
    given.attach_grad()
    with mx.autograd.record():
        value = reduce(net(given))
    value.backward()
    return given.grad.asnumpy()


def summed(net: Any, x: np.ndarray) -> dict[str, float]:
    """What "the gradient" of a batch of vectors is, against the Jacobian's rows."""
    jacobian = inputs.jacobian(net, x)
    return {
        "backward() on the outputs": _gap(mxnet_gradient(net, x, lambda z: z), jacobian.sum(axis=1)),
        "inputs.gradient(net, x)": _gap(inputs.gradient(net, x), jacobian.sum(axis=1)),
        "inputs.gradient(net, x, output=3)": _gap(inputs.gradient(net, x, 3), jacobian[:, 3]),
        "backward() on outputs[:, 3]": _gap(mxnet_gradient(net, x, lambda z: z[:, 3]), jacobian[:, 3]),
    }


def checked(net: Any, x: np.ndarray, label: int) -> dict[str, float]:
    """Each derivative against central differences of the one below it, in float64."""
    h, rng = 1e-5, np.random.default_rng(0)
    v = rng.normal(size=x.shape[1:])

    def along(function: Any, step: float = h) -> np.ndarray:
        return (function(x + step * v) - function(x - step * v)) / (2 * step)

    first = along(lambda at: net(array(at)).asnumpy()[:, label])
    second = along(lambda at: inputs.gradient(net, at, label))
    mixed = inputs.mixed(net, x, v, label)
    name = next(n for n in mixed if n.endswith("weight"))
    slope = along(lambda at: _weight_gradient(net, at, name, label))
    return {
        "gradient": _gap(inputs.gradient(net, x, label) @ v, first),
        "jvp": _gap(inputs.jvp(net, x, v)[:, label], first),
        "hvp": _gap(inputs.hvp(net, x, v, label), second),
        "hessian": _gap(inputs.hessian(net, x, label) @ v, second),
        "mixed": _gap(mixed[name], slope),
    }


def _weight_gradient(net: Any, x: np.ndarray, name: str, label: int) -> np.ndarray:
    """MXNet's gradient of the summed score with respect to one parameter."""
    with mx.autograd.record():
        score = net(array(x))[:, label].sum()
    score.backward()
    return net.collect_params()[name].grad().asnumpy()


def _gap(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def sensitivity(net: Any, x: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """Per sample: the margin's gradient, and the smallest step that the linear model says changes the class."""
    z = net(array(x)).asnumpy()
    order = np.argsort(z, axis=1)
    best, second = order[:, -1], order[:, -2]
    rows = np.arange(len(x))
    weights = np.zeros(z.shape)
    weights[rows, best], weights[rows, second] = 1, -1
    slope = inputs.vjp(net, x, weights)
    length = np.linalg.norm(slope, axis=1)
    distance = (z[rows, best] - z[rows, second]) / length
    moved = x - 1.2 * distance[:, None] * slope / length[:, None]
    changed = net(array(moved)).asnumpy().argmax(1) != best
    return {
        "right": best == y,
        "distance": distance,
        "length": length,
        "changed": changed,
        "slope": slope,
        "moved": moved,
    }


def draw(net: Any, x: np.ndarray, found: dict[str, Any], labels: np.ndarray) -> Figure:
    """Digits, the gradient of the winning score, the sensitivity to each pixel, the digit that is taken for another."""
    chosen = [int(np.flatnonzero((labels == digit) & found["right"] & found["changed"])[0]) for digit in range(SHOWN)]
    z = net(array(x)).asnumpy()
    gradients = inputs.vjp(net, x[chosen], np.eye(z.shape[1])[z[chosen].argmax(1)])
    spread = np.sqrt(np.square(inputs.jacobian(net, x[chosen])).sum(axis=1))
    after = net(array(found["moved"])).asnumpy().argmax(1)
    rows = [
        ("the digit", x[chosen], "Greys", (0, 1)),
        ("gradient of\nits own score", gradients, "RdBu_r", np.array([-1, 1]) * np.abs(gradients).max()),
        ("sensitivity of\nall scores", spread, "viridis", (0, spread.max())),
        ("smallest change\nof class", found["moved"][chosen], "Greys", (0, 1)),
    ]
    figure = Figure(figsize=(7.2, 5.2), layout="constrained")
    axes = figure.subplots(len(rows), SHOWN)
    for line, (title, pictures, colours, (low, high)) in zip(axes, rows):
        for ax, picture in zip(line, pictures):
            shown = ax.imshow(picture.reshape(8, 8), cmap=colours, vmin=low, vmax=high)
            ax.set_xticks([])
            ax.set_yticks([])
        line[0].set_ylabel(title, fontsize="small")
        figure.colorbar(shown, ax=list(line), fraction=0.02, pad=0.01).ax.tick_params(labelsize="x-small")
    for ax, index in zip(axes[-1], chosen):
        ax.set_xlabel(f"taken for {after[index]}", fontsize="small")
    for ax, index in zip(axes[0], chosen):
        ax.set_title(f"a {int(labels[index])}", fontsize="small")
    return figure


def influence(net: Any, x: np.ndarray, pixel: int, label: int) -> Figure:
    """How one pixel changes the gradient of the first layer's weights: one picture per hidden unit."""
    unit = np.eye(x.shape[1])[pixel]
    weights = next(iter(inputs.mixed(net, x, unit, label).values())) / len(x)
    largest = np.argsort(-np.linalg.norm(weights, axis=1))[:8]
    figure = Figure(figsize=(7.2, 2.3), layout="constrained")
    limit = np.abs(weights).max()
    axes = figure.subplots(1, len(largest))
    for ax, place in zip(axes, largest):
        shown = ax.imshow(weights[place].reshape(8, 8), cmap="RdBu_r", vmin=-limit, vmax=limit)
        ax.plot(pixel % 8, pixel // 8, "k+", markersize=7)
        ax.set_title(f"unit {place}", fontsize="small")
        ax.set_xticks([])
        ax.set_yticks([])
    figure.colorbar(shown, ax=list(axes), fraction=0.02, pad=0.01).ax.tick_params(labelsize="x-small")
    figure.suptitle(
        f"d² (score of {label}) / d(pixel +) d(weight from each pixel), mean over digits", fontsize="medium"
    )
    return figure


def main(short: bool, out: Path) -> None:
    x, y, test_x, test_y = digits()
    count, hidden, epochs = (300, 8, 10) if short else (len(x), 32, 40)
    net = train(started(dense_net((64, hidden, 10), "tanh", dtype="float64")), x[:count], y[:count], epochs, 5e-3)
    shown_x, shown_y = test_x[: 60 if short else 200], test_y[: 60 if short else 200]
    sums, errors = summed(net, shown_x[:20]), checked(net, shown_x[:5], 3)
    found = sensitivity(net, shown_x, shown_y)
    right = found["right"]
    numbers = {
        "held-out accuracy": accuracy(net, test_x, test_y),
        "median distance, right": float(np.median(found["distance"][right])),
        "class changed at 1.2 times the linear distance": float(found["changed"].mean()),
    }
    if (~right).any():
        numbers["median distance, wrong"] = float(np.median(found["distance"][~right]))
    numbers.setdefault("median distance, wrong", float("nan") if not short else 0.0)
    publish(
        out,
        "inputs",
        short,
        numbers,
        {
            "sums": table(
                ["what was asked", "is", "difference"],
                [
                    [
                        f"`{name}`",
                        "the sum of the Jacobian's rows" if i < 2 else "row 3 of each sample's Jacobian",
                        scientific(gap),
                    ]
                    for i, (name, gap) in enumerate(sums.items())
                ],
            ),
            "checked": table(
                ["derivative", "relative error"], [[f"`inputs.{n}`", scientific(e)] for n, e in errors.items()]
            ),
            "distance": table(
                ["held-out digits", "value"],
                [
                    ["accuracy", f"{100 * numbers['held-out accuracy']:.1f} %"],
                    ["median distance to another class, classified right", f"{numbers['median distance, right']:.2f}"],
                    ["the same, classified wrong", f"{numbers['median distance, wrong']:.2f}"],
                    [
                        "class really changed at 1.2 times that distance",
                        f"{100 * numbers['class changed at 1.2 times the linear distance']:.0f} %",
                    ],
                ],
            ),
        },
        {"saliency": draw(net, shown_x, found, shown_y), "influence": influence(net, shown_x, 3 * 8 + 4, 3)},
    )


if __name__ == "__main__":
    run(main)
