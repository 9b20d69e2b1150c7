"""Average pooling over windows of any kind, against sums in NumPy: loss, gradient and product in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.errors import DataError

LAYOUTS = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def averages(size: tuple, kernel: tuple, stride: tuple, pad: tuple, whole: bool) -> np.ndarray:
    """The matrix (windows, entries) of ceil_mode's averages; an empty window of 1-D and 2-D images averages to 0."""
    out = [-(-(n + 2 * p - k) // s) + 1 for n, k, s, p in zip(size, kernel, stride, pad)]
    rows = []
    for place in np.ndindex(*out):
        start = [i * s - p for i, s, p in zip(place, stride, pad)]
        ends = [min(a + k, n + p) for a, k, n, p in zip(start, kernel, size, pad)]
        inside = [slice(max(a, 0), max(0, min(e, n))) for a, e, n in zip(start, ends, size)]
        row = np.zeros(size)
        row[tuple(inside)] = 1
        count = np.prod([e - a for a, e in zip(start, ends)]) if whole else row.sum()
        rows.append(row.ravel() / (count or 1))
    return np.array(rows)


class Pooled(mx.gluon.HybridBlock):
    """Pooling of the data times a weight for each entry, so that the weights are what is pooled."""

    def __init__(self, shape: tuple, **attrs: Any):
        super().__init__()
        self.attrs = attrs
        self.w = self.params.get("w", shape=shape)

    def hybrid_forward(self, F: Any, x: Any, w: Any) -> Any:
        return F.Pooling(F.broadcast_mul(x, w), pool_type="avg", pooling_convention="full", **self.attrs)


def pooled(size: tuple, dtype: str, last: bool, attrs: dict, channels: int = 2) -> tuple[Any, Any]:
    shape = (1, *size, channels) if last else (1, channels, *size)
    net = Pooled(shape, **attrs, **({"layout": LAYOUTS[len(size)]} if last else {}))
    net.initialize(mx.init.Normal(1))
    net.cast(dtype)
    return net, mx.nd.ones((2, *shape[1:]), dtype=dtype)


WINDOWS = [  # size, kernel, stride, pad: some windows lie wholly outside
    ((3,), (2,), (3,), (0,)),
    ((3,), (2,), (2,), (1,)),
    ((2,), (1,), (4,), (0,)),
    ((4,), (2,), (3,), (1,)),
    ((3, 5), (2, 1), (3, 3), (0, 0)),
    ((4, 2), (1, 1), (4, 4), (0, 0)),
    ((2, 4), (1, 2), (2, 1), (0, 1)),
    ((6, 6), (3, 3), (2, 2), (0, 0)),
    ((3, 4, 5), (2, 2, 2), (2, 2, 2), (0, 1, 0)),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("whole", [True, False], ids=["padding counts", "padding does not"])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "last"])
@pytest.mark.parametrize(("size", "kernel", "stride", "pad"), WINDOWS)
def test_windows_over_the_edge_and_outside(
    size: tuple, kernel: tuple, stride: tuple, pad: tuple, last: bool, whole: bool, dtype: str
) -> None:
    attrs = {"kernel": kernel, "stride": stride, "pad": pad, "count_include_pad": whole}
    net, x = pooled(size, dtype, last, attrs)
    a = averages(size, kernel, stride, pad, whole)

    def rows(vector: np.ndarray) -> np.ndarray:  # (channels, entries)
        return np.moveaxis(vector.reshape(net.w.shape), -1 if last else 1, 1).reshape(2, -1).astype(float)

    curv = hessmx.Curvature(net, mx.gluon.loss.L2Loss(), (x, mx.nd.zeros(net(x).shape, dtype=dtype)))
    w, v = curv.parameters(), np.random.default_rng(0).standard_normal(curv.num_params)
    images, scale = rows(w) @ a.T, 1 / (2 * len(a))  # the loss is half the mean over channels and windows
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-14}
    np.testing.assert_allclose(curv.loss(), (images**2).mean() / 2, **tolerance)
    np.testing.assert_allclose(rows(curv.gradient()), scale * images @ a, **tolerance)
    np.testing.assert_allclose(rows(curv.hvp(v)), scale * rows(v) @ a.T @ a, **tolerance)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("whole", [True, False])
def test_volumes_in_which_mxnet_divides_zero_by_zero(whole: bool, last: bool) -> None:
    attrs = {"kernel": (2, 2, 2), "stride": (4, 3, 2), "pad": (0, 0, 0), "count_include_pad": whole}
    net, x = pooled((4, 3, 3), "float64", last, attrs)
    assert np.isnan(net(x).asnumpy()).any()
    with pytest.raises(DataError, match=r"inputs of size \(4, 3, 3\) has a window wholly outside"):
        hessmx.Curvature(net, mx.gluon.loss.L2Loss(), (x, mx.nd.zeros(net(x).shape, dtype="float64")))
