"""path, merge and importance on nets from files: the numbers of the library, and a merged file that loads."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.cli import main
from tests.uses.support import SOFTMAX, exported, problem, trained

X, Y = problem()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    for i in range(2):
        exported(trained(X, Y, dtype="float32", seed=i), X, folder, f"net{i}")
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder


def run(command, folder, out, *more):
    other = [] if command == "importance" else [
        "--other-net", f"{folder}/net1-symbol.json", "--other-params", f"{folder}/net1-0000.params"]
    return main([command, "--net", f"{folder}/net0-symbol.json", "--params", f"{folder}/net0-0000.params", "--data",
                 f"{folder}/data.npz", "--loss", "softmax-ce", "--out", str(out), *other, *more])


def load(folder, i=0, params=None):
    return files.load_net(folder / f"net{i}-symbol.json", params or folder / f"net{i}-0000.params")


def test_path(saved, tmp_path, capsys):
    assert run("path", saved, tmp_path, "--steps", "20", "--points", "5", "--test", f"{saved}/data.npz") == 0
    straight, bent = (files.load(tmp_path / f"path-{kind}.json") for kind in ("straight", "bezier"))
    middle = load(saved)
    for p, q in zip(middle.collect_params().values(), load(saved, 1).collect_params().values()):
        p.set_data(0.5 * (p.data() + q.data()))
    expected = float(SOFTMAX(middle(mx.nd.array(X)), mx.nd.array(Y)).asnumpy().mean())
    assert straight.losses[2] == pytest.approx(expected, rel=1e-5)
    assert bent.losses[[0, -1]] == pytest.approx(straight.losses[[0, -1]]) and bent.control is not None
    assert "barrier" in capsys.readouterr().out and (tmp_path / "path.png").stat().st_size > 10_000


def test_merge(saved, tmp_path, capsys):
    assert run("merge", saved, tmp_path, "--damping", "0.1") == 0
    found = files.load(tmp_path / "merge.json")
    net = load(saved, params=tmp_path / "merged.params")
    loss = float(SOFTMAX(net(mx.nd.array(X)), mx.nd.array(Y)).asnumpy().mean())
    assert found.losses[0, -1] == pytest.approx(loss, rel=1e-4)
    assert "loss of task 2" in capsys.readouterr().out and (tmp_path / "merge.png").exists()


def test_importance(saved, tmp_path, capsys):
    assert run("importance", saved, tmp_path, "--matrix", "fisher") == 0
    found = files.load(tmp_path / "importance.json")
    exact = np.diag(Curvature(load(saved), SOFTMAX, (X, Y)).fisher().to_dense())
    np.testing.assert_allclose(found.importance, exact, rtol=1e-4, atol=1e-8)
    half = int(capsys.readouterr().out.split("lies in ")[1].split(" of")[0])
    assert np.sort(exact)[::-1][:half].sum() >= 0.5 * exact.sum() > np.sort(exact)[::-1][: half - 1].sum()


@pytest.mark.parametrize("command, more, said", [
    ("path", ["--other-params", "nowhere.params"], "nowhere.params does not exist"),
    ("path", ["--bend", "arc"], "'arc' is not one of"),
    ("merge", ["--other-data", "nowhere.npz"], "nowhere.npz does not exist"),
    ("merge", ["--out", "/dev/null/x"], "cannot write"),
])
def test_bad_input(saved, tmp_path, capsys, command, more, said):
    assert run(command, saved, tmp_path, *more) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown and "\n" not in shown
