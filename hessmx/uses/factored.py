"""How near K-FAC is to the Gauss-Newton matrix of this net on this data, and what it saves in solves: measured."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hessmx.algorithms.common import gaussian, positive_int, positive_number
from hessmx.operators.factors import MATRICES
from hessmx.operators.kfac import KFAC
from hessmx.results import Provenance, Result


@dataclass(frozen=True, eq=False)
class Factored(Result):
    """B blocks of K-FAC or EK-FAC (`approximation`) beside the matrix they stand for.

    Errors are relative Frobenius norms over random directions V, ||(K - G) V|| / ||G V||.
    """

    approximation: str
    blocks: tuple[str, ...]
    shapes: np.ndarray  # (B, 2) outputs and inputs
    traces: np.ndarray  # (B,)
    top_eigenvalues: np.ndarray  # (B,)
    logdet: float  # log det(K + damping I)
    error: float  # of the whole matrix
    diagonal_error: float  # beside the diagonal blocks only: what the factors lose, without what lies between layers
    directions: int
    damping: float
    rtol: float
    alone: int  # products of CG for (G + damping I) x = gradient
    helped: int  # with (K + damping I)^-1 as its preconditioner
    converged: tuple[bool, bool] = (True, True)
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)


def factored(curv: Any, operator: KFAC | None = None, matrix: str = "ggn", *, damping: float | None = None,
             directions: int = 10, rtol: float = 1e-4, max_products: int = 1000) -> Factored:
    """Compare `operator` (by default curv.kfac(matrix)) with `matrix`: "ggn", "mc" or "empirical".

    damping: by default a hundredth of the mean eigenvalue. Cost: 2 products per direction and layer, and two solves
    of at most `max_products` each.
    """
    name = MATRICES[matrix]
    operator = curv.kfac(matrix) if operator is None else operator
    damping = 1e-2 * operator.trace() / operator.shape[0] if damping is None else positive_number("damping", damping)
    probes = np.stack([gaussian(curv.seed, (0xFAC, i), operator.shape[0])
                       for i in range(positive_int("directions", directions))], axis=1)  # fmt: skip
    found = operator @ probes
    errors = []
    for true in (curv.matrix(name), curv.block_diagonal(_by_block(curv, operator), name)):
        expected = np.asarray(true @ probes, np.float64)
        errors.append(float(np.linalg.norm(found - expected) / np.linalg.norm(expected)))
    options = dict(damping=damping, matrix=name, rtol=rtol, max_products=max_products)
    alone = curv.solve(**options)
    helped = curv.solve(**options, preconditioner=operator.inverse(damping))
    return Factored(
        operator.label, tuple(block.name for block in operator.blocks),
        np.array([block.values.shape for block in operator.blocks]),
        np.array([block.values.sum() for block in operator.blocks]),
        np.array([block.values.max() for block in operator.blocks]),
        operator.logdet(damping), errors[0], errors[1], probes.shape[1], damping, rtol, alone.products,
        helped.products, (alone.converged, helped.converged), (*alone.notes, *helped.notes), curv.provenance(name),
    )  # fmt: skip


def _by_block(curv: Any, operator: KFAC) -> dict[str, tuple[str, ...]]:
    """The operator's blocks as groups of parameters; channels of one convolution stand together."""
    place = np.zeros(operator.shape[0], int)
    for i, block in enumerate(operator.blocks):
        place[block.positions] = i
    groups: dict[str, list[str]] = {}
    for name, where in curv.param_slices.items():
        groups.setdefault(operator.blocks[place[where.start]].name.partition("[")[0], []).append(name)
    return {name: tuple(members) for name, members in groups.items()}
