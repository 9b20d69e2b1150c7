"""Products against dense float64 Hessians of hand-written NumPy nets, and closed forms."""

from __future__ import annotations

import pytest

from tests.dense import ACTIVATED, LOSSES, Problem

TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("activation", ACTIVATED)
def test_activations(activation, dtype):
    problem = Problem(activation=activation, loss="softmax-ce", dtype=dtype)
    assert problem.error() < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("loss", LOSSES)
def test_losses(loss, dtype):
    problem = Problem(activation="tanh", loss=loss, dtype=dtype)
    assert problem.error() < TOLERANCE[dtype]
