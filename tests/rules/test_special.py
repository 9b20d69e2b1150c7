"""psi and its derivative against SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import polygamma

from hessmx._mxnet import mx
from hessmx.rules.special import psi

POINTS = {
    "near zero": np.array([1e-3, 0.02, 0.3, 0.4999]),
    "positive": np.array([0.5, 0.7, 1.0, 1.4616321449683623, 2.0, 3.7, 8.0, 15.5, 120.0]),
    "large": np.array([1e4, 1e8]),
    "negative": np.array([-0.3, -0.5, -1.25, -2.6, -7.4, -20.5]),
}


@pytest.mark.parametrize("where", POINTS)
def test_psi_and_trigamma(where):
    x = POINTS[where]
    array = mx.nd.array(x, dtype="float64")
    gradient = mx.nd.zeros_like(array)
    program = psi(mx.sym.Variable("x")).bind(mx.cpu(), {"x": array}, args_grad={"x": gradient})
    value = program.forward(is_train=True)[0].asnumpy()
    program.backward(mx.nd.ones_like(array))
    true = polygamma(0, x)
    assert np.max(np.abs(value - true) / np.maximum(np.abs(true), 1)) < 2e-13
    trigamma = polygamma(1, x) if where != "negative" else _trigamma_by_reflection(x)
    np.testing.assert_allclose(gradient.asnumpy(), trigamma, rtol=1e-11)


def _trigamma_by_reflection(x):
    return (np.pi / np.sin(np.pi * x)) ** 2 - polygamma(1, 1 - x)
