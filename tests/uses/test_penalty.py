"""Penalties against PyTorch's create_graph (stored numbers), against differences, and inside real training steps."""

from __future__ import annotations

import numpy as np
import pytest

from hessmx import load_net, training
from hessmx._mxnet import mx
from hessmx.engines.program import Program
from hessmx.errors import InputError, UnsupportedOps
from hessmx.training import penalty
from tests.uses.penalty_cases import CASES, drawn
from tests.uses.penalty_nets import STORED, array, built, gradient, of

nn, record = mx.gluon.nn, mx.autograd.record


@pytest.mark.parametrize("hybrid", (False, True), ids=("", "hybridized"))
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_pytorch(name, hybrid):
    values, x, target, labels = drawn(name)
    net = built(CASES[name][0], values)
    if hybrid:
        net.hybridize()
    function, extra, options = of(name, net, target, labels)
    with record():
        value = function(array(x), *extra, **options)
    value.backward()
    stored, found = STORED[name], gradient(net)
    assert float(value.asscalar()) == pytest.approx(stored["value"], rel=1e-9)
    scale = np.abs(stored["gradient"]).max()
    assert scale > 1e-3 and np.abs(found - stored["gradient"]).max() < 1e-9 * scale


def test_every_stored_case_is_tested():
    assert set(STORED) == set(CASES)


def critic(dtype="float64", seed=0):
    values, x, _, _ = drawn("dense, wgan-gp")
    return built(CASES["dense, wgan-gp"][0], values, dtype), array(x, dtype)


STEP = {"write": 1, "add": 2}


@pytest.mark.parametrize("grad_req", STEP)
def test_it_is_added_to_another_loss_as_grad_req_says(grad_req):
    net, x = critic()
    net.collect_params().setattr("grad_req", grad_req)
    gp = penalty(net, "wgan-gp")

    def backward(*terms):
        with record():
            loss = sum(term() for term in terms)
        loss.backward()
        return gradient(net)

    def loss():
        return net(x).mean()

    def scaled():
        return 10 * gp(x)

    alone = []
    for term in (loss, scaled):
        net.collect_params().zero_grad()
        alone.append(backward(term))
    net.collect_params().zero_grad()
    for _ in range(2):
        both = backward(loss, scaled)
    assert np.abs(alone[1]).max() > 1e-3
    np.testing.assert_allclose(both, STEP[grad_req] * (alone[0] + alone[1]), rtol=1e-12, atol=1e-14)


def test_a_net_loaded_from_files(tmp_path):
    net, x = critic()
    net.hybridize()
    net(x)
    net.export(str(tmp_path / "net"))
    loaded = load_net(tmp_path / "net-symbol.json", tmp_path / "net-0000.params")
    with record():
        value = penalty(loaded, "wgan-gp")(x) + 0 * loaded(x).sum()
    value.backward()
    np.testing.assert_allclose(gradient(loaded), STORED["dense, wgan-gp"]["gradient"], rtol=1e-9, atol=1e-12)


def test_frozen_parameters_stay_and_get_nothing():
    net, x = critic()
    first = next(iter(net.collect_params().values()))
    first.grad_req = "null"
    with record():
        value = penalty(net, "wgan-gp")(x)
    value.backward()
    stored = STORED["dense, wgan-gp"]["gradient"]
    np.testing.assert_allclose(gradient(net), stored[first.data().size :], rtol=1e-9)


@pytest.mark.parametrize("optimizer", ("sgd", "adam"))
def test_steps_of_a_trainer_are_followed_without_compiling_again(optimizer, monkeypatch):
    net, x = critic()
    made = []
    original = Program.__init__
    monkeypatch.setattr(Program, "__init__", lambda self, *a, **k: (made.append(1), original(self, *a, **k))[1])
    trainer = mx.gluon.Trainer(net.collect_params(), optimizer, {"learning_rate": 0.05})
    gp, seen = penalty(net, "wgan-gp"), []
    for step in range(6):
        x[:] = x + 0.1 * step  # the same array with other values
        with record():
            value = gp(x)
        value.backward()
        kept = gradient(net)
        counted = len(made)
        with record():
            fresh = penalty(net, "wgan-gp")(x)
        fresh.backward()
        made[counted:] = []
        assert float(value.asscalar()) == float(fresh.asscalar())
        np.testing.assert_array_equal(kept, gradient(net))
        trainer.step(1)
        seen.append(float(value.asscalar()))
    assert len(made) == 2 and len(set(seen)) == 6
    with record():
        gp(x[:4]).backward()
    assert len(made) == 4  # another batch shape, once


def test_outside_of_record_it_is_a_number_only():
    net, x = critic()
    gp = penalty(net, "wgan-gp")
    value = gp(x)
    assert float(value.asscalar()) == pytest.approx(STORED["dense, wgan-gp"]["value"], rel=1e-9)
    assert not gradient(net).any()
    assert float(penalty(net, "wgan-gp", reduction="sum")(x).asscalar()) == pytest.approx(6 * float(value.asscalar()))


def test_batch_statistics_in_train_mode_and_running_ones_otherwise():
    """Between the two stands what the whole batch does to each sample; the running statistics stay as they were."""
    values, x, _, _ = drawn("BatchNorm over the batch, wgan-gp")
    net = built(CASES["BatchNorm over the batch, wgan-gp"][0], values)
    before = {name: p.data().asnumpy() for name, p in net.collect_params().items()}
    gp = penalty(net, "wgan-gp")
    with record():
        trained = gp(array(x))
    trained.backward()
    with record(train_mode=False):
        predicted = gp(array(x))
    assert float(trained.asscalar()) == pytest.approx(STORED["BatchNorm over the batch, wgan-gp"]["value"])
    asked_for = penalty(net, "wgan-gp", mode="predict")(array(x))
    assert float(predicted.asscalar()) == pytest.approx(float(asked_for.asscalar()))
    assert abs(float(predicted.asscalar()) - float(trained.asscalar())) > 1e-2
    for name, p in net.collect_params().items():
        np.testing.assert_array_equal(p.data().asnumpy(), before[name])


def test_dropout_has_one_mask_for_value_and_gradient_and_another_in_each_step():
    net, x = critic()
    net._children.clear()
    net.add(nn.Dense(7, in_units=3, activation="tanh"), nn.Dropout(0.5), nn.Dense(1, in_units=7))
    net.initialize(mx.init.Normal(0.7))
    net.cast("float64")
    with record():
        value = penalty(net, "r1", seed=5)(x)
    value.backward()
    found, weight, step = net[0].weight.grad().asnumpy(), net[0].weight.data().asnumpy(), 1e-6
    sides = []
    for side in (step, -step):
        net[0].weight.set_data(array(weight + side))
        sides.append(float(penalty(net, "r1", seed=5, mode="train")(x).asscalar()))
    assert found.sum() == pytest.approx((sides[0] - sides[1]) / (2 * step), rel=1e-6)
    gp = penalty(net, "r1", mode="train")
    assert len({float(gp(x).asscalar()) for _ in range(6)}) == 6


def test_a_derivative_that_the_function_does_not_look_at():
    net, x = critic()
    with record():
        value = penalty(net, lambda u, u_a: mx.nd.square(u_a), of=("u", "u_a"), coordinates="abc")(x)
    value.backward()
    given = x.copy()
    given.attach_grad()
    with record():
        out = net(given)
    out.backward()
    assert float(value.asscalar()) == pytest.approx(np.square(given.grad.asnumpy()[:, 0]).mean(), rel=1e-12)
    assert gradient(net).any()


@pytest.mark.parametrize("order", ("u_aa", "u_ab"))
def test_what_is_piecewise_linear_has_no_second_derivative(order):
    values = [*drawn("tanh, plate")[0][:2], np.ones((1, 6)), np.ones(1)]
    net = built([("dense", 2, 6), ("leaky",), ("dense", 6, 1)], values)
    with record():
        value = penalty(net, square, of=(order,), coordinates="ab")(array(np.ones((3, 2))))
    value.backward()
    assert float(value.asscalar()) == 0 and not gradient(net).any()


def test_a_zero_gradient_costs_no_nan():
    net, x = critic()
    for p in net.collect_params().values():
        p.set_data(mx.nd.zeros_like(p.data()))
    with record():
        value = penalty(net, "wgan-gp")(x)
    value.backward()
    assert float(value.asscalar()) == pytest.approx(1) and np.isfinite(gradient(net)).all()


def test_a_learnt_coefficient_of_the_equation_gets_its_gradient():
    """u_t - k u_xx with k on the tape: d/dk mean r^2 = -2 mean r u_xx."""
    name = "tanh, Burgers"
    values, x, _, _ = drawn(name)
    net, k = built(CASES[name][0], values), array([0.7])
    k.attach_grad()
    parts = []

    def heat(u_t, u_xx, k):
        parts.append((u_t.asnumpy(), u_xx.asnumpy()))
        return mx.nd.square(u_t - mx.nd.broadcast_mul(k.reshape((1, 1)), u_xx))

    with record():
        value = penalty(net, heat, of=("u_t", "u_xx"), coordinates="xt")(array(x), k)
    value.backward()
    u_t, u_xx = parts[0]
    assert k.grad.asscalar() == pytest.approx(float(np.mean(-2 * (u_t - 0.7 * u_xx) * u_xx)), rel=1e-12)
    assert gradient(net).any()


def test_a_second_input_is_a_condition():
    class Conditional(nn.HybridBlock):
        def __init__(self):
            super().__init__()
            with self.name_scope():
                self.a, self.b = nn.Dense(4, in_units=3), nn.Dense(4, in_units=2)
                self.c = nn.Dense(1, in_units=4)

        def hybrid_forward(self, F, x, y):
            return self.c(F.tanh(self.a(x) * self.b(y)))

    net = Conditional()
    net.initialize(mx.init.Normal(0.8))
    net.cast("float64")
    rng = np.random.default_rng(0)
    x, y = array(rng.normal(size=(5, 3))), array(rng.normal(size=(5, 2)))
    given = y.copy()
    given.attach_grad()
    with record(train_mode=False):
        out = net(x, given)
    out.backward(train_mode=False)
    by_hand = np.square(given.grad.asnumpy()).sum(axis=1).mean()
    assert float(penalty(net, "r1", wrt=1)([x, y]).asscalar()) == pytest.approx(by_hand, rel=1e-12)


class Branching(mx.gluon.Block):
    """No Symbol describes it: it is read off the tape in each step."""

    def __init__(self):
        super().__init__()
        with self.name_scope():
            self.first, self.last = nn.Dense(4, in_units=3), nn.Dense(1, in_units=4)

    def forward(self, x):
        x = mx.nd.tanh(self.first(x))
        return self.last(x * 2 if float(x.sum().asscalar()) > 0 else x)


def test_a_net_with_python_control_flow_and_one_in_float32():
    net = Branching()
    net.initialize(mx.init.Normal(0.8))
    rng = np.random.default_rng(0)
    gp = penalty(net, "r1")
    for sign in (1, -1, 1):
        x = mx.nd.array(rng.normal(size=(5, 3)))
        if (float(mx.nd.tanh(net.first(x)).sum().asscalar()) > 0) != (sign > 0):
            net.first.weight.set_data(-net.first.weight.data())
            net.first.bias.set_data(-net.first.bias.data())
        given = x.copy()
        given.attach_grad()
        with record():
            out = net(given)
        out.backward()
        with record():
            value = gp(x)
        value.backward()
        assert float(value.asscalar()) == pytest.approx(np.square(given.grad.asnumpy()).sum(1).mean(), rel=1e-5)
        slopes = net.last.weight.grad().asnumpy()
        moved, step = [], 1e-2
        for side in (step, -step):
            net.last.weight.set_data(net.last.weight.data() + side)
            moved.append(float(gp(x).asscalar()))
            net.last.weight.set_data(net.last.weight.data() - side)
        assert slopes.sum() == pytest.approx((moved[0] - moved[1]) / (2 * step), rel=2e-2)


@mx.util.use_np
def numpy_arrays():
    net = nn.HybridSequential()
    net.add(nn.Dense(5, in_units=2, activation="tanh"), nn.Dense(1, in_units=5))
    net.initialize(mx.init.Normal(0.7))
    x = mx.np.array(np.linspace(-1, 1, 8).reshape(4, 2), dtype="float32")
    return net, x


@mx.util.use_np
def test_nets_of_numpy_arrays():
    net, x = numpy_arrays()
    given = x.copy()
    given.attach_grad()
    with record():
        out = net(given)
    out.backward()
    slopes = given.grad.asnumpy()
    with record():
        named = penalty(net, "wgan-gp")(x)
        own = penalty(net, lambda u_a: mx.np.square(u_a), of="u_a", coordinates="ab")(x)
        (named + own + net(x).mean()).backward()
    assert type(named) is mx.np.ndarray and gradient(net).any()
    assert named.item() == pytest.approx(np.square(np.linalg.norm(slopes, axis=1) - 1).mean(), rel=1e-5)
    assert own.item() == pytest.approx(np.square(slopes[:, 0]).mean(), rel=1e-5)


def recurrent():
    net = nn.HybridSequential()
    net.add(mx.gluon.rnn.LSTM(3, layout="NTC", input_size=2), nn.Dense(1))
    net.initialize()
    net(mx.nd.zeros((2, 4, 2)))
    return net, mx.nd.ones((2, 4, 2))


def normalised():
    values, x, _, _ = drawn("BatchNorm over the batch, wgan-gp")
    return built(CASES["BatchNorm over the batch, wgan-gp"][0], values), array(x)


def pooled():
    net = nn.HybridSequential()
    net.add(nn.Conv1D(3, 3, in_channels=1), nn.Activation("tanh"), nn.MaxPool1D(2), nn.Dense(1, in_units=9))
    net.initialize()
    return net, mx.nd.array(np.random.default_rng(0).normal(size=(4, 1, 8)))


SECOND = dict(of=("u_aa",), coordinates="ab")


def square(u):
    return mx.nd.square(u)


@pytest.mark.parametrize(
    ("make", "options", "error", "text"),
    [
        (critic, dict(function="wgangp"), InputError, "did you mean 'wgan-gp'"),
        (critic, dict(function=3), InputError, "function of the derivative or a name, not int"),
        (critic, dict(function="r1", mode="training"), InputError, "did you mean 'train'"),
        (critic, dict(function="r1", reduction="max"), InputError, "reduction must be"),
        (critic, dict(function="r1", wrt=1), InputError, "wrt=1 is not one of the 1 input"),
        (critic, dict(function="r1", wrt="x"), InputError, "number of an input"),
        (critic, dict(function="r1", output=3), InputError, "not an entry of one sample's output"),
        (critic, dict(function="jacobian", output=0), InputError, "a jacobian and derivatives by name"),
        (critic, dict(function=lambda g: g.sum()), InputError, "one value per sample"),
        (critic, dict(function=lambda g: 1.0), InputError, "not float"),
        (critic, dict(function=square, of=("u_t",)), InputError, "need coordinates="),
        (critic, dict(function=square, of=("u_q",), coordinates="xyz"), InputError, "of holds 'u_q'"),
        (critic, dict(function=square, of=("v",), coordinates="xyz"), InputError, "of holds 'v'"),
        (critic, dict(function=square, of=(), coordinates="xyz"), InputError, "names no derivative"),
        (critic, dict(function=square, of=("u_t",), coordinates="xyzt"), InputError, "has 3 entries"),
        (normalised, dict(function=square, mode="train", **SECOND), InputError, "BatchNorm over batch statistics"),
        (recurrent, dict(function=square, **SECOND), UnsupportedOps, "Custom"),
        (pooled, dict(function=square, of=("u_aa",), coordinates="abcdefgh"), UnsupportedOps, "Pooling"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said(make, options, error, text):
    net, x = make()
    with pytest.raises(error, match=text):
        penalty(net, **options)(x)


def test_it_is_a_public_name_of_training():
    assert training.penalty is penalty
