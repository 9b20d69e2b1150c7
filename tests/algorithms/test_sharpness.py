from __future__ import annotations

import numpy as np
import pytest

from hessmx.algorithms.sharpness import ball_sharpness, count_above, count_outliers, saddle_report, sharpness
from hessmx.algorithms.slq import spectrum
from hessmx.errors import InputError
from tests.algorithms.support import dense

SADDLE = dense(np.r_[4.0, 1, 0.5, -2, -0.1])
BOWL = dense(np.r_[4.0, 1, 0.5, 0.2, 0.1])
GRADIENT = np.array([0.3, -0.2, 0.1, 0.4, 0.0])


def along(matrix: np.ndarray, gradient: np.ndarray = GRADIENT * 0, quartic: float = 0.0):
    def loss(direction: np.ndarray, step: float) -> float:
        x = step * direction
        return float(7 + gradient @ x + x @ matrix @ x / 2 + quartic * (x @ x) ** 2)

    return loss


def test_gradient_descent_diverges_just_beyond_the_stable_rate() -> None:
    result = sharpness(BOWL)
    np.testing.assert_allclose([result.top_eigenvalue, result.stable_learning_rate], [4, 0.5], rtol=1e-6)
    for factor, grows in ((0.99, False), (1.01, True)):
        x = np.ones(5)
        for _ in range(500):
            x = x - factor * result.stable_learning_rate * BOWL @ x
        assert (np.linalg.norm(x) > np.sqrt(5)) == grows


def test_no_upward_curvature_has_no_limit() -> None:
    assert sharpness(-np.eye(3)).stable_learning_rate == np.inf


def test_ball_finds_the_maximum_of_a_quadratic() -> None:
    """On the sphere of radius r the centred quadratic is largest at lambda_max r^2 / 2."""
    result = ball_sharpness(along(SADDLE), np.ones((5, 1)), 0.5, gradient_at=lambda x: SADDLE @ x, ascent=30)
    np.testing.assert_allclose(result.rise, 4 * 0.25 / 2, rtol=1e-6)
    assert result.evaluations == 1 + 2 + 30


def test_ball_without_gradients_takes_the_best_direction_and_sign() -> None:
    columns = np.stack([GRADIENT, np.eye(5)[0]], axis=1)
    result = ball_sharpness(along(SADDLE * 0, GRADIENT), columns, 0.1)
    np.testing.assert_allclose(result.rise, 0.1 * np.linalg.norm(GRADIENT))


def test_saddle_is_found_followed_and_measured() -> None:
    report = saddle_report(SADDLE, along(SADDLE, GRADIENT, quartic=1.0), gradient=GRADIENT)
    np.testing.assert_allclose(report.eigenvalue, -2, rtol=1e-6)
    assert report.is_saddle
    assert report.goes_down
    assert GRADIENT @ report.direction <= 0
    np.testing.assert_allclose(report.losses, [along(SADDLE, GRADIENT, 1.0)(report.direction, t) for t in report.steps])
    np.testing.assert_allclose(report.quadratic[0], report.losses[0], atol=1e-8)
    np.testing.assert_allclose(report.descent, 7 - report.losses.min())


def test_a_bowl_is_no_saddle() -> None:
    report = saddle_report(BOWL, along(BOWL))
    assert not report.is_saddle
    assert not report.goes_down


@pytest.mark.parametrize(("values", "count", "agrees"), [
    (np.r_[9, 8, 7, 0.1, 0.09, 0.08, 0.07], 3, True),
    (np.r_[9, 8, 7, 6, 0.1, 0.09], 4, True),
    (np.r_[9, 0.5, 0.4, 0.3, 0.2, 0.1], 1, False),
])
def test_outliers_end_at_the_largest_gap(values: np.ndarray, count: int, agrees: bool) -> None:
    result = count_outliers(values[::-1], 4)
    assert (result.count, result.agrees) == (count, agrees)
    assert values[count - 1] > result.threshold > values[count]


def test_outliers_by_the_distribution_function() -> None:
    found = spectrum(np.diag(np.r_[9, 8, 7, np.linspace(0, 1, 197)]), 10, 30)
    assert round(count_above(found, 3.0)) == 3


def test_bad_input() -> None:
    with pytest.raises(InputError, match="at least classes"):
        count_outliers(np.ones(4), 10)
    with pytest.raises(InputError, match="radius"):
        ball_sharpness(along(BOWL), np.ones((5, 1)), 0.0)
    with pytest.raises(InputError, match="other than zero"):
        ball_sharpness(along(BOWL), np.zeros((5, 1)))
    with pytest.raises(InputError, match="steps"):
        saddle_report(BOWL, along(BOWL), steps=np.array([-1.0]))
