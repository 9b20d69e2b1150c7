"""Posteriors against closed-form Bayesian linear regression, dense inverses, quadrature and laplace-torch's numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from scipy.stats import multivariate_normal

from hessmx import Curvature, L2Penalty
from hessmx._mxnet import mx
from hessmx.blocks import dense_net
from hessmx.errors import EngineError, InputError
from hessmx.uses.laplace import Laplace, laplace
from hessmx.uses.predictions import Prediction, calibration
from tests import differences, small_nets
from tests.uses import peers

nn, losses = mx.gluon.nn, mx.gluon.loss
PRIOR, NOISE = 0.8, 0.4
EXACT = {"full": {}, "kfac": {}, "ekfac": {}, "low-rank": {"rank": 8}, "last-layer": {}}


def relative(found, true) -> float:
    return float(np.abs(np.asarray(found) - true).max() / np.abs(true).max())


def assign(net, w):
    start = 0
    for p in net.collect_params().values():
        size = int(np.prod(p.shape))
        p.set_data(mx.nd.array(w[start : start + size].reshape(p.shape), dtype="float64"))
        start += size


class Linear:
    """y = W x + b with Gaussian prior and noise, in closed form; parameters in the net's order: W row by row, b."""

    def __init__(self, samples=12, inputs=3, outputs=2):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(samples, inputs))
        self.y = self.x @ rng.normal(size=(inputs, outputs)) + 0.3 + 0.2 * rng.normal(size=(samples, outputs))
        self.net = nn.Dense(outputs, in_units=inputs)
        self.net.initialize()
        self.net.cast("float64")
        self.start = rng.normal(size=outputs * (inputs + 1))
        assign(self.net, self.start)

    def features(self, x):
        """(N K, P)."""
        outputs = self.y.shape[1]
        rows = [np.hstack([np.kron(np.eye(outputs), row), np.eye(outputs)]) for row in x]
        return np.concatenate(rows)

    def posterior(self, prior, noise):
        f, y = self.features(self.x), self.y.ravel()
        covariance = np.linalg.inv(f.T @ f / noise**2 + np.diag(np.broadcast_to(prior, f.shape[1])))
        return covariance @ f.T @ y / noise**2, covariance

    def evidence(self, prior, noise):
        f, y = self.features(self.x), self.y.ravel()
        spread = f @ np.diag(1 / np.broadcast_to(prior, f.shape[1])) @ f.T + noise**2 * np.eye(y.size)
        return -0.5 * (y @ np.linalg.solve(spread, y) + np.linalg.slogdet(2 * np.pi * spread)[1])

    def curvature(self, **options):
        return Curvature(self.net, losses.L2Loss(), (self.x, self.y), batch_size=5, **options)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("structure", EXACT)
def test_bayesian_linear_regression_from_any_parameters(structure, reduction):
    linear = Linear()
    mean, covariance = linear.posterior(PRIOR, NOISE)
    curv = linear.curvature(reduction=reduction, weight_decay=0.3)  # which is no part of a posterior with its own prior
    found = laplace(curv, structure, PRIOR, NOISE, recentre=True, **EXACT[structure])
    assert relative(found.mean, mean) < 1e-10
    assert relative([found.covariance.times(unit) for unit in np.eye(mean.size)], covariance) < 1e-10
    assert found.evidence().value == pytest.approx(linear.evidence(PRIOR, NOISE), rel=1e-10)
    determined = mean.size - PRIOR * np.trace(covariance)
    assert found.evidence().effective_params == pytest.approx(determined, rel=1e-9)
    x = np.random.default_rng(1).normal(size=(4, 3))
    predicted = found.predict(x)
    rows = linear.features(x).reshape(4, 2, -1)
    assert relative(predicted.outputs, rows @ mean) < 1e-10
    assert relative(predicted.covariances, rows @ covariance @ rows.transpose(0, 2, 1)) < 1e-10
    assert relative(predicted.variances, np.einsum("nkp,pq,nkq->nk", rows, covariance, rows) + NOISE**2) < 1e-10


def test_at_the_mode_no_step_is_needed():
    linear = Linear()
    mean, covariance = linear.posterior(PRIOR, NOISE)
    away = laplace(linear.curvature(), "full", PRIOR, NOISE).evidence()
    slope = np.linalg.solve(covariance, linear.start - mean)
    assert away.to_gain == pytest.approx(0.5 * slope @ covariance @ slope, rel=1e-9) and away.notes
    assign(linear.net, mean)
    at = laplace(linear.curvature(), "full", PRIOR, NOISE).evidence()
    assert at.value == pytest.approx(linear.evidence(PRIOR, NOISE), rel=1e-10)
    assert at.to_gain < 1e-20 and not at.notes
    assert at.value == pytest.approx(at.log_likelihood + at.log_prior + at.occam, rel=1e-12)


@pytest.mark.parametrize("structure", ["full", "kfac", "low-rank"])
def test_the_fitted_prior_and_noise_maximise_the_closed_form(structure):
    linear = Linear()
    found = laplace(linear.curvature(), structure, recentre=True, **EXACT[structure]).fit()
    true = minimize(lambda logs: -linear.evidence(np.exp(logs[0]), np.exp(logs[1])), [0.0, 0.0], tol=1e-12)
    assert found.evidence().value == pytest.approx(-true.fun, rel=1e-9) and found.evidence().converged
    assert (found.prior[0], found.noise) == pytest.approx(tuple(np.exp(true.x)), rel=1e-4)


def test_a_prior_for_weights_and_one_for_biases():
    linear = Linear()
    found = laplace(linear.curvature(), "full", {"weight": 0.5, "bias": 2.0}, NOISE, by="kind", recentre=True)
    prior = np.array([0.5] * 6 + [2.0] * 2)
    assert found.evidence().value == pytest.approx(linear.evidence(prior, NOISE), rel=1e-10)
    fitted = found.fit(noise=False)
    true = minimize(lambda logs: -linear.evidence(np.repeat(np.exp(logs), (6, 2)), NOISE), [0.0, 0.0], tol=1e-12)
    assert fitted.evidence().value == pytest.approx(-true.fun, rel=1e-8)
    assert fitted.evidence().groups == ("weight", "bias") and fitted.noise == NOISE


def tanh_net(loss="softmax", **options):
    rng = np.random.default_rng(2)
    net = dense_net((4, 5, 3), "tanh", dtype="float64")
    mx.random.seed(3)
    net.initialize(mx.init.Normal(0.6))
    x = rng.normal(size=(9, 4))
    if loss == "softmax":
        return Curvature(net, losses.SoftmaxCrossEntropyLoss(), (x, np.arange(9) % 3), **options)
    return Curvature(net, losses.L2Loss(), (x, rng.normal(size=(9, 3))), **options)


@pytest.mark.parametrize("structure", ["full", "kfac", "ekfac", "low-rank", "last-layer"])
def test_covariances_are_dense_inverses(structure):
    curv, rank = tanh_net("l2", weight_decay=0.1), {"rank": 7} if structure == "low-rank" else {}
    found = laplace(curv, structure, PRIOR, NOISE, by="layer", **rank)
    scale = 3 * 9 / NOISE**2  # L2Loss is the mean over 3 outputs of half the squared error, the objective that over 9
    whole = tanh_net("l2").ggn.to_dense()
    if structure == "low-rank":
        values, vectors = np.linalg.eigh(whole)
        whole = (vectors[:, -7:] * values[-7:]) @ vectors[:, -7:].T
    elif structure == "last-layer":
        whole = whole[25:, 25:]
    elif structure != "full":
        whole = tanh_net("l2").kfac(corrected=structure == "ekfac").to_dense()
    size, tolerance = len(whole), 1e-5 if structure == "low-rank" else 1e-9  # eigenvectors are found to 1e-6
    true = np.linalg.inv(scale * whole + PRIOR * np.eye(size))
    u = np.random.default_rng(4).normal(size=(3, size))
    assert relative(found.variances(), np.diag(true)) < tolerance
    assert relative(found.covariance.quadratic(u), u @ true @ u.T) < tolerance
    assert relative(found.covariance.times(u[0]), true @ u[0]) < tolerance
    assert found.covariance.logdet_precision == pytest.approx(-np.linalg.slogdet(true)[1], rel=tolerance)
    spread = found.covariance.draw(np.eye(size))  # rows R e_i of a root R: R R' = true
    assert relative(spread.T @ spread, true) < tolerance


@pytest.mark.parametrize("recentre", [False, True])
@pytest.mark.parametrize("structure", ["full", "kfac", "low-rank", "last-layer"])
def test_slopes_of_the_evidence_by_differences(structure, recentre):
    """By central differences of the evidence over logarithms of the precisions, at a point that is no optimum."""
    curv, options = tanh_net("l2"), {"rank": 7} if structure == "low-rank" else {}
    logs, h = np.log([0.5, 2.0, 3.0][-2 if structure == "last-layer" else 0 :]), 1e-5

    made = laplace(curv, structure, by="layer", **options)
    groups = list(made._groups().values())

    def at(logs):
        prior = np.empty_like(made.prior)
        for where, log in zip(groups, logs):
            prior[where] = np.exp(log)
        return Laplace(made._data, made._structure, structure, "layer", prior, np.exp(-logs[-1] / 2), recentre)

    slopes = at(logs)._slopes(groups, True)
    for i, step in enumerate(np.eye(len(logs)) * h):
        difference = (at(logs + step).evidence().value - at(logs - step).evidence().value) / (2 * h)
        assert slopes[i] == pytest.approx(difference, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("told, structure, options", [
    ("all full", "full", {}), ("last_layer full", "last-layer", {}), ("all kron", "kfac", {"biases": "separate"}),
])  # fmt: skip
@pytest.mark.parametrize("likelihood", ["classification", "regression"])
def test_equals_laplace_torch(likelihood, told, structure, options):
    expected = peers.PEERS["nets"]["dense"][likelihood][told]
    noise = peers.PEERS["noise"] if likelihood == "regression" else 1.0
    curv = peers.curvature("dense", target=likelihood == "regression")
    found = laplace(curv, structure, peers.PEERS["prior"], noise, **options)
    assert found.evidence().value == pytest.approx(expected["evidence"], rel=1e-10)
    predicted = found.predict(peers.array("dense", "test").reshape(3, 4))
    assert relative(predicted.outputs.ravel(), np.array(expected["mean"])) < 1e-10
    assert relative(predicted.covariances.ravel(), np.array(expected["variance"])) < 1e-9
    if likelihood == "classification":
        assert relative(predicted.probabilities.ravel(), np.array(expected["probit"])) < 1e-10


@pytest.mark.parametrize("structure", ["full", "kfac", "low-rank", "last-layer"])
@pytest.mark.parametrize("by", [None, "layer"])
def test_precisions_far_apart_are_no_trouble(structure, by):
    """A fit's line search may try any: variances stay between 0 and the prior's, and the evidence is a number."""
    made = laplace(tanh_net("l2"), structure, by=by, **({"rank": 7} if structure == "low-rank" else {}))
    for prior, noise in ((1e-9, 1e-7), (1e9, 1e-7), (1e-9, 1e7)):
        at = Laplace(made._data, made._structure, structure, by, np.full(made.prior.shape, prior), noise, True)
        variances = at.variances()
        assert np.isfinite(at.evidence().value) and (variances >= 0).all() and (variances <= (1 + 1e-9) / prior).all()


@pytest.mark.parametrize("recentre", [False, True])
def test_tuned_takes_the_factor_with_the_likeliest_held_out_samples(recentre):
    rng = np.random.default_rng(9)
    made = laplace(tanh_net(), "kfac", 0.3, recentre=recentre)
    x, y, factors = rng.normal(size=(20, 4)), rng.integers(0, 3, 20), (0.1, 1.0, 10.0, 100.0)
    losses_of = [laplace(tanh_net(), "kfac", 0.3 * f, recentre=recentre).predict(x).nll(y) for f in factors]
    found = made.tuned(x, y, factors=factors)
    assert found.prior[0] == pytest.approx(0.3 * factors[int(np.argmin(losses_of))])
    assert found.predict(x).nll(y) == pytest.approx(min(losses_of), rel=1e-9)


def test_samples_have_the_posterior_mean_and_covariance():
    found = laplace(tanh_net("l2"), "kfac", 5.0, NOISE)
    drawn = found.sample(4000, seed=1)
    assert np.abs((drawn.mean(axis=0) - found.mean) / np.sqrt(found.variances() / 4000)).max() < 5
    assert relative(drawn.var(axis=0), found.variances()) < 0.12
    assert np.array_equal(drawn[:3], found.sample(3, seed=1))


def test_weight_decay_stands_for_a_prior():
    """N (l + decay / 2 w^2) is the log posterior in nats: precision N decay; 3 N decay / s^2 of 3 outputs' mean."""
    assert np.allclose(laplace(tanh_net(weight_decay=0.02)).prior, 9 * 0.02)
    assert np.allclose(laplace(tanh_net("l2", weight_decay=0.02), noise=NOISE).prior, 27 * 0.02 / NOISE**2)
    assert np.allclose(laplace(tanh_net()).prior, 1.0)


def binary(link, samples=40_000):
    rng = np.random.default_rng(5)
    net = dense_net((3, 4, 1), "tanh", dtype="float64")
    mx.random.seed(0)
    net.initialize(mx.init.Normal(0.8))
    data = rng.normal(size=(10, 3)), (rng.random((10, 1)) < 0.5).astype(float)
    return laplace(Curvature(net, losses.SigmoidBCELoss(), data), "full", 0.5).predict(data[0], link, samples), data[1]


def test_probit_and_sampled_probabilities_are_means_over_the_outputs():
    """Against Gauss-Hermite quadrature of E sigmoid(z); the probit formula is an approximation, good to 2 %."""
    sampled, y = binary("sampled")
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    spread = np.sqrt(sampled.covariances[:, 0, 0])
    true = (expit(sampled.outputs + spread[:, None] * nodes) @ weights) / weights.sum()
    assert np.abs(sampled.probabilities[:, 0] - true).max() < 0.006
    assert np.abs(binary("probit")[0].probabilities[:, 0] - true).max() < 0.02
    assert np.array_equal(binary("point")[0].probabilities, expit(sampled.outputs))
    p = sampled.probabilities
    assert sampled.nll(y) == pytest.approx(-np.log(np.where(y > 0, p, 1 - p)).mean())
    assert 0 < calibration(sampled, y).ece < 1


def test_class_probabilities():
    curv = tanh_net()
    found, x = laplace(curv, "full", 0.3), np.random.default_rng(6).normal(size=(4, 4))
    point, probit, sampled = (found.predict(x, link) for link in ("point", "probit", "sampled"))
    assert np.allclose(point.probabilities, softmax(point.outputs, axis=1))
    for made in (probit, sampled):
        assert np.allclose(made.probabilities.sum(axis=1), 1)
        assert (made.probabilities.max(axis=1) < point.probabilities.max(axis=1)).all()  # doubt flattens
    draws = np.random.default_rng(7).standard_normal((20_000, 3)) @ np.linalg.cholesky(sampled.covariances[0]).T
    mean = softmax(sampled.outputs[0] + draws, axis=1).mean(axis=0)
    assert np.abs(sampled.probabilities[0] - mean).max() < 0.03


def test_calibration_by_hand():
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.35, 0.65]])
    made = Prediction(np.log(p), np.zeros((4, 2, 2)), 0.0, "point", p, "categorical")
    found = calibration(made, np.array([0, 1, 1, 1]), bins=10)
    assert found.accuracy == 0.75
    assert found.nll == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.65]).mean())
    # bin 6 holds 0.6 (wrong) and 0.65 (right), bins 8 and 9 one right sample each
    assert found.ece == pytest.approx((2 * abs(0.625 - 0.5) + 0.2 + 0.1) / 4)
    assert found.counts.tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1, 1]
    one_hot = calibration(made, np.eye(2)[[0, 1, 1, 1]], bins=10)
    assert one_hot.ece == found.ece


def test_gaussian_likelihood_of_a_prediction():
    made = Prediction(np.array([[1.0, 2.0]]), np.array([np.diag([0.5, 1.0])]), 0.25, "probit")
    true = -multivariate_normal([1, 2], np.diag([0.75, 1.25])).logpdf([0, 0])
    assert made.nll(np.zeros((1, 2))) == pytest.approx(true)


@pytest.mark.parametrize("name", small_nets.NETS)
def test_predicted_covariances_by_differences_of_forward_passes(name):
    """J from central differences of the user's own net; S is a dense inverse. Of the LSTM time is on the first axis."""
    net, x, y = small_nets.make(name)
    curv = Curvature(net, small_nets.LOSS, [(x, y)])
    found, w, h, size = laplace(curv, "kfac", 0.6).predict(x), curv.parameters(), 1e-6, curv.num_params

    def outputs(at):
        differences.move(net, curv.param_names, at)
        return net(mx.nd.array(x, dtype="float64")).asnumpy()

    rows = np.stack([(outputs(w + h * unit) - outputs(w - h * unit)) / (2 * h) for unit in np.eye(size)], axis=-1)
    differences.move(net, curv.param_names, w)
    covariance = np.linalg.inv(len(y) * curv.kfac().to_dense() + 0.6 * np.eye(size))
    assert relative(found.covariances, rows @ covariance @ rows.transpose(0, 2, 1)) < 1e-6
    assert relative(found.outputs, outputs(w)) < 1e-12
    assert np.isfinite(laplace(curv, "kfac", 0.6).fit().evidence().value)


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (lambda: laplace(tanh_net(), "kron"), InputError, "'kfac', 'ekfac', 'full', 'low-rank', 'last-layer'"),
        (lambda: laplace(tanh_net(), noise=0.5), InputError, "squared loss"),
        (lambda: laplace(tanh_net()).fit(noise=True), InputError, "squared loss"),
        (lambda: laplace(tanh_net(), prior_precision=-1.0), InputError, "above 0"),
        (lambda: laplace(tanh_net(), prior_precision={"a": 1.0}, by="layer"), InputError, "must name the groups"),
        (lambda: laplace(tanh_net(), prior_precision=np.ones(3)), InputError, r"\(43,\)|shape"),
        (lambda: laplace(tanh_net(), by="parameter", prior_precision=np.arange(1.0, 44.0)), InputError, "one prior"),
        (lambda: laplace(tanh_net(weight_decay=L2Penalty(0.1, biases=False))), InputError, "needs a prior"),
        (lambda: laplace(tanh_net(), "full", biases="separate"), InputError, "no options"),
        (lambda: laplace(tanh_net()).predict(np.ones((2, 4)), "soft"), InputError, "'probit', 'sampled', 'point'"),
        (lambda: laplace("net"), InputError, "must be a hessmx.Curvature"),
        (lambda: laplace(huber()), EngineError, "negative log-likelihood"),
        (lambda: calibration(laplace(tanh_net("l2")).predict(np.ones((1, 4))), [0]), InputError, "classes"),
    ],
)
def test_bad_questions(ask, error, text):
    with pytest.raises(error, match=text):
        ask()


def huber():
    net = dense_net((3, 2), "tanh")
    net.initialize()
    return Curvature(net, losses.HuberLoss(), (np.ones((2, 3)), np.ones((2, 2))))
