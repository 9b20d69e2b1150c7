"""Sample by sample: losses l_i, slopes t_i = <g_i, v> and gradients g_i, before any sum, without the penalty.

Rows are the samples in the order of the data. A sample whose loss has several entries counts with their sum. Besides
the facade only this file knows how they come out of the engines; what uses them (uses/influence.py, uses/noise.py) sees
four functions of a Curvature:

    per_sample_losses(curv, at)         (N,)            a forward pass
    per_sample_slopes(curv, v)          (N,) or (N, K)  a tangent forward pass for each direction: 3 forward passes
    weighted_gradient(curv, weights)    (P,)            sum_i w_i g_i, the slopes' adjoint: a gradient
    per_sample_gradients(curv, which)   iterator        g_i one by one: a gradient of one sample each, where samples
                                                        stand alone, otherwise a gradient of the whole batch
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator

import numpy as np

from hessmx._mxnet import mx
from hessmx._threads import alone
from hessmx.engines.compiled import Compiled
from hessmx.engines.finite_difference import FiniteDifference
from hessmx.engines.gradients import Graphs, Live
from hessmx.errors import DataError, EngineError, InputError
from hessmx.problem.data import Batch


def per_sample_losses(curv: Any, at: np.ndarray | None = None) -> np.ndarray:
    """Losses (N,) at parameters `at` (P,), or where the net is. A loader must give the samples in one order, always:
    DataError otherwise.
    """
    found = np.concatenate([_losses(curv._selected.gradients, batch, at) for batch in curv._batches])
    _check_order(curv, found, at)
    return found


def per_sample_slopes(curv: Any, v: Any) -> np.ndarray:
    """t_i = <g_i, v> (N,), the change of each sample's loss along v (P,); (N, K) for directions (P, K).

    Exact by tangents where the net's operators have rules. With the engine 'finite-difference' they are central
    differences of the losses, in float64 where the net can be traced, four forward passes a direction.
    """
    directions = _directions(v, curv.num_params)
    if not next(iter(curv._batches)).kept:
        per_sample_losses(curv)  # for the order
    rows = [_slopes(curv, batch, directions) for batch in curv._batches]
    found = np.concatenate(rows)
    return found[:, 0] if np.ndim(v) == 1 else found


def weighted_gradient(curv: Any, weights: Any) -> np.ndarray:
    """sum_i w_i g_i (P,) of weights (N,), float64. EngineError for a net that cannot be traced."""
    compiled = curv._compiled("a weighted sum of the samples' gradients")
    weights = np.asarray(weights, dtype=np.float64)
    if weights.shape != (curv.num_samples,) or not np.isfinite(weights).all():
        raise InputError(f"weights must be {curv.num_samples} finite numbers, one a sample, not shape {weights.shape}")
    total, start = np.zeros(curv.num_params), 0
    for batch in curv._batches:
        count = compiled.plan(batch).samples
        part = weights[start : start + count]
        if part.any():
            total += _pulled(compiled, batch, part)
        start += count
    return total


def per_sample_gradients(curv: Any, which: Iterable[int] | None = None) -> Iterator[np.ndarray]:
    """g_i (P,), float64, of the samples `which` in ascending order (all by default); one at a time in memory."""
    chosen = None if which is None else set(which)
    gradients, start = curv._selected.gradients, 0
    for batch in curv._batches:
        losses = _losses(gradients, batch, None)
        places = [i for i in range(len(losses)) if chosen is None or start + i in chosen]
        start += len(losses)
        alone = not places or _stand_alone(curv, batch, losses)
        if not alone and curv._selected.compiled is None:
            raise EngineError("the samples of this net cannot be taken apart: pass batches of one sample each")
        for i in places:
            if alone:
                yield _gradient(gradients, _single(batch, i))
            else:
                yield _pulled(curv._selected.compiled, batch, np.eye(1, len(losses), i)[0])


# ---- one batch

@alone
def _slopes(curv: Any, batch: Batch, directions: np.ndarray) -> np.ndarray:
    """(n, K) of one batch, direction by direction: what does not depend on them is there from the first."""
    engine = curv._selected.engine
    if isinstance(engine, FiniteDifference):
        return np.stack([_difference(engine, batch, v) for v in directions.T], axis=1)
    compiled, which = curv._selected.compiled, curv.param_names
    state, plan = compiled.linearised("slopes", batch, which, ())
    if state is None:
        return np.zeros((plan.samples, directions.shape[1]))
    return np.stack([_rows(state.tangents(v)[0]) for v in directions.T], axis=1)


def _difference(engine: FiniteDifference, batch: Batch, v: np.ndarray) -> np.ndarray:
    length, at = float(np.linalg.norm(v)), engine.net.values().astype(np.float64)
    step = engine.step(at) * v / (length or 1.0)
    above, below = (_losses(engine.gradients, batch, at + side * step) for side in (1, -1))
    return (above - below) * (length / (2 * engine.step(at)))


@alone
def _losses(gradients: Any, batch: Batch, at: np.ndarray | None) -> np.ndarray:
    if isinstance(gradients, Live):
        with gradients.net.lent(gradients._values(at)):
            return _rows(gradients._losses(batch))
    assert isinstance(gradients, Graphs)
    compiled = gradients._at(at)
    program, plan = compiled.program("loss", batch)
    return _rows(program.forward(compiled.feeds(batch, plan))[0])


@alone
def _gradient(gradients: Any, batch: Batch) -> np.ndarray:
    return np.asarray(gradients.gradient(batch)[0], dtype=np.float64)


@alone
def _pulled(compiled: Compiled, batch: Batch, weights: np.ndarray) -> np.ndarray:
    """sum_i w_i g_i of one batch: the losses' backward pass with the weights as cotangent."""
    which = compiled.net.names
    program, plan = compiled.program("loss", batch, which)
    with program.threads():
        losses = program.forward(compiled.feeds(batch, plan))[0]
        spread = np.broadcast_to(weights.reshape(-1, *(1,) * (len(losses.shape) - 1)), losses.shape or (1,))
        program.backward([mx.nd.array(spread.reshape(losses.shape), ctx=losses.context, dtype=losses.dtype)])
        return compiled.flat("gradient", which, plan).read().astype(np.float64)


def _rows(losses: Any) -> np.ndarray:
    """Entries (n, ...) as one number a sample."""
    host = losses.asnumpy().astype(np.float64)
    return host.reshape(len(host) if host.ndim else 1, -1).sum(axis=1)


# ---- samples as batches of one

def _stand_alone(curv: Any, batch: Batch, losses: np.ndarray) -> bool:
    """Whether sample i of the batch is row i of its arrays, and its loss is the same without the others.

    Not so with batch statistics, random numbers of a whole batch, or time on the first axis. The first and the last
    sample are tried: a coincidence of both is not to be feared.
    """
    arrays, compiled = [*batch.inputs, *_flat(batch.labels)], curv._selected.compiled
    if curv.mode == "train" or {a.shape[0] if a.shape else 0 for a in arrays} != {len(losses)}:
        return False
    if compiled is not None and compiled.plan(batch).draws:
        return False
    ends = [0, len(losses) - 1]
    try:
        alone = [_losses(curv._selected.gradients, _single(batch, i), None) for i in ends]
    except DataError:  # a net with time on the first axis takes one step, and its loss misses the labels of the others
        return False
    tolerance = 1e-4 if curv.dtype == np.float32 else 1e-9
    return all(len(a) == 1 for a in alone) and np.allclose(np.ravel(alone), losses[ends], tolerance, tolerance)


def _single(batch: Batch, i: int) -> Batch:
    def cut(value: Any) -> Any:
        return [cut(v) for v in value] if isinstance(value, (list, tuple)) else value[i : i + 1]

    return Batch(batch.index, cut(batch.inputs), cut(batch.labels), kept=False)


def _flat(labels: Any) -> list[Any]:
    return [a for part in labels for a in _flat(part)] if isinstance(labels, (list, tuple)) else [labels]


# ---- checks

def _check_order(curv: Any, losses: np.ndarray, at: np.ndarray | None) -> None:
    if next(iter(curv._batches)).kept:
        return
    again = np.concatenate([_losses(curv._selected.gradients, batch, at) for batch in curv._batches])
    tolerance = 1e-4 if curv.dtype == np.float32 else 1e-9
    if losses.shape != again.shape or not np.allclose(losses, again, tolerance, tolerance * np.abs(losses).max()):
        raise DataError(
            "answers for single samples need them in the same order in every pass over the data, but the losses of two "
            "passes differ: turn off shuffling in the loader, or pass arrays (x, y)"
        )


def _directions(v: Any, size: int) -> np.ndarray:
    directions = np.asarray(v)
    if directions.dtype.kind not in "fiub" or directions.ndim not in (1, 2) or directions.shape[0] != size:
        raise InputError(f"v must be real numbers of shape ({size},) or, several directions, ({size}, K), not "
                         f"{directions.dtype} of shape {directions.shape}")
    if not np.isfinite(directions).all():
        raise InputError(f"v holds {int((~np.isfinite(directions)).sum())} NaN or infinite value(s)")
    return directions[:, None] if directions.ndim == 1 else directions
