"""How near K-FAC is: against dense matrices, and against errors of single directions."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature
from hessmx.algorithms.common import gaussian
from hessmx.uses.factored import factored
from tests import small_nets


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("name", small_nets.NETS)
def test_errors_and_traces(name, corrected):
    net, x, y = small_nets.make(name)
    curv = Curvature(net, small_nets.LOSS, [(x, y)], weight_decay=0.01)
    operator = curv.kfac(corrected=corrected)
    found = factored(curv, operator, directions=4)
    true, dense = curv.ggn.to_dense(), operator.to_dense()
    probes = np.stack([gaussian(0, (0xFAC, i), len(true)) for i in range(4)], axis=1)
    inside = np.zeros_like(true)
    for block in operator.blocks:
        cut = np.ix_(block.positions.ravel(), block.positions.ravel())
        inside[cut] = true[cut]
    for error, whole in ((found.error, true), (found.diagonal_error, inside)):
        expected = np.linalg.norm((dense - whole) @ probes) / np.linalg.norm(whole @ probes)
        assert error == pytest.approx(expected, rel=1e-9)
    assert found.traces.sum() == pytest.approx(np.trace(dense), rel=1e-12)
    assert found.top_eigenvalues.max() == pytest.approx(np.linalg.eigvalsh(dense)[-1], rel=1e-10)
    assert found.damping == pytest.approx(1e-2 * np.trace(dense) / len(dense))
    assert found.logdet == pytest.approx(np.linalg.slogdet(dense + found.damping * np.eye(len(dense)))[1], rel=1e-9)
    assert found.converged == (True, True)
    assert found.approximation == ("ekfac" if corrected else "kfac")
