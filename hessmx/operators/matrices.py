"""The matrices of one objective: each is one kind of product (see graph/products.py)."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from hessmx.engines.base import Engine
from hessmx.objective import Objective
from hessmx.operators.base import SymmetricOperator


class Curved(SymmetricOperator):
    """A symmetric (P, P) matrix of the objective; one product is one pass over the data."""

    kind = ""
    penalised = True  # whether the L2 penalty's matrix belongs to it

    def __init__(self, engine: Engine, objective: Objective):
        net = objective.net
        super().__init__(net.dtype, (net.size, net.size))
        self.engine, self.objective = engine, objective

    def _product(self, vector: np.ndarray) -> np.ndarray:
        objective = self.objective
        total = objective.add_up(lambda batch: self.engine.product(self.kind, vector, batch, objective.net.names))
        return objective.vector(total, vector, self.penalised)


class Hessian(Curved):
    """H of the objective: mean (or sum) of the per-sample losses' Hessians, plus the penalty."""

    kind = label = "hessian"
