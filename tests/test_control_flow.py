"""Loops and branches inside a net: unrolled on the tape, or refused in one line where only a Symbol is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.errors import GraphError
from tests import differences

gluon, nn = mx.gluon, mx.gluon.nn
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(3, 4, 2)), RNG.normal(size=(3, 2))


class Loop(nn.HybridBlock):
    """A recurrence over axis 1 by one of MXNet's control-flow operators."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(2, 2), init=mx.init.Normal(0.7), dtype="float64")

    def hybrid_forward(self, F: Any, x: Any, weight: Any) -> Any:
        def step(inputs: Any, h: Any) -> Any:
            return F.tanh(inputs + F.dot(h, weight))

        start = F.zeros_like(F.reshape(F.slice_axis(x, axis=1, begin=0, end=1), shape=(0, -1)))
        if self.kind == "foreach":
            turned = F.transpose(x, axes=(1, 0, 2))
            _, (end,) = F.contrib.foreach(lambda each, states: (each, [step(each, states[0])]), turned, [start])
            return end
        once = F.sum(x, axis=1)
        if self.kind == "while_loop":
            _, (_, end) = F.contrib.while_loop(
                cond=lambda i, h: i < 3,
                func=lambda i, h: ([], [i + 1, step(once, h)]),
                loop_vars=[F.zeros((1,)), start],
                max_iterations=5,
            )
            return end
        large = F.sum(weight) > -100
        return F.contrib.cond(large, lambda: step(once, once), lambda: step(once, start))


def loop(kind: str) -> Any:
    mx.random.seed(2)
    net = Loop(kind)
    net.initialize()
    return net


@pytest.mark.parametrize("kind", ["foreach", "while_loop", "cond"])
@pytest.mark.parametrize("hybridized", [True, False], ids=["hybridized", "not hybridized"])
def test_control_flow_is_unrolled(kind: str, hybridized: bool) -> None:
    net = loop(kind)
    if hybridized:
        net.hybridize()
    curv = hessmx.Curvature(net, gluon.loss.L2Loss(), (X, Y), engine="reverse-over-forward")
    v = np.random.default_rng(1).normal(size=curv.num_params)
    plain = loop(kind)
    expected = differences.product(plain, gluon.loss.L2Loss(), (X, Y), [plain.weight.name], v)
    np.testing.assert_allclose(curv.hvp(v), expected, atol=1e-8 * np.abs(expected).max())


def test_a_saved_symbol_with_a_loop_is_refused_in_one_line(tmp_path: Path) -> None:
    net = loop("foreach")
    net.hybridize()
    net(mx.nd.array(X, dtype="float64"))
    net.export(str(tmp_path / "loop"))
    saved = hessmx.load_net(tmp_path / "loop-symbol.json", tmp_path / "loop-0000.params")
    with pytest.raises(GraphError, match="_foreach"):
        hessmx.Curvature(saved, gluon.loss.L2Loss(), (X, Y), engine="reverse-over-forward")
