"""From a net to its Kronecker factors: passes over the data, layer by layer.

Gradients g come from cotangents c of the outputs with E[c c'] = d2 l / dz2: the columns of its square root ("ggn", as
many backward passes as outputs), gradients of the loss at labels drawn from the model ("mc"), or at the labels of the
data ("empirical", where that equality does not hold).

A weight used at T positions of each sample (Eschenhagen et al. 2023, section 3): "expand" takes positions for samples,
A = mean over samples and positions of a a'; "reduce" takes the mean of a and the sum of g over positions first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

import numpy as np

from hessmx.engines.compiled import Compiled
from hessmx.engines.taps import AtOutputs, Pull, tapped
from hessmx.errors import EngineError, InputError, choose
from hessmx.operators.kfac import KFAC, Block, dense_block, eigen
from hessmx.operators.layers import Layer, by_sample, chunks, find_layers, owners
from hessmx.operators.likelihood import Relabel
from hessmx.problem.data import Batch
from hessmx.problem.groups import grouped
from hessmx.problem.objective import Objective

MATRICES = {"ggn": "ggn", "mc": "mc-fisher", "empirical": "fisher"}
SHARING = ("expand", "reduce")
MOST_OTHERS = 2000  # parameters of one block that is no such layer: they cost as many products
_INDEFINITE = 1e-6
_ROUNDING = 1e-7  # smaller Hessians, of a net that is sure of every class, are differences of numbers around 1


@dataclass
class Factors:
    """Sums over samples for one part of a layer: its weight, its bias, or both as one matrix (O, I + 1)."""

    layer: Layer
    weight: bool
    bias: bool
    a: Any = 0.0  # (groups, I, I)
    g: Any = 0.0  # (groups, O, O)
    positions: int = 0  # samples times positions over which a was added up
    basis: list[tuple[Any, Any, Any, Any]] = field(default_factory=list)  # of each group: S_A, U_A, S_B, U_B
    corrected: Any = 0.0  # (groups, O, I) second moments in the basis

    def rows(self, a: np.ndarray, sharing: str) -> np.ndarray:
        """Inputs (n, T, groups, I) with a one for the bias."""
        a = a.astype(np.float64)
        if sharing == "reduce":
            a = a.mean(axis=1, keepdims=True)
        one = np.ones((*a.shape[:-1], 1))
        return one if not self.weight else np.concatenate([a, one], axis=-1) if self.bias else a


class Walk:
    """One net's layers and passes over its data."""

    def __init__(self, compiled: Compiled, objective: Objective, loss: Any, kind: str, draws: int, seed: int):
        self.compiled, self.objective, self.kind, self.draws = compiled, objective, kind, draws
        self.at_outputs = AtOutputs(loss, compiled)
        self.relabel = Relabel(compiled, loss, seed) if kind == "mc" else None
        self._owners: dict[int, tuple[Any, dict[Any, np.ndarray]]] = {}
        self.samples = 0

    def layers(self) -> tuple[list[Layer], list[str]]:
        """Of all batches: nets off a tape may use other layers in each."""
        plans = [self.compiled.plan(batch) for batch in self.objective.batches]
        found = [find_layers(plan.net, self.objective.net.names) for plan in plans]
        if len({tuple((layer.weight, layer.bias) for layer in layers) for layers, _ in found}) > 1:
            raise EngineError("K-FAC needs a net that uses the same layers in every batch")
        return found[0]

    def inputs_and_gradients(self) -> Iterator[tuple[int, list[np.ndarray], Iterator[list[np.ndarray]]]]:
        """For each batch: its size, the layers' inputs (N, T, groups, I), and their gradients for every cotangent."""
        for batch in self.objective.batches:
            plan = self.compiled.plan(batch)
            layers, _ = find_layers(plan.net, self.objective.net.names)
            uses = [use for layer in layers for use in layer.uses]
            xs, outputs, pull = tapped(self.compiled, batch, [u.x for u in uses], [u.y for u in uses])
            if len(outputs) != 1:
                raise EngineError(f"K-FAC needs a net with one output, this one has {len(outputs)}")
            z, n = outputs[0], plan.samples
            owner = self._owner(plan, layers, z, pull, n)

            def gathered(arrays: Sequence[np.ndarray], role: str, layers=layers, owner=owner, n=n) -> list[np.ndarray]:
                found, rest = [], iter(arrays)
                for layer in layers:
                    parts = [by_sample(getattr(use, role)(next(rest)), owner[use.y], n) for use in layer.uses]
                    found.append(parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1))
                return found

            pulled = (gathered(pull([c]), "gradients") for c in self.cotangents(z, batch))
            yield n, gathered(xs, "rows"), pulled

    def cotangents(self, z: np.ndarray, batch: Batch) -> Iterator[np.ndarray]:
        if self.kind == "ggn":
            yield from roots(self.at_outputs.hessian(z, batch), z.shape)
        elif self.relabel is None:
            yield self.at_outputs.gradient(z, batch)
        else:
            factor = np.sqrt(self.relabel.scale(batch) / self.draws)
            for draw in range(self.draws):
                yield factor * self.at_outputs.gradient(z, self.relabel(batch, draw))

    def _owner(self, plan: Any, layers: Sequence[Layer], z: np.ndarray, pull: Pull, n: int) -> dict[Any, np.ndarray]:
        """To which sample each row of each use belongs, found by what a cotangent at some samples reaches."""
        if id(plan) not in self._owners:
            generator = np.random.default_rng(0)
            chosen = generator.random(n) < 0.5
            chosen[0], chosen[-1] = True, n == 1
            r = generator.normal(size=z.shape) * chosen.reshape(n, *(1,) * (z.ndim - 1))
            found, uses = {}, [use for layer in layers for use in layer.uses]
            for use, g in zip(uses, pull([r])):
                moved = use.gradients(g).any(axis=(1, 2, 3))
                found[use.y] = owners(use.leading(g.shape), n, chosen, moved, use.node.name)
            self._owners[id(plan)] = (plan, found)
        return self._owners[id(plan)][1]


def roots(hessians: np.ndarray, shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Cotangents (N, ...) whose outer products add up to the losses' Hessians (N, K, K); rank many."""
    values, vectors = np.linalg.eigh((hessians + hessians.transpose(0, 2, 1)) / 2)
    largest = float(np.abs(values).max()) or 1.0
    if values.min() < -_INDEFINITE * max(largest, _ROUNDING):
        raise InputError("the loss is not convex in the net's output, so its Gauss-Newton matrix is indefinite and has "
                         "no Kronecker factors: use matrix='empirical'")
    columns = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
    for k in range(columns.shape[2]):
        if values[:, k].max() > 1e-15 * largest:
            yield columns[:, :, k].reshape(shape)


def build(
    walk: Walk, sharing: str, corrected: bool, biases: str, penalised: bool, other: Callable[[Sequence[str]], Any]
) -> KFAC:
    """The operator; `other(names)` gives the dense block of parameters that are in no layer."""
    choose("sharing", sharing, SHARING)
    choose("biases", biases, ("joint", "separate"))
    objective = walk.objective
    layers, rest = walk.layers()
    others = _others(rest, objective)
    penalty = objective.penalty.diagonal if penalised else np.zeros(objective.net.size)
    parts = [part for layer in layers for part in _parts(layer, biases, penalty, objective)]
    _add_up(walk, layers, parts, sharing)
    for part in parts:
        part.basis = [(*eigen(a), *eigen(g)) for a, g in zip(part.a / part.positions, part.g)]
    if corrected and parts:
        _correct(walk, layers, parts)
    blocks = [block for part in parts for block in _blocks(part, walk, corrected, penalty)]
    for name, members in others.items():
        blocks.append(dense_block(name, objective.net.positions(members), other(members)))
    return KFAC(blocks, objective.net.size, "ekfac" if corrected else "kfac")


def _others(rest: Sequence[str], objective: Objective) -> dict[str, tuple[str, ...]]:
    """Parameters that are in no layer, by the block that owns them; EngineError where one is too large to be dense."""
    others = grouped(rest, "layer")
    sizes = {name: sum(objective.net.sizes[member] for member in members) for name, members in others.items()}
    large = [f"{name} ({size} entries)" for name, size in sizes.items() if size > MOST_OTHERS]
    if large:
        raise EngineError(f"K-FAC knows Dense and Convolution layers; these parameters belong to none and are too many "
                          f"for a dense block: {', '.join(large)}. Leave them out (params=...), or use cells for RNNs")
    return others


def _parts(layer: Layer, biases: str, penalty: np.ndarray, objective: Objective) -> list[Factors]:
    """Weight and bias as one matrix, unless they are asked for apart or penalised differently."""
    if not (layer.weight and layer.bias):
        return [Factors(layer, bool(layer.weight), bool(layer.bias))]
    at = [penalty[objective.net.slices[name]][0] for name in (layer.weight, layer.bias)]
    if biases == "joint" and at[0] == at[1]:
        return [Factors(layer, True, True)]
    return [Factors(layer, True, False), Factors(layer, False, True)]


def _add_up(walk: Walk, layers: Sequence[Layer], parts: Sequence[Factors], sharing: str) -> None:
    """Both factors of every part, one pass over the data."""
    place = {id(layer): i for i, layer in enumerate(layers)}
    samples = 0
    for n, inputs, pulled in walk.inputs_and_gradients():
        samples += n
        for part in parts:
            a = inputs[place[id(part.layer)]]
            for cut in chunks(n, a[0].size):
                rows = part.rows(a[cut], sharing)
                part.a = part.a + _moment(rows)
                part.positions += rows.shape[0] * rows.shape[1]
        for gradients in pulled:
            for part in parts:
                g = gradients[place[id(part.layer)]]
                for cut in chunks(n, g[0].size):
                    rows = g[cut].astype(np.float64)
                    part.g = part.g + _moment(rows.sum(axis=1, keepdims=True) if sharing == "reduce" else rows)
    walk.samples = samples


def _moment(rows: np.ndarray) -> np.ndarray:
    """sum_nt r r' of rows (n, T, groups, I): (groups, I, I)."""
    table = rows.reshape(-1, *rows.shape[2:]).transpose(1, 0, 2)
    return table.transpose(0, 2, 1) @ table


def _correct(walk: Walk, layers: Sequence[Layer], parts: Sequence[Factors]) -> None:
    """sum_n (u_B' (sum_t g a') u_A)^2: the true diagonal in the basis, a second pass over the data."""
    place = {id(layer): i for i, layer in enumerate(layers)}
    for n, inputs, pulled in walk.inputs_and_gradients():
        for gradients in pulled:
            for part in parts:
                a, g = (arrays[place[id(part.layer)]] for arrays in (inputs, gradients))
                groups, into, out = a.shape[2], part.basis[0][0].size, part.basis[0][2].size
                if not isinstance(part.corrected, np.ndarray):
                    part.corrected = np.zeros((groups, out, into))
                for cut in chunks(n, groups * out * into + a.shape[1] * groups * (out + into)):
                    rows, slopes = part.rows(a[cut], "expand"), g[cut].astype(np.float64)
                    for c, (_, u_a, _, u_b) in enumerate(part.basis):
                        x, y = rows[:, :, c] @ u_a, slopes[:, :, c] @ u_b
                        if x.shape[1] == 1:
                            part.corrected[c] += (y[:, 0] ** 2).T @ x[:, 0] ** 2
                        else:
                            part.corrected[c] += ((y.transpose(0, 2, 1) @ x) ** 2).sum(axis=0)


def _blocks(part: Factors, walk: Walk, corrected: bool, penalty: np.ndarray) -> list[Block]:
    """The blocks of one part, one for each group of channels."""
    net, reduction = walk.objective.net, walk.objective.reduction
    groups, out = len(part.basis), part.basis[0][2].size
    columns = []
    for name in (part.layer.weight if part.weight else None, part.layer.bias if part.bias else None):
        if name is not None:
            columns.append(net.positions([name]).reshape(groups, out, -1))
    positions = np.concatenate(columns, axis=2)
    name = (part.layer.weight if part.weight else part.layer.bias) or part.layer.name
    found = []
    for c, (s_a, u_a, s_b, u_b) in enumerate(part.basis):
        values = part.corrected[c] if corrected else np.outer(s_b, s_a)
        values = reduction.of_sum(values.copy(), walk.samples)
        values = values + reduction.of_penalty(penalty[positions[c, 0, 0]], walk.samples)
        found.append(Block(name if groups == 1 else f"{name}[{c}]", positions[c], values, u_a, u_b))
    return found


