"""Maxout by hand and in Gluon, beside other activations, and what its Hessian is made of (docs/questions/maxout.md)."""

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
    mx,
    publish,
    run,
    scientific,
    started,
    table,
    train,
)
from matplotlib.colors import LogNorm

from hessmx import reference
from hessmx.blocks import Maxout, dense_net

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
BLUE, RED, ORANGE, GREY = "#1f5a96", "#b3262e", "#e08214", "#8a8a8a"

# ---- the same training twice

UNITS, PIECES, BATCH = 24, 3, 64
RATE = 0.125  # exact in binary: MXNet's optimizers keep their rate in float32, whatever the net's dtype


def numpy_step(parameters: list[np.ndarray], x: np.ndarray, y: np.ndarray) -> float:
    """One step of gradient descent on a Maxout and a linear layer, in place; the loss before it."""
    weight, bias, last, offset = parameters
    hidden = reference.maxout_layer_forward(x, weight, bias)
    z = hidden @ last.T + offset
    exponentials = np.exp(z - z.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = -np.log(probabilities[rows, y.astype(int)]).mean()
    probabilities[rows, y.astype(int)] -= 1
    dz = probabilities / len(x)
    dweight, dbias, _ = reference.maxout_layer_backward(dz @ last, x, weight, bias)
    for p, dp in zip(parameters, (dweight, dbias, dz.T @ hidden, dz.sum(axis=0))):
        p -= RATE * dp
    return float(loss)


def gluon_step(net: Any, trainer: Any, x: np.ndarray, y: np.ndarray) -> float:
    with mx.autograd.record():
        losses = LOSS(net(array(x)), array(y))
    losses.backward()
    trainer.step(len(x))
    return float(losses.mean().asscalar())


def two_layers(dtype: str) -> Any:
    net = mx.gluon.nn.HybridSequential()
    net.add(Maxout(UNITS, PIECES, in_units=64, dtype=dtype), mx.gluon.nn.Dense(10, in_units=UNITS, dtype=dtype))
    return net


def same_training(steps: int) -> dict[str, np.ndarray]:
    """Loss of every step in NumPy, and in Gluon in both precisions, from one start and on the same batches."""
    x, y, *_ = digits()
    start = [p.data().asnumpy() for p in started(two_layers("float64")).collect_params().values()]
    shapes = [(UNITS, PIECES, 64), (UNITS, PIECES), (10, UNITS), (10,)]
    parameters = [value.reshape(shape).copy() for value, shape in zip(start, shapes)]
    batches = [np.random.default_rng(step).integers(0, len(x), BATCH) for step in range(steps)]
    curves = {"numpy": np.array([numpy_step(parameters, x[chosen], y[chosen]) for chosen in batches])}
    for dtype in ("float64", "float32"):
        net = started(two_layers(dtype))
        for p, value in zip(net.collect_params().values(), start):
            p.set_data(mx.nd.array(value, dtype=dtype))
        trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": RATE})
        typed = x.astype(dtype), y.astype(dtype)
        curves[dtype] = np.array([gluon_step(net, trainer, *(a[chosen] for a in typed)) for chosen in batches])
    return curves


def draw_training(curves: dict[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(7.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curves["numpy"], color=ORANGE, linewidth=4, alpha=0.6, label="NumPy")
    left.plot(curves["float64"], color=BLUE, linewidth=1, label="Gluon")
    left.set(xlabel="step", ylabel="cross-entropy of the batch", ylim=(0, None), title="One start, the same batches")
    for dtype, colour in (("float32", RED), ("float64", BLUE)):
        gap = np.maximum(np.abs(curves[dtype] - curves["numpy"]), 1e-17)
        right.semilogy(gap, ".", markersize=2, color=colour, label=f"Gluon in {dtype}")
    right.set(xlabel="step", title="Gap to NumPy's loss (0 drawn at 1e-17)", ylim=(5e-18, 1e-4))
    right.title.set_fontsize("medium")
    left.title.set_fontsize("medium")
    left.legend(frameon=False, fontsize="small", loc="upper right")
    right.legend(frameon=False, fontsize="small", loc="center right", markerscale=4)
    return figure


# ---- accuracy at equal numbers of parameters

NETS = {
    "Maxout, 5 pieces": dict(sizes=(64, 16, 14, 10), activation="maxout", pieces=5),
    "Maxout, 3 pieces": dict(sizes=(64, 24, 23, 10), activation="maxout", pieces=3),
    "Maxout, 2 pieces": dict(sizes=(64, 32, 32, 10), activation="maxout", pieces=2),
    "relu": dict(sizes=(64, 51, 52, 10), activation="relu"),
    "tanh": dict(sizes=(64, 51, 52, 10), activation="tanh"),
    "sigmoid": dict(sizes=(64, 51, 52, 10), activation="sigmoid"),
}
RATES = (3e-3, 1e-2, 3e-2)


def trained_accuracy(name: str, rate: float, epochs: int, split: tuple, seed: int) -> float:
    x, y, test_x, test_y = split
    net = train(started(dense_net(**NETS[name]), seed), x, y, epochs, rate, seed)
    return accuracy(net, test_x, test_y)


def best_rate(name: str, epochs: int, seeds: range) -> float:
    """The rate with the best accuracy on a part of the training digits; the held-out ones are not looked at."""
    def score(rate: float) -> float:
        found = []
        for seed in seeds:
            x, y, *_ = digits(seed, dtype="float32")
            found.append(trained_accuracy(name, rate, epochs, (x[300:], y[300:], x[:300], y[:300]), 1000 + seed))
        return float(np.mean(found))

    return max(RATES, key=score)


def compare(short: bool) -> dict[str, dict[str, Any]]:
    epochs, seeds, tuning = (1, range(2), range(0)) if short else (30, range(10), range(2))
    found = {}
    for name, options in NETS.items():
        rate = best_rate(name, epochs, tuning) if tuning else RATES[0]
        scores = [trained_accuracy(name, rate, epochs, digits(seed, dtype="float32"), seed) for seed in seeds]
        parameters = sum(int(np.prod(p.shape)) for p in dense_net(**options).collect_params().values())
        found[name] = {"parameters": parameters, "rate": rate, "accuracies": scores}
    return found


def draw_accuracies(found: dict[str, dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    ax = figure.subplots()
    for row, (name, result) in enumerate(found.items()):
        scores = 100 * np.array(result["accuracies"])
        colour = BLUE if name.startswith("Maxout") else ORANGE
        ax.plot(scores, row + np.linspace(-0.18, 0.18, len(scores)), "o", markersize=4, alpha=0.5, color=colour)
        ax.plot([scores.mean()] * 2, [row - 0.35, row + 0.35], color=colour, linewidth=2.5)
    ax.set_yticks(range(len(found)), found)
    ax.invert_yaxis()
    ax.set(xlabel="held-out digits recognised, % (dot: one seed, bar: mean)")
    ax.set_title("About 6,500 parameters each, trained alike", fontsize="medium", loc="left")
    return figure


# ---- what the Hessian is made of

SMALL = {
    "maxout": dict(sizes=(16, 8, 8, 10), activation="maxout", pieces=2),
    "relu": dict(sizes=(16, 12, 12, 10), activation="relu"),
    "tanh": dict(sizes=(16, 12, 12, 10), activation="tanh"),
}


def coarse(x: np.ndarray) -> np.ndarray:
    """Digits of 4 x 4 pixels, each the mean of four: small enough for whole matrices."""
    return x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16)


def layers_of(curv: Curvature) -> list[slice]:
    """Where each layer's weight and bias stand in the parameter vector."""
    slices = list(curv.param_slices.values())
    return [slice(weight.start, bias.stop) for weight, bias in zip(slices[::2], slices[1::2])]


def layer_norms(matrix: np.ndarray, curv: Curvature) -> np.ndarray:
    """Frobenius norm of every block (layer, layer)."""
    return np.array([[np.linalg.norm(matrix[a, b]) for b in layers_of(curv)] for a in layers_of(curv)])


def measured(curv: Curvature) -> dict[str, Any]:
    residual, ggn = curv.residual.to_dense(), curv.ggn.to_dense()
    values = np.linalg.eigvalsh(residual + ggn)
    return {
        "loss": curv.loss(),
        "ggn": layer_norms(ggn, curv),
        "residual": layer_norms(residual, curv),
        "smallest": values[0],
        "largest": values[-1],
        "matrix": residual,
        "layers": layers_of(curv),
    }


def hessians(short: bool) -> tuple[dict, dict[str, Curvature]]:
    x, y, *_ = digits()
    samples, epochs = (60, 3) if short else (1347, 40)
    data = coarse(x)[:samples], y[:samples]
    found, curvatures = {}, {}
    for name, options in SMALL.items():
        hidden = (4, 4) if short else options["sizes"][1:-1]
        net = started(dense_net(**{**options, "sizes": (16, *hidden, 10)}, dtype="float64"))
        curvatures[name] = Curvature(net, LOSS, data)
        found[name, "start"] = measured(curvatures[name])
        train(net, *data, epochs, 5e-3)
        found[name, "trained"] = measured(curvatures[name])
    return found, curvatures


def draw_residuals(found: dict) -> Figure:
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    for ax, name in zip(axes, ("maxout", "tanh")):
        matrix = np.abs(found[name, "trained"]["matrix"])
        image = ax.imshow(np.maximum(matrix, 1e-12), norm=LogNorm(1e-5, 1e-2), cmap="Blues", interpolation="nearest")
        layers = found[name, "trained"]["layers"]
        for layer in layers[1:]:
            ax.axhline(layer.start - 0.5, color=RED, linewidth=0.8)
            ax.axvline(layer.start - 0.5, color=RED, linewidth=0.8)
        middles, names = [(layer.start + layer.stop) / 2 for layer in layers], ["layer 1", "layer 2", "layer 3"]
        ax.set_xticks(middles, names, fontsize="small")
        ax.set_yticks(middles, names, fontsize="small", rotation=90, va="center")
        ax.tick_params(length=0)
        ax.set_title(f"{name} net: |H − G|, entry by entry", fontsize="medium")
    figure.colorbar(image, ax=axes, shrink=0.8, extend="both")
    return figure


# ---- the kinks

STEPS = 10.0 ** np.arange(-6, 0.01, 0.5)


def kinks(curvatures: dict[str, Curvature], directions: int) -> dict[str, np.ndarray]:
    """Second difference of the loss along random unit directions over v'Hv, less 1: mean size for every step."""
    found = {}
    for name, curv in curvatures.items():
        w, loss = curv.parameters(), curv.loss()
        errors = []
        for seed in range(directions):
            v = np.random.default_rng(seed).normal(size=w.size)
            v /= np.linalg.norm(v)
            exact = v @ curv.hvp(v)
            second = [(curv.loss(at=w + h * v) - 2 * loss + curv.loss(at=w - h * v)) / h**2 for h in STEPS]
            errors.append(np.abs(np.array(second) / exact - 1))
        found[name] = np.median(errors, axis=0)
    return found


def draw_kinks(found: dict[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    for (name, errors), colour in zip(found.items(), (BLUE, ORANGE, GREY)):
        ax.loglog(STEPS, errors, "o-", markersize=4, color=colour, label=name)
    ax.set(xlabel="step h along a random unit direction v", ylabel="relative difference", ylim=(1e-9, 3))
    ax.set_title("(L(w + hv) − 2L(w) + L(w − hv)) / h² against v'Hv", fontsize="medium", loc="left")
    ax.text(2e-6, 2e-7, "rounding of\nthe loss", color=GREY, fontsize="small", ha="center")
    ax.text(2e-1, 3e-1, "kinks are crossed", color=BLUE, fontsize="small", ha="center")
    ax.text(3e-2, 2e-7, "smooth: error falls as h²", color=GREY, fontsize="small")
    ax.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


# ---- all of it

def main(short: bool, out: Path) -> None:
    curves = same_training(20 if short else 400)
    gaps = {dtype: float(np.abs(curves[dtype] - curves["numpy"]).max()) for dtype in ("float64", "float32")}
    scores = compare(short)
    matrices, curvatures = hessians(short)
    bends = kinks(curvatures, 2 if short else 20)
    tables = {
        "training": table(["Gluon in", "steps", "loss of the first batch", "of the last", "largest gap to NumPy"],
                          [[d, len(curves[d]), f"{curves[d][0]:.4f}", f"{curves[d][-1]:.4f}", scientific(gap)]
                           for d, gap in gaps.items()]),
        "accuracy": table(["hidden layers", "parameters", "rate", "accuracy, %", "spread over seeds",
                           "minus relu, same seeds"],
                          [accuracy_row(name, result, scores["relu"]) for name, result in scores.items()]),
        "curvature": table(["net", "loss", "norm of G", "norm of H − G", "its diagonal blocks", "smallest and",
                            "largest eigenvalue of H"],
                           [curvature_row(*key, result) for key, result in matrices.items()]),
        "blocks": table(["H − G, maxout", "layer 1", "layer 2", "layer 3"],
                        [[f"layer {i + 1}", *(f"{norm:.4f}" if norm else "0" for norm in row)]
                         for i, row in enumerate(matrices["maxout", "trained"]["residual"])]),
        "kinks": table(["h", *bends], [[scientific(h), *(scientific(bends[name][i], 1) for name in bends)]
                                       for i, h in enumerate(STEPS) if i % 2 == 0]),
    }
    numbers = {
        "training": {"loss": curves, "largest difference": gaps},
        "accuracy": scores,
        "curvature": {" ".join(key): {k: v for k, v in result.items() if k not in ("matrix", "layers")}
                      for key, result in matrices.items()},
        "kinks": {"steps": STEPS, **bends},
    }
    figures = {"training": draw_training(curves), "accuracy": draw_accuracies(scores),
               "residual": draw_residuals(matrices), "kinks": draw_kinks(bends)}
    publish(out, "maxout", short, numbers, tables, figures)


def accuracy_row(name: str, result: dict[str, Any], relu: dict[str, Any]) -> list[str]:
    scores = 100 * np.array(result["accuracies"])
    more = scores - 100 * np.array(relu["accuracies"])
    error = more.std(ddof=1) / len(more) ** 0.5
    return [name, f"{result['parameters']:,}", scientific(result["rate"]), f"{scores.mean():.2f}",
            f"± {scores.std(ddof=1):.2f}", "" if result is relu else f"{more.mean():+.2f} ± {error:.2f}"]


def curvature_row(name: str, when: str, result: dict[str, Any]) -> list[str]:
    residual = result["residual"]
    return [f"{name}, {when}", f"{result['loss']:.3f}", f"{np.linalg.norm(result['ggn']):.3f}",
            f"{np.linalg.norm(residual):.4f}", scientific(float(np.linalg.norm(np.diag(residual))), 1),
            f"{result['smallest']:.4f}", f"{result['largest']:.3f}"]


if __name__ == "__main__":
    run(main)
