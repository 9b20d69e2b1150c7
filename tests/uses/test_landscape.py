"""Landscapes of functions known in closed form; a grid that is killed and continued."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.algorithms.state import RunState
from hessmx.curvature import Curvature
from hessmx.errors import InputError
from hessmx.uses import landscape

RNG = np.random.default_rng(7)
A = RNG.normal(size=(10, 10))
A = A + A.T
B = RNG.normal(size=10)


class Quartic:
    """L(w) = 3 + b.w + w'Aw/2 + c sum w^4, with the layout of a small net: a 2 x 3 weight, a bias, a 1 x 2 weight."""

    param_slices = {"a_weight": slice(0, 6), "a_bias": slice(6, 8), "b_weight": slice(8, 10)}
    param_shapes = {"a_weight": (2, 3), "a_bias": (2,), "b_weight": (1, 2)}
    num_params = 10

    def __init__(self, quartic=0.0, fail_after=None):
        self.c, self.fail_after, self.asked = quartic, fail_after, 0
        self.w = np.linspace(-1, 1, 10)

    def parameters(self):
        return self.w

    def loss(self, at=None):
        w = self.w if at is None else at
        if at is not None:
            self.asked += 1
            if self.fail_after is not None and self.asked > self.fail_after:
                raise KeyboardInterrupt
        return 3 + B @ w + 0.5 * w @ A @ w + self.c * np.sum(w**4)

    def gradient(self):
        return B + A @ self.w + 4 * self.c * self.w**3

    def hvp(self, v):
        return A @ v + 12 * self.c * self.w**2 * v


@pytest.mark.parametrize("length", [1e-3, 1.0, 50.0])
def test_the_model_of_a_quadratic_is_its_loss(length):
    d = RNG.normal(size=10) * length
    found = landscape.line(Quartic(), d, [-2.0, -0.5, 0.0, 1.0])
    np.testing.assert_allclose(found.model, found.losses, rtol=1e-10)
    np.testing.assert_allclose(found.curvature, d @ A @ d, rtol=1e-12)


def test_coordinates_are_coefficients_of_the_direction():
    curv, d = Quartic(0.3), RNG.normal(size=10) * 7
    found = landscape.line(curv, d, [0.25])
    np.testing.assert_allclose(found.losses, [curv.loss(curv.w + 0.25 * d)], rtol=1e-14)


def test_the_default_line_reaches_where_the_model_has_left_the_loss_behind():
    curv = Quartic()
    values, vectors = np.linalg.eigh(A)
    found = landscape.line(curv, vectors[:, -1])
    assert found.radii[-1] == pytest.approx(min(3 * np.sqrt(2 * abs(curv.loss()) / values[-1]), np.linalg.norm(curv.w)))
    assert found.radii[20] == 0.0
    assert found.losses[20] == pytest.approx(curv.loss())


def test_a_plane_of_a_quadratic():
    d = RNG.normal(size=(10, 2))
    found = landscape.plane(Quartic(), d, [-1.0, 0.0, 0.5], [0.0, 2.0])
    assert found.losses.shape == (2, 3)
    np.testing.assert_allclose(found.model, found.losses, rtol=1e-10)
    corner = Quartic().w + 0.5 * d[:, 0] + 2 * d[:, 1]
    np.testing.assert_allclose(found.losses[1, 2], Quartic().loss(corner), rtol=1e-13)
    np.testing.assert_allclose(found.curvatures, d.T @ A @ d, rtol=1e-12)


@pytest.mark.parametrize("biases", [False, True])
def test_random_directions_have_the_norm_of_each_filter(biases):
    curv = Quartic()
    d = landscape.random_directions(curv, 3, seed=1, biases=biases)
    assert d.shape == (10, 3)
    for name in ("a_weight", "b_weight"):
        shape, where = (*curv.param_shapes[name], -1), curv.param_slices[name]
        norms = np.linalg.norm(d[where].reshape(shape), axis=1)
        own = np.linalg.norm(curv.w[where].reshape(shape[:2]), axis=1, keepdims=True)
        np.testing.assert_allclose(norms, np.broadcast_to(own, norms.shape), rtol=1e-12)
    assert bool(d[6:8].any()) == biases
    assert np.array_equal(d, landscape.random_directions(curv, 3, seed=1, biases=biases))
    assert not np.array_equal(d, landscape.random_directions(curv, 3, seed=2, biases=biases))


def test_a_trajectory_in_a_plane_is_found_exactly():
    basis = np.linalg.qr(RNG.normal(size=(10, 2)))[0]
    points = RNG.normal(size=(12, 2)) * [5, 1]
    snapshots = 4.0 + points @ basis.T
    found = landscape.trajectory(snapshots)
    assert found.explained.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(found.path @ found.directions.T + snapshots[-1], snapshots, rtol=1e-12)
    assert np.all(found.path[-1] == 0)


def test_a_killed_grid_is_continued_without_repeating_a_point(tmp_path):
    d, xs, ys = RNG.normal(size=(10, 2)), np.linspace(-1, 1, 5), np.linspace(-1, 1, 4)
    whole = landscape.plane(Quartic(0.1), d, xs, ys)
    path = tmp_path / "grid.npz"
    with pytest.raises(KeyboardInterrupt):
        landscape.plane(Quartic(0.1, fail_after=7), d, xs, ys, state=RunState(path, every=0.0))
    rest = Quartic(0.1)
    continued = landscape.plane(rest, d, xs, ys, state=RunState(path, every=0.0))
    assert rest.asked == 20 - 7
    assert np.array_equal(continued.losses, whole.losses)
    with pytest.raises(InputError, match="belongs to another run"):
        landscape.plane(Quartic(0.1), d, xs + 0.1, ys, state=RunState(path))


def test_progress_is_told():
    told = []
    landscape.line(Quartic(), np.ones(10), [0.0, 1.0], progress=lambda *args: told.append(args[:2]))
    assert told == [(1, 2), (2, 2)]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_loss_of_a_real_net_along_a_line_against_numpy(dtype, tolerance):
    x, y = RNG.normal(size=(70, 5)), RNG.normal(size=(70, 3))
    net = mx.gluon.nn.Dense(3, in_units=5)
    net.initialize(mx.init.Normal(0.5))
    net.cast(dtype)
    curv = Curvature(net, mx.gluon.loss.L2Loss(), (x, y), batch_size=32)
    w, d = curv.parameters().astype(float), RNG.normal(size=18)
    found = landscape.line(curv, d, np.linspace(-2, 2, 5))
    for s, loss in zip(found.radii, found.losses):
        weight, bias = (w + s * d)[:15].reshape(3, 5), (w + s * d)[15:]
        assert loss == pytest.approx(0.5 * np.mean((x @ weight.T + bias - y) ** 2), rel=tolerance)
    np.testing.assert_allclose(found.model, found.losses, rtol=30 * tolerance)  # this loss is quadratic


BAD = [
    (lambda: landscape.line(Quartic(), np.ones(9)), "10 parameters, not of shape (9,)"),
    (lambda: landscape.line(Quartic(), np.zeros(10)), "not all zero"),
    (lambda: landscape.line(Quartic(), np.full(10, np.nan)), "must be finite"),
    (lambda: landscape.line(Quartic(), np.ones(10), []), "list of finite numbers"),
    (lambda: landscape.line(Quartic(), np.ones(10), [0, np.inf]), "list of finite numbers"),
    (lambda: landscape.plane(Quartic(), np.ones((10, 3)), [0], [0]), "shape (P, 2), not (10, 3)"),
    (lambda: landscape.random_directions(Quartic(), 0), "count must be"),
    (lambda: landscape.trajectory(np.ones((2, 10))), "at least three"),
    (lambda: landscape.trajectory(np.ones((4, 10))), "all snapshots are equal"),
]


@pytest.mark.parametrize("call, said", BAD)
def test_bad_input_is_one_clear_line(call, said):
    with pytest.raises(InputError) as caught:
        call()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def small_net(seed=0):
    mx.random.seed(seed)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(4, activation="tanh", in_units=5), mx.gluon.nn.Dense(3, in_units=4))
    net.initialize(mx.init.Normal(0.7))
    net.cast("float64")
    return net


def test_slope_and_curvature_along_a_line_are_differences_of_its_losses():
    x, y = RNG.normal(size=(30, 5)), np.arange(30) % 3
    first, second = small_net(0), small_net(1)
    curv = Curvature(first, mx.gluon.loss.SoftmaxCrossEntropyLoss(), (x, y), batch_size=20)
    d, h = landscape.towards(curv, second), 1e-4
    values = [p.data().asnumpy().copy() for p in first.collect_params().values()]
    found = landscape.line(curv, d, [-0.5, 0.0, 1.0], derivatives=True)
    assert found.losses[2] == pytest.approx(Curvature(second, curv._loss, (x, y)).loss(), rel=1e-12)
    w = curv.parameters()
    for s, slope, curvature in zip(found.radii, found.slopes, found.curvatures):
        at = [curv.loss(at=w + (s + k * h) * d) for k in (-2, -1, 0, 1, 2)]
        assert slope == pytest.approx((at[0] - 8 * at[1] + 8 * at[3] - at[4]) / (12 * h), rel=1e-7)
        second = (-at[0] + 16 * at[1] - 30 * at[2] + 16 * at[3] - at[4]) / (12 * h**2)
        assert curvature == pytest.approx(second, rel=1e-5)
    assert found.slopes[1] == pytest.approx(found.slope) and found.curvatures[1] == pytest.approx(found.curvature)
    assert all(np.array_equal(p.data().asnumpy(), v) for p, v in zip(first.collect_params().values(), values))
    loaded = landscape.line(curv, d, [0.0])
    assert loaded.slopes is None and loaded.curvatures is None


@pytest.mark.parametrize("biases", [False, True])
def test_directions_in_the_nets_own_proportions(biases):
    curv, d = Quartic(), RNG.normal(size=10)
    rows = {"filter": [slice(0, 3), slice(3, 6), slice(8, 10)], "layer": [slice(0, 6), slice(8, 10)]}
    for by, places in rows.items():
        found = landscape.normalised(curv, d, by, biases)
        for where in places:
            assert np.linalg.norm(found[where]) == pytest.approx(np.linalg.norm(curv.w[where]))
            assert found[where] @ d[where] == pytest.approx(np.linalg.norm(found[where]) * np.linalg.norm(d[where]))
        assert bool(found[6:8].any()) == biases
    kept = landscape.normalised(curv, d, "none", biases)
    assert np.array_equal(kept, d) == biases and np.array_equal(kept[:6], d[:6])
    empty = d.copy()
    empty[3:6] = 0
    assert not landscape.normalised(curv, empty, "filter")[3:6].any()


def test_each_point_is_a_line_of_the_state(tmp_path):
    """A path as state: what was computed is in the file at once, also after a kill in the middle of a line."""
    d, xs, ys, path = RNG.normal(size=(10, 2)), np.linspace(-1, 1, 5), np.linspace(-1, 1, 4), tmp_path / "grid.txt"
    whole = landscape.plane(Quartic(0.1), d, xs, ys)
    with pytest.raises(KeyboardInterrupt):
        landscape.plane(Quartic(0.1, fail_after=7), d, xs, ys, state=path)
    lines = path.read_text().splitlines()
    assert len(lines) == 1 + 7 and lines[3].startswith("2 ")
    path.write_text(path.read_text() + "7 0x1.8p")  # cut short by the kill
    rest = Quartic(0.1)
    continued = landscape.plane(rest, d, xs, ys, state=path)
    assert rest.asked == 20 - 7
    assert np.array_equal(continued.losses, whole.losses)
    assert len(path.read_text().splitlines()) == 1 + 20
    again = Quartic(0.1)
    assert np.array_equal(landscape.plane(again, d, xs, ys, state=path).losses, whole.losses) and again.asked == 0


@pytest.mark.parametrize("spoil, said", [
    (lambda path: None, "belongs to another run"),
    (lambda path: path.write_text("something else\n"), "belongs to another run"),
    (lambda path: path.write_bytes(b"\xff\xfe\x00"), "cannot be read"),
])
def test_a_state_of_another_run_is_refused(tmp_path, spoil, said):
    path = tmp_path / "line.txt"
    landscape.line(Quartic(), np.ones(10), [0.0, 1.0], state=path)
    spoil(path)
    with pytest.raises(InputError, match=said):
        landscape.line(Quartic(), np.ones(10), [0.0, 2.0], state=path)
    with pytest.raises(InputError, match="cannot write"):
        landscape.line(Quartic(), np.ones(10), [0.0], state=tmp_path / "no" / "such.txt")


def test_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "line.txt"
    landscape.line(Quartic(), np.ones(10), [0.0, 1.0], state=path)
    path.write_text(path.read_text() + "nonsense\n")
    with pytest.raises(InputError, match="is damaged"):
        landscape.line(Quartic(), np.ones(10), [0.0, 1.0], state=path)
