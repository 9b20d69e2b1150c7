"""Can the numbers be trusted? Products against values and gradients of the user's own net, symmetry, repeatability.

| compared                | with                                                                                    |
|-------------------------|-----------------------------------------------------------------------------------------|
| loss                    | that of the user's own net, run as it is                                                |
| g'd                     | first differences of losses of the user's own net                                       |
| d'H d                   | second differences of them                                                              |
| H v                     | differences of MXNet's own gradients, in float64                                        |
| u'H v, H v once more    | v'H u, H v                                                                              |

Values have the last word: MXNet's gradients are wrong for some operators. Only where a net has kinks (ReLU), which
second differences of values feel from afar, differences of gradients with their far shorter steps overrule them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Callable

import numpy as np

from hessmx.algorithms.common import gaussian, positive_int
from hessmx.results import Provenance, Result
from hessmx.trust.differences import STEPS as VALUE_STEPS
from hessmx.trust.differences import Known, Path
from hessmx.trust.locate import Located
from hessmx.trust.locate import locate as first_off
from hessmx.trust.values import OwnNet, own_net

TOLERANCES = {"float32": 1e-3, "float64": 1e-6}  # a wrong rule is off by much more than rounding near a minimum
STEPS = (1.0, 0.1, 0.01)  # a net with kinks needs the small ones, which stay on one piece
STEP = 6e-6  # cube root of the rounding unit of float64 (Nocedal & Wright 2006, section 8.1)
SINGLE_STEPS = (0.1, 0.03, 0.01, 3e-3)  # of values in float32
LOCATE = "check(curv, locate=True) and `hessmx check --locate` try every operator alone and name the first that is off"
DECIDES = 0.02  # a second difference known to less, relative to what it is compared with, decides nothing
KINKED = {
    "Activation": "relu", "Pooling": "max", "LeakyReLU": "", "relu": "", "abs": "", "clip": "", "max": "", "min": "",
    "sort": "", "topk": "", "hard_sigmoid": "", "_maximum": "", "_minimum": "", "_maximum_scalar": "",
    "_minimum_scalar": "", "broadcast_maximum": "", "broadcast_minimum": "", "_npi_maximum": "", "_npi_minimum": "",
    "_npx_relu": "", "_np_max": "", "_np_min": "", "_npi_absolute": "", "ROIPooling": "", "RNN": "rnn_relu",
}  # operator: the word in its attributes without which it has none


@dataclass(frozen=True, eq=False)
class CheckResult(Result):
    """Relative errors; `verdict` says in one line what they mean. NaN: the reference decides nothing here."""

    trusted: bool
    verdict: str
    difference: float  # ||Hv - (g(w + hv) - g(w - hv)) / 2h|| / ||Hv||, worst vector, best of three steps
    asymmetry: float  # |u.Hv - v.Hu| / (||u|| ||Hv|| + ||v|| ||Hu||)
    repeat: float  # ||Hv - Hv again|| / ||Hv||
    tolerance: float
    reference: str  # dtype of the differences
    vectors: int
    value: float = float("nan")  # |loss - loss of the net as it runs| / |loss|
    slope: float = float("nan")  # |g.d - first differences of losses| / |g.d|, worst direction
    bend: float = float("nan")  # |d.Hd - second differences of losses| / |d.Hd|, worst direction
    gradient_bend: float = float("nan")  # the same for the differences of gradients, along the random directions
    disagree: tuple[str, ...] = ()  # which references say otherwise, and what it means
    located: Located | None = None  # what `locate=True` found
    provenance: Provenance = field(default_factory=Provenance)


def check(curv: Any, vectors: int = 2, seed: int = 0, locate: bool = False) -> CheckResult:
    """Compare value, gradient and products of `curv` with those of the user's own net, run as it is.

    Costs 2 products, 6 gradients and 8 to 40 losses per vector. `locate` also checks every operator alone, at the
    values that it has here, and names the first one that is off (`hessmx.trust.locate`).
    """
    own = own_net(curv)
    gradient, reference = _gradient(curv, own)
    directions = [_unit(gaussian(seed, i, curv.num_params)) for i in range(positive_int("vectors", vectors, 2))]
    products = [curv.hvp(v) for v in directions]
    repeat = max(_relative(curv.hvp(v), p) for v, p in zip(directions, products))
    references = [_difference(gradient, curv.parameters(), v, p) for v, p in zip(directions, products)]
    difference = max(_relative(reference, p) for reference, p in zip(references, products))
    asymmetry = max(_asymmetry(directions, products, i, j) for i in range(vectors) for j in range(i))
    tolerance = max(TOLERANCES[str(curv.dtype)], TOLERANCES[reference])
    found = CheckResult(False, "", difference, asymmetry, repeat, tolerance, reference, vectors,
                        provenance=curv.provenance("hessian"))
    if own is not None:
        found = _by_values(found, curv, own, directions, products, references)
    found = _judged(found, _has_kinks(curv))
    return replace(found, located=first_off(curv, seed)) if locate else found


def _gradient(curv: Any, own: OwnNet | None) -> tuple[Callable[..., np.ndarray], str]:
    """gradient(at) and its dtype: of the net as it runs; where it is random or will not take float64, of the graph."""
    if own is not None and own.dtype == np.float64:
        return own.gradient, "float64"
    if not curv.traced:
        return curv.gradient, str(curv.dtype)
    return partial(curv.gradient, dtype="float64"), "float64"


def _by_values(
    found: CheckResult, curv: Any, own: OwnNet, vs: list[np.ndarray], ps: list[np.ndarray], cs: list[np.ndarray]
) -> CheckResult:
    """Loss, slopes and bends along the random directions, the gradient and the first product."""
    here, w, g = own.loss(), curv.parameters().astype(np.float64), curv.gradient()
    length = float(np.linalg.norm(w)) or 1.0
    steps = VALUE_STEPS if own.dtype == np.float64 else SINGLE_STEPS

    def path(d: np.ndarray) -> Path:
        return Path(lambda t: [np.array([own.loss(w + t * length * d)])], [np.array([here])], steps)

    paths = [path(v) for v in vs]
    slopes = [(v, p) for v, p in zip(vs, paths)] + [(_unit(g), path(_unit(g)))] * bool(np.linalg.norm(g))
    bends = list(zip(vs, ps, paths))
    if np.linalg.norm(ps[0]):
        top = _unit(ps[0])
        bends.append((top, curv.hvp(top), path(top)))
    floor = abs(here) / length
    slope = _worst([_off(g @ d, p.first(0).of(np.sum, 1.0) / length, _size(g, d) + 1e-2 * floor) for d, p in slopes])
    bend, theirs = (
        _worst([_off(d @ q, p.second(0) / length**2, _size(q, d) + 1e-3 * floor / length) for d, q, p in triples])
        for triples in (bends, list(zip(vs, cs, paths)))
    )
    value = abs(curv.loss() - here) / (abs(here) or 1.0)
    return replace(found, value=value, slope=slope, bend=bend, gradient_bend=theirs)


def _off(found: float, true: Known, size: float) -> float:
    """Relative error beyond what is in doubt; NaN where too much is."""
    doubt = true.doubt / (size or 1.0)
    if not np.isfinite(found):
        return float("inf")
    return max(abs(found - float(true.value)) / (size or 1.0) - 4 * doubt, 0.0) if doubt <= DECIDES else float("nan")


def _size(product: np.ndarray, d: np.ndarray) -> float:
    """What d'product comes to: as it is where it is sure of its sign, for a random d its spread."""
    terms = np.asarray(product, np.float64) * d
    return max(abs(float(terms.sum())), float(np.linalg.norm(terms)))


def _worst(errors: list[float]) -> float:
    known = [e for e in errors if not np.isnan(e)]
    return max(known) if known else float("nan")


def _has_kinks(curv: Any) -> bool:
    """Whether an operator of net or loss has a derivative that jumps; True where nobody knows."""
    if not curv.traced:
        return True
    pieces = curv._compiled("its operators").pieces(next(iter(curv._batches)))
    nodes = [node for piece in pieces if piece is not None for node in piece.graph.nodes]
    return any(node.op in KINKED and KINKED[node.op] in "".join(node.raw.values()) for node in nodes)


def _difference(gradient: Any, parameters: np.ndarray, v: np.ndarray, product: np.ndarray) -> np.ndarray:
    """The difference of gradients along v, of the step that comes nearest to the product."""
    w = parameters.astype(np.float64)
    size = float(np.linalg.norm(w)) or 1.0
    found = []
    for step in STEPS:
        h = STEP * step * size
        found.append((gradient(at=w + h * v) - gradient(at=w - h * v)) / (2 * h))
    return min(found, key=lambda one: _relative(one, product))


def _asymmetry(v: list[np.ndarray], p: list[np.ndarray], i: int, j: int) -> float:
    scale = float(np.linalg.norm(p[i]) + np.linalg.norm(p[j]))
    return abs(float(v[i] @ p[j] - v[j] @ p[i])) / (scale or 1.0)


def _relative(found: np.ndarray, product: np.ndarray) -> float:
    scale = max(float(np.linalg.norm(product)), float(np.linalg.norm(found)))
    return float(np.linalg.norm(found.astype(np.float64) - product)) / (scale or 1.0)


def _unit(v: np.ndarray) -> np.ndarray:
    return np.asarray(v, np.float64) / np.linalg.norm(v)


def _judged(found: CheckResult, kinks: bool) -> CheckResult:
    """Which references disagree, what that means, and whether the products stand."""
    most = found.tolerance
    by_gradients, by_values = not found.difference <= most, found.bend > most
    coarse = found.gradient_bend > max(most, found.bend)  # what differences of gradients say, values contradict
    values_decide = not np.isnan(found.bend) and not (kinks and by_values)
    wrong = by_values or (by_gradients and not coarse) if values_decide else by_gradients
    faults = [
        (not found.repeat <= most, "two equal products differ: the data or the net is random"),
        (not found.asymmetry <= most, "the matrix is not symmetric"),
        (found.value > most, "the traced loss is not that of the net as it runs: another branch, dtype or mode"),
        (found.slope > most, "the gradient is not the derivative of the losses"),
        (wrong, "products are not the second derivative of the losses: a rule is wrong, or the net sits on a kink"),
    ]
    disagree = [text for is_so, text in faults if is_so]
    trusted = not disagree
    if by_gradients and trusted:
        disagree.append("differences of MXNet's own gradient say otherwise: it is not the derivative of the loss, or "
                        "too coarse for differences; products follow the losses")
    if by_values and not values_decide and not by_gradients:
        disagree.append("second differences of losses say otherwise, which kinks of this net explain")
    return replace(found, trusted=trusted, disagree=tuple(disagree), verdict=_verdict(found, trusted, disagree))


def _verdict(found: CheckResult, trusted: bool, disagree: list[str]) -> str:
    values = [
        f"{name} to {error:.1e}"
        for name, error in (("losses", found.value), ("their slopes", found.slope), ("their bends", found.bend))
        if not np.isnan(error)
    ]
    against = f"with the net's own {', '.join(values)}, " if values else ""
    evidence = f"products agree {against}with {found.reference} differences of gradients to " \
               f"{found.difference:.1e}, are symmetric to {found.asymmetry:.1e} and repeat to {found.repeat:.1e} " \
               f"(tolerance {found.tolerance:.0e})"
    notes = "".join(f" ({text})" for text in disagree) if trusted else ""
    if trusted:
        return f"The numbers can be trusted: {evidence}.{notes}"
    return f"The numbers can NOT be trusted, {'; '.join(disagree)}: {evidence}. {LOCATE}."
