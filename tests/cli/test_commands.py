"""Every command on exported nets: numbers against NumPy, files that can be read back, nothing but results in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hessmx import files
from hessmx._mxnet import mx
from hessmx.cli import main

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(40, 4)), RNG.normal(size=(40, 2))
PNG = b"\x89PNG"


def linear_hessian():
    """Of the mean of L2Loss (half the squared error, averaged over 2 outputs) of a dense layer: (weight rows, bias)."""
    block = X.T @ X / 40 / 2
    edge = X.mean(axis=0)[:, None] / 2
    hessian = np.zeros((10, 10))
    for i in range(2):
        rows = slice(4 * i, 4 * i + 4)
        hessian[rows, rows] = block
        hessian[rows, 8 + i] = edge[:, 0]
        hessian[8 + i, rows] = edge[:, 0]
        hessian[8 + i, 8 + i] = 0.5
    return hessian


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(2, in_units=4))
    net.initialize(mx.init.Normal(1.0))
    net.cast("float64")
    net.hybridize()
    net(mx.nd.array(X, dtype="float64"))
    net.export(str(folder / "net"))
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder


def options(folder, *more):
    return ["--net", f"{folder}/net-symbol.json", "--params", f"{folder}/net-0000.params",
            "--data", f"{folder}/data.npz", *more]


def run(command, folder, out, *more, loss=True):
    code = main([*command.split(), *options(folder, "--out", str(out), *(["--loss", "l2"] if loss else []), *more)])
    assert code == 0


@pytest.mark.smoke
def test_eigen(saved, tmp_path):
    run("eigen -k 4", saved, tmp_path)
    pairs = files.load(tmp_path / "eigen.json")
    np.testing.assert_allclose(pairs.values, np.linalg.eigvalsh(linear_hessian())[::-1][:4], rtol=1e-9)
    assert (tmp_path / "eigen.png").read_bytes().startswith(PNG)


def test_eigen_of_a_selection_with_penalty_and_sum(saved, tmp_path):
    run("eigen -k 2", saved, tmp_path, "--params-filter", "weight", "--weight-decay", "0.25", "--reduction", "sum")
    expected = 40 * (np.linalg.eigvalsh(linear_hessian()[:8, :8])[::-1][:2] + 0.25)
    np.testing.assert_allclose(files.load(tmp_path / "eigen.json").values, expected, rtol=1e-9)


def test_trace(saved, tmp_path):
    run("trace --budget 200", saved, tmp_path)
    found = files.load(tmp_path / "trace.json")
    assert abs(found.value - np.trace(linear_hessian())) < 4 * found.stderr
    assert found.products == 200


def test_spectrum(saved, tmp_path):
    run("spectrum --probes 30 --steps 10", saved, tmp_path)
    found, values = files.load(tmp_path / "spectrum.json"), np.linalg.eigvalsh(linear_hessian())
    assert found.range == pytest.approx((values[0], values[-1]), rel=1e-6)


def test_layers(saved, tmp_path, capsys):
    run("layers", saved, tmp_path)
    (row,) = files.load(tmp_path / "layers.json").rows
    assert row.num_params == 10
    assert row.top_eigenvalue == pytest.approx(np.linalg.eigvalsh(linear_hessian())[-1], rel=1e-6)
    assert row.name in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["line", "plane"])
@pytest.mark.parametrize("along", ["eigenvectors", "random"])
def test_landscape_of_a_quadratic(saved, tmp_path, kind, along):
    run(f"landscape --kind {kind} --along {along} --points 5", saved, tmp_path)
    found = files.load(tmp_path / f"landscape-{kind}.json")
    np.testing.assert_allclose(found.losses, found.model, rtol=1e-9)
    assert (tmp_path / f"landscape-{kind}.png").read_bytes().startswith(PNG)


def test_inputs(saved, tmp_path):
    run("inputs --output 1 --samples 3", saved, tmp_path, loss=False)
    found = files.load(tmp_path / "inputs.json")
    weight = mx.nd.load(f"{saved}/net-0000.params")["arg:net_dense0_weight"].asnumpy()
    np.testing.assert_allclose(found.gradients, np.tile(weight[1], (3, 1)), rtol=1e-12)


def test_check(saved, tmp_path, capsys):
    run("check", saved, tmp_path)
    assert files.load(tmp_path / "check.json").trusted
    assert "can be trusted" in capsys.readouterr().out.splitlines()[0]


def test_ops(saved, tmp_path, capsys):
    run("ops", saved, tmp_path)
    rows = files.load(tmp_path / "ops.json").rows
    assert ("FullyConnected", "net", 1, True) in [(r.op, r.where, r.nodes, r.exact) for r in rows]
    assert "every operator has an exact" in capsys.readouterr().out


def test_a_factory_in_the_working_folder(saved, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_nets.py").write_text(
        "from mxnet import gluon\ndef dense():\n    net = gluon.nn.Dense(2, in_units=4)\n"
        "    net.initialize()\n    return net\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    assert main(["eigen", "--net", "my_nets:dense", "--data", f"{saved}/data.npz", "--loss", "l2"]) == 0
    values = files.load(tmp_path / "hessmx-out" / "eigen.json").values
    np.testing.assert_allclose(values, np.linalg.eigvalsh(linear_hessian())[::-1][:5], rtol=1e-5)


def test_in_a_pipe_there_is_no_bar_and_stderr_is_empty(saved, tmp_path):
    command = [sys.executable, "-m", "hessmx.cli", "spectrum", *options(saved, "--loss", "l2", "--out", str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "products" in done.stdout


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in
               "eigen trace spectrum layers landscape inputs check ops demo".split())
