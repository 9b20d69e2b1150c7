"""The facade: one object that answers every question about one net, loss and data."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Callable, Sequence

import numpy as np

from hessmx._threads import alone
from hessmx.engines import select
from hessmx.engines.compiled import Compiled
from hessmx.engines.gradients import Graphs
from hessmx.errors import EngineError, InputError, choose
from hessmx.operators import (
    KFAC,
    NTK,
    BlockDiagonal,
    CurvatureOperator,
    Curved,
    Fisher,
    GaussNewton,
    Hessian,
    Jacobian,
    MonteCarloFisher,
    Outer,
    Residual,
    Unpenalised,
)
from hessmx.operators.base import checked
from hessmx.operators.factors import MATRICES, Walk, build
from hessmx.operators.likelihood import Relabel
from hessmx.operators.preconditioned import Preconditioned
from hessmx.problem.data import Batch, Batches, batch_axis
from hessmx.problem.groups import Grouping, grouped
from hessmx.problem.losses import is_convex
from hessmx.problem.net import Net, Selection
from hessmx.problem.net import select as select_parameters
from hessmx.problem.notices import say_other_gradients
from hessmx.problem.objective import Objective, WeightDecay
from hessmx.problem.scales import LossScale, loss_scale
from hessmx.problem.trainer import Preconditioner, read_trainer
from hessmx.questions import Questions
from hessmx.results import Provenance

MODES = ("predict", "train")


class Curvature(Questions):
    """Second-order answers for `net` under `loss` on `data`.

    net           any Gluon Block, hybridized or not, or SymbolBlock; left as it was found
    loss          Gluon loss or callable(output, label) that returns one value per sample
    data          arrays (x, y), or a re-iterable of batches (x, y) such as a DataLoader
    params        regex, predicate or list of Parameters; by default all with grad_req other than 'null'
    reduction     "mean" or "sum" over all samples, however they are cut into batches
    weight_decay  L2 penalty as Gluon's Trainer reads `wd` and `wd_mult`, or an L2Penalty
    mode          "predict" (running statistics, no Dropout) or "train" (batch statistics, fixed seeded masks)
    engine        "auto", "reverse-over-forward", "double-backward" or "finite-difference"
    seed          of every random number: probes, starting vectors, Dropout masks
    progress      a bar on the terminal
    batch_size    how arrays are cut; in predict mode it changes only speed and memory

    P parameters; vectors are NumPy arrays (P,) in the order of `param_names`. Raises InputError and its kinds for what
    cannot be used, UnsupportedOps where the engine asked for lacks a rule.
    """

    @alone
    def __init__(
        self,
        net: Any,
        loss: Callable[..., Any],
        data: Any,
        params: Selection = None,
        reduction: str = "mean",
        weight_decay: WeightDecay = None,
        mode: str = "predict",
        engine: str = "auto",
        seed: int = 0,
        progress: bool = False,
        batch_size: int | None = None,
    ):
        self.mode = choose("mode", mode, MODES)
        if not callable(loss):
            raise InputError(f"loss must be a Gluon loss or a callable(output, label), not {type(loss).__name__}")
        self.seed = _checked_seed(seed)
        self._loss = loss
        self._progress = bool(progress)
        self._net = Net(net, params)
        self._net.check_finite()
        axis, train = batch_axis(loss), mode == "train"
        self._batches = Batches(data, self._net.dtype, self._net.context, batch_size, axis)
        self._objective = Objective(self._net, self._batches, reduction, weight_decay)
        self._objective.convex = is_convex(loss)
        self._graphs: dict[str, Graphs] = {}
        first = next(iter(self._batches))
        self._selected = select(engine, self._net, loss, mode == "train", self.seed, first)
        self._say_other_gradients(first)
        self._batches.ordered = train and self._selected.mixes(first)
        if not train:
            self._objective.check_apart(first, self._selected.gradients.loss)
        if not first.kept:
            self._objective.check_repeatable(self._selected.gradients.loss)

    # -- what it is about

    @property
    def num_params(self) -> int:
        return self._net.size

    @property
    def param_names(self) -> tuple[str, ...]:
        return self._net.names

    @property
    def param_shapes(self) -> dict[str, tuple]:
        return dict(self._net.shapes)

    @property
    def param_slices(self) -> dict[str, slice]:
        """Where each parameter's entries stand in a vector (P,)."""
        return dict(self._net.slices)

    @property
    def engine(self) -> str:
        """The engine actually used."""
        return self._selected.engine.name

    @property
    def traced(self) -> bool:
        """Whether the net's graph is known; one that is not is run as it is, and differentiated by differences."""
        return self._selected.compiled is not None

    @property
    def error_estimate(self) -> float | None:
        """Relative error of the last product, estimated; None for exact engines."""
        return getattr(self._selected.engine, "error", None)

    @property
    def reduction(self) -> str:
        return self._objective.reduction.kind

    @property
    def dtype(self) -> np.dtype:
        return self._net.dtype

    @property
    def num_samples(self) -> int:
        """Number of per-sample losses in the data; one pass, the first time."""
        if not self._objective.samples:
            self.loss()
        return self._objective.samples

    def parameters(self) -> np.ndarray:
        """The parameters' values (P,), a copy."""
        return self._net.values()

    def provenance(self, matrix: str = "objective") -> Provenance:
        """What belongs beside every number."""
        return Provenance(
            engine=self.engine,
            matrix=matrix,
            mode=self.mode,
            reduction=self.reduction,
            dtype=str(self.dtype),
            seed=self.seed,
            num_samples=self.num_samples,
            num_params=self.num_params,
        )

    def fits(self, net: Any) -> bool:
        """Whether `net` is the one this was made for, with the same parameters; their values may be others."""
        return self._net.block is net and self._net.is_same()

    def scale(self) -> LossScale:
        """What separates the sum, the mean over samples and the mean of all entries of this loss on this data."""
        samples = self.num_samples
        compiled = self._compiled("the number of entries of the loss")
        return loss_scale((samples, *compiled.plan(next(iter(self._batches))).loss_shape[1:]))

    def __repr__(self) -> str:
        return (
            f"<Curvature of {type(self._net.block).__name__}, {self.num_params} parameters, engine={self.engine}, "
            f"reduction={self.reduction}, mode={self.mode}, dtype={self.dtype}>"
        )

    # -- value, gradient, products

    def loss(self, at: Any = None) -> float:
        """The objective, at parameters `at` (P,) or where the net is. One forward pass over the data."""
        at = self._point(at)
        total = self._objective.add_up(lambda batch: self._selected.gradients.loss(batch, at))
        return self._objective.value(total, self._penalised(at))

    def gradient(self, at: Any = None, dtype: str | None = None) -> np.ndarray:
        """Gradient (P,) of the objective. One forward and backward pass over the data.

        dtype  "float64" computes in it whatever the net's own; EngineError for a net that cannot be traced
        """
        gradients = self._selected.gradients if dtype is None else self._gradients_in(dtype)
        at = self._point(self.parameters() if at is None and dtype is not None else at)
        total = self._objective.add_up(lambda batch: gradients.gradient(batch, at))
        return self._objective.vector(total, self._penalised(at), dtype=dtype)

    def hvp(self, v: Any) -> np.ndarray:
        """H v (P,): the Hessian of the objective times a vector (P,). Pearlmutter 1994.

        Cost 6 forward passes (a gradient: 3), and 3 more where parameters or data are not what they were.
        """
        return self.hessian._product(checked(v, self.num_params, "hessian"))

    # -- matrices

    @cached_property
    def hessian(self) -> Hessian:
        """The Hessian (P, P) of the objective as a SciPy LinearOperator."""
        return Hessian(self._selected.engine, self._objective)

    @cached_property
    def ggn(self) -> GaussNewton:
        """The Gauss-Newton matrix (P, P): the Hessian without the net's own curvature, plus the penalty."""
        return GaussNewton(self._selected.engine, self._objective)

    @cached_property
    def residual(self) -> Residual:
        """Hessian minus Gauss-Newton (P, P)."""
        return Residual(self._selected.engine, self._objective)

    def fisher(self, kind: str = "empirical", draws: int = 1) -> Curved:
        """Fisher matrix (P, P) without the penalty.

        "empirical": second moment of the per-sample gradients. "mc": labels drawn from the model, `draws` per sample,
        and scaled where the loss is a multiple of a log-likelihood: their mean over draws is the Gauss-Newton matrix.
        """
        if choose("kind", kind, ("empirical", "mc")) == "empirical":
            return Fisher(self._selected.engine, self._objective)
        draws = _checked_draws(draws)
        relabel = Relabel(self._compiled("the Monte-Carlo Fisher"), self._loss, self.seed)
        return MonteCarloFisher(self._selected.engine, self._objective, relabel, draws)

    @property
    def gradient_covariance(self) -> CurvatureOperator:
        """mean_i g_i g_i' - g g' (P, P): how per-sample gradients differ (reduction "mean", no penalty)."""
        return self.fisher() - Outer(self._unpenalised_gradient())

    @cached_property
    def jacobian(self) -> Jacobian:
        """Jacobian (M, P) of the net's outputs, sample by sample; `.T` is its transpose."""
        return Jacobian(self._compiled("the Jacobian"), self._batches)

    @property
    def ntk(self) -> NTK:
        """J J' (M, M), the empirical neural tangent kernel."""
        return NTK(self.jacobian)

    @alone
    def kfac(
        self, matrix: str = "ggn", sharing: str = "expand", corrected: bool = False, biases: str = "joint",
        draws: int = 1, penalised: bool = True,
    ) -> KFAC:  # fmt: skip
        """K-FAC (P, P) of Dense and Convolution layers, as it is now; other parameters get exact blocks of their own.

        matrix     "ggn" (penalty included, if penalised), "mc" (labels drawn, `draws` per sample) or "empirical"
        sharing    "expand" or "reduce": weights used at many positions (Eschenhagen et al. 2023, section 3)
        corrected  EK-FAC: the true diagonal in the factors' eigenbasis (George et al. 2018)
        biases     "joint" with their weight, or "separate" blocks

        Cost: a gradient per output ("ggn") or draw, twice that if corrected; a product per entry of other parameters.
        """
        choose("matrix", matrix, MATRICES)
        compiled = self._compiled("K-FAC")
        walk = Walk(compiled, self._objective, self._loss, matrix, _checked_draws(draws), self.seed)

        def dense(names: Sequence[str]) -> np.ndarray:
            whole = self.fisher("mc", draws) if matrix == "mc" else self._curved(MATRICES[matrix])
            if matrix == "ggn" and not penalised:
                whole = Unpenalised(self._selected.engine, self._objective)
            return whole.block(tuple(names)).to_dense()

        return build(walk, sharing, corrected, biases, penalised and matrix == "ggn", dense)

    def preconditioned(self, trainer: Any, matrix: str = "hessian") -> tuple[Preconditioner, Preconditioned]:
        """A gluon.Trainer's preconditioner P as it is now, and the objective as it sees it: P^-1/2 (A + decay) P^-1/2.

        The Trainer's own weight decay takes the place of this objective's.
        """
        known, inner = read_trainer(trainer, self._net), self._curved(matrix)
        own = self._objective.reduction.of_penalty(self._objective.penalty.diagonal, self.num_samples)
        decay = known.decay - own if inner.penalised else known.decay
        return known, Preconditioned(inner, known.inverse, decay, known.decoupled)

    def block(self, params: Selection, matrix: str = "hessian") -> Curved:
        """Diagonal block of a matrix: the parameters given by regex, predicate or list."""
        return self._curved(matrix).block(tuple(select_parameters(self._net.parameters, params)))

    def blocks(self, by: Grouping = "layer", matrix: str = "hessian") -> dict[str, Curved]:
        """Diagonal blocks by "layer", "kind" (weight, bias), "parameter", a function of the name, or a mapping."""
        return {name: self._curved(matrix).block(which) for name, which in grouped(self._net.names, by).items()}

    def block_diagonal(self, by: Grouping = "layer", matrix: str = "hessian") -> BlockDiagonal:
        """The matrix with all but the diagonal blocks set to zero."""
        return BlockDiagonal(self._curved(matrix), grouped(self._net.names, by))

    def matrix(self, name: str) -> CurvatureOperator:
        """One of the matrices by name: hessian, ggn, residual, fisher, mc-fisher, kfac, ekfac, ntk."""
        return _MATRICES[choose("matrix", name, _MATRICES)](self)

    def _curved(self, matrix: str) -> Curved:
        operator = self.matrix(matrix)
        if not isinstance(operator, Curved):
            told = "it is a matrix over the outputs" if matrix == "ntk" else "it consists of one per layer: .blocks"
            raise InputError(f"{matrix!r} has no blocks of parameters; {told}")
        return operator

    def _compiled(self, what: str) -> Compiled:
        if self._selected.compiled is None:
            raise EngineError(
                f"{what} needs a net that can be traced; this one is run as it is (engine {self.engine!r})"
            )
        return self._selected.compiled

    def _say_other_gradients(self, batch: Batch) -> None:
        if self._selected.compiled is not None:
            net, loss = (piece.graph if piece else None for piece in self._selected.compiled.pieces(batch))
            assert net is not None
            say_other_gradients(net, loss, self._net.names)

    def _gradients_in(self, dtype: str) -> Graphs:
        if choose("dtype", dtype, ("float32", "float64")) not in self._graphs:
            self._graphs[dtype] = Graphs(self._compiled(f"a gradient in {dtype}"), dtype)
        return self._graphs[dtype]

    def _unpenalised_gradient(self) -> np.ndarray:
        total = self._objective.add_up(lambda batch: self._selected.gradients.gradient(batch))
        return self._objective.vector(total)

    def _penalised(self, at: np.ndarray | None) -> np.ndarray | None:
        """The parameters' values, where a penalty needs them."""
        return self._net.values() if at is None and self._objective.penalty.strength else at

    def _point(self, at: Any) -> np.ndarray | None:
        return None if at is None else checked(at, self.num_params, "parameters").astype(np.float64)


_MATRICES: dict[str, Callable[[Curvature], CurvatureOperator]] = {
    "hessian": lambda curv: curv.hessian,
    "ggn": lambda curv: curv.ggn,
    "residual": lambda curv: curv.residual,
    "fisher": lambda curv: curv.fisher(),
    "mc-fisher": lambda curv: curv.fisher("mc"),
    "kfac": lambda curv: curv.kfac(),
    "ekfac": lambda curv: curv.kfac(corrected=True),
    "ntk": lambda curv: curv.ntk,
}


def _checked_draws(draws: Any) -> int:
    if not isinstance(draws, (int, np.integer)) or draws < 1:
        raise InputError(f"draws must be a whole number of at least 1, not {draws!r}")
    return int(draws)


def _checked_seed(seed: Any) -> int:
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise InputError(f"seed must be a whole number of at least 0, not {seed!r}")
    return int(seed)
