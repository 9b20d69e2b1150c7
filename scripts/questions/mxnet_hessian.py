"""What MXNet's own double backward returns, net by net, beside hessmx (docs/questions/mxnet-hessian.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import numpy as np
from common import Curvature, digits, minimise, mx, publish, run, scientific, started, table

from hessmx import figures
from hessmx.blocks import dense_net

nd, nn, autograd = mx.nd, mx.gluon.nn, mx.autograd


class Products(mx.gluon.Block):
    """exp(x W') built from batch_dot on 3-D arrays: operators whose second derivatives MXNet has right."""

    def __init__(self) -> None:
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(1, 3, 4))

    def forward(self, x: Any) -> Any:
        return nd.exp(nd.batch_dot(x.expand_dims(0), self.weight.data(), transpose_b=True))


def nets() -> dict[str, tuple[Any, Callable[[Any], Any]]]:
    """Net, and the loss of its output as one array whose sum is differentiated."""
    dense = lambda *layers: _sequence(nn.Dense(3, in_units=4), *layers)  # noqa: E731
    return {
        "batch_dot, exp": (Products(), lambda z: z),
        "Dense, exp": (dense(nn.Lambda(nd.exp)), lambda z: z),
        "Dense, tanh function": (dense(nn.Lambda(nd.tanh)), lambda z: z),
        "Dense, tanh function, Dense, squares": (
            _sequence(nn.Dense(5, in_units=4), nn.Lambda(nd.tanh), nn.Dense(3, in_units=5)), nd.square),
        "Dense(activation='tanh')": (_sequence(nn.Dense(3, in_units=4, activation="tanh")), lambda z: z),
        "Dense, exp, softmax cross-entropy": (dense(nn.Lambda(nd.exp)), lambda z: -nd.log_softmax(z)[:, 0]),
        "Dense, mean of squares": (dense(), lambda z: nd.square(z).mean(axis=1)),
        "Conv2D, squares": (_sequence(nn.Conv2D(2, 2, in_channels=1)), nd.square),
    }


def _sequence(*layers: Any) -> Any:
    net = nn.Sequential()
    net.add(*layers)
    return net


def bare_recipe(net: Any, loss: Callable[[Any], Any], x: Any) -> np.ndarray:
    """The recipe found in forums: gradient with create_graph, then backward on it, then `.grad`."""
    parameters = [p.data() for p in net.collect_params().values()]
    with autograd.record():
        losses = loss(net(x))
        first = autograd.grad([losses], parameters, create_graph=True, retain_graph=True)
    autograd.backward(first)
    return np.concatenate([p.grad.asnumpy().ravel() for p in parameters])


def differences(net: Any, loss: Callable[[Any], Any], x: Any, step: float = 1e-4) -> np.ndarray:
    """H times ones, by fourth-order differences of MXNet's first gradients in float64."""
    parameters = [p.data() for p in net.collect_params().values()]
    saved = [p.copy() for p in parameters]

    def gradient(amount: float) -> np.ndarray:
        for p, s in zip(parameters, saved):
            p[:] = s + amount
        with autograd.record():
            losses = loss(net(x))
        losses.backward()
        return np.concatenate([p.grad.asnumpy().ravel() for p in parameters])

    near, far = gradient(step) - gradient(-step), gradient(2 * step) - gradient(-2 * step)
    for p, s in zip(parameters, saved):
        p[:] = s
    return (8 * near - far) / (12 * step)


def row(name: str, net: Any, loss: Callable[[Any], Any]) -> dict[str, Any]:
    """What the recipe gives for H times ones, what hessmx gives, against differences."""
    started(net, init=mx.init.Normal(0.5))
    net.cast("float64")
    shape = (6, 1, 3, 3) if name.startswith("Conv2D") else (6, 4)
    x = np.random.default_rng(0).normal(size=shape)
    array = mx.nd.array(x, dtype="float64")
    truth = differences(net, loss, array)
    curv = Curvature(net, lambda z, y: loss(z), (x, np.zeros(6)), reduction="sum")
    exact = curv.hvp(np.ones(curv.num_params))
    size = max(float(np.linalg.norm(truth)), 1e-12)
    found: dict[str, Any] = {"hessmx": float(np.linalg.norm(exact - truth) / size)}
    try:
        found["recipe"] = float(np.linalg.norm(bare_recipe(net, loss, array) - truth) / size)
    except mx.base.MXNetError as error:
        line = next(text for text in str(error).splitlines() if "Operator" in text)
        found["raises"] = line.split("Operator ")[1].split(" ")[0]
    return found


def told(found: dict[str, Any]) -> str:
    if "raises" in found:
        return f"raises at {found['raises']}"
    if found["recipe"] < 1e-6:
        return f"right, {scientific(found['recipe'])}"
    return f"**wrong by {100 * found['recipe']:.0f} %**"


def picture(short: bool) -> tuple[Any, dict[str, float]]:
    """The whole Hessian of a small net at a minimum of its loss."""
    x, y = digits()[:2]
    count, hidden, steps = (60, 2, 5) if short else (600, 3, 300)
    x = x[:count].reshape(-1, 4, 2, 4, 2).mean((2, 4)).reshape(-1, 16)  # 4 x 4 pixels: few enough weights to see
    chosen = y[:count] < 4
    net = started(dense_net((16, hidden, 4), "tanh", dtype="float64"))
    curv = Curvature(net, mx.gluon.loss.SoftmaxCrossEntropyLoss(), (x[chosen], y[:count][chosen]), weight_decay=1e-3)
    minimise(net, curv, steps)
    dense = curv.hessian.to_dense()
    slices = dict(zip(("W1", "b1", "W2", "b2"), curv.param_slices.values()))
    ax = figures.matrix(dense, slices, provenance=curv.provenance("hessian"))
    ax.figure.set_size_inches(6.8, 6.6)
    values = np.linalg.eigvalsh(dense)
    return ax.figure, {"parameters": curv.num_params, "largest": float(values[-1]), "smallest": float(values[0]),
                       "asymmetry": float(np.abs(dense - dense.T).max() / np.abs(dense).max())}


def main(short: bool, out: Path) -> None:
    found = {name: row(name, *case) for name, case in nets().items()}
    figure, numbers = picture(short)
    publish(out, "mxnet_hessian", short, {"nets": found, "picture": numbers}, {
        "recipe": table(["net", "the recipe's H times ones", "hessmx, relative error"],
                        [[name, told(result), scientific(result["hessmx"])] for name, result in found.items()]),
    }, {"hessian": figure})


if __name__ == "__main__":
    run(main)
