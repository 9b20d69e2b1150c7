"""The questions a curvature matrix is asked: the facade's half that runs algorithms and stamps their results."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import os
from typing import Any, Callable

import numpy as np

from hessmx._threads import one_blas_thread
from hessmx.algorithms.diagonal import diagonal
from hessmx.algorithms.frobenius import squared_frobenius
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.sharpness import (
    BallSharpness,
    Outliers,
    SaddleReport,
    Sharpness,
    TrainerSharpness,
    ball_sharpness,
    count_outliers,
    saddle_report,
    sharpness_of,
    trainer_sharpness,
)
from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.solve import solve
from hessmx.algorithms.state import RunState
from hessmx.algorithms.trace import trace
from hessmx.errors import choose
from hessmx.operators import CurvatureOperator, Curved
from hessmx.problem.groups import Grouping
from hessmx.problem.trainer import Preconditioner
from hessmx.progress import reporter
from hessmx.results import (
    Eigenpairs,
    Estimate,
    LayerCurvature,
    Layers,
    Provenance,
    Solution,
    Spectrum,
    VectorEstimate,
)


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

    def diagonal(self, method: str = "xdiag", matrix: str = "hessian", **options: Any) -> VectorEstimate:
        """Diagonal (P,) by "xdiag" or "hutchinson": `algorithms.diagonal`."""
        return self._ask(diagonal, matrix, method=method, **options)

    def squared_frobenius(self, matrix: str = "hessian", **options: Any) -> Estimate:
        """Sum of the squared entries, with standard error: `algorithms.frobenius`."""
        return self._ask(squared_frobenius, matrix, **options)

    def logdet(self, shift: float, matrix: str = "hessian", **options: Any) -> Estimate:
        """log det(A + shift I) from a spectrum; `options` are those of `spectrum`."""
        return self._stamped(self.spectrum(matrix, **options).logdet(shift), matrix, options)

    def effective_dimension(self, shift: float, matrix: str = "ggn", **options: Any) -> Estimate:
        """tr A (A + shift I)^-1 from a spectrum; `options` are those of `spectrum`."""
        return self._stamped(self.spectrum(matrix, **options).effective_dimension(shift), matrix, options)

    def solve(
        self, b: Any = None, damping: float = 0.0, method: str = "cg", matrix: str = "hessian", **options: Any
    ) -> Solution:
        """x with (A + damping I) x = b, by "cg" or "minres"; b is the gradient by default: a Newton step is -x.

        preconditioner="kfac" or "ekfac" (or an operator near the inverse) saves products: docs/questions/kfac.md.
        """
        b = self.gradient() if b is None else b
        if isinstance(options.get("preconditioner"), str):
            name = choose("preconditioner", options["preconditioner"], ("kfac", "ekfac"))
            operator: Any = self.matrix(name)
            options["preconditioner"] = operator.inverse(damping)
        result = self._run(
            solve, self.matrix(matrix), f"solve with {matrix}", b=b, damping=damping, method=method, **options
        )
        return self._stamped(result, matrix, options)

    def sharpness(
        self, matrix: str = "hessian", trainer: Any = None, **options: Any
    ) -> Sharpness | TrainerSharpness:
        """Largest eigenvalue and the learning rate 2 / lambda_max where plain gradient descent stops being stable.

        With a gluon.Trainer: the largest eigenvalue of P^-1 H, P its preconditioner as its states have it, its own
        threshold and rate: SGD, momentum, NAG, RMSProp, Adam, AdaGrad (Cohen et al. 2021, 2022). The Trainer's weight
        decay counts, in place of this objective's. What it is given as gradient must be that of this objective.
        """
        if trainer is not None:
            known, operator = self.preconditioned(trainer, matrix)
            pairs = self._run(eigenpairs, operator, f"sharpness of {matrix}", k=1, **options)
            told = trainer_sharpness(pairs, known.factor, known.learning_rate, known.name, known.notes)
            return self._stamped(told, matrix, options)
        return self._stamped(sharpness_of(self.eigenpairs(1, "LA", matrix=matrix, **options)), matrix, options)

    def ball_sharpness(self, radius: float = 0.05, k: int = 3, ascent: int = 5, **options: Any) -> BallSharpness:
        """Largest loss found at distance `radius` (Foret et al. 2021), from the gradient and k top eigenvectors."""
        pairs = self.eigenpairs(min(k, self.num_params), "LA", **options)
        centre = self.parameters().astype(np.float64)
        directions = np.column_stack([self.gradient(), pairs.vectors])
        result = ball_sharpness(
            self._loss_along(centre),
            directions,
            radius,
            gradient_at=lambda displacement: self.gradient(at=centre + displacement),
            ascent=ascent,
        )
        return self._stamped(result, "hessian", options)

    def outliers(self, classes: int, matrix: str = "hessian", **options: Any) -> Outliers:
        """Eigenvalues that stand apart at the top, against the number of classes (Papyan 2020, section 3)."""
        pairs = self.eigenpairs(min(classes + 3, self.num_params), "LA", matrix=matrix, **options)
        return self._stamped(count_outliers(pairs, classes), matrix, options)

    def saddle(self, steps: Any = None, **options: Any) -> SaddleReport:
        """Is there a direction of negative curvature, how deep, and does the loss go down along it: measured."""
        centre = self.parameters().astype(np.float64)
        return self._ask(
            saddle_report,
            "hessian",
            loss_along=self._loss_along(centre),
            gradient=self.gradient(),
            steps=steps,
            **options,
        )

    def _loss_along(self, centre: np.ndarray) -> Callable[[np.ndarray, float], float]:
        return lambda direction, step: self.loss(at=centre + step * direction)

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
        title = f"{algorithm.__name__.replace('_', ' ')} of {matrix}"
        return self._stamped(self._run(algorithm, self.matrix(matrix), title, **options), matrix, options)

    def _identity(self, operator: CurvatureOperator) -> str:
        """Names the matrix in a snapshot: a run must not be continued with another net, other data or another mode."""
        p = self.provenance(operator.label)
        values = hashlib.sha256(np.ascontiguousarray(self.parameters()).tobytes()).hexdigest()[:16]
        told = (
            p.matrix,
            p.engine,
            p.mode,
            p.reduction,
            p.dtype,
            p.num_params,
            p.num_samples,
            f"{self.loss():.6g}",
            values,
        )
        return " ".join(map(str, told))

    def _stamped(self, result: Any, matrix: str, options: dict[str, Any]) -> Any:
        seed = options.get("seed", self.seed)
        return dataclasses.replace(result, provenance=dataclasses.replace(self.provenance(matrix), seed=seed))

    def _run(self, algorithm: Callable[..., Any], operator: Any, title: str, **options: Any) -> Any:
        """Run an algorithm with this object's seed and progress bar, unless others are given."""
        if isinstance(options.get("state"), (str, os.PathLike)):
            options["state"] = RunState(options["state"], key=self._identity(operator))
        with reporter(self._progress, title) as report, one_blas_thread(max(operator.shape)):
            known = {"seed": self.seed, "progress": report}
            taken = inspect.signature(algorithm).parameters
            fitting = {name: value for name, value in known.items() if name in taken or "options" in taken}
            return algorithm(operator, **{**fitting, **options})

    # -- what the other half provides

    @property
    def num_params(self) -> int:
        raise NotImplementedError

    def parameters(self) -> np.ndarray:
        raise NotImplementedError

    def loss(self, at: Any = None) -> float:
        raise NotImplementedError

    def gradient(self, at: Any = None) -> np.ndarray:
        raise NotImplementedError

    def matrix(self, name: str) -> CurvatureOperator:
        raise NotImplementedError

    def preconditioned(self, trainer: Any, matrix: str = "hessian") -> tuple[Preconditioner, CurvatureOperator]:
        raise NotImplementedError

    def provenance(self, matrix: str = "objective") -> Provenance:
        raise NotImplementedError
