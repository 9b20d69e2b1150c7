"""MXNet's own int8 (quantize_net, oneDNN) with layers of one's choice left in float32, run and measured.

quantize_net names layers by the fused nodes that oneDNN makes of them, not by Gluon's names: `exclude_list` translates.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import EngineError, InputError, ParameterError, choose
from hessmx.graph.trace import flatten, names
from hessmx.results import Provenance, Result
from hessmx.uses.nets import Metric, copy_of, measured_at, weights
from hessmx.uses.quantisation import rounding_error

_BACKEND = "MKLDNN_QUANTIZE"


@dataclass(frozen=True, eq=False)
class Int8Run(Result):
    """MXNet's int8 net beside the float32 net it was made of. Seconds are of the fastest of several passes."""

    rounded: tuple[str, ...]  # weights that are int8 in the graph that ran
    kept: tuple[str, ...]  # weights left in float32
    exclude: tuple[str, ...]  # exclude_layers, as given to quantize_net
    operators: tuple[str, ...]  # of the graph that ran
    predicted: float  # rise of the loss by rounding the weights alone: g'd + d'Hd/2
    weights_only: float  # the same, measured in float32
    rise: float  # of the int8 net: weights and activations
    loss: float
    metric: float  # of the float32 net, NaN without one
    int8_metric: float
    seconds: float  # a forward pass over the data
    int8_seconds: float
    per: str
    provenance: Provenance = field(default_factory=Provenance)


def exclude_list(curv: Any, keep: Sequence[str]) -> list[str]:
    """`exclude_layers` for MXNet's quantize_net, so that the named weights stay in float32."""
    return _exclude(_fused(copy_of(curv)), keep, weights(curv))


def quantise(curv: Any, keep: Sequence[str] = (), per: str = "tensor", calibration: str = "naive",
             metric: Metric | None = None, repeats: int = 10) -> tuple[Any, Int8Run]:
    """The int8 net (a SymbolBlock) that MXNet's quantize_net_v2 makes of a copy of the net, and what it costs.

    keep         weights that stay in float32, such as `BitPlan.kept`
    per          "tensor" or "channel": MXNet's quantize_granularity
    calibration  ranges of the activations on curv's inputs: "naive" (extremes) or "entropy" (Migacz 2017)

    float32 nets with a Symbol, on the CPU. BatchNorm is folded into the convolution before it, whose weight is then
    rounded after scaling: `predicted` and `weights_only` are those of the plain weight. MXNet's faults: docs/mxnet.md.
    """
    from mxnet.contrib.quantization import quantize_net_v2

    choose("per", per, ("tensor", "channel"))
    choose("calibration", calibration, ("naive", "entropy"))
    if curv.dtype != np.float32:
        raise EngineError(f"MXNet's int8 starts from float32, and this net is {curv.dtype}: cast it with net.cast")
    plain = copy_of(curv)
    heavy = weights(curv)
    exclude = _exclude(_fused(plain), keep, heavy)
    batches = list(curv._batches)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of variables without values, on the way
        net = quantize_net_v2(copy_of(curv), quantized_dtype="auto", quantize_granularity=f"{per}-wise",
                              exclude_layers=list(exclude), calib_mode=calibration, calib_data=_calibration(batches))
        nodes = _nodes(net(*map(mx.sym.var, names("data", len(batches[0].inputs)))))
    done = tuple(name for name in heavy if name in _quantised(nodes))
    d = rounding_error(curv, dict.fromkeys(done, 8), per)
    losses = [float(_loss(curv, block, batches)) for block in (plain, net)]
    return net, Int8Run(
        rounded=done,
        kept=tuple(name for name in heavy if name not in done),
        exclude=tuple(exclude),
        operators=tuple(node["op"] for node in nodes if node["op"] != "null"),
        predicted=float(curv.gradient() @ d + 0.5 * d @ curv.hvp(d)),
        weights_only=float(curv.loss(at=curv.parameters() + d) - curv.loss()),
        rise=losses[1] - losses[0],
        loss=losses[0],
        metric=float(measured_at(curv, [curv.parameters()], metric)[0]),
        int8_metric=float("nan") if metric is None else float(metric(net)),
        seconds=_seconds(plain, batches, repeats),
        int8_seconds=_seconds(net, batches, repeats),
        per=per,
        provenance=curv.provenance("hessian"),
    )


def _fused(block: Any) -> list[dict[str, Any]]:
    """Nodes of the graph that quantize_net looks at."""
    symbol = block(*[mx.sym.var(p.name) for p in block._cached_graph[0]])
    return _nodes(symbol.get_backend_symbol(_BACKEND))


def _nodes(symbol: Any) -> list[dict[str, Any]]:
    return list(json.loads(symbol.tojson())["nodes"])


def _exclude(nodes: list[dict[str, Any]], keep: Sequence[str], heavy: Sequence[str]) -> list[str]:
    unknown = [name for name in keep if name not in heavy]
    if unknown:
        raise ParameterError(f"keep lists {unknown[0]!r}, which is not a weight of this net; it has "
                             f"{', '.join(heavy[:8])}")
    return [node["name"] for node in nodes
            if node["op"] != "null" and any(nodes[entry[0]]["name"] in keep for entry in node["inputs"])]


def _quantised(nodes: list[dict[str, Any]]) -> set[str]:
    """Parameters that int8 operators of the final graph read."""
    found = set()
    for node in nodes:
        attrs = node.get("attrs", {})
        if "quantized" in node["op"] or attrs.get("quantized", "").lower() in ("true", "1"):
            read = [nodes[entry[0]]["name"] for entry in node["inputs"]]
            found |= {name[: -len("_quantize")] if name.endswith("_quantize") else name for name in read}
    return found


def _calibration(batches: Sequence[Any]) -> Any:
    """A DataIter over the inputs; batches of one size, as MXNet's calibration binds one shape."""
    size = batches[0].inputs[0].shape[0]
    whole = [batch for batch in batches if batch.inputs[0].shape[0] == size]
    inputs = {name: mx.nd.concat(*[batch.inputs[i] for batch in whole], dim=0)
              for i, name in enumerate(names("data", len(batches[0].inputs)))}
    return mx.io.NDArrayIter(inputs, batch_size=size)


def _loss(curv: Any, block: Any, batches: Sequence[Any]) -> float:
    """Mean over the data of the user's own loss, on outputs of another net."""
    total = count = 0.0
    for batch in batches:
        losses = curv._loss(block(*batch.inputs), batch.labels)
        if not losses.shape or losses.shape[0] != batch.inputs[0].shape[0]:
            raise InputError(f"the loss must return one value per sample, not shape {losses.shape}")
        total += float(losses.asnumpy().reshape(len(losses), -1).mean(axis=1).sum(dtype=np.float64))
        count += len(losses)
    return total / count


def _seconds(block: Any, batches: Sequence[Any], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):  # the first compiles
        start = time.perf_counter()
        for batch in batches:
            for leaf in flatten(block(*batch.inputs)):
                leaf.wait_to_read()
        times.append(time.perf_counter() - start)
    return float(min(times[1:]))
