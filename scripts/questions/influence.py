"""Which training samples made the net what it is (docs/questions/influence.md)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
from common import Curvature, Figure, array, assign, digits, minimise, mx, publish, run, started, table, train
from scipy import linalg, optimize

from hessmx.blocks import dense_net
from hessmx.operators.samples import per_sample_losses
from hessmx.uses.influence import Influence, influence, self_influence

LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()
BLUE, RED, GREY = "#1f5a96", "#b3262e", "#8a8a8a"
DECAY, PLANTED = 0.01, 0.05
SHARES = (0.0, 0.01, 0.1, 1.0, 10.0)  # of the mean eigenvalue, as damping


# ---- leaving out, and training again

def softmax_regression(x: np.ndarray, y: np.ndarray) -> tuple[Any, Callable[[int], np.ndarray]]:
    """The net at its minimum, and the minimum without sample i, both by NumPy alone.

    Newton's method with one factorised Hessian (of all samples): a step shrinks the error by about a sample's leverage.
    """
    inputs, targets, samples = np.column_stack([x, np.ones(len(x))]), np.eye(10)[y.astype(int)], len(x)

    def gradient(w: np.ndarray, without: int | None) -> np.ndarray:
        scores = inputs @ w
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        rest = p / p.sum(axis=1, keepdims=True) - targets
        if without is not None:
            rest[without] = 0
        return inputs.T @ rest / samples + DECAY * w

    def hessian(w: np.ndarray) -> Any:
        p = np.exp(inputs @ w)
        p /= p.sum(axis=1, keepdims=True)
        size = inputs.shape[1]
        whole = DECAY * np.eye(10 * size).reshape(10, size, 10, size)
        for a in range(10):
            for b in range(10):
                whole[a, :, b] += inputs.T @ (inputs * (p[:, a] * ((a == b) - p[:, b]))[:, None]) / samples
        return linalg.cho_factor(whole.reshape(10 * size, -1))

    def minimum(w: np.ndarray, factor: Any, without: int | None) -> np.ndarray:
        for _ in range(100):
            step = gradient(w, without)
            if np.abs(step).max() < 1e-12:
                return w
            w = w - linalg.cho_solve(factor, step.T.ravel()).reshape(10, -1).T
        raise RuntimeError("Newton's method has not converged")

    w = np.zeros((inputs.shape[1], 10))
    for _ in range(20):
        factor = hessian(w)
        w = w - linalg.cho_solve(factor, gradient(w, None).T.ravel()).reshape(10, -1).T
    w = minimum(w, factor, None)
    net = started(dense_net((x.shape[1], 10), "tanh", dtype="float64"))
    assign(net, flat(w))
    return net, lambda i: flat(minimum(w, factor, i))


def flat(w: np.ndarray) -> np.ndarray:
    """(inputs + 1, outputs) as Gluon's weight and bias."""
    return np.concatenate([w[:-1].T.ravel(), w[-1]])


def tanh_net(x: np.ndarray, y: np.ndarray, hidden: int, steps: int) -> tuple[Any, Callable[[int], np.ndarray]]:
    """A net at a minimum of the penalised loss, and the minimum nearby without sample i: descent goes on from there."""
    net = train(started(dense_net((x.shape[1], hidden, 10), "tanh", dtype="float64")), x, y, 10, 5e-3)
    curv = Curvature(net, LOSS, (x, y), weight_decay=DECAY)
    minimise(net, curv, steps, 1e-12)
    centre, lower = curv.parameters(), linalg.cholesky(curv.hessian.to_dense(), lower=True)

    def without(i: int) -> np.ndarray:
        """By L-BFGS, in coordinates in which the Hessian is the identity."""
        sample = Curvature(net, LOSS, (x[i : i + 1], y[i : i + 1]))

        def objective(u: np.ndarray) -> tuple[float, np.ndarray]:
            w = centre + linalg.solve_triangular(lower, u, lower=True, trans=1)
            slope = curv.gradient(at=w) - sample.gradient(at=w) / len(x)
            return curv.loss(at=w) - sample.loss(at=w) / len(x), linalg.solve_triangular(lower, slope, lower=True)

        found = optimize.minimize(objective, np.zeros(len(centre)), jac=True, method="L-BFGS-B",
                                  options={"gtol": 1e-8, "ftol": 0, "maxiter": 300})
        return centre + linalg.solve_triangular(lower, found.x, lower=True, trans=1)

    return net, without


def compared(net: Any, without: Callable[[int], np.ndarray], data: tuple, test: tuple, chosen: np.ndarray,
             options: list[dict]) -> dict[str, Any]:
    """Scores of some samples beside the change of the test loss that was measured."""
    curv, measure = Curvature(net, LOSS, data, weight_decay=DECAY), Curvature(net, LOSS, test)
    before = measure.loss()
    measured = np.array([measure.loss(at=without(int(i))) - before for i in chosen])
    found = [influence(curv, test, rtol=1e-8, **choice) for choice in options]
    scores = [f.scores[chosen, 0] for f in found]
    return {"measured": measured, "scores": scores, "gradient": float(np.linalg.norm(curv.gradient())),
            "correlation": [float(np.corrcoef(s, measured)[0, 1]) for s in scores],
            "slope": [float(np.polyfit(s, measured, 1)[0]) for s in scores], "test loss": before,
            "products": [f.products for f in found], "parameters": curv.num_params}


def damped(net: Any, data: tuple, test: tuple, chosen: np.ndarray, measured: np.ndarray) -> dict[str, list[float]]:
    """Correlation and slope with other dampings, the Gauss-Newton matrix with its penalty."""
    curv, found = Curvature(net, LOSS, data, weight_decay=DECAY), {}
    mean = Curvature(net, LOSS, data).trace("hutchinson", matrix="ggn", budget=40).value / curv.num_params
    for share in SHARES:
        scores = influence(curv, test, damping=share * mean, rtol=1e-6).scores[chosen, 0]
        found[f"{share:g}"] = [float(np.corrcoef(scores, measured)[0, 1]), float(np.polyfit(scores, measured, 1)[0])]
    return found


# ---- planted labels

def planted(x: np.ndarray, y: np.ndarray, test: tuple, hidden: int, epochs: int, probes: int) -> dict[str, Any]:
    """A Maxout net trained with some wrong labels, and how well each number finds them."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    rng = np.random.default_rng(1)
    wrong = np.sort(rng.choice(len(x), int(PLANTED * len(x)), replace=False))
    labels = y.copy()
    labels[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
    net = train(started(dense_net((64, hidden, 10), "maxout", pieces=3)), x, labels, epochs, 5e-3, decay=1e-3)
    curv = Curvature(net, LOSS, (x, labels), weight_decay=1e-3)
    own, on_test = self_influence(curv, probes=probes, rtol=1e-2), influence(curv, test)
    marks = np.isin(np.arange(len(x)), wrong)
    ranks = {"loss of the sample": own.losses, "influence on itself": own.values,
             "harm to held-out digits": -on_test.scores[:, 0]}
    return {"auc": {name: area(values, marks) for name, values in ranks.items()},
            "found": {name: float(marks[np.argsort(-values)[: len(wrong)]].mean()) for name, values in ranks.items()},
            "wrong": wrong, "labels": labels, "own": own, "on test": on_test, "ranks": ranks, "marks": marks,
            "error left": float((net(array(x)).asnumpy().argmax(1) != labels).mean())}


def area(values: np.ndarray, marks: np.ndarray) -> float:
    """Area under the receiver's curve: the chance that a marked sample stands above one that is not."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(1, len(values) + 1)
    count = marks.sum()
    return float((ranks[marks].sum() - count * (count + 1) / 2) / (count * (len(marks) - count)))


# ---- cost

def seconds(x: np.ndarray, y: np.ndarray, hidden: int, samples: int) -> dict[str, float]:
    """Seconds of the processor for so many samples (the digits again and again), float32; the better of two runs."""
    x, y = x.astype(np.float32), y.astype(np.float32)
    many = np.resize(np.arange(len(x)), samples)
    net = train(started(dense_net((64, hidden, 10), "maxout", pieces=3)), x, y, 2, 5e-3)
    curv = Curvature(net, LOSS, (x[many], y[many]), weight_decay=1e-3, batch_size=2048)
    v = np.ones(curv.num_params)
    found = {}
    for name, ask in (("gradient", curv.gradient), ("product with the Gauss-Newton matrix", lambda: curv.ggn @ v),
                      ("losses of all samples", lambda: per_sample_losses(curv)),
                      ("scores for one test digit, all of it", lambda: influence(curv, (x[:1], y[:1]), rtol=1e-3))):
        answer, runs = ask(), []  # compiles
        for _ in range(2):
            began = time.process_time()
            answer = ask()
            runs.append(time.process_time() - began)
        found[name] = min(runs)
        if isinstance(answer, Influence):
            found["products of its solve"] = answer.products
    return found


# ---- pictures

def draw_compared(regression: dict, net: dict, looks: list[str]) -> Figure:
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    titles = ("softmax regression", "tanh net at a minimum")
    for ax, result, title, names in zip(figure.subplots(1, 2), (regression, net), titles, (looks[:1], looks)):
        for scores, name, colour in zip(result["scores"], names, (BLUE, RED)):
            ax.plot(scores, result["measured"], "o", markersize=3.5, alpha=0.6, color=colour, label=name)
        ends = [min(map(min, result["scores"])), max(map(max, result["scores"]))]
        ax.plot(ends, ends, color=GREY, linewidth=0.8, label="equal")
        ax.set(title=title, xlabel="score", ylabel="change of the test loss, measured")
        ax.title.set_fontsize("medium")
        ax.ticklabel_format(scilimits=(-2, 3))
        ax.legend(frameon=False, fontsize="small")
    return figure


def draw_planted(found: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(7.4, 3.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    own, marks = found["own"], found["marks"]
    for chosen, colour, name in ((~marks, BLUE, "label as it was"), (marks, RED, "wrong label, planted")):
        left.loglog(own.losses[chosen], own.values[chosen], "o", markersize=2.5, alpha=0.6, color=colour, label=name)
    left.set(xlabel="loss of the sample", ylabel="influence on itself")
    left.legend(frameon=False, fontsize="small")
    checked = np.arange(1, len(marks) + 1) / len(marks)
    for (name, values), colour in zip(found["ranks"].items(), (GREY, BLUE, "#e08214")):
        right.plot(checked, np.cumsum(marks[np.argsort(-values)]) / marks.sum(), color=colour, label=name)
    right.plot([0, PLANTED, 1], [0, 1, 1], color=RED, linewidth=0.8, linestyle=":", label="best possible")
    right.set(xlabel="share of the labels that are looked at again", ylabel="wrong labels found", xlim=(0, 0.4))
    right.legend(frameon=False, fontsize="small")
    return figure


def draw_digits(found: Influence, data: tuple, test: tuple, picture: int, column: int) -> Figure:
    """A held-out digit, and the training digits that help and harm it most."""
    x, y = data
    rows = (("helped", found.helpful(7, column)), ("did harm", found.harmful(7, column)))
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    axes = figure.subplots(2, 8)
    for line, (name, chosen) in zip(axes, rows):
        line[0].set_axis_off()
        for ax, i in zip(line[1:], chosen):
            ax.imshow(x[i].reshape(8, 8), cmap="Greys")
            ax.set_title(f"{int(y[i])}: {found.scores[i, column]:.1g}", fontsize="x-small")
        line[1].set_ylabel(name, fontsize="small")
    axes[0, 0].set_axis_on()
    axes[0, 0].imshow(test[0][picture].reshape(8, 8), cmap="Greys")
    axes[0, 0].set_title(f"test digit, a {int(test[1][picture])}", fontsize="x-small")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


# ---- all of it

def main(short: bool, out: Path) -> None:
    x, y, *test = digits()
    count, left_out, hidden, steps, epochs, probes, samples = (
        (150, 6, 2, 300, 8, 4, 500) if short else (len(x), 150, 8, 20000, 40, 64, 10_000))
    data, test_data = (x[:count], y[:count]), (test[0], test[1])
    chosen = np.sort(np.random.default_rng(0).choice(count, left_out, replace=False))
    regression = compared(*softmax_regression(*data), data, test_data, chosen, [{}])
    net, without = tanh_net(*data, hidden, steps)
    curved = compared(net, without, data, test_data, chosen, [dict(matrix="hessian", damping=0.0), {}])
    damping = damped(net, data, test_data, chosen, curved["measured"])
    labels = planted(*data, test_data, 4 if short else 32, epochs, probes)
    cost = seconds(*data, 4 if short else 32, samples)
    one = int(np.argmax(per_sample_losses(Curvature(net, LOSS, test_data))))
    alone = influence(Curvature(net, LOSS, data, weight_decay=DECAY), tuple(a[one : one + 1] for a in test_data))
    rows = [["softmax regression", regression, 0], ["tanh net, Hessian", curved, 0],
            ["tanh net, Gauss-Newton", curved, 1]]
    publish(out, "influence", short, {
        "regression": regression, "net": curved, "damping": damping, "auc": labels["auc"], "found": labels["found"],
        "error left": labels["error left"], "seconds": cost}, {
        "leaving-out": table(
            ["net and matrix", "parameters", "samples left out", "correlation", "slope", "products"],
            [[name, r["parameters"], left_out, f"{r['correlation'][i]:.4f}", f"{r['slope'][i]:.3f}", r["products"][i]]
             for name, r, i in rows]),
        "damping": table(["damping over the mean eigenvalue", "correlation", "slope"],
                         [[share, f"{value[0]:.4f}", f"{value[1]:.3g}"] for share, value in damping.items()]),
        "planted": table(["rank by", "area under the curve", "wrong labels among as many at the top"],
                         [[name, f"{v:.3f}", f"{labels['found'][name]:.0%}"] for name, v in labels["auc"].items()]),
        "cost": table([f"of {samples} samples", "seconds of the processor"],
                      [[name, f"{value:.3g}"] for name, value in cost.items() if "products" not in name]),
    }, {"leaving-out": draw_compared(regression, curved, ["Hessian", "Gauss-Newton"]), "planted": draw_planted(labels),
        "digits": draw_digits(alone, data, test_data, one, 0)})


if __name__ == "__main__":
    run(main)
