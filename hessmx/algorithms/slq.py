"""Stochastic Lanczos quadrature: the spectral distribution from a few random probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hessmx.algorithms.common import positive_int, rademacher
from hessmx.algorithms.krylov import Krylov, expand
from hessmx.algorithms.run import BLOCK, Context, Run
from hessmx.results import Spectrum

if TYPE_CHECKING:
    from typing_extensions import Unpack

BASIS = ".basis"  # ending of the file that holds Lanczos vectors beside a state file
COPY = 1e-8  # nodes of one rule that are this close, relative to the largest, are copies of one eigenvalue


def spectrum(operator: Any, probes: int = 10, steps: int = 64, **context: Unpack[Context]) -> Spectrum:
    """One Gauss quadrature of `steps` nodes for each probe (Golub & Meurant 1994; Ubaru, Chen & Saad 2017, section 3).

    Full reorthogonalisation. Cost: at most probes x steps products (fewer where the Krylov space ends), all probes'
    together as far as `memory` holds their `steps` vectors, in float64 or a float32 operator's own dtype. Where it does
    not hold those of one: with `state`, a file beside it holds them, seldom read (partial reorthogonalisation);
    without, three vectors for each probe are kept, and copies of eigenvalues that this brings are joined and counted in
    `notes`. Defaults: probes and steps of Papyan 2020, figure 15.
    """
    with Run(operator, **context) as run:
        probes, steps = positive_int("probes", probes), positive_int("steps", steps)
        run.total = probes * min(steps, run.dim)
        steps = min(steps, run.dim)
        saved = run.open(task="spectrum", probes=probes, steps=steps)
        rules = list(saved["rules"]) if saved else []
        while len(rules) < probes:
            rules += _group(run, rules, probes, steps, saved)
            saved = {}
            run.save(force=True, rules=np.array(rules), running=0)
        if run.state:
            run.state.beside(BASIS).unlink(missing_ok=True)
        nodes, weights, bounds = np.array(rules).transpose(1, 0, 2)
        if run.storage(steps + 1) is None and not run.state:
            copies = int((weights == 0).sum())
            run.note(f"{copies} of {weights.size} nodes were copies of eigenvalues (ghosts), now joined")
        return Spectrum(nodes, weights, run.dim, run.count, steps, run.seed, bounds, run.notes(),
                        floor=0.0 if run.positive else None, resolution=4 * run.eps)


def _group(run: Run, rules: list[np.ndarray], probes: int, steps: int, saved: dict[str, Any]) -> list[np.ndarray]:
    """The rules of the next few probes, whose Krylov spaces grow together."""
    first = len(rules)
    known = f", largest eigenvalue {max(rule[0].max() for rule in rules):.6g}" if rules else ""
    spaces = [_space(run, steps) for _ in range(min(_together(run, steps), probes - first))]
    for i, space in enumerate(spaces):
        if saved and saved["running"]:
            space.restore(saved, str(i))
        else:
            probe = rademacher(run.seed, first + i, run.dim)
            space.append(probe[None], 1)
    while growing := [space for space in spaces if not space.full]:
        run.message = f"probes {first + 1} to {first + len(spaces)}{known}"
        expand(run, growing)
        snapshots = {key: value for i, space in enumerate(spaces) for key, value in space.snapshot(str(i)).items()}
        run.save(rules=np.array(rules).reshape(-1, 3, steps), running=len(spaces), **snapshots)
    return [_rule(run, space, steps) for space in spaces]


def _together(run: Run, steps: int) -> int:
    """Probes whose vectors fit into `memory`."""
    dtype = run.storage(steps + 1)
    if dtype is not None:
        return max(1, min(BLOCK, run.affordable(dtype) // (steps + 1)))
    return 1 if run.state else max(1, min(BLOCK, run.affordable(run.short) // 4))


def _space(run: Run, steps: int) -> Krylov:
    dtype = run.storage(steps + 1)
    if dtype is not None:
        return Krylov(run, steps, dtype=dtype)
    needed = f"memory of {run.memory} bytes does not hold {steps + 1} vectors of {run.dim} numbers"
    if run.state:
        file = run.state.beside(BASIS)
        run.note(f"{needed}: they are in {file}")
        shape = (min(run.dim, steps + 1), run.dim)
        rows = np.memmap(file, run.short, "r+" if _fits(file, shape, run.short) else "w+", shape=shape)
        return Krylov(run, steps, keep="partial", dtype=run.short, rows=rows)
    run.note(f"{needed}: the basis is not kept (with a state file, a file beside it holds it)")
    return Krylov(run, steps, keep="none", dtype=run.short)


def _fits(file: Any, shape: tuple[int, int], dtype: np.dtype) -> bool:
    return bool(file.exists() and file.stat().st_size == shape[0] * shape[1] * dtype.itemsize)


def _rule(run: Run, space: Krylov, steps: int) -> np.ndarray:
    """Nodes, weights and residual bounds, padded to `steps` by the last node with weight 0."""
    ritz = space.ritz()
    nodes, weights, bounds = ritz.values, ritz.turn[0] ** 2, ritz.residuals
    if space.keep == "none":
        nodes, weights, bounds = _joined(nodes, weights, bounds, COPY * np.abs(nodes).max())
    pad = (0, steps - len(nodes))
    return np.stack([np.pad(nodes, pad, mode="edge"), np.pad(weights / weights.sum(), pad), np.pad(bounds, pad)])


def _joined(nodes: np.ndarray, weights: np.ndarray, bounds: np.ndarray, near: float) -> tuple[np.ndarray, ...]:
    """Nodes closer than `near` as one, with the sum of their weights."""
    first = np.flatnonzero(np.r_[True, np.diff(nodes) > near])
    total = np.add.reduceat(weights, first)
    centres = np.add.reduceat(nodes * weights, first) / np.where(total > 0, total, 1.0)
    centres = np.where(total > 0, centres, nodes[first])
    return centres, total, np.minimum.reduceat(bounds, first)
