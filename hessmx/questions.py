"""The questions a curvature matrix is asked: the facade's half that runs algorithms and stamps their results."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.trace import trace
from hessmx.groups import Grouping
from hessmx.operators import CurvatureOperator, Curved
from hessmx.progress import reporter
from hessmx.results import Eigenpairs, Estimate, LayerCurvature, Layers, Provenance, Spectrum


class Questions:
    """`matrix` is hessian, ggn, residual, fisher, mc-fisher or ntk; `options` are those of the algorithm named.

    Every result records the engine, mode, reduction, dtype, seed and number of samples it was made with.
    """

    seed: int
    _progress: bool

    def eigenpairs(
        self, k: int = 1, which: str = "LA", method: str = "lanczos", matrix: str = "hessian", **options: Any
    ) -> Eigenpairs:
        """k eigenpairs from the top (LA), bottom (SA), by magnitude (LM), both ends (BE): `algorithms.lanczos`."""
        return self._ask(eigenpairs, matrix, k=k, which=which, method=method, **options)

    def trace(self, method: str = "hutch++", matrix: str = "hessian", **options: Any) -> Estimate:
        """Trace with standard error by "hutch++", "hutchinson" or "xtrace": `algorithms.trace`."""
        return self._ask(trace, matrix, method=method, **options)

    def spectrum(self, matrix: str = "hessian", **options: Any) -> Spectrum:
        """Spectral distribution by stochastic Lanczos quadrature: `algorithms.slq`."""
        return self._ask(spectrum, matrix, **options)

    def layers(self, by: Grouping = "layer", matrix: str = "hessian", budget: int = 30, **options: Any) -> Layers:
        """Top eigenvalue and trace of every diagonal block, and each trace's share of the sum of all traces.

        `budget` products per layer for its trace (all of them, exactly, where the layer has no more parameters);
        `options` go to the eigenvalues.
        """
        blocks = self.blocks(by, matrix)  # type: ignore[attr-defined]
        found = {name: self._layer(name, block, budget, options) for name, block in blocks.items()}
        whole = sum(estimate.value for _, estimate in found.values())
        rows = tuple(
            LayerCurvature(
                name=name,
                num_params=blocks[name].shape[0],
                top_eigenvalue=float(pairs.values[0]),
                trace=estimate.value,
                trace_stderr=estimate.stderr,
                share=estimate.value / whole if whole else 0.0,
            )
            for name, (pairs, estimate) in found.items()
        )
        return Layers(rows, provenance=self.provenance(matrix))

    def _layer(self, name: str, block: Curved, budget: int, options: dict[str, Any]) -> tuple[Eigenpairs, Estimate]:
        top = self._run(eigenpairs, block, f"top eigenvalue of {name}", k=1, **options)
        if block.shape[0] > budget:
            return top, self._run(trace, block, f"trace of {name}", method="hutchinson", budget=budget)
        value = float(np.trace(block.to_dense().astype(np.float64)))
        return top, Estimate(value, 0.0, np.array([value]), block.shape[0], "exact")

    def _ask(self, algorithm: Callable[..., Any], matrix: str, **options: Any) -> Any:
        result = self._run(algorithm, self.matrix(matrix), f"{algorithm.__name__} of {matrix}", **options)
        seed = options.get("seed", self.seed)
        return dataclasses.replace(result, provenance=dataclasses.replace(self.provenance(matrix), seed=seed))

    def _run(self, algorithm: Callable[..., Any], operator: Any, title: str, **options: Any) -> Any:
        """Run an algorithm with this object's seed and progress bar, unless others are given."""
        with reporter(self._progress, title) as report:
            return algorithm(operator, **{"seed": self.seed, "progress": report, **options})

    # -- what the other half provides

    def matrix(self, name: str) -> CurvatureOperator:
        raise NotImplementedError

    def provenance(self, matrix: str = "objective") -> Provenance:
        raise NotImplementedError
