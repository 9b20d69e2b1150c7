"""demo: two nets on handwritten digits, from training to figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from hessmx import figures, files
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.cli.common import write
from hessmx.curvature import Curvature
from hessmx.errors import HessmxError
from hessmx.problem.losses import by_name
from hessmx.results import between
from hessmx.trust.check import check
from hessmx.uses import landscape

NETS: dict[str, dict[str, Any]] = {
    "maxout": dict(sizes=(64, 32, 32, 10), activation="maxout", pieces=3),
    "dense": dict(sizes=(64, 64, 32, 10), activation="tanh"),
}
REQUIRED = 0.95
TEST, BATCH, EPOCHS, RATE, DECAY = 450, 32, 40, 2e-3, 1e-3


@click.command()
@click.option("--out", default="hessmx-demo", show_default=True, metavar="DIR", help="Folder for results.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of every random number.")
def demo(out: str, seed: int) -> int:
    """Train a Maxout and a dense net on handwritten digits and show how curved their losses are."""
    folder = Path(out)
    train, test = _digits(seed)
    for name, (x, y) in {"digits": train, "held-out": test}.items():
        with files.replacing(folder / f"{name}.npz") as file:
            np.savez_compressed(file, x=x, y=y)
    rows = [_row(name, folder, train, test, seed) for name in NETS]
    click.echo("\n" + _table(rows))
    click.echo(f"\nFigures and numbers are in {folder}/. Ask further questions of the saved nets:\n"
               f"  hessmx spectrum --net {folder}/dense-symbol.json --params {folder}/dense-0000.params "
               f"--data {folder}/digits.npz --loss softmax-ce\n"
               f"  hessmx influence --net {folder}/maxout-symbol.json --params {folder}/maxout-0000.params "
               f"--data {folder}/digits.npz --loss softmax-ce --weight-decay {DECAY} --test {folder}/held-out.npz")
    poor = [row["net"] for row in rows if row["accuracy"] < REQUIRED]
    if poor:
        click.echo(f"hessmx: accuracy below {REQUIRED} on held-out digits: {', '.join(poor)}", err=True)
    return 1 if poor else 0


def _digits(seed: int) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels from 0 to 1: to train on, and held out."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise HessmxError("the demo needs scikit-learn for its digits: run 'pip install scikit-learn'") from error
    digits = load_digits()
    x, y = (digits.data / 16).astype(np.float32), digits.target.astype(np.float32)
    order = np.random.default_rng(seed).permutation(len(x))
    return (x[order[TEST:]], y[order[TEST:]]), (x[order[:TEST]], y[order[:TEST]])


def _train(name: str, train: tuple[np.ndarray, np.ndarray], seed: int) -> Any:
    mx.random.seed(seed)
    net = dense_net(**NETS[name])
    net.initialize(mx.init.Xavier())
    net.hybridize()
    loss = by_name("softmax-ce")
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": RATE, "wd": DECAY})
    data, generator = [mx.nd.array(a) for a in train], np.random.default_rng(seed)
    for epoch in range(EPOCHS):
        trainer.set_learning_rate(RATE * (1 - epoch / EPOCHS))
        order = generator.permutation(len(train[0]))
        for start in range(0, len(order), BATCH):
            chosen = mx.nd.array(order[start : start + BATCH])
            x, y = (mx.nd.take(a, chosen) for a in data)
            with mx.autograd.record():
                losses = loss(net(x), y)
            losses.backward()
            trainer.step(len(losses))
    return net


def _row(name: str, folder: Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray],
         seed: int) -> dict[str, Any]:
    """Train, save, and ask the saved net everything; writes its results and figures."""
    click.echo(f"training the {name} net and measuring its curvature ...")
    net = _train(name, train, seed)
    accuracy = float(np.mean(net(mx.nd.array(test[0])).asnumpy().argmax(axis=1) == test[1]))
    net.export(str(folder / name))
    saved = files.load_net(folder / f"{name}-symbol.json", folder / f"{name}-0000.params")
    curv = Curvature(saved, by_name("softmax-ce"), train, seed=seed, progress=True)
    top, bottom = curv.eigenpairs(10), curv.eigenpairs(1, "SA")
    trace, spectrum = curv.trace(), curv.spectrum()
    line = landscape.line(curv, top.vectors[:, 0], label="the top eigenvector")
    verdict = check(curv, seed=seed)
    write(folder, f"{name}-eigen", top, figures.eigenvalues(top))
    write(folder, f"{name}-trace", trace, figures.estimate(trace))
    write(folder, f"{name}-spectrum", spectrum, figures.spectrum(spectrum))
    write(folder, f"{name}-line", line, figures.line(line))
    write(folder, f"{name}-check", verdict)
    return {"net": name, "curv": curv, "accuracy": accuracy, "top": top, "bottom": bottom, "trace": trace,
            "spectrum": spectrum, "verdict": verdict}


def _table(rows: list[dict[str, Any]]) -> str:
    """One column per net."""
    lines = {
        "": lambda r: f"{r['net']} net",
        "parameters": lambda r: f"{r['curv'].num_params:,}",
        "accuracy on held-out digits": lambda r: f"{r['accuracy']:.3f}",
        "training loss": lambda r: f"{r['curv'].loss():.4f}",
        "largest eigenvalue (± residual)": lambda r: f"{r['top'].values[0]:.4f} ± {r['top'].residuals[0]:.0e}",
        "10th largest": lambda r: f"{r['top'].values[-1]:.4f} ± {r['top'].residuals[-1]:.0e}",
        "smallest eigenvalue": lambda r: f"{r['bottom'].values[0]:.4f} ± {r['bottom'].residuals[0]:.0e}",
        "trace (± standard error)": lambda r: f"{r['trace'].value:.2f} ± {r['trace'].stderr:.2f}",
        "negative eigenvalues": lambda r: between(r["spectrum"].shares()["negative"]),
        "gradient descent is stable up to rate": lambda r: f"{2 / r['top'].values[0]:.3f}",
        "products against float64 differences": lambda r: f"{r['verdict'].difference:.0e} apart",
        "numbers can be trusted": lambda r: "yes" if r["verdict"].trusted else "NO",
    }
    return "\n".join(f"{name:38}" + "".join(f"{cell(row):>20}" for row in rows) for name, cell in lines.items())
