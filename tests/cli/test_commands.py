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
    assert found.products <= 200


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


@pytest.mark.parametrize("more, expected", [
    (["--along", "gradient"], lambda w, z: None),
    (["--along", "net", "--other-params", "OTHER"], lambda w, z: z - w),
    (["--along", "random", "--normalise", "layer", "--derivatives"], lambda w, z: None),
    (["--along", "trajectory", *["--snapshot", "OTHER"] * 2, "--snapshot", "OWN"],
     lambda w, z: (z - w) / np.linalg.norm(z - w)),
])
def test_landscape_along_other_directions(saved, tmp_path, more, expected):
    own = mx.nd.load(f"{saved}/net-0000.params")
    rng = np.random.default_rng(9)
    other = {name: value + mx.nd.array(rng.normal(size=value.shape), dtype="float64") for name, value in own.items()}
    mx.nd.save(f"{saved}/other.params", other)
    files_of = {"OTHER": f"{saved}/other.params", "OWN": f"{saved}/net-0000.params"}
    run("landscape --points 3", saved, tmp_path, *(files_of.get(word, word) for word in more))
    found = files.load(tmp_path / "landscape-line.json")
    np.testing.assert_allclose(found.losses, found.model, rtol=1e-9)
    w, z = (np.concatenate([part[f"arg:net_dense0_{kind}"].asnumpy().ravel() for kind in ("weight", "bias")])
            for part in (own, other))
    direction = expected(w, z)
    if direction is not None:
        assert found.curvature == pytest.approx(direction @ linear_hessian() @ direction)
    if "--derivatives" in more:
        np.testing.assert_allclose(found.curvatures, found.curvature, rtol=1e-9)
        np.testing.assert_allclose(found.slopes, found.slope + found.radii * found.curvature, rtol=1e-7, atol=1e-9)


def test_landscape_as_a_surface(saved, tmp_path):
    run("landscape --kind surface --points 5", saved, tmp_path)
    assert (tmp_path / "landscape-surface.png").read_bytes().startswith(PNG)


def test_inputs(saved, tmp_path):
    run("inputs --output 1 --samples 3", saved, tmp_path, loss=False)
    found = files.load(tmp_path / "inputs.json")
    weight = mx.nd.load(f"{saved}/net-0000.params")["arg:net_dense0_weight"].asnumpy()
    np.testing.assert_allclose(found.gradients, np.tile(weight[1], (3, 1)), rtol=1e-12)


def test_kfac_of_one_layer_with_squared_loss_is_exact(saved, tmp_path, capsys):
    run("kfac --damping 0.01", saved, tmp_path)
    found = files.load(tmp_path / "kfac.json")
    assert found.traces.sum() == pytest.approx(np.trace(linear_hessian()), rel=1e-9)
    assert found.logdet == pytest.approx(np.linalg.slogdet(linear_hessian() + 0.01 * np.eye(10))[1], rel=1e-9)
    assert found.error < 1e-9 and found.helped < found.alone
    assert "takes" in capsys.readouterr().out
    assert (tmp_path / "kfac.png").read_bytes().startswith(PNG)


def test_laplace_of_a_linear_net(saved, tmp_path, capsys):
    """Evidence of weights as they are: the summed squared error, the prior, the posterior's volume."""
    run(f"laplace --prior 0.5 --noise 2 --test {saved}/data.npz", saved, tmp_path)
    found, predicted = (files.load(tmp_path / f"{name}.json") for name in ("laplace", "prediction"))
    weight = mx.nd.load(f"{saved}/net-0000.params")["arg:net_dense0_weight"].asnumpy()
    bias = mx.nd.load(f"{saved}/net-0000.params")["arg:net_dense0_bias"].asnumpy()
    residuals, w = Y - X @ weight.T - bias, np.concatenate([weight.ravel(), bias])
    precision = 80 * linear_hessian() / 4 + 0.5 * np.eye(10)
    likelihood = -(residuals**2).sum() / 8 - 40 * np.log(2 * np.pi * 4)
    expected = likelihood - 0.25 * w @ w + 5 * np.log(0.5) - 0.5 * np.linalg.slogdet(precision)[1]
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert predicted.nll(Y) < 10 and f"{predicted.nll(Y):.6g}" in capsys.readouterr().out
    rows = np.hstack([np.kron(np.eye(2), X[0]), np.eye(2)])
    true = rows @ np.linalg.inv(precision) @ rows.T
    np.testing.assert_allclose(predicted.covariances[0], true, rtol=1e-9, atol=1e-15)


def test_laplace_of_classes_with_a_fitted_prior(saved, tmp_path, capsys):
    np.savez(tmp_path / "classes.npz", x=X, y=(X[:, 0] > 0).astype(float))
    data = f"{tmp_path}/classes.npz"
    code = main(["laplace", *options(saved)[:-1], data, "--loss", "softmax-ce", "--out", str(tmp_path), "--fit",
                 "--by", "kind", "--structure", "full", "--test", data])  # fmt: skip
    assert code == 0
    found, tested = (files.load(tmp_path / f"{name}.json") for name in ("laplace", "calibration"))
    assert found.groups == ("weight", "bias") and found.converged
    assert tested.counts.sum() == 40 and f"{tested.ece:.4f}" in capsys.readouterr().out
    assert (tmp_path / "calibration.png").read_bytes().startswith(PNG)


def test_influence(saved, tmp_path, capsys):
    """Of linear regression with a penalty, whose Gauss-Newton matrix is its Hessian."""
    run(f"influence --test {saved}/data.npz --weight-decay 0.5 --rtol 1e-10 --top 3", saved, tmp_path)
    arrays = mx.nd.load(f"{saved}/net-0000.params")
    weight, bias = (arrays[f"arg:net_dense0_{kind}"].asnumpy() for kind in ("weight", "bias"))
    rest = (X @ weight.T + bias - Y) / 2
    gradients = np.concatenate([np.einsum("nk,ni->nki", rest, X).reshape(40, -1), rest], axis=1)
    inverse = np.linalg.inv(linear_hessian() + 0.5 * np.eye(10))
    found = files.load(tmp_path / "influence.json")
    np.testing.assert_allclose(found.scores[:, 0], gradients @ inverse @ gradients.mean(axis=0) / 40, atol=1e-10)
    shown = capsys.readouterr().out
    assert [f"\n{i:8}  " in shown for i in (*found.helpful(3), *found.harmful(3))] == [True] * 6
    run("influence --weight-decay 0.5 --probes 30", saved, tmp_path)
    own = files.load(tmp_path / "self-influence.json")
    true = np.einsum("np,pq,nq->n", gradients, inverse, gradients) / 40
    low, high = own.interval(1 - 1e-7)
    assert ((low < true) & (true < high)).all()
    assert (tmp_path / "self-influence.png").read_bytes().startswith(PNG)


def test_samples_and_noise(saved, tmp_path, capsys):
    """Of linear regression: every sample's gradient and the Hessian are known."""
    arrays = mx.nd.load(f"{saved}/net-0000.params")
    weight, bias = (arrays[f"arg:net_dense0_{kind}"].asnumpy() for kind in ("weight", "bias"))
    rest = (X @ weight.T + bias - Y) / 2
    gradients = np.concatenate([np.einsum("nk,ni->nki", rest, X).reshape(40, -1), rest], axis=1)
    run("samples --top 2", saved, tmp_path)
    norms = np.linalg.norm(gradients, axis=1)
    np.testing.assert_allclose(files.load(tmp_path / "samples.json").norms, norms, rtol=1e-9)
    assert f"\n{np.argmax(norms):8}  " in capsys.readouterr().out
    run("noise --exact", saved, tmp_path)
    mean, covariance, hessian = gradients.mean(axis=0), np.cov(gradients.T, bias=True), linear_hessian()
    found = files.load(tmp_path / "noise.json")
    critical = np.trace(hessian @ covariance) / (mean @ hessian @ mean)
    assert found.critical.value == pytest.approx(critical) and f"{critical:.5g} ± 0" in capsys.readouterr().out
    assert all((tmp_path / f"{name}.png").read_bytes().startswith(PNG) for name in ("samples", "noise"))


def test_check(saved, tmp_path, capsys):
    run("check", saved, tmp_path)
    assert files.load(tmp_path / "check.json").trusted
    assert "can be trusted" in capsys.readouterr().out.splitlines()[0]


def test_check_tries_every_operator(saved, tmp_path, capsys):
    run("check", saved, tmp_path, "--locate")
    assert "every operator is right alone" in capsys.readouterr().out
    assert files.load(tmp_path / "check.json").located.checked > 1


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
    names = "eigen trace spectrum layers landscape inputs influence samples noise kfac laplace check ops demo"
    assert all(f"\n  {name} " in shown for name in names.split())
