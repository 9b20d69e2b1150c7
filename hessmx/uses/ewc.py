"""Training on a new task without forgetting the old one: elastic weight consolidation (Kirkpatrick et al. 2017).

    l(z, y) + strength / 2 sum_k F_k (w_k - w*_k)^2

with F the diagonal of the old task's Fisher matrix at its minimum w* (equation 3 there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import InputError, ParameterError, choose
from hessmx.results import Provenance, Result
from hessmx.uses.diagonals import empirical_fisher_diagonal, ggn_diagonal

MATRICES = ("ggn", "fisher")


@dataclass(frozen=True, eq=False)
class Importance(Result):
    """What a task needs of every parameter: kept from one task to the next, in memory or in a file."""

    parameters: np.ndarray  # (P,) w*, where the task was learnt
    importance: np.ndarray  # (P,) F, of the mean loss
    names: tuple[str, ...]
    sizes: np.ndarray  # entries of each parameter
    matrix: str
    products: int
    provenance: Provenance = field(default_factory=Provenance)


def importance(curv: Any, matrix: str = "ggn", draws: int = 50) -> Importance:
    """Diagonal of the Fisher matrix where the net is now, on curv's data.

    "ggn": labels as the model would draw them, which for cross-entropy is the Gauss-Newton matrix (`draws` gradients);
    "fisher": the labels of the data, exact, a gradient for each sample.
    """
    choose("matrix", matrix, MATRICES)
    if curv.reduction != "mean":
        raise InputError("importance is of the mean loss: use a Curvature with reduction='mean'")
    found = ggn_diagonal(curv, draws) if matrix == "ggn" else empirical_fisher_diagonal(curv)
    sizes = [int(np.prod(curv.param_shapes[name])) for name in curv.param_names]
    return Importance(np.asarray(curv.parameters(), float), found.value, curv.param_names, np.array(sizes), matrix,
                      found.products, curv.provenance(matrix))


class Penalty:
    """strength / 2 sum_k F_k (w_k - w*_k)^2 of a net's parameters, on the tape.

    net         the net that is trained on; parameters are matched by name where all names agree, else by order and size
    *learnt     an Importance for each task so far: their penalties add up (Kirkpatrick et al. 2017, section 2.1)
    strength    one number, or one for each task; 1 weighs the old task's mean loss like the new one's

    `penalty()` is an NDArray (1,). A per-sample loss plus it, `(loss(net(x), y) + penalty()).backward()` and
    `trainer.step(len(x))`, is the mean loss plus the penalty, for any Trainer and for hybridized nets.
    """

    def __init__(self, net: Any, *learnt: Importance, strength: Any = 1.0):
        if not learnt:
            raise InputError("Penalty(net, importance, ...) needs the Importance of at least one task")
        self.strength = np.broadcast_to(np.asarray(strength, float), (len(learnt),))
        if not np.isfinite(self.strength).all() or (self.strength < 0).any():
            raise InputError(f"strength must be a number of at least 0, or one for each task, not {strength!r}")
        self._terms: list[tuple[Any, Any, Any]] = []
        for found, factor in zip(learnt, self.strength):
            self._terms += _terms(net, found, float(factor))

    def __call__(self) -> Any:
        """The penalty (1,), where the net is now."""
        terms = [((p.data() - centre) ** 2 * half).sum() for p, centre, half in self._terms]
        return mx.nd.add_n(*terms)

    def loss(self, loss: Callable[..., Any]) -> Callable[..., Any]:
        """loss(output, label) + penalty for each sample, for Gluon's Estimator and loops that take one loss."""
        return lambda *arguments: loss(*arguments) + self()


def _terms(net: Any, found: Importance, strength: float) -> list[tuple[Any, Any, Any]]:
    """(Parameter, w*, strength F / 2) for each parameter, in its shape, dtype and context."""
    own = dict(net.collect_params().items())
    if set(found.names) <= set(own):
        chosen = [own[name] for name in found.names]
    else:
        chosen = [p for p in own.values() if p.grad_req != "null"]
    sizes = [int(np.prod(p.shape)) for p in chosen]
    if sizes != [int(size) for size in found.sizes]:
        raise ParameterError(f"the importance is of parameters of sizes {list(found.sizes)[:8]}, but the net's have "
                             f"{sizes[:8]}: it must be the same architecture")
    terms, start = [], 0
    for parameter, size in zip(chosen, sizes):
        cut = slice(start, start + size)
        start += size
        arrays = [mx.nd.array(values[cut].reshape(parameter.shape), ctx=parameter.list_ctx()[0], dtype=parameter.dtype)
                  for values in (found.parameters, 0.5 * strength * found.importance)]
        terms.append((parameter, *arrays))
    return terms
