"""Figures of posteriors and of K-FAC show the numbers of the result."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from hessmx import figures
from hessmx.errors import InputError
from hessmx.results import Provenance
from hessmx.uses.factored import Factored
from hessmx.uses.laplace import Evidence
from hessmx.uses.predictions import Calibration, Prediction

WHERE = Provenance("reverse-over-forward", "ggn", "predict", "mean", "float32", 0, 1347, 9738)
X = np.array([2.0, 0.0, 1.0])
PREDICTION = Prediction(np.array([[5.0], [1.0], [3.0]]), np.array([4.0, 1.0, 0.25]).reshape(3, 1, 1), 0.5, "probit")
EVIDENCE = Evidence(-50.0, -40.0, -30.0, 20.0, 7.5, ("all",), (0.4,), 1.0, 0.0, "kfac", provenance=WHERE)
CALIBRATED = Calibration(0.3, 0.05, 0.9, np.array([np.nan, 0.6, 0.95]), np.array([np.nan, 0.5, 0.97]),
                         np.array([0, 10, 90]), WHERE)  # fmt: skip
FACTORED = Factored("kfac", ("dense0_weight", "dense1_weight"), np.array([[5, 4], [3, 6]]), np.array([2.0, 1.0]),
                    np.array([1.0, 0.5]), -3.0, 0.4, 0.1, 10, 1e-3, 1e-6, 90, 30, provenance=WHERE)  # fmt: skip

DRAWINGS = {
    "band": lambda: figures.band(X, PREDICTION, (X, np.ones(3))),
    "band without data": lambda: figures.band(X, PREDICTION),
    "evidence": lambda: figures.evidence(EVIDENCE),
    "reliability": lambda: figures.reliability(CALIBRATED),
    "reliability of two": lambda: figures.reliability({"net alone": CALIBRATED, "posterior": CALIBRATED}),
    "factored": lambda: figures.factored(FACTORED),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_figure_is_drawn_without_a_warning(tmp_path, name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = figures.save(DRAWINGS[name](), tmp_path / "figure.png", dpi=40)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_band_is_two_standard_deviations_of_function_and_observations():
    ax = figures.band(X, PREDICTION)
    np.testing.assert_array_equal(ax.get_lines()[0].get_data(), [[0, 1, 2], [1, 3, 5]])
    for collection, variances in zip(ax.collections, (np.array([1.0, 0.25, 4.0]) + 0.5, np.array([1.0, 0.25, 4.0]))):
        edge = collection.get_paths()[0].vertices
        assert edge[:, 1].max() == pytest.approx((np.array([1, 3, 5]) + 2 * np.sqrt(variances)).max())
        assert edge[:, 1].min() == pytest.approx((np.array([1, 3, 5]) - 2 * np.sqrt(variances)).min())


def test_reliability_leaves_empty_bins_out():
    shown = figures.reliability(CALIBRATED).get_lines()[1]
    np.testing.assert_array_equal(shown.get_data(), [[0.6, 0.95], [0.5, 0.97]])


def test_evidence_and_factored_show_their_numbers():
    widths = [bar.get_width() for bar in figures.evidence(EVIDENCE).patches]
    assert widths == [-40, -30, 20, -50]
    left, right = figures.factored(FACTORED).axes
    assert [bar.get_width() for bar in left.patches] == [2, 1]
    assert [bar.get_height() for bar in right.patches] == [90, 30]


def test_a_band_needs_one_input():
    with pytest.raises(InputError, match="one number for each of 3 predictions, not 6"):
        figures.band(np.ones((3, 2)), PREDICTION)
