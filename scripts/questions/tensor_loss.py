"""What minimising a tensor does, and what separates its sum from its mean (docs/questions/tensor-loss.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import Curvature, Figure, array, digits, mx, publish, run, scientific, started, table

import hessmx
from hessmx.blocks import dense_net

LOSS = mx.gluon.loss.L2Loss()
COLOURS = {"sum": "#b3262e", "mean": "#1f5a96", "equal": "#e08214"}


def tensor_loss(z: Any, y: Any) -> Any:
    """A loss that is a tensor (N, 10): squared errors of every output, not reduced at all."""
    return mx.nd.square(z - y) / 2


def gradient(net: Any, losses: Any) -> np.ndarray:
    """What `backward()` on `losses` leaves in the parameters; call inside `record`."""
    losses.backward()
    return np.concatenate([p.grad().asnumpy().ravel() for p in net.collect_params().values()])


def backward_of(net: Any, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Gradients by backward() on the tensor, its sum, its mean over samples, the mean of its entries."""
    found = {}
    for name, reduce in {
        "the tensor itself": lambda t: t,
        "its sum": lambda t: t.sum(),
        "its sum over outputs, mean over samples": lambda t: t.sum(axis=1).mean(),
        "the mean of all entries": lambda t: t.mean(),
    }.items():
        with mx.autograd.record():
            losses = reduce(tensor_loss(net(array(x)), array(y)))
        found[name] = gradient(net, losses)
    return found


def descend(
    x: np.ndarray, y: np.ndarray, hidden: int, rate: float, scale: str, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Plain gradient descent on all data; the mean loss after every step, and where it ended."""
    net = started(dense_net((64, hidden, 10), "tanh", dtype="float64"), 3)
    curv = Curvature(net, tensor_loss, (x, y), reduction=scale, batch_size=len(x))
    w, losses = curv.parameters(), []
    for _ in range(steps):
        losses.append(curv.loss(at=w) / (len(x) if scale == "sum" else 1))
        w = w - rate * curv.gradient(at=w)
        if not np.isfinite(w).all() or np.abs(w).max() > 1e6:
            break
    return np.array(losses), w


def trainer_step(x: np.ndarray, y: np.ndarray, divide_by: int) -> np.ndarray:
    """The change of the parameters in one Trainer.step(divide_by), at learning rate 1, no momentum."""
    net = started(dense_net((64, 10), "tanh", dtype="float64"), 3)
    before = Curvature(net, LOSS, (x, y)).parameters()
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 1.0})
    with mx.autograd.record():
        losses = LOSS(net(array(x)), array(y))
    losses.backward()
    trainer.step(divide_by)
    return Curvature(net, LOSS, (x, y)).parameters() - before


def trap(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Size of a step on a last batch of 6, as a share of the right one: -rate times the mean loss's gradient."""
    small = x[:6], y[:6]
    net = started(dense_net((64, 10), "tanh", dtype="float64"), 3)
    right = -Curvature(net, LOSS, small).gradient()
    steps = {"step(6), its own size": 6, "step(32), the usual size": 32, "step(1)": 1}
    return {name: float(trainer_step(*small, n) @ right / (right @ right)) for name, n in steps.items()}


def curvatures(x: np.ndarray, y: np.ndarray, hidden: int) -> dict[str, dict[str, float]]:
    """Top eigenvalue and stable rate of sum and mean, plain and with the same weight decay."""
    net = started(dense_net((64, hidden, 10), "tanh", dtype="float64"), 3)
    found = {}
    for name, options in {"plain": {}, "weight_decay=0.5": {"weight_decay": 0.5}}.items():
        curvs = {r: Curvature(net, tensor_loss, (x, y), reduction=r, **options) for r in ("mean", "sum")}
        tops = {r: curv.sharpness(tol=1e-9) for r, curv in curvs.items()}
        found[name] = {
            "mean": tops["mean"].top_eigenvalue,
            "sum": tops["sum"].top_eigenvalue,
            "ratio": tops["sum"].top_eigenvalue / tops["mean"].top_eigenvalue,
            "mean rate": tops["mean"].stable_learning_rate,
            "sum rate": tops["sum"].stable_learning_rate,
        }
    return found


def draw(runs: dict[str, np.ndarray], labels: dict[str, str]) -> Figure:
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    ax = figure.add_subplot()
    for name, losses in runs.items():
        style = dict(linewidth=4, alpha=0.45) if name == "equal" else dict(linewidth=1.6)
        ax.semilogy(losses, color=COLOURS[name], label=labels[name], **style)
    ax.set(xlabel="steps of gradient descent on all data", ylabel="mean loss per sample")
    ax.set_title("Sum and mean take one path if the mean's rate is N times the sum's", loc="left", fontsize="medium")
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="small")
    return figure


def main(short: bool, out: Path) -> None:
    x, y = digits()[:2]
    count, hidden, steps = (40, 4, 15) if short else (400, 16, 200)
    x, y = x[:count], np.eye(10)[y[:count].astype(int)]
    net = started(dense_net((64, hidden, 10), "tanh", dtype="float64"), 3)
    gradients = backward_of(net, x, y)
    scale = hessmx.loss_scale((count, 10))
    whole = gradients["its sum"]
    rows = [
        [
            name,
            f"{np.linalg.norm(g):.4f}",
            f"{np.linalg.norm(whole) / np.linalg.norm(g):.6g}",
            scientific(float(np.abs(g / np.linalg.norm(g) - whole / np.linalg.norm(whole)).max())),
        ]
        for name, g in gradients.items()
    ]
    rate = 0.05
    equal_rate = scale.learning_rate(rate, used_with="mean", for_scale="sum")
    runs, ends = {}, {}
    plan = {"sum": ("sum", equal_rate), "equal": ("mean", rate), "mean": ("mean", equal_rate)}
    for name, (reduction, r) in plan.items():
        runs[name], ends[name] = descend(x, y, hidden, r, reduction, steps)
    labels = {
        "sum": f"sum, rate {equal_rate:g}",
        "equal": f"mean, rate {rate:g} = {count} times as much",
        "mean": f"mean, rate {equal_rate:g}: the same number",
    }
    gap = float(np.abs(ends["sum"] - ends["equal"]).max() / np.abs(ends["sum"]).max())
    found, wrong = curvatures(x, y, hidden), trap(x, y)
    final = {name: float(losses[-1]) for name, losses in runs.items()}
    publish(
        out,
        "tensor_loss",
        short,
        {
            "samples": count,
            "final losses": final,
            "largest relative difference of the parameters": gap,
            "trap": wrong,
            "curvature": found,
        },
        {
            "backward": table(
                ["backward() on", "length of the gradient", "sum's length over it", "difference in direction"], rows
            ),
            "descent": table(
                ["objective", "learning rate", "mean loss at the end"],
                [
                    ["sum", f"{equal_rate:g}", f"{final['sum']:.6f}"],
                    ["mean", f"{rate:g}", f"{final['equal']:.6f}"],
                    ["mean", f"{equal_rate:g}", f"{final['mean']:.6f}"],
                ],
            ),
            "trainer": table(
                ["last batch of 6 samples", "step, as a multiple of the mean loss's"],
                [[name, f"{value:.4f}"] for name, value in wrong.items()],
            ),
            "curvature": table(
                [
                    "objective",
                    "top eigenvalue of the mean",
                    "of the sum",
                    "ratio",
                    "stable rate of the mean",
                    "of the sum",
                ],
                [
                    [
                        name,
                        f"{r['mean']:.5f}",
                        f"{r['sum']:.3f}",
                        f"{r['ratio']:.9g}",
                        f"{r['mean rate']:.4f}",
                        f"{r['sum rate']:.6f}",
                    ]
                    for name, r in found.items()
                ],
            ),
        },
        {"descent": draw(runs, labels)},
    )


if __name__ == "__main__":
    run(main)
