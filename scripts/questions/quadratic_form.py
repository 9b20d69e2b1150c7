"""What f(x) = x'A(x)x says about A, and what it leaves open (docs/questions/quadratic-form.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
from common import Curvature, Figure, array, assign, descend, minimise, mx, publish, run, scientific, started, table

from hessmx import inputs
from hessmx.blocks import QuadraticForm, dense_net

LOSS = mx.gluon.loss.L2Loss()
BLUE, RED, ORANGE, GREY = "#1f5a96", "#b3262e", "#e08214", "#8a8a8a"
ZERO = 1e-9  # of the largest eigenvalue: below are directions in which nothing changes
EXACT = 1e-20  # mean squared error of a fit that is right to rounding


def relative(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def value(matrices: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x'Ax, sample by sample."""
    return np.einsum("ni,nij,nj->n", x, matrices, x)


def fitted(form: Any, x: np.ndarray, y: np.ndarray, steps: int, seed: int = 0,
           loss: Callable = LOSS) -> tuple[Any, Curvature]:
    """The form at a minimum of the mean squared error, or of another loss."""
    started(form, seed, mx.init.Normal(0.5))
    curv = Curvature(form, loss, (x, y), batch_size=len(x))
    minimise(form, curv, steps, 1e-13)
    return form, curv


# ---- constant A: the freedoms are counted by the Hessian

CONSTANT = [(2, "full", None), (3, "full", None), (4, "full", None), (5, "full", None), (4, "low-rank", 2),
            (4, "cholesky", None)]


def freedoms(dim: int, factor: str, rank: int | None, starts: int) -> dict[str, Any]:
    """Fit a constant factor from several starts; where one got to the exact fit: Hessian, errors of B and of A."""
    rng = np.random.default_rng(dim)
    true = rng.normal(size=(rank or dim, dim))
    x = rng.normal(size=(200, dim))
    matrix = true.T @ true
    y = value(np.repeat(matrix[None], len(x), axis=0), x)
    fits = [fitted(QuadraticForm(dim, (), factor, rank, dtype="float64"), x, y, 400, seed) for seed in range(starts)]
    losses = [curv.loss() for _, curv in fits]
    form, curv = fits[int(np.argmin(losses))]
    eigenvalues = np.linalg.eigvalsh(curv.hessian.to_dense())
    if factor == "cholesky":
        true = np.linalg.cholesky(matrix).T
    found = form.factor(array(x[:1])).asnumpy()[0]
    left, _, right = np.linalg.svd(true @ found.T)
    rows = rank or dim
    return {
        "exact fits": f"{sum(loss < EXACT for loss in losses)} of {starts}",
        "smallest diagonal of the others": [float(np.abs(np.diag(fit.factor(array(x[:1])).asnumpy()[0])).min())
                                            for (fit, _), loss in zip(fits, losses) if loss >= EXACT],
        "eigenvalues": eigenvalues,
        "zeros": int((np.abs(eigenvalues) < ZERO * eigenvalues[-1]).sum()),
        "rotations": 0 if factor == "cholesky" else rows * (rows - 1) // 2,
        "error of B": relative(found, true),
        "error of B, best rotation": relative(left @ right @ found, true),
        "error of A": relative(found.T @ found, matrix),
    }


def freedom_row(dim: int, factor: str, rank: int | None, found: dict[str, Any]) -> list[str]:
    values, zeros = found["eigenvalues"], found["zeros"]
    name = f"{factor}, rank {rank}" if rank else factor
    gap = f"{scientific(float(np.abs(values[:zeros]).max()))}" if zeros else "none"
    return [f"{name}, n = {dim}", len(values), found["rotations"], zeros, gap, scientific(float(values[zeros])),
            found["exact fits"], f"{100 * found['error of B']:.0f} %", scientific(found["error of B, best rotation"]),
            scientific(found["error of A"])]


def draw_freedoms(found: dict[str, dict]) -> Figure:
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    ax = figure.subplots()
    styles = {"full": ("o", BLUE, "B full, 4 × 4: 16 numbers"),
              "cholesky": ("s", ORANGE, "B = L', Cholesky: 10 numbers")}
    for factor, (mark, colour, label) in styles.items():
        values = np.maximum(np.abs(found[factor]["eigenvalues"]), 1e-19)[::-1]
        ax.semilogy(np.arange(1, len(values) + 1), values, mark, color=colour, label=label)
    ax.axvspan(10.5, 16.5, color=BLUE, alpha=0.08)
    ax.text(13.5, 1e-5, "6 rotations of B\nleave f as it is", ha="center", color=BLUE, fontsize="small")
    ax.set(xlabel="eigenvalue of the Hessian, from the largest", ylabel="size", ylim=(1e-20, 1e4))
    ax.set_title("n = 4, A constant, both fits exact to rounding", fontsize="medium", loc="left")
    ax.legend(frameon=False, fontsize="small", loc="lower left")
    return figure


# ---- A depends on x

DIM = 3
ROWS, COLUMNS = np.tril_indices(DIM)


class Truth:
    """A(x) = L L' with L = L0 + sum_k tanh(c_k . features(x)) M_k, all drawn with one seed."""

    def __init__(self, features: Callable[[np.ndarray], np.ndarray] | None):
        rng = np.random.default_rng(5)
        self.features = features
        self.start = np.eye(DIM) + 0.5 * np.tril(rng.normal(size=(DIM, DIM)))
        self.moves = 0.4 * np.tril(rng.normal(size=(3, DIM, DIM)))
        self.directions = rng.normal(size=(3, DIM))

    def matrix(self, x: np.ndarray) -> np.ndarray:
        lower = np.repeat(self.start[None], len(x), axis=0)
        if self.features is not None:
            what = self.features(x)
            lower = lower + np.tensordot(np.tanh(what @ self.directions[:, : what.shape[1]].T), self.moves, 1)
        return lower @ lower.transpose(0, 2, 1)


TRUTHS = {
    "constant": Truth(None),
    "of x1": Truth(lambda x: 2 * x[:, :1]),
    "of ‖x‖": Truth(lambda x: 2 * (x * x).sum(axis=1, keepdims=True)),
    "of x": Truth(lambda x: x),
}


def sees(features: Callable, hidden: int = 16, factor: str = "cholesky") -> Any:
    """A form whose A depends on x only through features(F, x), one number a sample."""
    form = QuadraticForm(DIM, (hidden,), factor, dtype="float64")
    net = mx.gluon.nn.HybridSequential()
    entries = DIM * (DIM + 1) // 2 if factor == "cholesky" else DIM * DIM
    net.add(mx.gluon.nn.HybridLambda(features), dense_net((1, hidden, entries), "tanh", dtype="float64"))
    form.entries = net
    return form


FORMS = {
    "constant": lambda: QuadraticForm(DIM, (), "cholesky", dtype="float64"),
    "of x1": lambda: sees(lambda F, x: F.slice_axis(x, axis=1, begin=0, end=1)),
    "of ‖x‖": lambda: sees(lambda F, x: F.sum(F.square(x), axis=1, keepdims=True)),
    "of x, Cholesky": lambda: QuadraticForm(DIM, (16,), "cholesky", dtype="float64"),
    "of x, full": lambda: QuadraticForm(DIM, (16,), "full", dtype="float64"),
}

# what A is, what the net lets it be, and whether f determines it
CASES = [("constant", "constant", "yes"), ("of x1", "of x1", "yes"), ("of ‖x‖", "of ‖x‖", "yes"),
         ("constant", "of x, Cholesky", "A(0) only"), ("of x", "of x, Cholesky", "A(0) only"),
         ("of x", "of x, full", "A(0) only")]


def points(count: int, seed: int) -> np.ndarray:
    """All directions and all distances from 0.1 to 1.5 alike."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, DIM))
    return x / np.linalg.norm(x, axis=1, keepdims=True) * rng.uniform(0.1, 1.5, size=(count, 1))


def per_length(z: Any, label: Any) -> Any:
    """Squared error of f / |x|^2, so that points near 0 count as much as others; label (N, 2): y and 1 / |x|^2."""
    target, scale = (mx.nd.slice_axis(label, axis=1, begin=i, end=i + 1).reshape((-1,)) for i in (0, 1))
    return mx.nd.square((z - target) * scale)


def learnt(model: str, truth: Truth, x: np.ndarray, steps: int, seed: int = 0) -> Any:
    label = np.stack([value(truth.matrix(x), x), 1 / (x * x).sum(axis=1)], axis=1)
    return fitted(FORMS[model](), x, label, steps, seed, per_length)[0]


def errors(form: Any, truth: Truth) -> dict[str, float]:
    x = points(1000, 99)
    origin = np.zeros((1, DIM))
    matrix = form.matrix(array(x)).asnumpy()
    start = form.matrix(array(origin)).asnumpy()[0]
    return {
        "f": relative(form(array(x)).asnumpy(), value(truth.matrix(x), x)),
        "A(0)": relative(start, truth.matrix(origin)[0]),
        "A(x)": relative(matrix, truth.matrix(x)),
    }


def draw_seeds(truth: Truth, forms: list[Any]) -> Figure:
    """f and an entry of A along a line through 0, for nets from different starts."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    t = np.linspace(-1, 1, 81)
    x = t[:, None] * np.array([[0.6, -0.5, 0.6]])
    true = truth.matrix(x)
    left.plot(t, value(true, x), color=GREY, linewidth=5, alpha=0.5, label="truth")
    right.plot(t, true[:, 0, 0], color=GREY, linewidth=5, alpha=0.5)
    for i, (form, colour) in enumerate(zip(forms, (BLUE, RED, ORANGE, "#2a7f3f"))):
        left.plot(t, form(array(x)).asnumpy(), color=colour, linewidth=1.2, label=f"net, start {i + 1}")
        right.plot(t, form.matrix(array(x)).asnumpy()[:, 0, 0], color=colour, linewidth=1.2)
    left.set(xlabel="t", title="f(td): one curve for all")
    right.set(xlabel="t", title="First entry of A(td): they meet at 0 only")
    right.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
    left.legend(frameon=False, fontsize="small")
    return figure


# ---- the origin

def origin(form: Any) -> dict[str, float]:
    """Hessian of f with respect to x against 2 A(x), at several distances from 0."""
    direction = np.array([0.6, -0.5, 0.6]) / np.linalg.norm([0.6, -0.5, 0.6])
    found = {}
    for distance in (0.0, 0.01, 0.1, 1.0):
        x = distance * direction[None]
        found[f"{distance:g}"] = relative(inputs.hessian(form, x)[0], 2 * form.matrix(array(x)).asnumpy()[0])
    return found


# ---- gradients of f as further data

def gradient_of(truth: Truth, x: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """Central differences of the true f, (N, dim): good to 1e-10."""
    sides = [[value(truth.matrix(x + s * e), x + s * e) for s in (step, -step)] for e in np.eye(DIM)]
    return np.array([(up - down) / (2 * step) for up, down in sides]).T


def fitted_with_gradients(x: np.ndarray, y: np.ndarray, slopes: np.ndarray, steps: int) -> Any:
    """Minimise mean (f - y)^2 / 2 + mean |grad f - slopes|^2 / 2 over the net's parameters."""
    form = started(FORMS["of x, Cholesky"](), 0, mx.init.Normal(0.5))
    curv = Curvature(form, LOSS, (x, y), batch_size=len(x))

    def objective(w: np.ndarray) -> tuple[float, np.ndarray]:
        assign(form, w)
        gap = inputs.gradient(form, x) - slopes
        # d/dw of |gap|^2 / 2 is the mixed derivative d/dw d/dx f along gap, summed over samples
        slope = np.concatenate([d.ravel() for d in inputs.mixed(form, x, gap).values()])
        return curv.loss() + 0.5 * (gap**2).sum() / len(x), curv.gradient() + slope / len(x)

    descend(form, objective, curv.parameters(), steps, 1e-12)
    return form


def few_samples(count: int, steps: tuple[int, int]) -> dict[str, dict[str, float]]:
    truth, x = TRUTHS["of x"], points(count, 1)
    y = value(truth.matrix(x), x)
    form, _ = fitted(FORMS["of x, Cholesky"](), x, y, steps[0])
    return {"values": errors(form, truth),
            "values and gradients": errors(fitted_with_gradients(x, y, gradient_of(truth, x), steps[1]), truth)}


def directions_left(samples: list[int]) -> dict[str, list[int]]:
    """Constant full B with n = 4 at an exact fit: directions that the data leave open, with and without gradients."""
    x = np.random.default_rng(0).normal(size=(max(samples), 4))
    form = started(QuadraticForm(4, (), "full", dtype="float64"), 0, mx.init.Normal(0.5))
    values = Curvature(form, LOSS, (x, np.zeros(len(x)))).jacobian.to_dense()
    slopes = np.array([[next(iter(inputs.mixed(form, x[i : i + 1], e).values())).ravel() for e in np.eye(4)]
                       for i in range(len(x))])
    size = values.shape[1]
    both = [np.concatenate([values[:n], slopes[:n].reshape(-1, size)]) for n in samples]
    return {"values": [size - int(np.linalg.matrix_rank(values[:n])) for n in samples],
            "values and gradients": [size - int(np.linalg.matrix_rank(rows)) for rows in both]}


# ---- all of it

def main(short: bool, out: Path) -> None:
    steps = 40 if short else 4000
    constant = {case: freedoms(*case, 3 if short else 20) for case in CONSTANT}
    x = points(60 if short else 600, 0)
    recovered, forms = {}, {}
    for truth, model, _ in CASES:
        forms[truth, model] = learnt(model, TRUTHS[truth], x, steps)
        recovered[truth, model] = errors(forms[truth, model], TRUTHS[truth])
    general = TRUTHS["of x"]
    starts = [forms["of x", "of x, full"]]
    for seed in range(1, 2 if short else 3):
        starts.append(learnt("of x, full", general, x, steps, seed))
    at_origin = origin(forms["of x", "of x, full"])
    few = {count: few_samples(count, (30, 5) if short else (2000, 800)) for count in ((10,) if short else (60, 200))}
    samples = [1, 2, 3, 4, 6, 10]
    left = directions_left(samples)
    publish(out, "quadratic_form", short, {
        "freedoms": {f"{factor} {dim} {rank or ''}".strip(): r for (dim, factor, rank), r in constant.items()},
        "recovered": {f"A {t}, net {m}": r for (t, m), r in recovered.items()},
        "origin": at_origin, "few samples": list(few.values())[-1], "directions left": left,
    }, {
        "freedoms": table(["B", "numbers in B", "rotations", "zero eigenvalues", "largest of these", "smallest other",
                           "exact fits", "error of B", "of B, best rotation", "of A"],
                          [freedom_row(*case, r) for case, r in constant.items()]),
        "recovered": table(["true A", "A in the net", "does f determine A?", "error of f", "of A(0)", "of A(x)"],
                           [[t, m, known, *(scientific(e, 1) for e in recovered[t, m].values())]
                            for t, m, known in CASES]),
        "origin": table(["distance of x from 0", "0", "0.01", "0.1", "1"],
                        [["second derivative of f against 2A(x)", *(scientific(e, 1) for e in at_origin.values())]]),
        "directions": table(["samples", *map(str, samples)], [[name, *counts] for name, counts in left.items()]),
        "gradients": table(["samples, data", "error of f", "of A(0)", "of A(x)"],
                           [[f"{count if not short else 'few'}, {name}", *(scientific(e, 1) for e in r.values())]
                            for count, rows in few.items() for name, r in rows.items()]),
    }, {"freedoms": draw_freedoms({"full": constant[4, "full", None], "cholesky": constant[4, "cholesky", None]}),
        "seeds": draw_seeds(general, starts)})


if __name__ == "__main__":
    run(main)
