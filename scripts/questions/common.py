"""What the scripts behind docs/questions share.

    python scripts/questions/maxout.py [--short] [--out DIR]

Every script has main(short, out) and ends with `publish`, which writes into `out`, a tree like docs/ (the default):

    questions/NAME.json              {"short", "numbers", "tables": {title: {"head": [...], "rows": [[...]]}}}
    images/questions/NAME-FIGURE.png
    questions/NAME.md                where it stands: each table between <!-- table: TITLE --> and <!-- end -->

--short is what the tests run: the same code in seconds, so its numbers are rough.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any, Callable

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402
from scipy.optimize import minimize  # noqa: E402

from hessmx import Curvature  # noqa: E402
from hessmx._mxnet import mx  # noqa: E402

Table = dict[str, list]
TABLE = re.compile(r"(<!-- table: (?P<title>[\w-]+) -->\n)(?P<body>.*?)(<!-- end -->)", re.DOTALL)
NUMBERS = re.compile(r"\[[-+.e\d,\s]+\]")  # a list of numbers: written on one line
DPI = 110  # small files; legible at the width of a page


def run(main: Callable[[bool, Path], None]) -> None:
    """The command line of a script."""
    parser = argparse.ArgumentParser(description=sys.modules[main.__module__].__doc__)
    parser.add_argument("--short", action="store_true", help="rough numbers in seconds")
    parser.add_argument("--out", type=Path, default=None, help="folder for results (default: docs, not with --short)")
    options = parser.parse_args()
    if options.short and options.out is None:
        parser.error("--short writes rough numbers: say where with --out DIR")
    main(options.short, options.out or ROOT / "docs")


def publish(out: Path, name: str, short: bool, numbers: dict[str, Any], tables: dict[str, Table],
            figures: dict[str, Figure]) -> None:
    """Write what a script found, and its tables into the page if there is one."""
    questions, images = out / "questions", out / "images" / "questions"
    for folder in (questions, images):
        folder.mkdir(parents=True, exist_ok=True)
    page = name.replace("_", "-")
    found = {"short": short, "numbers": numbers, "tables": tables}
    text = json.dumps(found, indent=1, default=_plain, allow_nan=False)
    (questions / f"{page}.json").write_text(NUMBERS.sub(lambda match: " ".join(match[0].split()), text) + "\n")
    for title, figure in figures.items():
        save_small(figure, images / f"{page}-{title}.png")
    if (questions / f"{page}.md").exists():
        (questions / f"{page}.md").write_text(with_tables((questions / f"{page}.md").read_text(), tables))
    for title, rows in tables.items():
        print(f"\n{title}\n{markdown(rows)}", end="")


def save_small(figure: Figure, path: Path) -> None:
    """A PNG with a palette of 128 colours: a third of the size, and no difference to the eye."""
    figure.savefig(path, dpi=DPI)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True)


def table(head: list[str], rows: list[list[Any]]) -> Table:
    """A table as it will be printed: give numbers their digits before."""
    return {"head": head, "rows": [[str(cell) for cell in row] for row in rows]}


def markdown(rows: Table) -> str:
    lines = [rows["head"], ["---"] + ["---:"] * (len(rows["head"]) - 1), *rows["rows"]]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def with_tables(text: str, tables: dict[str, Table]) -> str:
    """The page's text with each marked table as it is in `tables`."""
    return TABLE.sub(lambda match: match[1] + markdown(tables[match["title"]]) + match[4], text)


def digits(seed: int = 0, held_out: int = 450, dtype: str = "float64") -> tuple[np.ndarray, ...]:
    """scikit-learn's 1797 handwritten digits, pixels from 0 to 1: x, y to train on, x, y held out."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = (data.data / 16).astype(dtype), data.target.astype(dtype)
    order = np.random.default_rng(seed).permutation(len(x))
    train, test = order[held_out:], order[:held_out]
    return x[train], y[train], x[test], y[test]


def started(net: Any, seed: int = 0, init: Any = None) -> Any:
    """The net initialised (Xavier by default) with a seed."""
    mx.random.seed(seed)
    net.initialize(init or mx.init.Xavier(), force_reinit=True)
    return net


def train(net: Any, x: np.ndarray, y: np.ndarray, epochs: int, rate: float, seed: int = 0, batch: int = 64,
          decay: float = 0.0) -> Any:
    """Adam on softmax cross-entropy with a rate that falls to 0."""
    net.hybridize()
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": rate, "wd": decay})
    generator = np.random.default_rng(seed)
    for epoch in range(epochs):
        trainer.set_learning_rate(rate * (1 - epoch / epochs))
        order = generator.permutation(len(x))
        for chosen in np.split(order, range(batch, len(x), batch)):
            with mx.autograd.record():
                losses = loss(net(array(x[chosen])), array(y[chosen]))
            losses.backward()
            trainer.step(len(chosen))
    return net


def array(values: np.ndarray) -> Any:
    """As an NDArray of the same dtype."""
    return mx.nd.array(values, dtype=values.dtype)


def accuracy(net: Any, x: np.ndarray, y: np.ndarray) -> float:
    return float(np.mean(net(array(x)).asnumpy().argmax(axis=1) == y))


def assign(net: Any, values: np.ndarray) -> None:
    """Give the trained parameters of a net the values of a vector (P,)."""
    start = 0
    for p in (p for p in net.collect_params().values() if p.grad_req != "null"):
        size = int(np.prod(p.shape))
        p.set_data(mx.nd.array(values[start : start + size].reshape(p.shape), dtype=p.dtype))
        start += size


def minimise(net: Any, curv: Curvature, steps: int = 500, tolerance: float = 1e-10) -> float:
    """Bring the net to a minimum of curv's objective by SciPy's L-BFGS; the length of the gradient there."""
    return descend(net, lambda w: (curv.loss(at=w), curv.gradient(at=w)), curv.parameters(), steps, tolerance)


def descend(net: Any, value_and_gradient: Callable[[np.ndarray], tuple], start: np.ndarray, steps: int,
            tolerance: float) -> float:
    """L-BFGS on any function of the net's parameters; the length of the gradient where it ended."""
    options = {"maxiter": steps, "maxfun": 2 * steps, "maxcor": 30, "ftol": 0, "gtol": tolerance}
    found = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options)
    assign(net, found.x)
    return float(np.linalg.norm(found.jac))


def scientific(value: float, digits: int = 0) -> str:
    """1.2e-07 as 1e-7; exactly 0 as 0."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def _plain(value: Any) -> Any:
    """What json does not know; eight digits of the numbers in an array."""
    if isinstance(value, np.ndarray):
        return [_plain(row) if row.ndim else float(f"{row:.8g}") for row in value]
    return value.item() if isinstance(value, np.generic) else str(value)
