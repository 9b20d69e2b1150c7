"""Which engine is taken: only operators that tangents reach count, and a rule may refuse an attribute."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx._mxnet import mx
from hessmx.errors import GraphError, UnsupportedOps
from hessmx.rules import RULES
from hessmx.rules.kinds import custom

nn = mx.gluon.nn
LOSS = mx.gluon.loss.L2Loss()


class Rounded(mx.gluon.HybridBlock):
    """Straight-through rounding, which has no rule, before or behind a layer."""

    def __init__(self, before: bool):
        super().__init__()
        self.before = before
        with self.name_scope():
            self.layer = nn.Dense(3, in_units=4)

    def hybrid_forward(self, F, x):
        return self.layer(F.contrib.round_ste(x)) if self.before else F.contrib.round_ste(self.layer(x))


def curvature(net, engine="auto"):
    net.initialize()
    rng = np.random.default_rng(0)
    return Curvature(net, LOSS, (rng.normal(size=(5, 4)), rng.normal(size=(5, 3))), engine=engine)


def test_an_operator_on_the_data_alone_needs_no_rule():
    assert curvature(Rounded(before=True)).engine == "reverse-over-forward"


@pytest.mark.filterwarnings("ignore::hessmx.HessmxWarning")
def test_behind_the_parameters_it_does():
    assert curvature(Rounded(before=False)).engine == "finite-difference"
    with pytest.raises(UnsupportedOps, match=r"_contrib_round_ste .* at rounded\d+_round_ste0"):
        curvature(Rounded(before=False), "reverse-over-forward")


@pytest.mark.filterwarnings("ignore::hessmx.HessmxWarning")
def test_a_rule_that_refuses_an_attribute_means_differences(monkeypatch):
    def refuse(s):
        raise GraphError(f"{s.node.op} at {s.node.name} is refused here")

    exact = curvature(_tanh())
    v = np.ones(exact.num_params)
    truth = exact.hvp(v)
    monkeypatch.setitem(RULES, "Activation", custom(refuse))
    net = exact._net.block
    rng = np.random.default_rng(0)
    curv = Curvature(net, LOSS, (rng.normal(size=(5, 4)), rng.normal(size=(5, 3))))
    assert curv.engine == "finite-difference"
    assert np.allclose(curv.hvp(v), truth, rtol=1e-4, atol=1e-6)
    with pytest.raises(GraphError, match="is refused here"):
        curvature(_tanh(), "reverse-over-forward")


def _tanh():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=4, activation="tanh"))
    return net
