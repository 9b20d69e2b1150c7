"""The fuzz campaign finds what is planted, makes it small, and passes over right nets of fixed seeds."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.graph.lower import LOWERINGS
from hessmx.rules import RULES
from hessmx.rules.kinds import elementwise
from scripts.fuzz import fuzz
from scripts.fuzz.generate import generate
from scripts.fuzz.judge import judge
from scripts.fuzz.nets import Node, Spec
from scripts.fuzz.shrink import shrink

F = mx.sym
ROOT = Path(__file__).resolve().parents[2]
NODES = (
    Node("Dense", "nn.Dense(6, activation='tanh')", "{f}({0})", (0,)),
    Node("square", "", "F.square({0})", (1,)),
    Node("sin", "", "F.sin({0})", (1,)),
    Node("LayerNorm", "nn.LayerNorm()", "{f}({0})", (2,)),
    Node("concat", "", "F.concat({0}, {1}, dim=1)", (3, 4)),
    Node("Dense", "nn.Dense(3)", "{f}({0})", (5,)),
)
SPEC = Spec(5, (("real", (4,)),), NODES, (6,), (("class:3", (), "gluon.loss.SoftmaxCELoss()"),), batches=(3, 2))


def test_a_right_net_is_right_in_every_dtype():
    for dtype in fuzz.DTYPES:
        report = judge(SPEC, dtype)
        assert report.verdict == "right" and not report.undecided, (dtype, report)


def _wrong_rule(factor):
    return lambda patch: patch.setitem(RULES, "sin", elementwise(factor))


FAULTS = {  # name: (how it is planted, dtype, a finding that it must cause)
    "factor": (_wrong_rule(lambda s: 1.01 * F.cos(s.x)), "float64", "hessian uv"),
    "sign": (_wrong_rule(lambda s: -F.cos(s.x)), "float64", "J v"),
    "small factor": (_wrong_rule(lambda s: F.cos(s.x) * (1 + 2e-4)), "float64", "J v"),
    "second order cut": (_wrong_rule(lambda s: F.BlockGrad(F.cos(s.x))), "float64", "residual uv"),
    "not a number": (_wrong_rule(lambda s: F.cos(s.x) / 0), "float64", "hessian uv"),
    "float32 only": (_wrong_rule(lambda s: (F.cos(s.x) + 1e6) - 1e6), "float32", "hessian in float32"),
    "an exception": (_wrong_rule(lambda s: {}["x"]), "float64", "raised KeyError"),
    "gradient lost": (
        lambda patch: patch.setitem(LOWERINGS, "sin", lambda s, _: [F.BlockGrad(F.cos(s.x - np.pi / 2))]),
        "float64",
        "gradient along u",
    ),
    "another value": (
        lambda patch: patch.setitem(LOWERINGS, "sin", lambda s, _: [F.sin(s.x * 1.001)]), "float64", "loss"
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found_and_shrunk(monkeypatch, name):
    plant, dtype, finding = FAULTS[name]
    plant(monkeypatch)
    report = judge(SPEC, dtype)
    assert report.verdict == "wrong" and finding in dict(report.findings), report
    small = shrink(SPEC, lambda spec: bool(judge(spec, dtype).findings), most=40)
    assert len(small.nodes) <= 2 and "F.sin" in small.text(), small.text()


class Stale(hessmx.Curvature):
    """Gives the first product that it was asked for again and again."""

    @property
    def hessian(self):
        operator = super().hessian
        own = type(operator)._product
        kept = self.__dict__.setdefault("kept", [])

        def product(vector):
            if not kept:
                kept.append(own(operator, vector))
            return kept[0]

        operator._product = product
        operator._products = lambda block: np.stack([product(v) for v in block.T], axis=1)
        return operator


class Spoiling(hessmx.Curvature):
    """Leaves the user's net otherwise than it was."""

    def gradient(self, *args, **kwargs):
        for p in self._net.all.values():
            p.data()[:] *= 1 + 1e-12
        return super().gradient(*args, **kwargs)


@pytest.mark.parametrize("make, finding", [(Stale, "hessian symmetric"), (Spoiling, "the net was changed")])
def test_planted_states_are_found(make, finding):
    report = judge(SPEC, "float64", make)
    assert finding in dict(report.findings), report


def test_refusals_are_told_apart(monkeypatch):
    monkeypatch.setitem(RULES, "sin", None)

    def refusing(*args, **kwargs):
        raise hessmx.HessmxError("no")

    report = judge(SPEC, "float64", refusing)
    assert report.verdict == "refused" and report.message == "HessmxError: no"


def test_values_without_a_derivative_decide_nothing():
    """Jumps everywhere: no two steps agree, so nothing is called right or wrong."""
    jumps = Node("sign", "nn.Dense(4)", "F.sign(F.sin({f}({0}) * 1e4)) + {f}({0})", (0,))
    loss = ("real", (4,), "lambda z, y: ((z - y) ** 2).sum(axis=1)")
    report = judge(Spec(1, (("real", (3,)),), (jumps,), (1,), (loss,)), "float64")
    assert report.verdict == "undecided" and "hessian uv" in report.undecided, report


def test_the_text_of_a_net_runs_on_its_own(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(SPEC.program("float64"))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    found = subprocess.run([sys.executable, path], env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "trusted=True" in found.stdout, found.stderr


def test_nets_repeat_and_differ():
    assert generate(3) == generate(3)
    assert len({generate(seed).text() for seed in range(8)}) == 8


OPTIONS = argparse.Namespace(dtype="mixed", mode="mixed", size=3, show=False, shrink=False, skip=[])


def test_a_process_that_dies_names_its_net(monkeypatch, tmp_path):
    child = tmp_path / "child.py"
    child.write_text(
        "import json, os, sys\n"
        "for seed in range(int(sys.argv[2]), int(sys.argv[3])):\n"
        "    print(json.dumps({'seed': seed}), flush=True)\n"
        "    if seed == 1: os._exit(139)\n"
        "    print(json.dumps({'seed': seed, 'verdict': 'right'}), flush=True)\n"
    )
    monkeypatch.setattr(fuzz, "__file__", str(child))
    told = []
    fuzz.run(range(3), True, OPTIONS, lambda line, onednn: told.append(line))
    assert [(line["seed"], line["verdict"]) for line in told] == [(0, "right"), (1, "wrong"), (2, "right")]
    assert told[1]["findings"][0][0] == "the process died"


@pytest.mark.parametrize("first", range(0, 80, 40))
def test_fixed_seeds(first):
    command = [sys.executable, str(ROOT / "scripts/fuzz/fuzz.py"), "--nets", "40", "--seed", str(first), "--size", "2"]
    command += ["--dtype", "float64", "--no-shrink", "--skip", "astype"]  # no types are read off the tape yet
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "nets, 0 wrong" in found.stdout, found.stdout[-3000:]
    assert int(found.stdout.split()[-4]) > 30
