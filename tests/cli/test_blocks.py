"""Every command on exported Maxout and quadratic-form nets, against differences of MXNet's own float64 gradients."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import files
from hessmx._mxnet import mx
from hessmx.blocks import Maxout, MaxoutConv2D, QuadraticForm, dense_net, fold_bias
from hessmx.cli import main
from tests.blocks.support import array, initialized, normal, set_vector, trained, vector

nn, gluon_loss = mx.gluon.nn, mx.gluon.loss
SAMPLES = 12


def dense():
    return initialized(dense_net((4, 3, 3), "maxout", 2, dtype="float64"))


def form(factor, hidden):
    return initialized(QuadraticForm(3, hidden, factor, dtype="float64"))


def convolutional():
    net = nn.HybridSequential()
    net.add(MaxoutConv2D(2, 2, 3, in_channels=1), nn.Flatten(), Maxout(3, 2, in_units=16), nn.Dense(3, in_units=3))
    net.cast("float64")
    return initialized(net)


CLASSES = (np.arange(SAMPLES) % 3).astype(float)
NUMBERS = normal(SAMPLES, seed=9)
CROSS, SQUARED = ("softmax-ce", gluon_loss.SoftmaxCrossEntropyLoss), ("l2", gluon_loss.L2Loss)

# net, shape of one input, labels, loss
CASES = {
    "maxout": (dense, (4,), CLASSES, CROSS),
    "maxout-conv": (convolutional, (1, 4, 6), CLASSES, CROSS),
    "folded-maxout": (lambda: fold_bias(dense()), (4,), CLASSES, CROSS),
    "full": (lambda: form("full", (2,)), (3,), NUMBERS, SQUARED),
    "cholesky": (lambda: form("cholesky", ()), (3,), NUMBERS, SQUARED),
}


def gradient(net, loss, x, y):
    """Of the mean loss, from a plain backward pass: (P,)."""
    with mx.autograd.record(train_mode=False):
        mean = loss(net(x), y).mean()
    mean.backward()
    return np.concatenate([p.grad().asnumpy().ravel() for p in trained(net)])


def hessian(net, loss, x, y, step=1e-5):
    """Central differences of that gradient, (P, P)."""
    start, rows = vector(net), []
    for e in np.eye(start.size):
        sides = []
        for moved in (start + step * e, start - step * e):
            set_vector(net, moved)
            sides.append(gradient(net, loss, x, y))
        rows.append((sides[0] - sides[1]) / (2 * step))
    set_vector(net, start)
    return np.array(rows)


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory):
    """Options for the shell, the net, its data and its Hessian."""
    make, shape, y, (name, loss) = CASES[request.param]
    folder, net, x = tmp_path_factory.mktemp("net"), make(), normal(SAMPLES, *shape, seed=4)
    net.hybridize()
    net(array(x))
    net.export(str(folder / "net"))
    np.savez(folder / "data.npz", x=x, y=y)
    options = ["--net", f"{folder}/net-symbol.json", "--params", f"{folder}/net-0000.params",
               "--data", f"{folder}/data.npz"]
    dense = hessian(net, loss(), array(x), array(y))
    return {"options": options, "loss": ["--loss", name], "net": net, "x": x, "hessian": dense}


def result(case, out, command, *more, loss=True, file=None):
    code = main([command, *case["options"], "--out", str(out), *(case["loss"] if loss else []), *more])
    assert code == 0
    assert (out / f"{file or command}.png").exists() or command == "check"
    return files.load(out / f"{file or command}.json")


def test_eigen(case, tmp_path):
    pairs = result(case, tmp_path, "eigen", "-k", "3")
    expected = np.linalg.eigvalsh(case["hessian"])[::-1][:3]
    np.testing.assert_allclose(pairs.values, expected, rtol=1e-6)


def test_trace(case, tmp_path):
    found = result(case, tmp_path, "trace", "--budget", "60")
    assert abs(found.value - np.trace(case["hessian"])) <= 4 * found.stderr + 1e-6


def test_spectrum(case, tmp_path):
    found = result(case, tmp_path, "spectrum", "--probes", "3", "--steps", "60")
    values = np.linalg.eigvalsh(case["hessian"])
    np.testing.assert_allclose(found.range, (values[0], values[-1]), atol=1e-5 * values[-1])


def test_layers(case, tmp_path):
    rows = result(case, tmp_path, "layers").rows
    assert sum(row.num_params for row in rows) == len(case["hessian"])
    if max(row.num_params for row in rows) <= 30:  # then every trace is exact
        assert sum(row.trace for row in rows) == pytest.approx(np.trace(case["hessian"]), rel=1e-6)
    start = 0
    for row in rows:
        block = case["hessian"][start : start + row.num_params, start : start + row.num_params]
        assert row.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-5)
        start += row.num_params


def test_landscape(case, tmp_path):
    found = result(case, tmp_path, "landscape", "--points", "3", "--radius", "1e-4", file="landscape-line")
    assert found.curvature == pytest.approx(np.linalg.eigvalsh(case["hessian"])[-1], rel=1e-6)
    np.testing.assert_allclose(found.losses, found.model, rtol=1e-9)


def test_inputs(case, tmp_path):
    outputs = case["net"](array(case["x"])).shape
    which = ["--output", "1"] if len(outputs) > 1 else []
    found = result(case, tmp_path, "inputs", "--samples", "2", *which, loss=False).gradients
    u, step = normal(*case["x"].shape, seed=6), 1e-6
    up, down = (case["net"](array(case["x"] + s * u)).asnumpy().reshape(SAMPLES, -1)[:2, 1 if which else 0]
                for s in (step, -step))
    slopes = (found * u[:2]).reshape(2, -1).sum(axis=1)
    np.testing.assert_allclose(slopes, (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_check_and_ops(case, tmp_path, capsys):
    assert result(case, tmp_path, "check").trusted
    assert main(["ops", *case["options"], "--out", str(tmp_path), *case["loss"]]) == 0
    assert "every operator has an exact" in capsys.readouterr().out
