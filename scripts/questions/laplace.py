"""A posterior over the parameters: exact where it can be, and better probabilities (docs/questions/laplace.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Curvature, Figure, digits, minimise, mx, publish, run, scientific, started, table, train
from scipy.ndimage import rotate

from hessmx import figures
from hessmx.blocks import dense_net
from hessmx.uses.laplace import laplace
from hessmx.uses.predictions import calibration
from tests.uses import peers

nn, losses = mx.gluon.nn, mx.gluon.loss
STRUCTURES: dict[str, dict[str, Any]] = {"full": {}, "kfac": {}, "ekfac": {}, "low-rank": {"rank": 8}, "last-layer": {}}
ANGLES = (0, 15, 30, 60, 90)


def relative(found: Any, true: np.ndarray) -> float:
    return float(np.abs(np.asarray(found) - true).max() / np.abs(true).max())


def closed_form() -> dict[str, list[float]]:
    """Bayesian linear regression from parameters that are anywhere: errors of mean, covariance, evidence."""
    rng, prior, noise = np.random.default_rng(0), 0.8, 0.4
    x = rng.normal(size=(20, 3))
    y = x @ rng.normal(size=(3, 2)) + 0.4 * rng.normal(size=(20, 2))
    net = started(nn.Dense(2, in_units=3), init=mx.init.Normal(1.0))
    net.cast("float64")
    f = np.concatenate([np.hstack([np.kron(np.eye(2), row), np.eye(2)]) for row in x])
    covariance = np.linalg.inv(f.T @ f / noise**2 + prior * np.eye(8))
    mean = covariance @ f.T @ y.ravel() / noise**2
    spread = f @ f.T / prior + noise**2 * np.eye(40)
    evidence = -0.5 * (y.ravel() @ np.linalg.solve(spread, y.ravel()) + np.linalg.slogdet(2 * np.pi * spread)[1])
    found = {}
    for structure, options in STRUCTURES.items():
        made = laplace(Curvature(net, losses.L2Loss(), (x, y)), structure, prior, noise, recentre=True, **options)
        dense = [made.covariance.times(unit) for unit in np.eye(8)]
        found[structure] = [relative(made.mean, mean), relative(dense, covariance),
                            abs(made.evidence().value / evidence - 1)]
    return found


def stored() -> dict[str, list[float]]:
    """Relative differences from laplace-torch on the dense net of tests/uses/peers.json: evidence, variances."""
    data = json.loads((ROOT / "tests" / "uses" / "peers.json").read_text())
    entry, found = data["nets"]["dense"], {}
    rows = {"all full": ("full", {}), "last_layer full": ("last-layer", {}),
            "all kron": ("kfac", {"biases": "separate"})}
    for likelihood in ("regression", "classification"):
        noise = data["noise"] if likelihood == "regression" else 1.0
        for told, (structure, options) in rows.items():
            curv, expected = peers.curvature("dense", target=likelihood == "regression"), entry[likelihood][told]
            made = laplace(curv, structure, data["prior"], noise, **options)
            variances = made.predict(np.array(entry["test"]).reshape(3, 4)).covariances.ravel()
            found[f"{likelihood}, {structure}"] = [abs(made.evidence().value / expected["evidence"] - 1),
                                                   relative(variances, np.array(expected["variance"]))]
    return found


def regression(short: bool) -> tuple[Figure, dict[str, float]]:
    """Two clouds of points with a gap; prior precision and noise by the evidence, the net trained on between."""
    rng = np.random.default_rng(3)
    x = np.concatenate([rng.uniform(-4, -1, 25), rng.uniform(1, 3, 25)])[:, None]
    y = np.sin(2 * x) + 0.3 * x + 0.15 * rng.normal(size=x.shape)
    net = started(dense_net((1, 4 if short else 24, 1), "tanh", dtype="float64"), init=mx.init.Normal(1.0))
    prior, noise, made = 1.0, 0.3, None
    for _ in range(1 if short else 4):  # the mode moves with the prior: train, fit, train on
        curv = Curvature(net, losses.L2Loss(), (x, y), weight_decay=prior * noise**2 / len(x))
        minimise(net, curv, 20 if short else 3000, 1e-9)
        made = laplace(curv, "full", prior, noise).fit()
        prior, noise = float(made.prior[0]), made.noise
    assert made is not None
    grid = np.linspace(-7, 6, 30 if short else 240)[:, None]
    predicted = made.predict(grid)
    figure = figures.band(grid, predicted, (x, y)).figure
    figure.axes[0].set_ylim(-5, 5)
    variances = np.sqrt(predicted.variances[:, 0] - predicted.noise)
    inside, gap = np.abs(grid[:, 0] - 2).argmin(), np.abs(grid[:, 0]).argmin()
    evidence = made.evidence()
    return figure, {"noise": made.noise, "prior": prior, "to gain": evidence.to_gain,
                    "determined": evidence.effective_params, "parameters": made.mean.size,
                    "at 2": float(variances[inside]), "at 0": float(variances[gap]), "at 6": float(variances[-1])}


def overconfident(short: bool) -> tuple[Any, tuple[np.ndarray, ...]]:
    """A net trained on few digits until it is sure of everything; digits to tune with and to test with."""
    x, y, test, labels = digits(dtype="float32")
    count, tuned, tested = (30, 4, 8) if short else (300, 100, 350)
    net = started(dense_net((64, 4, 10) if short else (64, 64, 64, 10), "relu"))
    train(net, x[:count], y[:count], 2 if short else 300, 1e-2)
    rest = slice(tuned, tuned + tested)
    return net, (x[:count], y[:count], test[:tuned], labels[:tuned], test[rest], labels[rest])


def scores(each: Any, y: np.ndarray) -> list[float]:
    """NLL, ECE, accuracy, mean confidence."""
    tested = calibration(each, y)
    return [tested.nll, tested.ece, tested.accuracy, float(each.probabilities.max(axis=1).mean())]


def structures(curv: Curvature, held: tuple[np.ndarray, ...], short: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Calibration of each structure, its prior precision by the evidence or by the likelihood of held-out digits."""
    tune_x, tune_y, x, y = held
    found: dict[str, Any] = {"net alone": scores(laplace(curv, "last-layer").predict(x, "point"), y)}
    kept = {}
    for structure in ("kfac", "ekfac", "low-rank", "last-layer"):
        options = {"rank": 5 if short else 40} if structure == "low-rank" else {}
        by_evidence = laplace(curv, structure, **options).fit()
        by_digits = by_evidence.tuned(tune_x, tune_y)
        for how, made in (("evidence", by_evidence), ("held-out digits", by_digits)):
            predicted = made.predict(x)
            found[f"{structure}, {how}"] = {
                "evidence": made.evidence().value, "prior": float(made.prior[0]),
                **{link: scores(predicted.linked(link), y) for link in ("probit", "sampled")}}
            kept[f"{structure}, {how}"] = made
    return found, kept


def rotated(posteriors: dict[str, Any], x: np.ndarray, y: np.ndarray, short: bool) -> dict[str, list[list[float]]]:
    """Scores under rotation, of the net alone and of two posteriors."""
    found: dict[str, list[list[float]]] = {name: [] for name in ("net alone", *posteriors)}
    for angle in ANGLES[:: 3 if short else 1]:
        turned = np.stack([rotate(row.reshape(8, 8), angle, reshape=False, order=1).ravel() for row in x])
        for name, posterior in posteriors.items():
            predicted = posterior.predict(turned)
            found[name].append(scores(predicted, y))
        found["net alone"].append(scores(predicted.linked("point"), y))
    return found


def turning(found: dict[str, list[list[float]]], angles: tuple[int, ...]) -> Figure:
    figure = Figure(figsize=(7.6, 3.2), layout="constrained")
    panels = figure.subplots(1, 3)
    for ax, column, label in zip(panels, (0, 1, 3), ("nats per sample", "calibration error", "mean confidence")):
        for (name, rows), colour in zip(found.items(), ("#b3262e", "#1f5a96", "#e08214")):
            ax.plot(angles, np.array(rows)[:, column], "o-", color=colour, markersize=4, label=name)
        ax.set_title(label, loc="left", fontsize="small")
        ax.set_ylim(bottom=0)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize="small")
    panels[2].plot(angles, np.array(found["net alone"])[:, 2], ":", color="black", label="right answers")
    panels[0].set_xlabel("rotation in degrees", fontsize="small")
    figure.legend(*panels[2].get_legend_handles_labels(), frameon=False, fontsize="small", ncols=4,
                  loc="outside lower center")
    return figure


def main(short: bool, out: Path) -> None:
    exact, gaps = closed_form(), stored()
    band, fitted = regression(short)
    net, (x, y, *held) = overconfident(short)
    curv = Curvature(net, losses.SoftmaxCrossEntropyLoss(), (x, y))
    found, made = structures(curv, tuple(held), short)
    told = {"prior by evidence": made["kfac, evidence"], "prior by held-out digits": made["kfac, held-out digits"]}
    turned, angles = rotated(told, *held[2:], short), ANGLES[:: 3 if short else 1]
    predicted = {name: posterior.predict(held[2]) for name, posterior in told.items()}
    predicted = {"net alone": next(iter(predicted.values())).linked("point"), **predicted}
    reliability = figures.reliability({name: calibration(each, held[3]) for name, each in predicted.items()})
    rows = [["net alone", "", "", *(f"{v:.3f}" for v in found["net alone"][:3])]]
    for name, row in list(found.items())[1:]:
        for link in ("probit", "sampled"):
            rows.append([f"{name}, {link}", f"{row['evidence']:.0f}", f"{row['prior']:.3g}",
                         *(f"{v:.3f}" for v in row[link][:3])])
    publish(out, "laplace", short, {"closed form": exact, "laplace-torch": gaps, "regression": fitted, "digits": found,
                                    "rotation": turned}, {
        "closed-form": table(["structure", "mean", "covariance", "evidence"],
                             [[name, *map(scientific, row)] for name, row in exact.items()]),
        "peers": table(["model", "evidence", "variances"],
                       [[name, *map(scientific, row)] for name, row in gaps.items()]),
        "regression": table(["what", "value"], [
            ["noise found (0.15 was used)", f"{fitted['noise']:.3f}"],
            ["parameters determined by the data", f"{fitted['determined']:.1f} of {fitted['parameters']}"],
            ["standard deviation of the function among the data, x = 2", f"{fitted['at 2']:.3f}"],
            ["in the gap, x = 0", f"{fitted['at 0']:.3f}"],
            ["outside, x = 6", f"{fitted['at 6']:.3f}"],
        ]),
        "digits": table(["posterior, prior by, link", "log evidence", "prior precision", "nats per sample", "ECE",
                         "accuracy"], rows),
        "rotation": table(["rotation", "accuracy", "nats: net alone", "held-out", "evidence", "ECE: net alone",
                           "held-out", "evidence"],
                          [[f"{angle}°", f"{a[2]:.3f}", *(f"{row[0]:.2f}" for row in (a, c, b)),
                            *(f"{row[1]:.3f}" for row in (a, c, b))]
                           for angle, a, b, c in zip(angles, *turned.values())]),
    }, {"band": band, "reliability": reliability.figure, "rotation": turning(turned, angles)})


if __name__ == "__main__":
    run(main)
