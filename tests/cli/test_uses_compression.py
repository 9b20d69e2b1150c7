"""quantise and prune on an exported net: what is written agrees with forward passes of that net."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hessmx import files
from hessmx._mxnet import mx
from hessmx.cli import main
from hessmx.uses.quantisation import rounded
from tests.uses.support import SOFTMAX, exported, problem, trained

X, Y = problem()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    exported(trained(X, Y, dtype="float32"), X, folder)
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder


def run(command, folder, out, *more):
    return main([command, "--net", f"{folder}/net-symbol.json", "--params", f"{folder}/net-0000.params", "--data",
                 f"{folder}/data.npz", "--loss", "softmax-ce", "--out", str(out), *more])


def loss_with(folder, change):
    net = files.load_net(folder / "net-symbol.json", folder / "net-0000.params")
    for parameter in net.collect_params().values():
        parameter.set_data(mx.nd.array(change(parameter.name, parameter.data().asnumpy())))
    return float(SOFTMAX(net(mx.nd.array(X)), mx.nd.array(Y)).asnumpy().mean())


def test_quantise(saved, tmp_path, capsys):
    code = run("quantise", saved, tmp_path, "--bits", "2,4,8", "--mean-bits", "5", "--int8", "--test",
               f"{saved}/data.npz")
    shown = capsys.readouterr().out
    found, plan = files.load(tmp_path / "quantise.json"), files.load(tmp_path / "quantise-plan.json")
    int8 = files.load(tmp_path / "quantise-int8.json")
    assert code == 0 and (tmp_path / "quantise.png").stat().st_size > 10_000
    before, bits = loss_with(saved, lambda name, w: w), dict(zip(plan.weights, plan.bits))
    rise = loss_with(saved, lambda name, w: rounded(w, int(bits.get(name, 32)))) - before
    assert plan.measured == pytest.approx(rise, abs=2e-6) and plan.mean_bits <= 5
    assert found.measured.shape == (2, 3) and f"{found.rank_correlation():.3f}" in shown
    assert int8.loss == pytest.approx(before, abs=1e-5) and int8.exclude == () and "exclude_layers=[]" in shown


def test_prune(saved, tmp_path, capsys):
    code = run("prune", saved, tmp_path, "--groups", "unit", "--sparsities", "0.5", "--test", f"{saved}/data.npz")
    shown = capsys.readouterr().out
    assert code == 0 and "accuracy" in shown and (tmp_path / "prune.png").stat().st_size > 10_000
    rises = {m: files.load(tmp_path / f"prune-{m}.json").measured[0] for m in ("magnitude", "obd", "exact", "greedy")}
    rows = {name: w.shape[0] for name, w in mx.nd.load(f"{saved}/net-0000.params").items()}
    losses = []  # of all ways to remove three of the six units
    for gone in itertools.combinations(range(6), 3):
        def change(name, w, gone=gone):
            w = w.copy()
            w[list(gone) if rows[f"arg:{name}"] == 6 else []] = 0
            return w
        losses.append(loss_with(saved, change))
    before = loss_with(saved, lambda name, w: w)
    assert all(np.abs(np.array(losses) - before - rise).min() < 1e-5 for rise in rises.values())
    assert rises["greedy"] + before <= np.median(losses)


@pytest.mark.parametrize("command, more, said", [
    ("quantise", ["--bits", "2,x"], "not a list of numbers"),
    ("quantise", ["--bits", "1,2"], "at least 2"),
    ("quantise", ["--int8", "--keep", "nothing"], "not a weight of this net"),
    ("prune", ["--method", "exact"], "spends a product on each candidate"),
    ("prune", ["--sparsities", "2"], "between 0 and 1"),
    ("prune", ["--test", "nowhere.npz"], "does not exist"),
])
def test_bad_input(saved, tmp_path, capsys, command, more, said):
    assert run(command, saved, tmp_path, *more) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown and "\n" not in shown
