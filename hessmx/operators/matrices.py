"""The symmetric matrices of one objective: each is one kind of product (see engines/products.py)."""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager
from typing import Any, Mapping, Sequence

import numpy as np

from hessmx.engines.base import Engine
from hessmx.errors import HessmxWarning
from hessmx.operators.base import SymmetricOperator
from hessmx.operators.likelihood import Relabel
from hessmx.problem.data import Batch
from hessmx.problem.objective import Objective


class Curved(SymmetricOperator):
    """A symmetric matrix of the objective, over all parameters or the diagonal block of some.

    One product is one pass over the data; a block of late layers costs less, as nothing moves before them.
    """

    kind = ""
    penalised = True  # whether the L2 penalty's matrix belongs to it

    def __init__(self, engine: Engine, objective: Objective, which: Sequence[str] | None = None):
        net = objective.net
        self.which = net.names if which is None else tuple(which)
        size = sum(net.sizes[name] for name in self.which)
        super().__init__(net.dtype, (size, size))
        self.engine, self.objective = engine, objective

    @property
    def places(self) -> np.ndarray:
        """Where its rows stand in the matrix of all parameters."""
        return self.objective.net.positions(self.which)

    def block(self, which: Sequence[str]) -> Curved:
        """The diagonal block of the named parameters."""
        return type(self)(self.engine, self.objective, which)

    def _product(self, vector: np.ndarray) -> np.ndarray:
        total = self.objective.add_up(lambda batch: self._term(vector, batch))
        self._note(vector, total)
        return self.objective.vector(total, vector if self.penalised else None, self.which)

    def _products(self, block: np.ndarray) -> np.ndarray:
        """Batches outside, vectors inside: the data are read and linearised once for all columns."""
        if not block.shape[1]:
            return np.zeros(block.shape, self.dtype)
        total = self.objective.add_up(lambda batch: self._terms(block, batch))
        self._note(block, total)
        total = total if total.ndim else np.zeros(block.shape)
        moved = block.T if self.penalised else [None] * block.shape[1]
        rows = np.ascontiguousarray(total.T)  # vectors lie in one piece each: strided copies cost as much as a layer
        return np.stack([self.objective.vector(t, v, self.which) for t, v in zip(rows, moved)]).T

    def _note(self, moved: np.ndarray, total: Any) -> None:
        """A matrix may say what it sees in a product's sum over all samples, before reduction and penalty."""

    def question(self) -> AbstractContextManager[Any]:
        """Within, parameters and batches in memory stay what they are; linearisations are made once."""
        return self.engine.question()

    def _term(self, vector: np.ndarray, batch: Batch) -> tuple[Any, int]:
        return self.engine.product(self.kind, vector, batch, self.which)

    def _terms(self, block: np.ndarray, batch: Batch) -> tuple[Any, int]:
        return self.engine.products(self.kind, block, batch, self.which)


class Hessian(Curved):
    """H of the objective: mean (or sum) of the per-sample losses' Hessians, plus the penalty."""

    kind = label = "hessian"


class GaussNewton(Curved):
    """G = mean_i J_i' (d2 l / dz2) J_i, plus the penalty (Schraudolph 2002, section 3).

    Warns if it is zero, as it is for every loss that is linear in the outputs; one product more if the first one is 0.
    """

    kind = label = "ggn"

    def __init__(self, engine: Engine, objective: Objective, which: Sequence[str] | None = None):
        super().__init__(engine, objective, which)
        self._settled: list[bool] = []  # whether it is zero, once that is known; shared with its blocks

    def block(self, which: Sequence[str]) -> Curved:
        block = type(self)(self.engine, self.objective, which)
        block._settled = self._settled
        return block

    def _note(self, moved: np.ndarray, total: Any) -> None:
        if not self._settled and np.any(moved):
            self._settle(not np.any(total))

    def _settle(self, zero: bool) -> None:
        """Zero along one vector may be a dead unit; zero along a random direction is the loss."""
        net = self.objective.net
        if zero:
            probe = np.random.default_rng(0).standard_normal(net.size).astype(self.dtype)
            zero = not np.any(
                self.objective.add_up(lambda batch: self.engine.product(self.kind, probe, batch, net.names))
            )
        self._settled.append(zero)
        if zero:
            warnings.warn(
                "the Gauss-Newton matrix is zero on this data, as for every loss that is linear in the outputs of the "
                "net (from_logits=True, L1, hinge): all curvature is in the residual. For the Gauss-Newton matrix of a "
                "softmax, let the net return what stands before log_softmax",
                HessmxWarning,
                stacklevel=2,
            )

    @property
    def positive(self) -> bool | None:
        return self.objective.convex


class Unpenalised(GaussNewton):
    """G of the losses alone."""

    penalised = False


class Residual(Curved):
    """H - G: what the curvature of the net itself adds; mean_i sum_k (dl / dz_k) d2 z_k / dw2."""

    kind = label = "residual"
    penalised = False


class Fisher(Curved):
    """mean_i g_i g_i' with per-sample gradients g_i, labels as in the data: the gradients' second moment."""

    kind = label = "fisher"
    penalised, positive = False, True


class MonteCarloFisher(Curved):
    """mean_i g_i g_i' with labels drawn from the model, `draws` times (Kunstner et al. 2019, section 2).

    The labels are drawn anew in every pass with the same seed: one fixed matrix, no memory for labels.
    Cost of a product: `draws` products and one forward pass.
    """

    kind, label = "fisher", "mc-fisher"
    penalised, positive = False, True

    def __init__(
        self,
        engine: Engine,
        objective: Objective,
        relabel: Relabel,
        draws: int,
        which: Sequence[str] | None = None,
    ):
        super().__init__(engine, objective, which)
        self.relabel, self.draws = relabel, draws

    def block(self, which: Sequence[str]) -> MonteCarloFisher:
        return MonteCarloFisher(self.engine, self.objective, self.relabel, self.draws, which)

    def _term(self, vector: np.ndarray, batch: Batch) -> tuple[Any, int]:
        value, samples = self._terms(vector[:, None], batch)
        return None if value is None else value[:, 0], samples

    def _terms(self, block: np.ndarray, batch: Batch) -> tuple[Any, int]:
        total: Any = None
        samples = 0
        for draw in range(self.draws):
            value, samples = self.engine.products(self.kind, block, self.relabel(batch, draw), self.which)
            if value is not None:
                total = value / self.draws if total is None else total + value / self.draws
        return None if total is None else total * self.relabel.scale(batch), samples


class BlockDiagonal(SymmetricOperator):
    """The diagonal blocks of a matrix by groups of parameters, zeros elsewhere. A product costs one per block."""

    label = "block-diagonal"

    def __init__(self, whole: Curved, groups: Mapping[str, Sequence[str]]):
        super().__init__(whole.dtype, whole.shape)
        net = whole.objective.net
        self.blocks = {name: whole.block(which) for name, which in groups.items()}
        self._positions = {name: net.positions(which) for name, which in groups.items()}

    def _product(self, vector: np.ndarray) -> np.ndarray:
        result = np.zeros(self.shape[0], self.dtype)
        for name, block in self.blocks.items():
            result[self._positions[name]] = block.matvec(vector[self._positions[name]])
        return result
