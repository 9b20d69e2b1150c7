"""Biases as weights of a constant input, and what a penalty on them does to the spectrum (docs/questions/bias.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import (
    Curvature,
    Figure,
    accuracy,
    array,
    digits,
    minimise,
    mx,
    publish,
    run,
    scientific,
    started,
    table,
    train,
)

from hessmx import L2Penalty
from hessmx.blocks import dense_net, fold_bias, unfold_bias

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
BLUE, RED, ORANGE, GREY = "#1f5a96", "#b3262e", "#e08214", "#8a8a8a"
STRENGTH, RATE = 2.0**-10, 0.125  # exact in binary: MXNet's optimizers keep both in float32
NETS = {"tanh": dict(activation="tanh"), "Maxout": dict(activation="maxout", pieces=2)}


def gap(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest entry."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


# ---- folding

def folding(sizes: tuple, options: dict, x: np.ndarray, y: np.ndarray, epochs: int) -> dict[str, float]:
    """How far the folded net is from the net itself, under the permutation p."""
    net = train(started(dense_net(sizes, dtype="float64", **options)), x, y, epochs, 5e-3)
    folded = fold_bias(net)
    p, back = folded.permutation, unfold_bias(folded)
    curv, other = Curvature(net, LOSS, (x, y)), Curvature(folded, LOSS, (x, y))
    hessian, folded_hessian = curv.hessian.to_dense(), other.hessian.to_dense()
    return {
        "parameters": curv.num_params,
        "values, w[p]": gap(other.parameters(), curv.parameters()[p]),
        "outputs": gap(folded(array(x)).asnumpy(), net(array(x)).asnumpy()),
        "gradient, g[p]": gap(other.gradient(), curv.gradient()[p]),
        "Hessian, H[p][:, p]": gap(folded_hessian, hessian[p][:, p]),
        "eigenvalues": gap(np.linalg.eigvalsh(folded_hessian), np.linalg.eigvalsh(hessian)),
        "values after unfold_bias": gap(Curvature(back, LOSS, (x, y)).parameters(), curv.parameters()),
    }


# ---- what Gluon's Trainer decays

def without_biases(net: Any) -> Any:
    net.collect_params(".*bias").setattr("wd_mult", 0.0)
    return net


def one_step(net: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(w - w') / rate of one step of SGD with weight decay on all samples."""
    curv = Curvature(net, LOSS, (x, y))
    before = curv.parameters()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE, "wd": STRENGTH})
    with mx.autograd.record():
        losses = LOSS(net(array(x)), array(y))
    losses.backward()
    trainer.step(len(x))
    return (before - curv.parameters()) / RATE


def readings(sizes: tuple, x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """A Trainer's step against the gradients of the objective with all or only weights penalised."""
    found = {}
    for name, prepare in (("wd_mult as Gluon sets it", lambda net: net), ("wd_mult = 0 for biases", without_biases)):
        net = prepare(started(dense_net(sizes, "tanh", dtype="float64", bias_initializer="normal")))
        penalties = (L2Penalty(STRENGTH, biases=False), L2Penalty(STRENGTH))
        gradients = [Curvature(net, LOSS, (x, y), weight_decay=penalty).gradient() for penalty in penalties]
        step = one_step(net, x, y)
        found[name] = [gap(step, gradient) for gradient in gradients]
    return found


# ---- spectra

PENALTIES = {"none": None, "W": L2Penalty(STRENGTH, biases=False), "W and b": L2Penalty(STRENGTH)}


def described(net: Any, curv: Curvature, test: tuple) -> dict[str, Any]:
    values = np.linalg.eigvalsh(curv.hessian.to_dense())
    weights = [p.data().asnumpy().ravel() for name, p in net.collect_params().items() if name.endswith("weight")]
    biases = [p.data().asnumpy().ravel() for name, p in net.collect_params().items() if name.endswith("bias")]
    shift = np.zeros(curv.num_params)
    shift[-10:] = 10**-0.5
    return {
        "eigenvalues": values,
        "accuracy": accuracy(net, *test),
        "length of W": float(np.linalg.norm(np.concatenate(weights))),
        "length of b": float(np.linalg.norm(np.concatenate(biases))),
        "shift": float(shift @ curv.hvp(shift)),
        "gradient": float(np.linalg.norm(curv.gradient())),
    }


def spectra(sizes: tuple, data: tuple, steps: int) -> tuple[dict, dict]:
    """The three objectives at one point, the minimum with a penalty on W; and each penalty at its own minimum."""
    train_data, test = data[:2], data[2:]
    minima, net = {}, None
    for name in ("W and b", "W"):
        net = train(started(dense_net(sizes, "tanh", dtype="float64")), *train_data, 10, 5e-3)
        curv = Curvature(net, LOSS, train_data, weight_decay=PENALTIES[name])
        minimise(net, curv, steps, 1e-9)
        minima[name] = described(net, curv, test)
    one_point = {name: described(net, Curvature(net, LOSS, train_data, weight_decay=penalty), test)
                 for name, penalty in PENALTIES.items()}
    return one_point, minima


def draw(found: dict) -> Figure:
    """All eigenvalues at one point, and the lowest of them."""
    figure = Figure(figsize=(7.4, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    looks = {"none": (GREY, "no penalty"), "W": (BLUE, "penalty on W"), "W and b": (ORANGE, "penalty on W and b")}
    bottom, shown = 1e-6, 60
    for name, (colour, label) in looks.items():
        values = np.maximum(found[name]["eigenvalues"], bottom)
        left.semilogy(values, color=colour, label=label, linewidth=1.6)
        if name != "none":
            right.semilogy(np.arange(1, shown + 1)[: len(values)], values[:shown], "o", markersize=3.5, color=colour)
    left.set(xlabel="eigenvalues of the Hessian, ascending", ylim=(bottom / 1.5, None))
    right.set(xlabel=f"the lowest {shown} of them", ylim=(bottom / 1.5, 5 * STRENGTH))
    right.annotate("0: equal shifts of\nthe last biases", (1, bottom), (12, 2.5 * bottom), color=BLUE, fontsize="small",
                   arrowprops=dict(arrowstyle="-", color=BLUE))
    for ax in (left, right):
        ax.axhline(STRENGTH, color=RED, linewidth=0.8, linestyle="--")
    right.text(0.98, STRENGTH * 1.2, "λ, the penalty's strength", color=RED, fontsize="small", ha="right",
               transform=right.get_yaxis_transform())
    last = int((found["none"]["eigenvalues"] < bottom).sum())
    left.text(1.15 * last, bottom, "← zero and negative", color=GREY, fontsize="small", va="center")
    figure.legend(*left.get_legend_handles_labels(), frameon=False, fontsize="small", loc="outside upper left", ncols=3)
    return figure


def spectrum_row(name: str, result: dict[str, Any]) -> list[str]:
    values = result["eigenvalues"]
    return [name, scientific(float(values[0]), 1), int((values < STRENGTH / 2).sum()),
            int((np.abs(values - STRENGTH) < 1e-6 * STRENGTH).sum()), f"{values[-1]:.4f}", f"{values.sum():.3f}",
            scientific(result["shift"], 1) if abs(result["shift"]) > 1e-12 else "0"]


# ---- all of it

def main(short: bool, out: Path) -> None:
    x, y, test_x, test_y = digits()
    count, hidden, epochs, steps = (64, 3, 2, 30) if short else (len(x), 12, 20, 4000)
    data, sizes = (x[:count], y[:count], test_x, test_y), (64, hidden, 10)
    equal = {name: folding(sizes, options, *data[:2], epochs) for name, options in NETS.items()}
    read = readings(sizes, x[:count][:1024], y[:count][:1024])  # 1 / 1024 is exact in float32 too
    one_point, minima = spectra(sizes, data, steps)
    head = ["penalty on", "smallest eigenvalue", "below half the strength", "equal to it", "largest", "trace",
            "along equal shifts of the last b"]
    publish(out, "bias", short, {"folding": equal, "trainer": read, "one point": one_point, "minima": minima}, {
        "folding": table(["largest relative difference", *equal],
                         [[row, *(scientific(equal[name][row]) if row != "parameters" else equal[name][row]
                                  for name in equal)] for row in equal["tanh"]]),
        "trainer": table(["one step of SGD with wd", "L2Penalty(wd, biases=False)", "L2Penalty(wd)"],
                         [[name, *map(scientific, gaps)] for name, gaps in read.items()]),
        "one-point": table(head, [spectrum_row(name, result) for name, result in one_point.items()]),
        "minima": table([*head, "length of W", "of b", "held-out accuracy", "gradient left"],
                        [[*spectrum_row(name, r), f"{r['length of W']:.3f}", f"{r['length of b']:.3f}",
                          f"{100 * r['accuracy']:.1f} %", scientific(r["gradient"])] for name, r in minima.items()]),
    }, {"spectra": draw(one_point)})


if __name__ == "__main__":
    run(main)
