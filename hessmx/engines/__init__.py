"""Three ways to second-order products behind one small interface (base.py), and which one to take."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np

from hessmx._mxnet import mx
from hessmx.engines import double_backward, finite_difference, reverse_over_forward
from hessmx.engines.base import Engine
from hessmx.engines.compiled import Compiled
from hessmx.engines.gradients import Gradients, Graphs, Live
from hessmx.errors import GraphError, HessmxError, HessmxWarning, UnsupportedOps, choose, one_line
from hessmx.graph.observed import MODAL
from hessmx.problem.data import Batch
from hessmx.problem.net import Net

ENGINES = (reverse_over_forward.NAME, double_backward.NAME, finite_difference.NAME)


@dataclass(frozen=True)
class Selected:
    """The engine, and what computes losses and gradients beside it."""

    engine: Engine
    gradients: Gradients
    compiled: Compiled | None  # None where no tracer can read the net

    def mixes(self, batch: Batch) -> bool:
        """Whether in train mode a sample's loss depends on its batch: by statistics, or masks for each place in it."""
        return self.compiled is None or bool(self.compiled.pieces(batch)[0].graph.ops.keys() & MODAL)


def select(asked: str, net: Net, loss: Callable[..., Any], train: bool, seed: int, batch: Batch) -> Selected:
    """The engine asked for, or with "auto" the fastest exact one; differences only where nothing else is possible."""
    choose("engine", asked, ("auto", *ENGINES))
    compiled = Compiled(net, loss, train, seed)
    try:
        compiled.plan(batch)
    except GraphError as error:
        return _untraceable(asked, net, loss, train, batch, error)
    graphs = Graphs(compiled)
    if asked == double_backward.NAME:
        return Selected(double_backward.DoubleBackward(compiled, batch), graphs, compiled)
    try:
        missing, refused = _missing(compiled, batch), None
    except GraphError as error:
        missing, refused = {}, error
    if asked == finite_difference.NAME or (asked == "auto" and (missing or refused)):
        if asked == "auto":
            _say(str(refused) if refused else f"no tangent rule for {_listed(missing)}")
        differences = finite_difference.FiniteDifference(net, Graphs(compiled, np.float64), np.dtype(np.float64))
        return Selected(differences, graphs, compiled)
    if refused:
        raise refused
    if missing:
        raise UnsupportedOps(asked, missing, "Use engine='auto', or register rules (docs/adding-a-rule.md)")
    return Selected(reverse_over_forward.ReverseOverForward(compiled), graphs, compiled)


def _missing(compiled: Compiled, batch: Batch) -> dict[str, tuple[str, tuple[str, ...]]]:
    plan, which = compiled.plan(batch), compiled.net.names
    missing = plan.missing_rules(which)
    if not missing:
        compiled.graphs("hessian", plan, which, which)  # rules may still refuse an attribute; nothing is run here
    return missing


def _untraceable(asked: str, net: Net, loss: Any, train: bool, batch: Batch, error: GraphError) -> Selected:
    if asked not in ("auto", finite_difference.NAME):
        raise error
    live = Live(net, loss, train)
    try:
        live.loss(batch)  # what the net cannot do at all is said before any product
    except (mx.base.MXNetError, ValueError) as failure:
        if isinstance(failure, HessmxError):
            raise
        raise GraphError(f"the net cannot be run on this data: {one_line(failure)}") from failure
    if asked == "auto":
        _say(f"the net cannot be traced ({error})")
    return Selected(finite_difference.FiniteDifference(net, live, net.dtype), live, None)


def _say(reason: str) -> None:
    warnings.warn(
        f"products are finite differences of gradients, not exact: {reason}", HessmxWarning, stacklevel=4
    )


def _listed(missing: dict[str, tuple[str, tuple[str, ...]]]) -> str:
    return "; ".join(f"{op} at {', '.join(nodes)}" for op, (_, nodes) in missing.items())
