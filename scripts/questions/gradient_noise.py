"""Gradients of single samples, and how large a batch is worth it (docs/questions/gradient-noise.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from common import Curvature, Figure, digits, mx, publish, run, started, table, train

from hessmx.blocks import dense_net
from hessmx.figures.canvas import short_log_ticks
from hessmx.operators.samples import weighted_gradient
from hessmx.uses.noise import GradientNoise, SampleGradients, gradient_noise, sample_gradients

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
BLUE, RED, ORANGE, GREY = "#1f5a96", "#b3262e", "#e08214", "#8a8a8a"
SIZES = (1, 4, 16, 64, 256)
RATES = (0.1, 1.0)  # of the best for that size
DECAY = 1e-3


def net_after(epochs: int, x: np.ndarray, y: np.ndarray, hidden: int) -> Any:
    net = started(dense_net((64, hidden, 10), "maxout", pieces=3, dtype="float64"))
    return train(net, x, y, epochs, 5e-3, decay=DECAY) if epochs else net


# ---- predicted and measured steps

def measured(curv: Curvature, rate: float, size: int, draws: int, rng: np.random.Generator) -> tuple[float, float]:
    """Mean change of the objective by a step of SGD on batches drawn with replacement, and its standard error."""
    w, before, count = curv.parameters(), curv.loss(), curv.num_samples
    penalty = curv.gradient() - weighted_gradient(curv, np.full(count, 1 / count))
    changes = []
    for _ in range(draws):
        weights = np.bincount(rng.integers(0, count, size), minlength=count) / size
        changes.append(curv.loss(at=w - rate * (weighted_gradient(curv, weights) + penalty)) - before)
    return float(np.mean(changes)), float(np.std(changes, ddof=1) / np.sqrt(draws))


def steps(curv: Curvature, noise: GradientNoise, draws: int) -> list[dict[str, float]]:
    rng, rows = np.random.default_rng(0), []
    for share in RATES:
        for size in SIZES:
            rate = share * noise.best_rate(size)
            mean, error = measured(curv, rate, size, draws, rng)
            rows.append({"share": share, "batch": size, "rate": rate, "predicted": noise.change(rate, size),
                         "measured": mean, "error": error})
    return rows


# ---- probes and the loop

def estimated(curv: Curvature, exact: GradientNoise, counts: tuple[int, ...]) -> list[dict[str, Any]]:
    rows = [{"how": "loop, exact", "products": exact.products, "critical": exact.critical.value, "critical error": 0.0,
             "simple": exact.simple.value, "simple error": 0.0}]
    for probes in counts:
        found = gradient_noise(curv, probes=probes)
        rows.append({"how": f"{probes} probes", "products": found.products, "critical": found.critical.value,
                     "critical error": found.critical.stderr, "simple": found.simple.value,
                     "simple error": found.simple.stderr})
    return rows


def lengths(curv: Curvature, probes: int) -> tuple[dict[str, Any], SampleGradients]:
    """Lengths of all samples' gradients, exact and drawn."""
    top = curv.eigenpairs(1, matrix="ggn", tol=1e-3).vectors
    found, taken = {}, {}
    for norms in ("loop", "probes"):
        began = time.process_time()
        found[norms] = sample_gradients(curv, top, norms=norms, probes=probes)
        taken[norms] = time.process_time() - began
    exact, drawn = found["loop"], found["probes"]
    inside = (drawn.low <= exact.norms) & (exact.norms <= drawn.high)
    squares = np.sort(exact.norms**2)
    return {
        "seconds of the processor, loop": taken["loop"],
        "seconds of the processor, probes": taken["probes"],
        "intervals of the probes that hold the exact length": float(inside.mean()),
        "correlation of log length and log loss": float(np.corrcoef(np.log(exact.losses), np.log(exact.norms))[0, 1]),
        "length of the mean gradient": exact.mean_norm,
        "median length": float(np.median(exact.norms)),
        "share of the mean square in the tenth longest": float(squares[-len(squares) // 10 :].sum() / squares.sum()),
        "mean size of the cosine with the mean gradient": float(np.abs(exact.mean_cosines).mean()),
        "mean size of the cosine with the top eigenvector": float(np.abs(exact.cosines[:, 0]).mean()),
    }, exact


# ---- pictures

def draw_steps(rows: list[dict[str, float]], noise: GradientNoise) -> Figure:
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    sizes = 2.0 ** np.arange(0, 8.5, 0.25)
    for ax, share in zip(figure.subplots(1, 2), RATES):
        chosen = [row for row in rows if row["share"] == share]
        ax.plot(sizes, [-noise.change(share * noise.best_rate(b), b) for b in sizes], color=BLUE, label="predicted")
        ax.errorbar([r["batch"] for r in chosen], [-r["measured"] for r in chosen], [2 * r["error"] for r in chosen],
                    fmt="o", color=RED, markersize=4, capsize=3, label="measured, ± 2 standard errors")
        ax.axvline(noise.critical.value, color=GREY, linestyle="--", linewidth=0.8, label="critical batch size")
        ax.set_xscale("log", base=2)
        ax.set(xlabel="samples in a batch", ylabel="mean fall of the loss by one step")
        ax.set_title("at the best rate" if share == 1 else f"at {share:g} of the best rate", fontsize="medium")
    ax.legend(frameon=False, fontsize="small")
    return figure


def draw_training(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.5), layout="constrained")
    ax = figure.add_subplot()
    epochs = [row["epochs"] for row in rows]
    shown = (("critical", BLUE, "critical, tr(HS) / g'Hg"), ("simple", ORANGE, "simple, tr(S) / |g|²"))
    for name, colour, label in shown:
        ax.errorbar(epochs, [row[name] for row in rows], [2 * row[f"{name} error"] for row in rows], fmt="o-",
                    color=colour, markersize=4, capsize=3, label=label)
    ax.set_yscale("log")
    ax.set(xlabel="epochs of training", ylabel="samples in a batch")
    ax.legend(frameon=False, fontsize="small")
    return figure


def draw_samples(exact: SampleGradients) -> Figure:
    figure = Figure(figsize=(7.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.loglog(exact.losses, exact.norms, "o", markersize=2.5, alpha=0.5, color=BLUE)
    left.axhline(exact.mean_norm, color=ORANGE, linestyle="--", label="of the mean gradient")
    left.set(xlabel="loss of the sample", ylabel="length of its gradient")
    left.legend(frameon=False, fontsize="small")
    short_log_ticks(left)
    bins = np.linspace(-1, 1, 41)
    right.hist(exact.mean_cosines, bins, color=ORANGE, alpha=0.6, label="the mean gradient")
    right.hist(exact.cosines[:, 0], bins, color=BLUE, alpha=0.6, label="the top eigenvector")
    right.set(xlabel="cosine of a sample's gradient with", ylabel="samples")
    right.legend(frameon=False, fontsize="small")
    return figure


# ---- all of it

def main(short: bool, out: Path) -> None:
    x, y, *_ = digits()
    count, hidden, draws, stages, counts = ((60, 3, 40, (0, 2), (4, 8)) if short
                                            else (len(x), 16, 400, (0, 1, 2, 5, 10, 20, 40), (16, 64, 256)))
    x, y = x[:count], y[:count]
    training = []
    for epochs in stages:
        curv = Curvature(net_after(epochs, x, y, hidden), LOSS, (x, y), weight_decay=DECAY)
        found = gradient_noise(curv, probes=counts[-1])
        training.append({"epochs": epochs, "loss": found.loss, "square": found.square, "trace": found.trace.value,
                         **{name: getattr(found, name).value for name in ("simple", "critical")},
                         **{f"{name} error": getattr(found, name).stderr for name in ("simple", "critical")}})
    curv = Curvature(net_after(2, x, y, hidden), LOSS, (x, y), weight_decay=DECAY)
    exact = gradient_noise(curv, exact=True)
    rows, compared = steps(curv, exact, draws), estimated(curv, exact, counts)
    told, samples = lengths(curv, counts[-1])
    numbers = {"critical": exact.critical.value, "steps": rows, "estimates": compared, "training": training,
               "lengths": told}
    publish(out, "gradient_noise", short, numbers, {
        "steps": table(["rate over the best", "samples in a batch", "predicted change", "measured", "± standard error"],
                       [[f"{r['share']:g}", r["batch"], *(f"{r[k]:.6f}" for k in ("predicted", "measured", "error"))]
                        for r in rows]),
        "estimates": table(["how", "products", "critical batch size", "± standard error", "simple noise scale",
                            "± standard error"],
                           [[r["how"], r["products"], f"{r['critical']:.2f}", f"{r['critical error']:.2f}",
                             f"{r['simple']:.2f}", f"{r['simple error']:.2f}"] for r in compared]),
        "training": table(["epochs", "loss", "square of the gradient", "tr(S)", "simple noise scale",
                           "critical batch size", "± standard error"],
                          [[r["epochs"], f"{r['loss']:.4f}", f"{r['square']:.3g}", f"{r['trace']:.3g}",
                            f"{r['simple']:.4g}", f"{r['critical']:.4g}", f"{r['critical error']:.2g}"]
                           for r in training]),
        "lengths": table(["gradients of single samples", "value"], [[name, f"{v:.3g}"] for name, v in told.items()]),
    }, {"steps": draw_steps(rows, exact), "training": draw_training(training), "samples": draw_samples(samples)})


if __name__ == "__main__":
    run(main)
