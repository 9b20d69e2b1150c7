"""A smaller net with the same fault: nodes, outputs, batches and options are taken away as long as it stays."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable, Iterator

from scripts.fuzz import grammar
from scripts.fuzz.nets import Node, Spec

Fails = Callable[[Spec], bool]
MOST = 150  # trials


def shrink(spec: Spec, fails: Fails, most: int = MOST) -> Spec:
    """The smallest spec found for which `fails` is still true."""
    trials = 0
    found = True
    while found and trials < most:
        found = False
        for smaller in _smaller(spec):
            trials += 1
            if _size(smaller) < _size(spec) and fails(smaller):
                spec, found = smaller, True
                break
            if trials >= most:
                break
    return spec


def _size(spec: Spec) -> tuple:
    """What counts as smaller: nodes, outputs, batches, options, length of the text."""
    options = (spec.mode != "predict") + spec.hybridize + (not spec.hybrid)
    return len(spec.nodes), len(spec.outputs), sum(spec.batches), options, len(spec.text())


def _smaller(spec: Spec) -> Iterator[Spec]:
    """Large steps first."""
    base = len(spec.inputs)
    if len(spec.outputs) > 1:
        for output, loss in zip(spec.outputs, spec.losses):
            yield replace(spec, outputs=(output,), losses=(loss,)).pruned()
    for k in reversed(range(len(spec.nodes))):  # the output is an earlier tensor, with the plainest loss
        plain = (("real", (), grammar.PLAIN_LOSS),)
        yield replace(spec, outputs=(base + k,), losses=plain).pruned()
    for k in reversed(range(len(spec.nodes))):
        for other in dict.fromkeys((*spec.nodes[k].inputs, *range(base))):
            yield _bypassed(spec, base + k, other)
    for k, node in enumerate(spec.nodes):
        if len(node.inputs) > 2:
            for i in range(len(node.inputs)):
                yield _fewer_inputs(spec, k, node, i)
    yield replace(spec, batches=spec.batches[:1])
    yield replace(spec, batches=(2,))
    yield replace(spec, mode="predict")
    yield replace(spec, hybridize=False)
    yield replace(spec, hybrid=True)
    yield replace(spec, losses=(("real", (), grammar.PLAIN_LOSS),) * len(spec.outputs))


def _bypassed(spec: Spec, place: int, other: int) -> Spec:
    """Readers of one tensor read another instead."""
    nodes = tuple(replace(n, inputs=tuple(other if i == place else i for i in n.inputs)) for n in spec.nodes)
    return replace(spec, nodes=nodes, outputs=tuple(other if i == place else i for i in spec.outputs)).pruned()


def _fewer_inputs(spec: Spec, k: int, node: Node, dropped: int) -> Spec:
    """A concatenation of fewer tensors (other operators do not survive it, and are not taken)."""
    rest = [i for i in range(len(node.inputs)) if i != dropped]
    part = [text for text in _parts(node.call) if f"{{{dropped}}}" not in text]
    if len(part) != len(rest):
        return spec
    call = node.call
    joined = ", ".join(_parts(node.call))
    for new, old in enumerate(rest):
        part = [text.replace(f"{{{old}}}", f"{{{new}}}") for text in part]
    nodes = list(spec.nodes)
    nodes[k] = replace(node, call=call.replace(joined, ", ".join(part)), inputs=tuple(node.inputs[i] for i in rest))
    return replace(spec, nodes=tuple(nodes)).pruned()


def _parts(call: str) -> list[str]:
    """The flattened tensors in a concatenation that the generator wrote."""
    inside = call.partition("([")[2].partition("]")[0] or call.partition("(")[2].rpartition(", dim")[0]
    return inside.replace("), F.", ")\nF.").split("\n")
