"""The model behind a loss: l = -log p(y | z) + constant, and labels drawn from it (for the Monte-Carlo Fisher).

With these, the Monte-Carlo Fisher's mean over draws is the Gauss-Newton matrix (Martens 2020, section 9).
"""

from __future__ import annotations

from typing import Any, Callable

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines.compiled import Compiled
from hessmx.errors import EngineError
from hessmx.problem.data import Batch

Sampler = Callable[[Any, np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _categories(loss: Any, z: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Softmax cross-entropy: one category per row along the loss's axis."""
    scores = np.moveaxis(z, loss._axis, -1)
    if loss._from_logits:  # z holds log-probabilities then
        scores = scores - scores.max(axis=-1, keepdims=True)
    # Gumbel's trick: the largest of log p + Gumbel noise is distributed as p
    chosen = np.argmax(scores + generator.gumbel(size=scores.shape), axis=-1)
    if loss._sparse_label:
        return chosen.reshape(labels.shape)
    return np.moveaxis(np.eye(scores.shape[-1])[chosen], -1, loss._axis)


def _gaussian(loss: Any, z: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Squared loss w/2 mean_k (z_k - y_k)^2: normal with variance (entries per sample) / w."""
    variance = z[0].size / (1.0 if loss._weight is None else float(loss._weight))
    return (z + np.sqrt(variance) * generator.standard_normal(z.shape)).reshape(labels.shape)


def _bernoulli(loss: Any, z: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Binary cross-entropy: independent labels 0 and 1 (-1 and 1 for signed labels)."""
    chance = z if getattr(loss, "_from_sigmoid", False) else 1 / (1 + np.exp(-z))
    drawn = (generator.random(z.shape) < chance).astype(z.dtype)
    return (2 * drawn - 1 if getattr(loss, "_label_format", "binary") == "signed" else drawn).reshape(labels.shape)


_gluon = mx.gluon.loss

_SAMPLERS: dict[type, Sampler] = {
    _gluon.SoftmaxCrossEntropyLoss: _categories,
    _gluon.L2Loss: _gaussian,
    _gluon.SigmoidBinaryCrossEntropyLoss: _bernoulli,
    _gluon.LogisticLoss: _bernoulli,
}


class Relabel:
    """Batches with labels drawn from the model: the same ones in every pass, as long as the net is the same."""

    def __init__(self, compiled: Compiled, loss: Any, seed: int):
        self.compiled, self.loss, self.seed = compiled, loss, seed
        self._draw = sampler(loss)

    def __call__(self, batch: Batch, draw: int) -> Batch:
        program, plan = self.compiled.program("outputs", batch)
        assert program is not None
        outputs = program.forward(self.compiled.feeds(batch, plan))
        if len(outputs) != 1 or isinstance(batch.labels, (list, tuple)):
            raise EngineError(
                "the Monte-Carlo Fisher needs a net with one output and one label; use fisher('empirical') or ggn"
            )
        z = outputs[0].asnumpy().astype(np.float64)
        generator = np.random.default_rng([self.seed, batch.index, draw, 0xF15])
        labels = self._draw(self.loss, z, batch.labels.asnumpy(), generator)
        drawn = mx.nd.array(labels, ctx=batch.labels.context, dtype=batch.labels.dtype)
        return Batch(batch.index, batch.inputs, drawn, kept=False)

    def scale(self, batch: Batch) -> float:
        return scale(self.loss, self.compiled.plan(batch).output_shapes[0])


_FAMILIES: dict[type, str] = {
    _gluon.SoftmaxCrossEntropyLoss: "categorical",
    _gluon.L2Loss: "gaussian",
    _gluon.SigmoidBinaryCrossEntropyLoss: "bernoulli",
    _gluon.LogisticLoss: "bernoulli",
}


def family(loss: Any) -> str:
    """"gaussian", "categorical" or "bernoulli": of which distribution the loss is the negative logarithm."""
    for kind, name in _FAMILIES.items():
        if isinstance(loss, kind) and not getattr(loss, "_from_sigmoid", False):
            return name
    known = ", ".join(kind.__name__ for kind in _FAMILIES)
    raise EngineError(f"a posterior needs a loss that is a negative log-likelihood of the outputs: {known}, without "
                      f"from_sigmoid; not {type(loss).__name__}")


def nats(loss: Any, output_shape: tuple) -> float:
    """Factor from the loss of a sample to -log p(y | z), up to a constant; of a squared loss with variance 1."""
    weight = 1.0 if getattr(loss, "_weight", None) is None else float(loss._weight)
    entries = float(np.prod(output_shape[1:]))
    if isinstance(loss, _gluon.SoftmaxCrossEntropyLoss):
        entries /= output_shape[loss._axis]
    return entries / weight


def sampler(loss: Any) -> Sampler:
    """How labels are drawn from the model of `loss`; EngineError where the loss is not known to be a likelihood."""
    for kind, draw in _SAMPLERS.items():
        if isinstance(loss, kind):
            return draw
    known = ", ".join(kind.__name__ for kind in _SAMPLERS)
    raise EngineError(
        f"the Monte-Carlo Fisher draws labels from the model of the loss, which is known for {known}, not for "
        f"{type(loss).__name__}; use fisher('empirical') or ggn"
    )


def scale(loss: Any, output_shape: tuple) -> float:
    """Factor by which E[g g'] must be multiplied to be the Hessian of the loss: 1 for a true log-likelihood.

    A loss that is c times a log-likelihood has E[g g'] = c^2 F while its Gauss-Newton matrix is c F.
    """
    return 1.0 if isinstance(loss, _gluon.L2Loss) else nats(loss, output_shape)  # there it is all in the variance
