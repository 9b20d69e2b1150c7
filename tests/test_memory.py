"""Memory that comes back: what a Curvature made goes with it."""

from __future__ import annotations

import gc
import os
import sys

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx

X, Y = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
EACH = 6 * 1024  # bytes; a Symbol of 20 nodes that is never freed takes 9 KiB, and a Curvature makes several


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def growth(make, times):
    """Bytes by which the process grows each time, once it has grown warm."""
    for _ in range(times // 2):
        make()
    mx.nd.waitall()
    gc.collect()
    before = resident()
    for _ in range(times):
        make()
    mx.nd.waitall()
    gc.collect()
    return (resident() - before) / times


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mode", ["predict", "train"])
def test_objects_that_are_gone_leave_no_memory_behind(mode):
    net = mx.gluon.nn.Dense(2, in_units=3)
    net.initialize()

    def make():
        curv = hessmx.Curvature(net, mx.gluon.loss.L2Loss(), (X, Y), mode=mode)
        curv.gradient()
        curv.hvp(np.ones(curv.num_params))

    assert growth(make, 200) < EACH
