"""The demo as a user runs it."""

from __future__ import annotations

import re

import numpy as np

from hessmx import files
from hessmx._mxnet import mx
from hessmx.cli import main


def test_demo_trains_both_nets_and_leaves_results_that_agree_with_them(tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    accuracies = re.search(r"accuracy on held-out digits\s+(\S+)\s+(\S+)", shown).groups()
    assert min(map(float, accuracies)) >= 0.95
    with np.load(tmp_path / "digits.npz") as data:
        x, y = data["x"], data["y"]
    for name in ("maxout", "dense"):
        net = files.load_net(tmp_path / f"{name}-symbol.json", tmp_path / f"{name}-0000.params")
        assert np.mean(net(mx.nd.array(x)).asnumpy().argmax(axis=1) == y) > 0.99
        top, trace, spectrum, line, check = (
            files.load(tmp_path / f"{name}-{kind}.json") for kind in ("eigen", "trace", "spectrum", "line", "check")
        )
        assert top.converged.all()
        assert check.trusted
        np.testing.assert_allclose([line.curvature, spectrum.range[1]], top.values[0], rtol=1e-4)
        other = spectrum.trace_of(lambda x: x)
        assert abs(trace.value - other.value) < 4 * np.hypot(trace.stderr, other.stderr)
        for kind in ("eigen", "trace", "spectrum", "line"):
            assert (tmp_path / f"{name}-{kind}.png").read_bytes().startswith(b"\x89PNG")
