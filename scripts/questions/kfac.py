"""Where K-FAC is exact, how near it is elsewhere, and what it saves in solves (docs/questions/kfac.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, Curvature, Figure, digits, mx, publish, run, scientific, started, table, train

from hessmx.algorithms.solve import solve
from hessmx.blocks import dense_net
from tests.uses import peers

nn, losses = mx.gluon.nn, mx.gluon.loss
DAMPINGS = (1e-1, 1e-2, 1e-3)  # times the mean eigenvalue
MOST = 3000  # products of a solve
KINDS = {"K-FAC": False, "EK-FAC": True}


def relative(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


class Cells(mx.gluon.HybridBlock):
    """An LSTM cell over the rows of an image, and a dense layer."""

    def __init__(self, steps: int, width: int, units: int, classes: int) -> None:
        super().__init__()
        self.steps, self.units = steps, units
        with self.name_scope():
            self.cell, self.last = mx.gluon.rnn.LSTMCell(units, input_size=width), nn.Dense(classes, in_units=units)

    def hybrid_forward(self, F: Any, x: Any) -> Any:
        image = F.reshape(x, shape=(0, self.steps, -1))
        rows = F.SliceChannel(image, num_outputs=self.steps, axis=1, squeeze_axis=True)
        zero = F.tile(F.zeros_like(F.slice_axis(rows[0], axis=1, begin=0, end=1)), reps=(1, self.units))
        states = [zero, zero]
        for row in rows:
            out, states = self.cell(row, states)
        return self.last(out)


def convolutional(channels: int) -> Any:
    net = nn.HybridSequential()
    net.add(nn.HybridLambda(lambda F, x: F.reshape(x, shape=(0, 1, 8, 8))),
            nn.Conv2D(channels, 3, in_channels=1), nn.BatchNorm(in_channels=channels), nn.Activation("relu"),
            nn.Conv2D(channels, 3, in_channels=channels, activation="relu"), nn.MaxPool2D(2),
            nn.Dense(10, in_units=4 * channels))
    return net


def exact(short: bool) -> dict[str, dict[str, float]]:
    """Relative distance to the diagonal blocks of G, of small float64 nets."""
    rng = np.random.default_rng(0)
    x, target, classes = rng.normal(size=(30, 4)), rng.normal(size=(30, 3)), np.arange(30) % 3
    linear = lambda F, x: F.identity(x)  # noqa: E731
    cases = {
        "one layer, squared loss": (dense_net((4, 3), linear), losses.L2Loss(), (x, target)),
        "three linear layers, squared loss": (dense_net((4, 5, 5, 3), linear), losses.L2Loss(), (x, target)),
        "tanh net, one sample": (dense_net((4, 5, 3), "tanh"), losses.SoftmaxCELoss(), (x[:1], classes[:1])),
        "one layer, cross-entropy": (dense_net((4, 3), linear), losses.SoftmaxCELoss(), (x, classes)),
        "tanh net, cross-entropy": (dense_net((4, 5, 3), "tanh"), losses.SoftmaxCELoss(), (x, classes)),
        "Maxout net, cross-entropy": (dense_net((4, 5, 3), "maxout", 3), losses.SoftmaxCELoss(), (x, classes)),
    }
    found = {}
    for name, (net, loss, data) in cases.items():
        started(net, init=mx.init.Normal(0.7)).cast("float64")
        curv = Curvature(net, loss, data)
        true = curv.block_diagonal(matrix="ggn").to_dense()
        found[name] = {kind: relative(curv.kfac(corrected=corrected).to_dense(), true)
                       for kind, corrected in KINDS.items()}
    return found


def stored() -> dict[str, float]:
    """Largest relative difference of products from curvlinops' on the nets of tests/uses/peers.json."""
    nets = json.loads((ROOT / "tests" / "uses" / "peers.json").read_text())["nets"]
    found = {}
    for name, entry in nets.items():
        curv, v, gaps = peers.curvature(name, batch_size=4), np.array(entry["v"]), []
        for told, expected in entry["kfac"].items():
            matrix, sharing, biases, kind = told.split()
            if (name, sharing, kind) != ("conv", "reduce", "ekfac"):  # its factors are singular: any basis will do
                made = curv.kfac(matrix, sharing, kind == "ekfac", biases)
                gaps.append(relative(made @ v, np.array(expected["product"])))
        found[name] = max(gaps)
    return found


def trained(short: bool) -> dict[str, Curvature]:
    """Nets of several kinds on handwritten digits, float64, small enough for a dense G."""
    x, y, _, _ = digits()
    x, y = (x[:40], y[:40]) if short else (x[:600], y[:600])
    wide, narrow, pieces, channels, units = (3, 2, 1, 2, 2) if short else (16, 8, 6, 4, 8)
    made = {
        "softmax regression 64-10": dense_net((64, 10), dtype="float64"),
        "tanh 64-16-10": dense_net((64, wide, 10), "tanh", dtype="float64"),
        "tanh 64-8-8-8-10": dense_net((64, narrow, narrow, narrow, 10), "tanh", dtype="float64"),
        "Maxout 64-6-10": dense_net((64, pieces, 10), "maxout", pieces=3, dtype="float64"),
        "convolutions, BatchNorm": convolutional(channels),
        "LSTM cell over rows": Cells(8, 8, units, 10),
    }
    loss, found = losses.SoftmaxCrossEntropyLoss(), {}
    for name, net in made.items():
        started(net).cast("float64")
        found[name] = Curvature(train(net, x, y, 1 if short else 20, 3e-3, decay=1e-3), loss, (x, y))
    return found


def measured(curv: Curvature) -> dict[str, Any]:
    """Distances from G and from its diagonal blocks, and products of preconditioned CG."""
    true = curv.ggn.to_dense()
    operators = {kind: curv.kfac(corrected=corrected) for kind, corrected in KINDS.items()}
    blocks = np.zeros_like(true)
    for block in operators["K-FAC"].blocks:
        cut = np.ix_(block.positions.ravel(), block.positions.ravel())
        blocks[cut] = true[cut]
    found: dict[str, Any] = {"blocks": relative(blocks, true)}
    for kind, operator in operators.items():
        dense = operator.to_dense()
        found[kind] = {"whole": relative(dense, true), "blocks": relative(dense, blocks)}
    found["solves"] = [_products(true, blocks, operators, curv.gradient(), factor) for factor in DAMPINGS]
    return found


def _products(true: np.ndarray, blocks: np.ndarray, operators: dict[str, Any], b: np.ndarray,
              factor: float) -> dict[str, int]:
    """Products of CG for (G + damping I) x = b, to 1e-6."""
    eye, damping = np.eye(len(true)), factor * np.trace(true) / len(true)
    helpers = {"alone": None, "diagonal": np.diag(1 / (np.diag(true) + damping)),
               **{kind: operator.inverse(damping) for kind, operator in operators.items()},
               "exact blocks": np.linalg.inv(blocks + damping * eye)}
    found = {}
    for name, helper in helpers.items():
        solution = solve(true, b, damping, rtol=1e-6, preconditioner=helper, max_products=MOST)
        found[name] = solution.products if solution.converged else -solution.products
    return found


def pictured(found: dict[str, dict[str, Any]]) -> Figure:
    """Products over damping, a panel for each net."""
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    styles = {"alone": ("#8a8a8a", "-"), "K-FAC": ("#1f5a96", "-"), "EK-FAC": ("#e08214", "-"),
              "exact blocks": ("k", ":")}
    for ax, (name, row) in zip(panels.flat, found.items()):
        for kind, (colour, style) in styles.items():
            products = [abs(each[kind]) for each in row["solves"]]
            ax.loglog(DAMPINGS, products, style, marker="o", color=colour, markersize=4, label=kind)
        ax.set_title(name, loc="left", fontsize="small")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize="small", which="both")
    panels[0, 0].invert_xaxis()
    panels[0, 0].set_ylabel("products", fontsize="small")
    panels[1, 0].set_xlabel("damping / mean eigenvalue", fontsize="small")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), frameon=False, fontsize="small", ncols=4,
                  loc="outside lower center")
    return figure


def spectra(short: bool) -> tuple[Figure, dict[str, list[float]]]:
    """All eigenvalues of G and of what stands for it, of a net small enough for a dense matrix."""
    x, y, _, _ = digits()
    net = train(started(dense_net((64, 2 if short else 6, 10), "tanh", dtype="float64")), x[:200], y[:200],
                1 if short else 60, 1e-2)
    curv = Curvature(net, losses.SoftmaxCrossEntropyLoss(), (x[:200], y[:200]))
    values = {"G": np.linalg.eigvalsh(curv.ggn.to_dense())[::-1],
              "its diagonal blocks": np.linalg.eigvalsh(curv.block_diagonal(matrix="ggn").to_dense())[::-1],
              **{kind: curv.kfac(corrected=corrected).eigenvalues() for kind, corrected in KINDS.items()}}
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    ax = figure.add_subplot()
    for (name, row), style in zip(values.items(), ("-", ":", "-", "-")):
        colour = {"K-FAC": "#1f5a96", "EK-FAC": "#e08214"}.get(name)
        ax.semilogy(np.arange(1, len(row) + 1), np.maximum(row, 1e-12), style, color=colour or "black", label=name)
    ax.set_ylim(values["G"][0] * 1e-8, values["G"][0] * 2)
    ax.set_xlabel("number of the eigenvalue")
    ax.set_ylabel("eigenvalue")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return figure, {name: [float(row[0]), float(row.sum())] for name, row in values.items()}


def main(short: bool, out: Path) -> None:
    rows, gaps = exact(short), stored()
    nets = trained(short)
    found = {name: measured(curv) for name, curv in nets.items()}
    figure, values = spectra(short)
    publish(out, "kfac", short, {"exact": rows, "curvlinops": gaps, "nets": found, "spectra": values}, {
        "exact": table(["net and loss", *KINDS],
                       [[name, *(scientific(row[kind], 1) for kind in KINDS)] for name, row in rows.items()]),
        "curvlinops": table(["net", "largest relative difference"],
                            [[name, scientific(gap)] for name, gap in gaps.items()]),
        "near": table(["net", "parameters", "its blocks from G", "K-FAC from G", "from the blocks", "EK-FAC from G",
                       "from the blocks"],
                      [[name, f"{nets[name].num_params:,}", percent(row["blocks"]),
                        *(percent(row[kind][of]) for kind in KINDS for of in ("whole", "blocks"))]
                       for name, row in found.items()]),
        "solves": table(["net", "damping / mean eigenvalue", "CG alone", "G's diagonal", *KINDS, "exact blocks"],
                        [[name, f"{factor:g}", *map(told, each.values())]
                         for name, row in found.items() for factor, each in zip(DAMPINGS, row["solves"])]),
    }, {"solves": pictured(found), "spectra": figure})


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def told(products: int) -> str:
    return str(products) if products > 0 else f"not in {MOST}"


if __name__ == "__main__":
    run(main)
