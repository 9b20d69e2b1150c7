"""Saved graphs with several inputs get them by number, and not in the order in which the graph reads them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.cli import main
from hessmx.errors import HessmxWarning
from hessmx.problem.order import in_order

gluon, nn = mx.gluon, mx.gluon.nn
RNG = np.random.default_rng(0)


class Reads(gluon.HybridBlock):
    """Eleven inputs; the last one is read first."""

    def __init__(self, count):
        super().__init__()
        self.count = count
        with self.name_scope():
            for i in range(count):
                setattr(self, f"dense{i}", nn.Dense(3, in_units=4))

    def hybrid_forward(self, F, *inputs):
        total = 0
        for i in reversed(range(self.count)):
            total = total + F.tanh(getattr(self, f"dense{i}")(inputs[i])) * (i + 1)
        return total


def exported(folder, count):
    mx.random.seed(0)
    net = Reads(count)
    net.initialize(mx.init.Normal(0.5))
    net.hybridize()
    x = [i + RNG.normal(size=(6, 4)).astype(np.float32) for i in range(count)]
    y = RNG.integers(0, 3, 6)
    outputs = net(*map(mx.nd.array, x))
    net.export(str(folder / "net"))
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    return x, y, float(loss(outputs, mx.nd.array(y)).mean().asscalar())


@pytest.mark.parametrize("count", [2, 11])
def test_inputs_are_taken_by_number(tmp_path, count):
    x, y, expected = exported(tmp_path, count)
    net = hessmx.load_net(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    curv = hessmx.Curvature(net, gluon.loss.SoftmaxCrossEntropyLoss(), (x, y))
    assert curv.loss() == pytest.approx(expected, rel=1e-5)


def test_the_shell_says_which_array_is_which_input(tmp_path, capsys):
    x, y, expected = exported(tmp_path, 2)
    np.savez(tmp_path / "data.npz", x0=x[0], x1=x[1], y=y)
    code = main([
        "trace", "--net", str(tmp_path / "net-symbol.json"), "--params", str(tmp_path / "net-0000.params"),
        "--data", str(tmp_path / "data.npz"), "--loss", "softmax-ce", "--out", str(tmp_path / "out"), "--budget", "4",
    ])  # fmt: skip
    told = capsys.readouterr().out
    assert code == 0
    assert "inputs: x0 -> data0, x1 -> data1" in told
    assert float(re.findall("mean loss ([0-9.]+)", told)[0]) == pytest.approx(expected, rel=1e-5)


def test_names_without_numbers_are_warned_of():
    assert in_order(["x10", "x9", "x1"]) == ["x1", "x9", "x10"]
    assert in_order(["tokens"]) == ["tokens"]
    with pytest.raises(HessmxWarning, match="mask, tokens; for another order use"):
        in_order(["mask", "tokens"])
