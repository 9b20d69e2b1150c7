"""Figures show the numbers of the result, on the Axes given, without touching pyplot."""

from __future__ import annotations

import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from hessmx import figures
from hessmx.errors import InputError
from hessmx.results import (
    Eigenpairs,
    Estimate,
    InputGradients,
    LayerCurvature,
    Layers,
    Provenance,
    Spectrum,
)
from hessmx.uses.ewc import Importance
from hessmx.uses.influence import Influence, SelfInfluence
from hessmx.uses.landscape import LandscapeLine, LandscapePlane
from hessmx.uses.merging import Merged
from hessmx.uses.noise import GradientNoise, SampleGradients
from hessmx.uses.paths import NetPath
from hessmx.uses.pruning import PruningCurve
from hessmx.uses.quantisation import BitCosts, BitPlan

RNG = np.random.default_rng(0)
WHERE = Provenance("reverse-over-forward", "hessian", "predict", "mean", "float32", 0, 1347, 9738)
S = np.linspace(-1, 1, 9)


def pairs(values, converged=True):
    k = len(values)
    good = np.full(k, converged)
    return Eigenpairs(np.array(values, float), np.eye(k), np.full(k, 0.1), good, 9, "lanczos", "LM", (), WHERE)


def spectrum(nodes):
    nodes = np.array(nodes, float)
    steps = nodes.shape[1]
    return Spectrum(nodes, np.full(nodes.shape, 1 / steps), 500, nodes.size, steps, seed=0, provenance=WHERE)


def line(losses):
    return LandscapeLine(S, np.array(losses, float), 1 + S**2, 1.0, 0.0, 2.0, 1.0, "the top eigenvector",
                         provenance=WHERE)


def plane(losses, path=None):
    model = 1 + S[None] ** 2 + S[:, None] ** 2
    explained = None if path is None else np.array([0.8, 0.15])
    return LandscapePlane(S, S, losses, model, 1.0, np.zeros(2), np.eye(2), provenance=WHERE, path=path,
                          explained=explained)


def scores(values):
    values = np.array(values, float)[:, None]
    return Influence(values, np.linspace(0, 1, len(values)), np.ones(1), np.zeros(1), True, 9, 0.1, (), WHERE)


def own(values):
    values = np.array(values, float)
    samples, losses = np.arange(len(values)), np.linspace(0, 1, len(values))
    return SelfInfluence(samples, values, values / 5, losses, 50, 1e-4, True, 9, 0.1, (), WHERE)


def gradients(losses, **changes):
    n = len(losses)
    norms, cosines = np.linspace(1, 2, n), np.linspace(-0.5, 0.5, n)
    fields = dict(norms=norms, low=norms / 2, high=norms * 2, mean_cosines=cosines, cosines=np.empty((n, 0)),
                  mean_norm=0.3, probes=9, provenance=WHERE)
    return SampleGradients(np.array(losses, float), **{**fields, **changes})


def noise(critical, stderr, bend=2.0):
    def known(value, error):
        return Estimate(value, error, np.ones(9), 9, "probes")

    return GradientNoise(1.0, 0.5, bend, known(3, 0.1), known(4, 0.2), known(6, 0.3), known(critical, stderr), 100,
                         False, 9, provenance=WHERE)


BOWL = 1 + 50 * (S[None] ** 2 + S[:, None] ** 2)
ROWS = tuple(LayerCurvature(f"dense{i}", 100, 0.5 - 0.3 * i, 4.0 - 2.5 * i, 0.1, 0.5) for i in range(3))
HOLES = np.where(np.arange(81).reshape(9, 9) % 5 == 0, np.nan, BOWL)

GRID = np.array([[1e-5, -2e-3, 0.3], [0.0, 1e-3, 0.7]])
COSTS = BitCosts(("conv0_weight", "dense0_weight"), np.array([72, 640]), np.array([2, 4, 8]), GRID, GRID, GRID,
                 1.1 * GRID, GRID, np.ones(2), np.ones(2), 0.05, "tensor", 12, WHERE)
PLAN = BitPlan(COSTS.weights, np.array([4, 8]), COSTS.sizes, 7.6, 8.0, "predicted", 0.1, 0.1, 0.1, WHERE)
SHARES = np.array([0.2, 0.5, 0.9])


def pruned(metric):
    return PruningCurve(SHARES, 100 * SHARES, SHARES**2, SHARES**3, SHARES**4, metric * SHARES, 0.05, metric, "obd",
                        "weights", 3, WHERE)


T = np.linspace(0, 1, 9)


def path(kind, height, metric=np.nan):
    losses = 0.1 + height * 4 * T * (1 - T)
    return NetPath(T, losses, T, -8 * height + 0 * T, metric + 0 * T, height, 0.5, 12.0, 10.0, kind, provenance=WHERE)


MERGED = Merged(np.zeros(3), np.array([0.5, 0.5]), np.array([[0.1, 2.0, 0.4, 0.3], [3.0, 0.05, 0.5, 0.2]]), 1e-9, True,
                12, "full", "ggn", 1e-3, WHERE)
NEEDED = Importance(np.zeros(12), np.linspace(0.1, 2, 12) ** 3, ("a_weight", "a_bias", "b_weight"), np.array([6, 2, 4]),
                    "ggn", 50, WHERE)


DRAWINGS = {
    "paths": lambda: figures.paths([path("straight", 0.8, 0.9), path("bezier", 0.1, 0.8)], metric="accuracy"),
    "a flat path": lambda: figures.paths(path("chain", 0.0)),
    "merged": lambda: figures.merged(MERGED),
    "importance": lambda: figures.importance(NEEDED),
    "importance of nothing": lambda: figures.importance(
        Importance(np.zeros(3), np.zeros(3), ("a_weight",), np.array([3]), "ggn", 2)),
    "bit costs": lambda: figures.bit_costs(COSTS),
    "bit costs with a plan": lambda: figures.bit_costs(COSTS, PLAN),
    "pruning": lambda: figures.pruning([pruned(0.9), pruned(0.8)]),
    "pruning without a metric": lambda: figures.pruning(pruned(np.nan)),
    "eigenvalues": lambda: figures.eigenvalues(pairs([3, 1, -2])),
    "one eigenvalue": lambda: figures.eigenvalues(pairs([3])),
    "eigenvalues all zero": lambda: figures.eigenvalues(pairs([0, 0])),
    "eigenvalues not converged": lambda: figures.eigenvalues(pairs([3, 1, -2], False)),
    "estimate": lambda: figures.estimate(Estimate(1.0, 0.1, RNG.normal(size=20), 20, "hutchinson", provenance=WHERE)),
    "estimate, one sample": lambda: figures.estimate(Estimate(1.0, float("nan"), np.ones(1), 1, "hutchinson")),
    "density": lambda: figures.density(spectrum([[-1, 0, 5], [-1.1, 0.1, 5]])),
    "log density": lambda: figures.log_density(spectrum([[-1, 1e-4, 5], [-1.1, 0.1, 5]])),
    "log density, one side": lambda: figures.log_density(spectrum([[1, 2, 5]])),
    "spectrum": lambda: figures.spectrum(spectrum([[-1, 0, 5], [-1.1, 0.1, 5]])),
    "spectrum, one node": lambda: figures.spectrum(spectrum([[2.0]])),
    "spectrum of zero": lambda: figures.spectrum(spectrum([[0.0]])),
    "line": lambda: figures.line(line(1 + S**2 + S**4)),
    "line, flat": lambda: figures.line(line(np.ones(9))),
    "line with infinity": lambda: figures.line(line(np.where(S > 0.5, np.inf, 1 + S**2))),
    "plane": lambda: figures.plane(plane(BOWL)),
    "plane below zero": lambda: figures.plane(plane(BOWL - 20)),
    "plane with holes": lambda: figures.plane(plane(HOLES)),
    "plane, flat": lambda: figures.plane(plane(np.ones((9, 9)))),
    "plane with path": lambda: figures.plane(plane(BOWL, np.array([[0.9, 0.9], [0.3, 0.1], [0, 0]]))),
    "line with curvature": lambda: figures.line(replace(line(1 + S**2 + S**4), slopes=S, curvatures=2 + 12 * S**2)),
    "surface": lambda: figures.surface(plane(BOWL)),
    "surface with holes": lambda: figures.surface(plane(HOLES)),
    "surface, flat": lambda: figures.surface(plane(np.ones((9, 9)))),
    "influence": lambda: figures.influence(scores(RNG.normal(size=50))),
    "influence of one sample": lambda: figures.influence(scores([0.3])),
    "no influence": lambda: figures.influence(scores(np.zeros(4))),
    "self-influence": lambda: figures.self_influence(own(RNG.random(50)), marked=[3, 9], mark="planted"),
    "self-influence of zero": lambda: figures.self_influence(own(np.zeros(3))),
    "gradients of samples": lambda: figures.sample_gradients(gradients([0.1, 0.3, 0.5])),
    "gradients of samples, all zero": lambda: figures.sample_gradients(
        gradients([0, 0], norms=np.zeros(2), low=np.zeros(2), high=np.zeros(2), mean_norm=0.0)
    ),
    "noise": lambda: figures.noise(noise(40, 5)),
    "noise, uncertain": lambda: figures.noise(noise(40, 50)),
    "noise without a critical size": lambda: figures.noise(noise(float("nan"), 0.0, bend=-1.0)),
    "layers": lambda: figures.layers(Layers(ROWS, WHERE)),
    "matrix": lambda: figures.matrix(RNG.normal(size=(6, 6)), {"a_weight": slice(0, 4), "a_bias": slice(4, 6)}),
    "matrix of zeros": lambda: figures.matrix(np.zeros((3, 3))),
    "saliency": lambda: figures.saliency(RNG.random((3, 8, 8)), RNG.normal(size=(3, 8, 8))),
    "flat images": lambda: figures.input_gradients(InputGradients(np.ones((2, 64)), RNG.normal(size=(2, 64)), "y")),
    "colour images": lambda: figures.input_gradients(
        InputGradients(np.ones((2, 3, 8, 8)), RNG.normal(size=(2, 3, 8, 8)), "y")
    ),
    "no images": lambda: figures.input_gradients(InputGradients(np.ones((2, 5)), RNG.normal(size=(2, 5)), "y")),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = figures.save(DRAWINGS[name](), tmp_path / "sub" / "figure.png", dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_bit_costs_shows_prediction_against_measurement():
    left, right = figures.bit_costs(COSTS, PLAN)
    shown = {line.get_label(): line for line in left.get_lines()}
    for j, bits in enumerate(COSTS.bits):
        points = np.stack([1.1 * GRID[:, j], GRID[:, j]], axis=1)
        np.testing.assert_array_equal(shown[f"{bits} bits"].get_xydata(), points)
    assert [p.get_xy() for p in right.patches] == [(0.5, -0.5), (1.5, 0.5)]


def test_paths_show_losses_and_merged_shows_a_bar_for_each_net():
    ax = figures.paths([path("straight", 0.8), path("bezier", 0.1)])[0]
    np.testing.assert_array_equal(ax.get_lines()[0].get_ydata(), path("straight", 0.8).losses)
    assert "barrier 0.8" in ax.get_legend().get_texts()[0].get_text()
    heights = [bar.get_height() for bar in figures.merged(MERGED).patches]
    np.testing.assert_array_equal(heights, MERGED.losses.ravel())


def test_eigenvalues_shows_values_and_residuals():
    ax = figures.eigenvalues(pairs([3, 1, -2]))
    bars = [segment for c in ax.containers for segment in c.lines[2][0].get_segments()]
    ends = sorted([b[:, 1].min(), b[:, 1].max()] for b in bars)
    np.testing.assert_allclose(ends, [[-2.1, -1.9], [0.9, 1.1], [2.9, 3.1]])


def test_line_shows_loss_and_model():
    ax = figures.line(line(1 + S**2 + S**4))
    loss, model = ax.get_lines()[:2]
    np.testing.assert_array_equal(loss.get_ydata(), 1 + S**2 + S**4)
    np.testing.assert_array_equal(model.get_ydata(), 1 + S**2)


def test_density_shows_the_result_between_the_extreme_nodes():
    result = spectrum([[-1, 0, 5], [-1.1, 0.1, 5]])
    x, y = figures.density(result).get_lines()[0].get_data()
    inside = result.density(x) > y.min()
    np.testing.assert_allclose(y[inside], result.density(x)[inside])
    assert x[0] < -1.1 < 5 < x[-1]


def test_log_density_shows_both_signs_at_one_scale():
    left, right = figures.log_density(spectrum([[-1, 1e-4, 5], [-1.1, 0.1, 5]]))
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim() == right.get_xlim()[::-1]
    assert "0.0 % to 66.7 %" in left.get_title() and "33.3 % to 100.0 %" in right.get_title()


def test_influence_shows_both_ends_in_order():
    result = scores([0.1, -2, 3, 0, -1])
    _, right = figures.influence(result, count=2)
    assert [bar.get_width() for bar in right.patches] == [3, 0.1, -1, -2]
    assert [label.get_text().split(",")[0] for label in right.get_yticklabels()] == ["2", "0", "4", "1"]


def test_self_influence_marks_the_samples_named():
    ax = figures.self_influence(own(np.arange(1.0, 6)), marked=[1, 3])
    plain, red = (container.lines[0].get_xydata() for container in ax.containers)
    np.testing.assert_allclose(red, [[0.25, 2], [0.75, 4]])
    assert len(plain) == 3


def test_noise_shows_the_gain_and_the_best_rate():
    left, right = figures.noise(noise(40, 5))
    sizes, gain = left.get_lines()[0].get_data()
    np.testing.assert_allclose(gain, 1 / (1 + 40 / sizes))
    np.testing.assert_allclose(right.get_lines()[0].get_ydata(), 0.25 * gain)


def test_figures_are_drawn_on_the_axes_given():
    ax = Figure().add_subplot()
    assert figures.line(line(1 + S**2), ax) is ax


def test_provenance_stands_on_the_figure():
    texts = [t.get_text() for t in figures.eigenvalues(pairs([1])).texts]
    assert "9,738 parameters · 1,347 samples · mean loss · predict mode · float32 · reverse-over-forward" in texts


def test_pyplot_is_never_imported():
    program = "import sys, hessmx.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


BAD = [
    (lambda: figures.matrix(np.ones((2, 3))), "got shape (2, 3)"),
    (lambda: figures.saliency(np.ones((2, 8)), np.ones((2, 8))), "not (2, 8) and (2, 8)"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input_is_one_clear_line(call, said):
    with pytest.raises(InputError) as caught:
        call()
    assert said in str(caught.value)
