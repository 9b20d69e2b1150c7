"""The questions a curvature matrix is asked: the facade's half that runs algorithms and stamps their results."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import Any, Callable, Protocol

import numpy as np

from hessmx._threads import one_blas_thread
from hessmx.algorithms.diagonal import diagonal
from hessmx.algorithms.frobenius import squared_frobenius
from hessmx.algorithms.functions import solve_shifted
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
from hessmx.algorithms.trace import block_traces, trace
from hessmx.errors import InputError, choose
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
    Spectrum,
    VectorEstimate,
)

LOOK = 20  # products that look for a negative eigenvalue before a logarithm is taken


class Subject(Protocol):
    """What questions are about: `Curvature` in this package."""

    seed: int
    _progress: bool

    @property
    def num_params(self) -> int: ...

    def parameters(self) -> np.ndarray: ...

    def loss(self, at: Any = None) -> float: ...

    def gradient(self, at: Any = None) -> np.ndarray: ...

    def matrix(self, name: str) -> CurvatureOperator: ...

    def preconditioned(self, trainer: Any, matrix: str = "hessian") -> tuple[Preconditioner, CurvatureOperator]: ...

    def blocks(self, by: Grouping = "layer", matrix: str = "hessian") -> dict[str, Curved]: ...

    def provenance(self, matrix: str = "objective") -> Provenance: ...


class Questions(Subject):
    """`matrix` is hessian, ggn, residual, fisher, mc-fisher or ntk; `options` are those of the algorithm named.

    Every result records the engine, mode, reduction, dtype, seed and number of samples it was made with.
    """

    def eigenpairs(
        self, k: int = 1, which: str = "LA", method: str = "lanczos", matrix: str = "hessian", **options: Any
    ) -> Eigenpairs:
        """k eigenpairs from the top (LA), bottom (SA), by magnitude (LM), both ends (BE): `algorithms.lanczos`."""
        return self._ask(eigenpairs, matrix, k=k, which=which, method=method, **options)

    def trace(self, method: str = "auto", matrix: str = "hessian", **options: Any) -> Estimate:
        """Trace with standard error by "hutch++", "xnystrace", "xtrace" or "hutchinson": `algorithms.trace`."""
        return self._ask(trace, matrix, method=method, **options)

    def spectrum(self, matrix: str = "hessian", **options: Any) -> Spectrum:
        """Spectral distribution by stochastic Lanczos quadrature: `algorithms.slq`."""
        return self._ask(spectrum, matrix, **options)

    def diagonal(self, method: str = "auto", matrix: str = "hessian", **options: Any) -> VectorEstimate:
        """Diagonal (P,) by "xdiag", "xnysdiag" or "hutchinson": `algorithms.diagonal`."""
        return self._ask(diagonal, matrix, method=method, **options)

    def squared_frobenius(self, matrix: str = "hessian", **options: Any) -> Estimate:
        """Sum of the squared entries, with standard error: `algorithms.frobenius`."""
        return self._ask(squared_frobenius, matrix, **options)

    def logdet(self, shift: float, matrix: str = "hessian", **options: Any) -> Estimate:
        """log det(A + shift I) from a spectrum; `options` are those of `spectrum`.

        Refused before that where A + shift I is not positive: 20 products look for its smallest eigenvalue where no
        product is needed to know.
        """
        self._require_positive(matrix, shift)
        return self._stamped(self.spectrum(matrix, **options).logdet(shift), matrix, options)

    def effective_dimension(self, shift: float, matrix: str = "ggn", **options: Any) -> Estimate:
        """tr A (A + shift I)^-1 from a spectrum; `options` are those of `spectrum`. Refused as `logdet` is."""
        self._require_positive(matrix, shift)
        return self._stamped(self.spectrum(matrix, **options).effective_dimension(shift), matrix, options)

    def solve(
        self, b: Any = None, damping: Any = 0.0, method: str = "auto", matrix: str = "hessian", **options: Any
    ) -> Any:
        """x with (A + damping I) x = b (P,) or (P, K), by "cg" or "minres"; b is the gradient by default: a Newton step
        is -x. A `Solution`; for a list of dampings as many, from one Krylov space.

        preconditioner="kfac" or "ekfac" (an operator near the inverse, a rank) saves products: docs/questions/kfac.md.
        """
        b = self.gradient() if b is None else b
        if np.ndim(damping):
            title = f"solves with {matrix} and {len(damping)} dampings"
            found = self._run(solve_shifted, self.matrix(matrix), title, b=b, dampings=damping, **options)
            return tuple(self._stamped(solution, matrix, options) for solution in found)
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

        Traces are exact where a layer has no more than `budget` parameters (as many products of its block); those of
        all other layers come from the same `budget` products of the whole. `options` go to the eigenvalues, which take
        products of their own: the progress bar says how many have been spent in all.
        """
        blocks, whole = self.blocks(by, matrix), self.matrix(matrix)
        large = {name: block for name, block in blocks.items() if block.shape[0] > budget}
        with whole.question():
            traces = {name: _exact_trace(block) for name, block in blocks.items() if name not in large}
            if large:
                places = {name: block.places for name, block in large.items()}
                title = f"traces of {len(large)} layers from {budget} products"
                traces |= self._run(block_traces, whole, title, places=places, budget=budget)
            tops = {name: self._run(eigenpairs, block, f"top eigenvalue of {name} ({i} of {len(blocks)})", **options)
                    for i, (name, block) in enumerate(blocks.items(), 1)}
        total = sum(estimate.value for estimate in traces.values())
        rows = tuple(
            LayerCurvature(
                name=name,
                num_params=block.shape[0],
                top_eigenvalue=float(tops[name].values[0]),
                trace=traces[name].value,
                trace_stderr=traces[name].stderr,
                share=traces[name].value / total if total else 0.0,
            )
            for name, block in blocks.items()
        )
        return Layers(rows, provenance=self.provenance(matrix))

    def _require_positive(self, matrix: str, shift: float) -> None:
        """Refuse A + shift I where it is not positive definite, as far as that can be known without a spectrum."""
        operator = self.matrix(matrix)
        known = operator.shift(shift).positive
        if known:
            return
        low = -np.inf
        if known is None:
            budget = min(LOOK, max(4, operator.shape[0]))
            with reporter(self._progress, f"smallest eigenvalue of {matrix}") as report:
                found = eigenpairs(operator, 1, "SA", max_products=budget, tol=1e-3, seed=self.seed, progress=report)
            low = float(found.values[0])
        if low + shift <= 0:
            raise InputError(f"shift must make all eigenvalues positive, but {low:.6g} + {shift:.6g} is not; use a "
                             f"shift above {-low:.6g}, or the Gauss-Newton matrix (matrix='ggn')")

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
            return algorithm(operator, **{"seed": self.seed, "progress": report, **options})


def _exact_trace(block: Curved) -> Estimate:
    """From as many products as the block is wide."""
    value = float(np.trace(block.to_dense().astype(np.float64)))
    return Estimate(value, 0.0, np.array([value]), block.shape[0], "exact")
