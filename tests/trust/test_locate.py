"""The operator that is off is named, with its layout and numbers; right ones are not."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from hessmx import files
from hessmx._mxnet import mx
from hessmx.curvature import Curvature
from hessmx.errors import EngineError
from hessmx.rules import RULES
from hessmx.rules.kinds import Rule, elementwise
from hessmx.trust.check import check
from hessmx.trust.locate import locate

F, nn = mx.sym, mx.gluon.nn
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(6, 2, 6, 6)), RNG.integers(0, 3, 6)


def curvature(dtype="float64", mode="predict", loss=None):
    mx.random.seed(2)
    net = nn.HybridSequential(prefix="n_")
    with net.name_scope():
        net.add(nn.Conv2D(8, 3, padding=1, activation="relu"), nn.MaxPool2D(2), nn.BatchNorm(), nn.Dropout(0.5))
        net.add(nn.Conv2D(4, 1), nn.Activation("softsign"), nn.Dense(3))
    net.initialize(mx.init.Normal(0.5))
    net(mx.nd.array(X))
    net.cast(dtype)
    return Curvature(net, loss or mx.gluon.loss.SoftmaxCrossEntropyLoss(), (X, Y), mode=mode)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["predict", "train"])
def test_nothing_is_named_where_all_is_right(dtype, mode):
    """ReLU's zeros tie in the windows of the pooling, and are no fault."""
    found = locate(curvature(dtype, mode))
    assert found.first is None and not found.rows and not found.skipped, found
    assert found.checked == 11 and "every operator is right alone" in found.verdict


def scaled(op, factor):
    old = RULES[op]
    return Rule(old.kind, lambda s: [factor * t for t in old.push(s)])


def rounded(op):
    """Right in float64."""
    old = RULES[op]
    return Rule(old.kind, lambda s: [(t + 1e7) - 1e7 for t in old.push(s)])


PLANTED = [  # operator, its wrong rule, dtype, the error that shows it
    ("Pooling", lambda: scaled("Pooling", 1.02), "float64", "tangent"),
    ("Pooling", lambda: scaled("Pooling", -1), "float32", "tangent"),
    ("FullyConnected", lambda: scaled("FullyConnected", 1.05), "float32", "tangent"),
    ("Activation", lambda: scaled("Activation", 1.02), "float64", "tangent"),
    ("softmax", lambda: scaled("softmax", 0.9), "float64", None),  # not in this net
    ("log_softmax", lambda: elementwise(lambda s: F.BlockGrad(1 - F.exp(s.y))), "float64", "tangent"),
    ("Convolution", lambda: rounded("Convolution"), "float32", "float32"),
]


@pytest.mark.parametrize("op, rule, dtype, error", PLANTED)
def test_the_first_that_is_off_is_named(monkeypatch, op, rule, dtype, error):
    monkeypatch.setitem(RULES, op, rule())
    found = locate(curvature(dtype))
    if error is None:
        assert found.first is None
        return
    assert found.first.op == op and op in found.verdict
    assert getattr(found.first, error) > 1e-2
    assert {row.op for row in found.rows} <= {op, "BatchNorm"}  # BatchNorm is made of convolutions
    assert found.first.shapes[0].startswith(f"({len(X)}, ")


def test_what_is_wrong_in_the_blocked_layout_only_is_told_by_its_layout(monkeypatch):
    """MXNet's float32 max pooling behind 8 channels goes wrong where another operator reads the same array."""

    def reads_again(s):
        (n, c, h, w), shape = s.x_shapes[0], s.y_shapes[0]
        windows = [F.im2col(F.reshape(a, shape=(n * c, 1, h, w)), kernel=(2, 2), stride=(2, 2)) for a in (s.x, s.t)]
        place = F.argmax(F.BlockGrad(windows[0]), axis=1)
        again = s.again([s.x])[0]
        return [again * F.reshape(F.pick(windows[1], place, axis=1), shape=shape)]

    monkeypatch.setitem(RULES, "Pooling", Rule("custom", reads_again))
    plain, *blocked = locate(curvature("float32")).rows
    assert (plain.op, plain.layout) == ("Pooling", "plain") and plain.float32 < 1e-5  # the rule is another function's
    cpu = Path("/proc/cpuinfo")
    if cpu.exists() and "avx512f" in cpu.read_text() and os.environ.get("MXNET_MKLDNN_ENABLED") != "0":
        assert [(row.op, row.layout) for row in blocked] == [("Pooling", "blocked")] and blocked[0].float32 > 0.1


def test_check_carries_it_and_files_keep_it(monkeypatch, tmp_path):
    monkeypatch.setitem(RULES, "Pooling", scaled("Pooling", 1.02))
    found = check(curvature(), locate=True)
    assert not found.trusted and "locate=True" in found.verdict
    files.save(found, tmp_path / "check.json")
    loaded = files.load(tmp_path / "check.json")
    assert loaded.located.first.op == "Pooling" and loaded.located.verdict == found.located.verdict


def test_a_net_without_a_graph_is_refused():
    class Closed(mx.autograd.Function):
        def forward(self, x):
            return 2 * x

        def backward(self, dy):
            return 2 * dy

    class Net(mx.gluon.Block):
        def __init__(self):
            super().__init__()
            self.dense = nn.Dense(3, in_units=4)

        def forward(self, x):
            return Closed()(self.dense(x))

    net = Net()
    net.initialize()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curv = Curvature(net, mx.gluon.loss.L2Loss(), (X[:, 0, 0, :4], X[:, 0, 0, :3]))
    with pytest.raises(EngineError, match="its operators"):
        locate(curv)
