"""The Estimator's handler: its numbers are those of a fresh Curvature, and the training is the same without it."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, figures, files
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import FileError, InputError
from hessmx.uses.training import FollowCurvature, load_history

nn, estimator = mx.gluon.nn, mx.gluon.contrib.estimator
LOSS = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40).astype(np.float32)


def trained(epochs: int, *handlers) -> tuple:
    mx.random.seed(0)
    net = dense_net((4, 6, 3), "tanh")
    net.add(nn.Dropout(0.2))
    net.initialize(mx.init.Xavier())
    net.hybridize()
    x, y = data()
    loader = mx.gluon.data.DataLoader(mx.gluon.data.ArrayDataset(x, y), batch_size=10)
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.1, "momentum": 0.9})
    fit = estimator.Estimator(net, LOSS, mx.metric.Loss(), trainer=trainer, context=mx.cpu())
    fit.logger.handlers.clear()
    fit.fit(loader, epochs=epochs, event_handlers=list(handlers))
    return net, np.concatenate([p.data().asnumpy().ravel() for p in net.collect_params().values()])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_follows_the_training_without_disturbing_it():
    ask = {"loss": lambda curv: curv.loss(), "top": lambda curv: curv.eigenpairs(1).values[0]}
    follow = FollowCurvature(LOSS, data(), ask, every=2)
    net, followed = trained(4, follow)
    _, alone = trained(4)
    assert np.array_equal(followed, alone)
    history, fresh = follow.history, Curvature(net, LOSS, data())
    assert list(history.epochs) == [2, 4] and history.names == ("loss", "top")
    assert history.values[0, -1] == pytest.approx(fresh.loss(), rel=1e-6)
    assert history.values[1, -1] == pytest.approx(np.linalg.eigvalsh(fresh.hessian.to_dense())[-1], rel=1e-4)
    assert history.values[0, 0] != history.values[0, 1]
    drawn = figures.history(history)
    assert [ax.get_ylabel() for ax in drawn] == ["loss", "top", "learning rate"]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FollowCurvature(LOSS, data(), ["sharpnes"]), "top eigenvalue"),
        (lambda: FollowCurvature(LOSS, data(), every=0), "at least 1"),
        (lambda: FollowCurvature(LOSS, data()).history, "nothing has been measured"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InputError, match=text):
        make()


def looped(steps: int, optimizer="sgd", rate=0.1, **options):
    """A loop of one's own with measure() after every step."""
    mx.random.seed(0)
    net = dense_net((4, 6, 3), "tanh")
    net.initialize(mx.init.Xavier())
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": rate})
    follow = FollowCurvature(LOSS, data(), unit="step", trainer=trainer, **options)
    x, y = (mx.nd.array(a) for a in data())
    for _ in range(steps):
        with mx.autograd.record():
            losses = LOSS(net(x), y)
        losses.backward()
        trainer.step(len(x))
        follow.measure(net)
    return net, trainer, follow


def test_sharpness_threshold_rate_and_eigenvalues_are_kept_at_every_few_steps():
    net, trainer, follow = looped(6, "adam", ask=("sharpness",), every=3, eigenvalues=2)
    history, curv = follow.history, Curvature(net, LOSS, data())
    fresh = curv.sharpness(trainer=trainer)
    assert list(history.steps) == list(history.when) == [3, 6] and history.unit == "step"
    assert history.names == ("sharpness", "eigenvalue 1", "eigenvalue 2")
    assert history.of("sharpness")[-1] == pytest.approx(fresh.top_eigenvalue, rel=1e-5)
    assert history.thresholds[-1] == pytest.approx(38 / 0.1) and list(history.learning_rates) == [0.1, 0.1]
    exact = np.linalg.eigvalsh(curv.hessian.to_dense())[::-1]
    np.testing.assert_allclose(history.values[1:, -1], exact[:2], rtol=1e-4)
    assert (history.seconds > 0).all()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_estimator_gives_its_trainer_and_its_steps():
    follow = FollowCurvature(LOSS, data(), ("sharpness",), every=3, unit="step")
    trained(2, follow)
    assert list(follow.history.steps) == [3, 6] and list(follow.history.epochs) == [0, 1]
    assert follow.history.thresholds == pytest.approx(2 * 1.9 / 0.1)


def test_asking_takes_no_more_than_its_share_of_the_time(monkeypatch):
    """Training takes 1 s a step, asking 2: with a share of a fifth it waits ten steps' time after each."""
    clock = [0.0]
    monkeypatch.setattr("hessmx.uses.training.time.perf_counter", lambda: clock[0])

    def ask(curv):
        clock[0] += 2
        return curv.loss()

    net = dense_net((4, 6, 3), "tanh")
    net.initialize()
    follow = FollowCurvature(LOSS, data(), {"loss": ask}, unit="step", share=0.2)
    for _ in range(60):
        clock[0] += 1
        follow.measure(net)
    history = follow.history
    assert len(history.steps) + follow.left_out == 60 and history.seconds.sum() <= 0.2 * clock[0] + 2
    assert len(history.steps) >= 6


def test_what_was_written_survives_and_is_continued(tmp_path):
    path = tmp_path / "run" / "history.jsonl"
    _, _, first = looped(3, ask=("loss", "sharpness"), file=path)
    written = load_history(path)
    for name in ("epochs", "steps", "values", "learning_rates", "thresholds", "seconds"):
        np.testing.assert_array_equal(getattr(written, name), getattr(first.history, name))
    assert written.provenance == first.history.provenance and written.names == first.history.names
    with open(path, "a") as file:
        file.write('{"epoch": 0, "step": 4, "lear')  # killed while writing
    assert list(load_history(path).steps) == [1, 2, 3]
    waiting = FollowCurvature(LOSS, data(), ("loss", "sharpness"), unit="step", file=path)
    assert list(waiting.history.steps) == [1, 2, 3]
    _, _, second = looped(2, ask=("loss", "sharpness"), file=path)
    assert list(second.history.steps) == list(load_history(path).steps) == [1, 2, 3, 4, 5]
    with pytest.raises(FileError, match="other questions"):
        FollowCurvature(LOSS, data(), ("trace",), unit="step", file=path)
    path.write_text("x\n")
    with pytest.raises(FileError, match="not a history"):
        load_history(path)
    with pytest.raises(FileError, match="cannot be read"):
        load_history(tmp_path / "none")


def test_a_history_saves_as_a_result(tmp_path):
    _, _, follow = looped(2, ask=("sharpness",))
    files.save(follow.history, tmp_path / "h.json")
    loaded = files.load(tmp_path / "h.json")
    np.testing.assert_array_equal(loaded.thresholds, follow.history.thresholds)
    assert loaded.when.tolist() == [1, 2] and loaded.unit == "step"


def test_a_training_that_runs_to_nan_is_followed_there(capsys):
    net, _, _ = looped(1)
    follow = FollowCurvature(LOSS, data(), ("loss",), unit="step", show=True)
    assert np.isfinite(follow.measure(net)["loss"])
    net[0].weight.set_data(net[0].weight.data() * np.nan)
    assert np.isnan(follow.measure(net)["loss"])
    assert capsys.readouterr().err.splitlines()[1] == "step 2  loss nan"


def test_pictures_of_stability():
    _, _, follow = looped(4, ask=("loss", "sharpness"), eigenvalues=3)
    history = follow.history
    panels = figures.history(history)
    assert [ax.get_ylabel() for ax in panels] == ["loss", "sharpness", "learning rate"]
    np.testing.assert_array_equal(panels[1].lines[1].get_ydata(), history.thresholds)
    share = figures.stability(history).lines[0].get_ydata()
    np.testing.assert_allclose(share, history.of("sharpness") / history.thresholds)
    lines = [line.get_ydata() for line in figures.ridge(history).lines[:3]]
    np.testing.assert_array_equal(lines[::-1], history.values[2:])
    _, _, plain = looped(1, ask=("loss",))
    for draw, text in ((figures.stability, "no sharpness"), (figures.ridge, "no eigenvalues")):
        with pytest.raises(InputError, match=text):
            draw(plain.history)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (dict(unit="batch"), "unit must be one of"),
        (dict(every=1.5), "whole number of epochs"),
        (dict(share=0), "share must be above 0"),
        (dict(eigenvalues=-1), "how many to keep"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(InputError, match=text):
        FollowCurvature(LOSS, data(), **options)


def test_sharpness_needs_a_trainer():
    net, _, _ = looped(1)
    with pytest.raises(InputError, match="give trainer="):
        FollowCurvature(LOSS, data(), ("sharpness",)).measure(net)
