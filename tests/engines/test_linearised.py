"""What keeps a linearisation right: repeated backward passes, readers fanned out, plain layouts, nothing stale."""

from __future__ import annotations

import numpy as np
import pytest

import hessmx
from hessmx._mxnet import mx
from hessmx.engines.fan import READERS, count_readers, fanned
from hessmx.engines.kept import Kept
from hessmx.engines.recorded import SPENT
from hessmx.graph.lower import lower
from hessmx.graph.node import build, parse
from hessmx.graph.symbols import call, scope
from hessmx.rules import RULES, UNSUPPORTED, covered
from tests.cases import CASES

nn = mx.gluon.nn
CE = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def second_difference(net, loss, data, curv, v, step):
    """v'Hv from losses of the net itself, run as it is; order four."""
    x, y = (mx.nd.array(a, dtype="float64") for a in data)
    w = curv.parameters()

    def value(at):
        for name, part in curv.param_slices.items():
            parameter = net.collect_params()[name]
            parameter.set_data(mx.nd.array(at[part].reshape(parameter.shape), dtype="float64"))
        return float(loss(net(x), y).mean().asscalar())

    try:
        near, far = (value(w + k * step * v) + value(w - k * step * v) for k in (1, 2))
        return (16 * near - far - 30 * value(w)) / (12 * step**2)
    finally:
        value(w)


# ---- MXNet: one forward pass, several backward passes

REPEATED = [
    row for row in CASES
    if row.op in covered() and row.op not in UNSUPPORTED and row.note != "GPU only"
    and not (row.kink or row.sparse or row.random) and row.attrs.get("act_type") != "rrelu"
    and row.op not in SPENT and (row.op not in RULES or RULES[row.op].kind != "zero")
    and (row.op, row.dtype) != ("Deconvolution", "float32")  # of volumes: the second one spoils the process
]  # fmt: skip


def recorded(row):
    """What is run of an operator: its lowering, as one operator on the tape, and how to record it."""
    arrays = {f"x{i}": mx.nd.array(a, dtype=a.dtype) for i, a in enumerate(row.draw())}
    with scope():
        symbol = mx.sym.Group(call(row.op, [mx.sym.Variable(name) for name in arrays], row.attributes))
        shapes = {name: a.shape for name, a in arrays.items()}
        graph, draws = lower(parse(symbol), shapes, row.train, row.dtype == "float64")
        built = build(graph, {name: mx.sym.Variable(name) for name in graph.variables})
        heads = [built[i][j] for i, j in graph.heads]
        heads = [mx.sym.identity(heads[j]) for j in row.outputs or range(len(heads))]
        symbol = mx.sym.Group(heads)
    for draw in draws:
        arrays[draw.name] = mx.nd.array(draw.sample(np.random.default_rng(0)), dtype=row.dtype)
    operator = mx.nd.CachedOp(symbol, [])
    moving = [f"x{i}" for i in row.moving if f"x{i}" in symbol.list_arguments()]

    def record():
        given = {name: arrays[name].copy() for name in symbol.list_inputs()}
        marked = [given[name] for name in moving]
        mx.autograd.mark_variables(marked, [mx.nd.zeros_like(a) for a in marked])
        with mx.autograd.record(train_mode=True):
            found = operator(*given.values())
        return found if isinstance(found, list) else [found], marked

    return record


@pytest.mark.parametrize("row", REPEATED, ids=lambda row: row.name)
def test_a_recorded_graph_gives_the_same_gradients_however_often_it_is_asked(row):
    """Three backward passes after one forward pass, each against one after a forward pass of its own."""
    with mx.util.np_shape(row.numpy_shapes):
        record = recorded(row)
        heads, marked = record()
        if not marked:
            pytest.skip("nothing that moves")

        def gradients(heads, marked, scale):
            cotangents = [
                mx.nd.array(np.cos(scale * np.arange(h.size)).reshape(h.shape), dtype=h.dtype) for h in heads
            ]
            return [g.asnumpy() for g in mx.autograd.grad(heads, marked, cotangents, retain_graph=True)]

        for scale in (1, 2, 3):
            again, fresh = gradients(heads, marked, scale), gradients(*record(), scale)
            assert all(np.allclose(a, b, rtol=1e-5, atol=1e-7, equal_nan=True) for a, b in zip(again, fresh))


class Determinant(mx.gluon.HybridBlock):
    """log |det A| and det A of a matrix made of the input and a parameter."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(3, 3))

    def hybrid_forward(self, F, x, weight):  # noqa: N803
        a = F.broadcast_add(F.reshape(x, shape=(-1, 3, 3)), F.expand_dims(weight, axis=0))
        a = F.linalg.gemm2(a, a, transpose_b=True)
        return F.stack(F.linalg.det(a), F.linalg.slogdet(a)[1], axis=1)


def test_operators_whose_backward_pass_spends_what_it_needs_are_run_again():
    rng = np.random.default_rng(0)
    mx.random.seed(0)
    net = Determinant()
    net.initialize(mx.init.Normal(1))
    net.cast("float64")
    loss = mx.gluon.loss.L2Loss()
    data = rng.normal(size=(4, 9)), rng.normal(size=(4, 2))
    curv = hessmx.Curvature(net, loss, data)
    for _ in range(3):
        v = rng.normal(size=9)
        assert v @ curv.hvp(v) == pytest.approx(second_difference(net, loss, data, curv, v, 1e-4), rel=1e-5)


# ---- readers

def test_readers_are_fanned_out_through_a_chain():
    x = mx.sym.Variable("x")
    y = mx.sym.tanh(x)
    total = mx.sym.add_n(*[y * k for k in range(2, 22)])
    graph = parse(fanned(total))
    assert max(count_readers(graph).values()) <= READERS + 1
    assert fanned(total).list_inputs() == ["x"]
    value = mx.nd.array([0.3, -1.0])
    for symbol in (total, fanned(total)):
        gradient = mx.nd.zeros_like(value)
        executor = symbol.bind(mx.cpu(), {"x": value}, args_grad={"x": gradient})
        found = executor.forward(is_train=True)[0].asnumpy()
        executor.backward(mx.nd.ones_like(value))
        expected = np.tanh(value.asnumpy())
        assert np.allclose(found, 230 * expected, rtol=1e-5)
        assert np.allclose(gradient.asnumpy(), 230 * (1 - expected**2), rtol=1e-5)
    few = mx.sym.add_n(*[y * k for k in range(2, 5)])
    assert fanned(few) is few


def quantiles(o, y):
    """Nine smooth quantile losses beside the squared error of their mean: ten readers of one array."""
    total = mx.nd.sum(mx.nd.square(o.mean(axis=1, keepdims=True) - y), axis=1)
    for i in range(9):
        d = y - mx.nd.slice_axis(o, axis=1, begin=i, end=i + 1)
        total = total + mx.nd.sum(mx.nd.log(1 + mx.nd.exp(4 * d)) / 4 - (1 - (i + 1) / 10) * d, axis=1)
    return total


class Branches(mx.gluon.HybridBlock):
    """A skip connection and `count` branches that read one tensor; some through kernels that overwrite sums."""

    def __init__(self, count):
        super().__init__()
        with self.name_scope():
            self.stem, self.out = nn.Dense(8, activation="tanh", in_units=3), nn.Dense(2, in_units=8)
            self.branches = nn.HybridSequential()
            self.branches.add(*[nn.Dense(8, activation="tanh", in_units=8) for _ in range(count)])

    def hybrid_forward(self, F, x):  # noqa: N803
        h = self.stem(x)
        total = h
        for branch in self.branches:
            gate = F.mean(h, axis=1, keepdims=True)
            total = total + F.broadcast_mul(branch(h), gate) + F.reverse(h, axis=1)
        return self.out(total)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_tensors_with_many_readers(count):
    rng = np.random.default_rng(count)
    data = rng.normal(size=(6, 3)), rng.integers(0, 2, 6)
    mx.random.seed(count)
    net = Branches(count)
    net.initialize(mx.init.Normal(0.6))
    net.cast("float64")
    curv = hessmx.Curvature(net, CE, data)
    v = rng.normal(size=curv.num_params)
    v /= np.linalg.norm(v)
    assert v @ curv.hvp(v) == pytest.approx(second_difference(net, CE, data, curv, v, 2e-3), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nine_quantiles_beside_a_mean(dtype):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 3)), rng.normal(size=(16, 1))
    net = nn.HybridSequential()
    mx.random.seed(0)
    net.add(nn.Dense(6, activation="tanh", in_units=3), nn.Dense(9, in_units=6))
    net.initialize(mx.init.Normal(1))
    net.cast("float64")
    curv = hessmx.Curvature(net, quantiles, data)
    v = rng.normal(size=curv.num_params)
    expected = second_difference(net, quantiles, data, curv, v, 1e-3)
    net.cast(dtype)
    again = hessmx.Curvature(net, quantiles, data)
    assert v @ again.hvp(v) == pytest.approx(expected, rel=1e-5)


# ---- layouts

@pytest.mark.parametrize("channels", [6, 8, 16, 32])
@pytest.mark.parametrize("pool", [nn.MaxPool2D, nn.AvgPool2D])
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher", "residual"])
def test_float32_pooling_behind_blocked_channels(channels, pool, matrix):
    rng = np.random.default_rng(channels)
    data = rng.normal(size=(3, 1, 8, 8)), rng.integers(0, 3, 3)
    net = nn.HybridSequential()
    net.add(nn.Conv2D(channels, 3, padding=1, activation="tanh", in_channels=1), pool(2),
            nn.Conv2D(channels, 3, padding=1, activation="tanh", in_channels=channels), pool(2),
            nn.Flatten(), nn.Dense(3, in_units=channels * 4))  # fmt: skip
    net.initialize(mx.init.Xavier())
    single = hessmx.Curvature(net, CE, data)
    v = rng.normal(size=single.num_params)
    found = single.matrix(matrix) @ v
    net.cast("float64")
    expected = hessmx.Curvature(net, CE, data).matrix(matrix) @ v
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


# ---- nothing stale

def small(dtype="float32"):
    mx.random.seed(0)
    rng = np.random.default_rng(3)
    net = nn.HybridSequential()
    net.add(nn.Dense(5, activation="tanh", in_units=4), nn.BatchNorm(in_channels=5), nn.Dense(3, in_units=5))
    net.initialize(mx.init.Normal(0.5))
    net.cast(dtype)
    x, y = mx.nd.array(rng.normal(size=(7, 4)), dtype=dtype), mx.nd.array(rng.integers(0, 3, 7), dtype=dtype)
    return net, x, y


def train(net, x, y):
    trainer = mx.gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.5})
    with mx.autograd.record():
        loss = CE(net(x), y)
    loss.backward()
    trainer.step(7)


def write_weight(net, x, y):
    net[0].weight.data()[:] = 0.3


def write_running_mean(net, x, y):
    net[1].running_mean.data()[:] = 0.7


def exchange_array(net, x, y):
    net[2].weight.initialize(mx.init.One(), force_reinit=True)


def write_batch(net, x, y):
    x[:] = mx.nd.sin(x * 2)


def write_labels(net, x, y):
    y[:] = 2 - y


CHANGES = [train, write_weight, write_running_mean, exchange_array, write_batch, write_labels]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher", "mc-fisher", "ntk"])
def test_products_follow_what_the_user_changes(change, matrix):
    net, x, y = small()
    curv = hessmx.Curvature(net, CE, [(x, y)])
    v = np.random.default_rng(0).normal(size=curv.matrix(matrix).shape[0])
    before = curv.matrix(matrix) @ v
    change(net, x, y)
    after = curv.matrix(matrix) @ v
    fresh = hessmx.Curvature(net, CE, [(x, y)]).matrix(matrix) @ v
    assert np.allclose(after, fresh, rtol=1e-6, atol=1e-8)
    labelled = matrix in ("hessian", "fisher")  # the others know no labels
    assert (change is write_labels and not labelled) or not np.allclose(after, before, rtol=1e-3)


def test_gradients_and_losses_follow_a_batch_that_is_written_into():
    net, x, y = small()
    curv = hessmx.Curvature(net, CE, [(x, y)])
    curv.loss(), curv.gradient()
    write_batch(net, x, y)
    fresh = hessmx.Curvature(net, CE, [(x.copy(), y)])
    assert curv.loss() == fresh.loss() and np.array_equal(curv.gradient(), fresh.gradient())


def test_a_question_reads_the_net_anew():
    net, x, y = small()
    curv = hessmx.Curvature(net, CE, [(x, y)])
    curv.eigenpairs(k=1)
    train(net, x, y)
    fresh = hessmx.Curvature(net, CE, [(x, y)])
    assert curv.eigenpairs(k=1).values == pytest.approx(fresh.eigenpairs(k=1).values, rel=1e-5)


# ---- what is kept

def test_batches_beyond_the_budget_share_one_state_and_stay_right():
    net, x, y = small("float64")
    batches = [(x[k : k + 2], y[k : k + 2]) for k in (0, 2, 4)] + [(x[6:], y[6:])]
    whole = hessmx.Curvature(net, CE, [(x, y)])
    v = np.random.default_rng(0).normal(size=whole.num_params)
    for budget in (0, 2**30):
        curv = hessmx.Curvature(net, CE, batches)
        curv._selected.compiled.kept = Kept(budget)
        for _ in range(2):
            assert np.allclose(curv.hvp(v), whole.hvp(v), rtol=1e-12, atol=1e-14)
            assert np.allclose(curv.ggn @ v, whole.ggn @ v, rtol=1e-12, atol=1e-14)


class Counted:
    """A loader that counts its passes."""

    def __init__(self, batches):
        self.batches, self.passes = batches, 0

    def __iter__(self):
        self.passes += 1
        return iter(self.batches)


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "fisher", "mc-fisher"])
def test_a_block_of_vectors_reads_the_data_once(matrix):
    net, x, y = small("float64")
    loader = Counted([(x[:3], y[:3]), (x[3:], y[3:])])
    curv = hessmx.Curvature(net, CE, loader)
    operator = curv.matrix(matrix)
    block = np.random.default_rng(0).normal(size=(curv.num_params, 4))
    loader.passes = 0
    found = operator @ block
    assert loader.passes == 1
    assert np.allclose(found, np.stack([operator @ column for column in block.T], axis=1), rtol=1e-12, atol=1e-14)


def test_the_fisher_of_losses_with_entries_sums_them_up_a_sample():
    net, x, _ = small("float64")
    target = mx.nd.array(np.random.default_rng(1).normal(size=(7, 3)), dtype="float64")
    curv = hessmx.Curvature(net, lambda o, t: mx.nd.square(o - t), [(x, target)])
    v = np.random.default_rng(2).normal(size=curv.num_params)
    total = np.zeros_like(v)
    for i in range(7):
        one = hessmx.Curvature(net, lambda o, t: mx.nd.square(o - t).sum(axis=1), [(x[i : i + 1], target[i : i + 1])])
        g = one.gradient()
        total += g * (g @ v) / 7
    assert np.allclose(curv.fisher() @ v, total, rtol=1e-10)
