"""K-FAC against cases where it is exact, dense float64 blocks, NumPy, and curvlinops' stored numbers."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import Curvature, L2Penalty
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import EngineError, InputError
from tests.uses import peers

nn = mx.gluon.nn
RNG = np.random.default_rng(5)
CE, L2 = mx.gluon.loss.SoftmaxCrossEntropyLoss, mx.gluon.loss.L2Loss


def relative(found, true) -> float:
    return float(np.abs(np.asarray(found) - true).max() / np.abs(true).max())


def started(net, dtype="float64", seed=0):
    mx.random.seed(seed)
    net.initialize(mx.init.Normal(0.6))
    net.cast(dtype)
    return net


def sequential(*layers):
    net = nn.HybridSequential()
    net.add(*layers)
    return net


class Applied(mx.gluon.HybridBlock):
    """Layers and a function of them."""

    def __init__(self, function, **layers):
        super().__init__()
        self.function = function
        with self.name_scope():
            for name, layer in layers.items():
                setattr(self, name, layer)

    def hybrid_forward(self, F, x):
        return self.function(F, self, x)


def in_steps(axis):
    """A dense layer at every step, along `axis` of what it gets, the mean, a dense layer."""

    def function(F, net, x):
        x = F.transpose(x, (1, 0, 2)) if axis == 0 else x
        return net.last(F.mean(F.tanh(net.step(x)), axis=axis))

    return lambda: Applied(function, step=nn.Dense(5, in_units=3, flatten=False), last=nn.Dense(3, in_units=5))


def twice(F, net, x):
    return net.last(F.tanh(net.first(F.tanh(net.first(x)))))


def odd_conv():
    return nn.Conv2D(4, (3, 2), (2, 1), (1, 0), (1, 2), in_channels=2, activation="tanh")


def grouped():
    return (nn.Conv2D(4, 3, groups=2, in_channels=2, activation="sigmoid"),
            nn.Conv2D(4, 2, groups=4, in_channels=4, use_bias=False))  # fmt: skip


def normalised():
    return nn.Conv2D(4, 3, in_channels=1), nn.BatchNorm(in_channels=4), nn.Activation("relu"), nn.MaxPool2D(2)


NETS = {  # net, input of one sample
    "conv": (lambda: sequential(odd_conv(), nn.Dense(3, in_units=48)), (2, 5, 6)),
    "groups": (lambda: sequential(*grouped(), nn.Dense(3, in_units=16)), (2, 5, 5)),
    "conv 1-D": (lambda: sequential(nn.Conv1D(4, 3, in_channels=2), nn.Dense(3, in_units=20)), (2, 7)),
    "pooled, normalised": (lambda: sequential(*normalised(), nn.Dense(3, in_units=16)), (1, 6, 6)),
    "maxout": (lambda: dense_net((4, 5, 3), "maxout", pieces=3), (4,)),
    "steps": (in_steps(1), (4, 3)),
    "steps first": (in_steps(0), (4, 3)),
    "used twice": (lambda: Applied(twice, first=nn.Dense(4, in_units=4), last=nn.Dense(3, in_units=4)), (4,)),
}


def problem(name, **options):
    make, shape = NETS[name]
    net = started(make(), options.pop("dtype", "float64"))
    x, y = np.random.default_rng(1).normal(size=(6, *shape)), np.arange(6) % 3
    return Curvature(net, CE(), (x, y), **{"batch_size": 4, **options})


@pytest.mark.parametrize("sharing", ["expand", "reduce"])
@pytest.mark.parametrize("name", NETS)
def test_corrected_eigenvalues_are_the_true_diagonal_in_an_orthonormal_basis(name, sharing):
    """So EK-FAC is the nearest matrix with this basis, and its trace is the block's (George et al. 2018, sect. 3.1)."""
    curv = problem(name, weight_decay=0.01)
    true = curv.ggn.to_dense()
    plain, corrected = curv.kfac(sharing=sharing), curv.kfac(sharing=sharing, corrected=True)
    assert sorted(np.concatenate([b.positions.ravel() for b in plain.blocks])) == list(range(curv.num_params))
    for block, before in zip(corrected.blocks, plain.blocks):
        at = block.positions.ravel()
        whole, basis = true[np.ix_(at, at)], np.kron(block.outputs, block.inputs)
        assert relative(basis.T @ basis, np.eye(at.size)) < 1e-12
        assert relative(block.values.ravel(), np.diag(basis.T @ whole @ basis)) < 1e-11
        after = np.linalg.norm(corrected.to_dense()[np.ix_(at, at)] - whole)
        assert after <= np.linalg.norm(plain.to_dense()[np.ix_(at, at)] - whole) * (1 + 1e-9)
        assert np.array_equal(before.positions, block.positions)
    assert corrected.trace() == pytest.approx(np.trace(true), rel=1e-10)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("sizes", [(4, 3), (4, 5, 3), (3, 4, 5, 2)])
def test_exact_for_linear_nets_with_squared_loss(sizes, corrected, reduction):
    """Nothing but the input depends on the sample then (Bernacchia et al. 2018): the diagonal blocks themselves."""
    net = started(dense_net(sizes, lambda F, x: F.identity(x)))
    data = RNG.normal(size=(9, sizes[0])), RNG.normal(size=(9, sizes[-1]))
    curv = Curvature(net, L2(), data, reduction=reduction, batch_size=4, weight_decay=0.3)
    assert relative(curv.kfac(corrected=corrected).to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) < 1e-11


def test_exact_for_one_sample():
    net = started(dense_net((4, 5, 3), "tanh"))
    curv = Curvature(net, CE(), (RNG.normal(size=(1, 4)), np.array([2])))
    rank = curv.kfac(corrected=True)
    assert relative(rank.to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) < 1e-10
    assert relative(curv.kfac("empirical").to_dense(), curv.block_diagonal(matrix="fisher").to_dense()) < 1e-10


def test_expand_and_reduce_are_exact_where_they_should_be():
    """Linear nets with squared loss: a loss of every step for expand, of the mean over steps for reduce (section 3)."""
    x, steps = RNG.normal(size=(6, 4, 3)), 4
    every = started(sequential(nn.Dense(5, in_units=3, flatten=False), nn.Dense(2, in_units=5, flatten=False)))
    curv = Curvature(every, L2(), (x, RNG.normal(size=(6, steps, 2))), batch_size=4)
    assert relative(curv.kfac(sharing="expand").to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) < 1e-11
    assert relative(curv.kfac(sharing="reduce").to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) > 0.1
    layers = dict(step=nn.Dense(5, in_units=3, flatten=False), last=nn.Dense(2, in_units=5))
    mean = started(Applied(lambda F, net, x: net.last(F.mean(net.step(x), axis=1)), **layers))
    curv = Curvature(mean, L2(), (x, RNG.normal(size=(6, 2))), batch_size=4)
    assert relative(curv.kfac(sharing="reduce").to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) < 1e-11
    assert relative(curv.kfac(sharing="expand").to_dense(), curv.block_diagonal(matrix="ggn").to_dense()) > 0.1


@pytest.mark.parametrize("name", ["dense", "conv", "sequence"])
def test_equals_curvlinops(name):
    stored = peers.PEERS["nets"][name]["kfac"]
    curv, v = peers.curvature(name, batch_size=4), peers.array(name, "v")
    for told, expected in stored.items():
        matrix, sharing, biases, kind = told.split()
        found = curv.kfac(matrix, sharing, kind == "ekfac", biases)
        assert found.trace() == pytest.approx(expected["trace"], rel=1e-9), told
        if (name, sharing, kind) == ("conv", "reduce", "ekfac"):
            continue  # 7 means of patches leave 12 inputs without a direction of their own: any basis will do
        assert found.logdet(peers.PEERS["shift"]) == pytest.approx(expected["logdet"], rel=1e-9), told
        assert relative(found @ v, expected["product"]) < 1e-9, told


def test_factors_of_a_dense_net_by_hand():
    """A x B from NumPy: activations, and gradients at the layers' outputs through tanh."""
    net = started(dense_net((4, 5, 3), "tanh"))
    x, y = RNG.normal(size=(8, 4)), np.arange(8) % 3
    w1, b1, w2, b2 = (p.data().asnumpy() for p in net.collect_params().values())
    h = np.tanh(x @ w1.T + b1)
    p = np.exp(h @ w2.T + b2)
    p /= p.sum(axis=1, keepdims=True)
    inside = p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None]
    back = w2[None] * (1 - h**2)[:, None]  # (N, 3, 5)
    moments = [np.einsum("nki,nkl,nlj->ij", back, inside, back) / 8, inside.mean(axis=0)]
    inputs = [np.column_stack([a, np.ones(8)]) for a in (x, h)]
    found = Curvature(net, CE(), (x, y), batch_size=3).kfac()
    for block, a, g in zip(found.blocks, inputs, moments):
        dense = found.to_dense()[np.ix_(block.positions.ravel(), block.positions.ravel())]
        assert relative(dense, np.kron(g, a.T @ a / 8)) < 1e-11


@pytest.mark.parametrize("corrected", [False, True])
def test_inverse_trace_determinant_eigenvalues_diagonal(corrected):
    found = problem("pooled, normalised").kfac(corrected=corrected)
    dense, size = found.to_dense(), found.shape[0]
    assert relative(dense, dense.T) < 1e-12
    assert relative(found.inverse(0.1).to_dense(), np.linalg.inv(dense + 0.1 * np.eye(size))) < 1e-9
    assert found.trace() == pytest.approx(np.trace(dense), rel=1e-12)
    assert found.logdet(0.1) == pytest.approx(np.linalg.slogdet(dense + 0.1 * np.eye(size))[1], rel=1e-10)
    assert relative(found.eigenvalues(), np.linalg.eigvalsh(dense)[::-1]) < 1e-11
    assert relative(found.exact_diagonal(), np.diag(dense)) < 1e-12
    u = RNG.normal(size=(3, size))
    assert relative(found.quadratic(u), u @ dense @ u.T) < 1e-11
    half = found.map(np.sqrt)
    assert relative(half @ (half @ u[0]), dense @ u[0]) < 1e-10


def test_drawn_labels_give_the_exact_factors_in_the_mean():
    curv = problem("maxout")
    v = RNG.normal(size=curv.num_params)
    true = v @ (curv.kfac() @ v)
    single = [v @ (problem("maxout", seed=seed).kfac("mc", draws=5) @ v) for seed in range(12)]
    assert abs(np.mean(single) - true) < 3.5 * np.std(single, ddof=1) / np.sqrt(12)
    assert np.std(single) > 0.01 * true


def test_a_float32_net_that_is_sure_of_every_class():
    """p - p^2 is below float32's rounding then; the loss's Hessian is computed in float64."""
    net = started(dense_net((4, 3), "tanh"), "float32")
    weight = next(iter(net.collect_params("_weight|.*weight").values()))
    weight.set_data(mx.nd.array(16 * np.eye(3, 4)))
    x = np.eye(3, 4).repeat(2, axis=0) + 0.01 * RNG.normal(size=(6, 4))
    curv = Curvature(net, CE(), (x, np.repeat(np.arange(3), 2)))
    p = np.exp(net(mx.nd.array(x)).asnumpy().astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    inside = (p[:, :, None] * np.eye(3) - p[:, :, None] * p[:, None]).mean(axis=0)
    inputs = np.column_stack([x.astype(np.float32), np.ones(6)]).astype(np.float64)
    assert curv.kfac().trace() == pytest.approx(np.trace(inside) * np.trace(inputs.T @ inputs) / 6, rel=1e-5)
    weight.set_data(mx.nd.array(60 * np.eye(3, 4)))
    assert 0 <= curv.kfac().trace() < 1e-20


def test_float32_is_rounded_float64():
    for name in ("conv", "pooled, normalised", "maxout"):
        assert relative(problem(name, dtype="float32").kfac().to_dense(), problem(name).kfac().to_dense()) < 2e-5


@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_only_some_parameters(kind):
    whole, some = problem("conv"), problem("conv", params=f"_{kind}$")
    chosen = np.concatenate([np.r_[s] for name, s in whole.param_slices.items() if name.endswith(kind)])
    dense = whole.kfac(biases="separate").to_dense()[np.ix_(chosen, chosen)]
    assert relative(some.kfac().to_dense(), dense) < 1e-12


def test_a_penalty_that_leaves_biases_out_makes_blocks_of_their_own():
    decayed = problem("maxout", weight_decay=L2Penalty(0.2, biases=False)).kfac()
    plain = problem("maxout").kfac(biases="separate")
    extra = np.diag(decayed.to_dense() - plain.to_dense())
    names = problem("maxout").param_slices
    for name, where in names.items():
        assert np.allclose(extra[where], 0.0 if name.endswith("bias") else 0.2, atol=1e-12)


def test_lstm_cells_share_their_weights_over_steps():
    class Cells(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.cell, self.last = mx.gluon.rnn.LSTMCell(3, input_size=2), nn.Dense(2, in_units=3)

        def hybrid_forward(self, F, x):
            steps = F.SliceChannel(x, num_outputs=4, axis=1, squeeze_axis=True)
            zero = F.zeros_like(F.concat(steps[0], F.slice_axis(steps[0], axis=1, begin=0, end=1), dim=1))
            states = [zero, zero]
            for step in steps:
                out, states = self.cell(step, states)
            return self.last(out)

    net = started(Cells())
    curv = Curvature(net, CE(), (RNG.normal(size=(5, 4, 2)), np.arange(5) % 2), batch_size=3)
    found = curv.kfac(corrected=True)
    assert len(found.blocks) == 3  # input to hidden, hidden to hidden, dense
    assert found.trace() == pytest.approx(np.trace(curv.ggn.to_dense()), rel=1e-10)


def test_a_fused_lstm_is_taken_as_dense_blocks():
    class Fused(mx.gluon.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.rnn = mx.gluon.rnn.LSTM(3, layout="NTC", input_size=2)
                self.last = nn.Dense(2, in_units=12)

        def hybrid_forward(self, F, x):
            return self.last(self.rnn(x))

    curv = Curvature(started(Fused()), CE(), (RNG.normal(size=(5, 4, 2)), np.arange(5) % 2), batch_size=3)
    found, true = curv.kfac(), curv.ggn.to_dense()
    inside = [block for block in found.blocks if "lstm" in block.name]
    assert [block.name[-3:] for block in inside] == ["i2h", "h2h"]
    for block in inside:
        cut = np.ix_(block.positions.ravel(), block.positions.ravel())
        assert relative(found.to_dense()[cut], true[cut]) < 1e-11


def test_asked_by_name_and_as_preconditioner():
    curv = problem("maxout", weight_decay=0.1)
    dense = curv.kfac().to_dense()
    assert curv.eigenpairs(2, matrix="kfac").values == pytest.approx(np.linalg.eigvalsh(dense)[::-1][:2], rel=1e-6)
    assert curv.matrix("ekfac").trace() == pytest.approx(np.trace(curv.ggn.to_dense()), rel=1e-10)
    true = np.linalg.solve(curv.ggn.to_dense() + 0.01 * np.eye(curv.num_params), curv.gradient())
    for method in ("cg", "minres"):
        found = curv.solve(damping=0.01, matrix="ggn", method=method, preconditioner="kfac", rtol=1e-9)
        assert found.converged and relative(found.x, true) < 1e-7


def test_preconditioned_solves_of_a_linear_net_take_a_product_or_two():
    """There K-FAC is the diagonal blocks; of one layer, all of G: one step, and one product for the true residual."""
    net = started(dense_net((12, 5), "tanh"))
    x = RNG.normal(size=(40, 12)) * np.logspace(0, -2, 12)
    curv = Curvature(net, L2(), (x, RNG.normal(size=(40, 5))))
    alone = curv.solve(damping=1e-4, matrix="ggn", rtol=1e-8)
    helped = curv.solve(damping=1e-4, matrix="ggn", rtol=1e-8, preconditioner="kfac")
    assert helped.converged and helped.products <= 4 < 10 < alone.products
    assert relative(helped.x, alone.x) < 1e-6


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda: problem("maxout").kfac("hessian"), InputError, "'ggn', 'mc', 'empirical'"),
        (lambda: problem("maxout").kfac(sharing="sum"), InputError, "'expand', 'reduce'"),
        (lambda: problem("maxout").kfac(biases="none"), InputError, "'joint', 'separate'"),
        (lambda: problem("maxout").kfac("mc", draws=0), InputError, "at least 1"),
        (lambda: problem("maxout").kfac().inverse(), InputError, "use more damping"),
        (lambda: problem("pooled, normalised", mode="train").kfac(), EngineError, "samples mix"),
        (lambda: problem("maxout").block("weight", "kfac"), InputError, "one per layer"),
        (lambda: problem("maxout").solve(damping=1.0, preconditioner="kfca"), InputError, "did you mean 'kfac'"),
    ],
)
def test_bad_questions(ask, error, text):
    with pytest.raises(error, match=text):
        ask()


def test_a_loss_that_is_not_convex_is_refused():
    def ratio(z, y):
        return -((z - y) ** 2).sum(axis=1)

    curv = Curvature(started(dense_net((3, 2), "tanh")), ratio, (RNG.normal(size=(4, 3)), RNG.normal(size=(4, 2))))
    with pytest.raises(InputError, match="not convex"):
        curv.kfac()


def test_the_user_net_is_left_as_it_was():
    curv = problem("pooled, normalised", dtype="float32")
    before = [p.data().asnumpy() for p in curv._net.block.collect_params().values()]
    curv.kfac(corrected=True)
    after = [p.data().asnumpy() for p in curv._net.block.collect_params().values()]
    assert all(np.array_equal(a, b) for a, b in zip(before, after))
