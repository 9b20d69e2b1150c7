"""stability and history: the library's numbers from exported nets and saved states, and files that can be read back."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, files
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.cli import main
from hessmx.training import FollowCurvature

LOSS = mx.gluon.loss.L2Loss()
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(20, 3)).astype("float32"), RNG.normal(size=(20, 2)).astype("float32")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    mx.random.seed(0)
    net = dense_net((3, 5, 2), "tanh")
    net.initialize(mx.init.Xavier())
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.02})
    follow = FollowCurvature(LOSS, (X, Y), ("sharpness",), unit="step", trainer=trainer, eigenvalues=2,
                             file=folder / "run.jsonl")
    for _ in range(3):
        with mx.autograd.record():
            losses = LOSS(net(mx.nd.array(X)), mx.nd.array(Y))
        losses.backward()
        trainer.step(20)
        follow.measure(net)
    net.export(str(folder / "net"))
    trainer.save_states(str(folder / "net.states"))
    np.savez(folder / "data.npz", x=X, y=Y)
    return folder, Curvature(net, LOSS, (X, Y)), trainer


def options(folder, out):
    return ["--net", f"{folder}/net-symbol.json", "--params", f"{folder}/net-0000.params", "--loss", "l2",
            "--data", f"{folder}/data.npz", "--out", str(out)]


def test_stability_reads_the_states_that_a_trainer_saved(saved, tmp_path, capsys):
    folder, curv, trainer = saved
    assert main(["stability", *options(folder, tmp_path), "--states", f"{folder}/net.states"]) == 0
    found, direct = files.load(tmp_path / "stability.json"), curv.sharpness(trainer=trainer)
    assert found.top_eigenvalue == pytest.approx(direct.top_eigenvalue, rel=1e-5)
    assert (found.threshold, found.optimizer) == (pytest.approx(38 / 0.02), "adam")
    text = capsys.readouterr().out
    assert "below it" in text and f"stable up to learning rate {direct.stable_learning_rate:.4g}" in text.replace(
        f"{found.stable_learning_rate:.6g}", f"{direct.stable_learning_rate:.4g}")


def test_stability_of_plain_descent_needs_no_states(saved, tmp_path, capsys):
    folder, curv, _ = saved
    top = curv.sharpness().top_eigenvalue
    rate = 1.1 * 2 * 1.5 / top
    more = ["--optimizer", "sgd", "--momentum", "0.5", "--learning-rate", f"{rate}"]
    assert main(["stability", *options(folder, tmp_path), *more]) == 0
    assert files.load(tmp_path / "stability.json").ratio == pytest.approx(1.1, rel=1e-4)
    assert "overshoot" in capsys.readouterr().out


def test_history_draws_what_was_written(saved, tmp_path, capsys):
    folder, _, _ = saved
    assert main(["history", f"{folder}/run.jsonl", "--out", str(tmp_path)]) == 0
    assert files.load(tmp_path / "history.json").steps.tolist() == [1, 2, 3]
    for name in ("history", "history-stability", "history-eigenvalues"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "3 rows, last at step 3: sharpness" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ([], "say what it is trained with"),
        (["--optimizer", "sgd", "--states", "x"], "say what it is trained with"),
        (["--optimizer", "adam"], "only after a step"),
        (["--optimizer", "nothing"], "--optimizer nothing"),
        (["--states", "DATA"], "is not what Trainer.save_states() wrote"),
        (["--states", "OTHER"], "does not fit the net"),
    ],
)
def test_bad_input(saved, tmp_path, capsys, more, text):
    folder, _, _ = saved
    other = dense_net((4, 6, 2), "tanh")
    other.initialize()
    trainer = mx.gluon.Trainer(other.collect_params(), "adam")
    with mx.autograd.record():
        losses = other(mx.nd.ones((2, 4)))
    losses.backward()
    trainer.step(1)
    trainer.save_states(str(tmp_path / "other.states"))
    names = {"DATA": f"{folder}/data.npz", "OTHER": str(tmp_path / "other.states")}
    assert main(["stability", *options(folder, tmp_path), *(names.get(word, word) for word in more)]) == 2
    error = capsys.readouterr().err
    assert text in error and error.count("\n") == 1


def test_a_file_without_rows(tmp_path, capsys):
    (tmp_path / "x.jsonl").write_text("{}\n")
    assert main(["history", str(tmp_path / "x.jsonl")]) == 2
    assert "not a history" in capsys.readouterr().err
