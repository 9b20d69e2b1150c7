"""One net against the truth: products in float64 by differences of values, other dtypes by the float64 products."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any, Callable

import numpy as np

import hessmx
from hessmx._mxnet import mx
from hessmx.trust.differences import Known
from scripts.fuzz.nets import Spec, build, semantics
from scripts.fuzz.truth import InstanceNorm, Truth

FIRST, SECOND = 1e-6, 3e-5  # relative errors allowed in float64
SINGLE = 2e-3  # in float32, unless the numbers themselves are that sensitive to rounding
IN_DOUBLE = {"InstanceNorm": InstanceNorm}  # MXNet's own takes float32 only
VERDICTS = ("right", "wrong", "refused", "undecided")


@dataclass
class Report:
    """right; wrong (findings say where); refused (by hessmx, with a message); undecided (no truth to compare with)."""

    verdict: str = "right"
    findings: list[tuple[str, float]] = field(default_factory=list)  # what is off, and by how much
    undecided: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    message: str = ""
    engine: str = ""

    def compare(self, what: str, found: Any, true: Known, tolerance: float, size: float) -> None:
        """`size` is what the error is relative to. What is known to less than 1 % decides nothing."""
        if not np.isfinite(found).all() or np.isnan(size):
            self.findings.append((what, float("nan")))
            return
        if not true.doubt <= 1e-2 * size:
            self.undecided.append(what)
            return
        error = float(np.max(np.abs(np.asarray(found, np.float64) - true.value), initial=0.0))
        if not error <= tolerance * size + 4 * true.doubt:
            self.findings.append((what, error / (size or 1.0)))


def judge(spec: Spec, dtype: str = "float32", make: Callable[..., Any] = hessmx.Curvature) -> Report:
    """The verdict on one net. `make` builds the Curvature: tests plant faults there."""
    report = Report()
    with semantics(spec.numpy), mx.name.NameManager(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _judge(spec, dtype, make, report)
        except hessmx.HessmxError as error:
            report.verdict, report.message = "refused", f"{type(error).__name__}: {error}"
            return report
        except Exception as error:  # of whatever kind: hessmx promises one of its own
            report.findings.append((f"raised {type(error).__name__}", float("nan")))
            report.message = _line(error)
    report.verdict = "wrong" if report.findings else "undecided" if report.undecided else "right"
    return report


def _line(error: Exception) -> str:
    """MXNet's messages start with a traceback of its own."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return next((line for line in lines if "Error" in line or "Check failed" in line), lines[0] if lines else "")[:300]


def _judge(spec: Spec, dtype: str, make: Callable[..., Any], report: Report) -> None:
    net, loss = build(spec, dtype, IN_DOUBLE if dtype == "float64" else None)
    curv = make(net, loss, spec.data(), mode=spec.mode)
    report.engine = curv.engine
    before = _state(net)
    double, curv64 = net, curv
    if dtype != "float64":
        double, loss64 = build(spec, "float64", IN_DOUBLE)
        _copy_values(net, double)
        curv64 = make(double, loss64, spec.data(), mode=spec.mode)
    truth = Truth(spec, curv64.param_names, double)
    _by_values(curv64, truth, report)
    if dtype != "float64":
        _by_products(curv, curv64, truth, report)
    if any(not np.array_equal(a, b) for a, b in zip(before, _state(net))):
        report.findings.append(("the net was changed", float("nan")))


def _state(net: Any) -> list[np.ndarray]:
    return [p.data().asnumpy() for p in net.collect_params().values()]


def _copy_values(source: Any, target: Any) -> None:
    for p, q in zip(source.collect_params().values(), target.collect_params().values()):
        q.set_data(p.data().astype("float64"))


def directions(truth: Truth, curv: Any) -> tuple[np.ndarray, np.ndarray]:
    """Two random directions, each parameter moved in proportion to its own size."""
    rng = np.random.default_rng([truth.spec.seed, 11])
    size = np.ones(len(truth.w))
    for piece in curv.param_slices.values():
        size[piece] = max(float(np.sqrt(np.mean(truth.w[piece] ** 2))), 0.05)
    return tuple(rng.standard_normal(len(size)) * size / np.sqrt(1 + len(size)) for _ in range(2))  # type: ignore[return-value]


class _Directions:
    """u, v and what is known along them; mixed derivatives from those along u + v and u - v."""

    def __init__(self, truth: Truth, u: np.ndarray, v: np.ndarray):
        self.u, self.v, self.truth = u, v, truth
        self.plus, self.minus = truth.along(u + v), truth.along(u - v)
        self.outputs, self.losses = ((self.plus.first(which), self.minus.first(which)) for which in (0, 1))
        plus, minus = self.plus.second(1), self.minus.second(1)
        self.hessian = (plus - minus) / 4  # u'Hv
        self.diagonal = (plus + minus) / 2  # u'Hu + v'Hv

    def of_u(self, pair: tuple[Known, Known]) -> Known:
        return (pair[0] + pair[1]) / 2

    def of_v(self, pair: tuple[Known, Known]) -> Known:
        return (pair[0] - pair[1]) / 2


def _by_values(curv: Any, truth: Truth, report: Report) -> None:
    n, here = truth.samples, truth.here
    u, v = directions(truth, curv)
    known = _Directions(truth, u, v)
    total = float(np.abs(here[1]).sum())
    floor = 1e-3 * total / n
    report.compare("loss", curv.loss(), Known(here[1].sum() / n, 0.0), FIRST, total / n)
    gradient = curv.gradient()
    for name, d, slopes in (("u", u, known.of_u(known.losses)), ("v", v, known.of_v(known.losses))):
        size = _size(gradient, d) + floor
        report.compare(f"gradient along {name}", gradient @ d, slopes.of(np.sum, n) / n, FIRST, size)
    own = truth.own_gradient()
    if not np.abs(own - gradient).max() <= 1e-5 * np.abs(own).max():
        report.notes.append("MXNet's own gradient differs")
    hessian = curv.hvp(v)
    both = curv.hessian @ np.stack([u, v], axis=1)
    size = _size(hessian, v) + _size(both[:, 0], u) + floor
    report.compare("hessian uv", u @ hessian, known.hessian / n, SECOND, size)
    report.compare("hessian uu + vv", u @ both[:, 0] + v @ hessian, known.diagonal / n, SECOND, size)
    report.compare("hessian again", both[:, 1], Known(hessian, 0.0), FIRST, float(np.abs(hessian).max()))
    report.compare("hessian symmetric", v @ both[:, 0], Known(u @ hessian, 0.0), SECOND, size)
    if curv.engine != "finite-difference":
        _other_matrices(curv, known, report, floor)


def _other_matrices(curv: Any, known: _Directions, report: Report, floor: float) -> None:
    truth, u, v, n = known.truth, known.u, known.v, known.truth.samples
    z = float(np.abs(truth.here[0]).max())
    j_u, j_v = known.of_u(known.outputs), known.of_v(known.outputs)
    moved = curv.jacobian @ v
    report.compare("J v", moved, j_v, 10 * FIRST, float(np.abs(moved).max()) + 1e-3 * z)
    r = np.random.default_rng(truth.spec.seed).standard_normal(len(moved))
    back = curv.jacobian.T @ r
    moved_r = j_u.of(lambda a: r @ a, float(np.linalg.norm(r)))
    report.compare("J' r", u @ back, moved_r, 10 * FIRST, _size(back, u) + 1e-3 * z)
    ggn = (truth.bend_of_loss(j_u.value + j_v.value) - truth.bend_of_loss(j_u.value - j_v.value)) / 4
    of_j = 2 * (j_u.doubt + j_v.doubt) / (float(np.abs(j_u.value).max() + np.abs(j_v.value).max()) or 1.0)
    ggn = Known(ggn.value, ggn.doubt + of_j * (abs(ggn.value) + n * floor))
    product, residual = curv.ggn @ v, curv.residual @ v
    report.compare("ggn uv", u @ product, ggn / n, SECOND, _size(product, u) + floor)
    size = _size(residual, u) + _size(product, u) + floor
    report.compare("residual uv", u @ residual, (known.hessian - ggn) / n, 2 * SECOND, size)
    fisher = curv.fisher() @ v
    l_u, l_v = known.of_u(known.losses), known.of_v(known.losses)
    doubt = l_u.doubt * np.abs(l_v.value).sum() + l_v.doubt * np.abs(l_u.value).sum()
    both = Known(l_u.value @ l_v.value, doubt) / n
    report.compare("fisher uv", u @ fisher, both, 10 * FIRST, _size(fisher, u) + floor**2)


def _size(product: np.ndarray, d: np.ndarray) -> float:
    """What d'product comes to for a random d."""
    return float(np.sqrt(np.sum((np.asarray(product, np.float64) * d) ** 2)))


def _by_products(curv: Any, curv64: Any, truth: Truth, report: Report) -> None:
    """The same vectors as in float64; what the rounding of the parameters moves far may be as far off."""
    _, v = directions(truth, curv64)
    asked: dict[str, Callable[[Any], Any]] = {
        "loss": lambda c: np.array([c.loss()]),
        "gradient": lambda c: c.gradient(),
        "hessian": lambda c: c.hvp(v),
        "ggn": lambda c: c.ggn @ v,
        "residual": lambda c: c.residual @ v,
        "fisher": lambda c: c.fisher() @ v,
        "J v": lambda c: c.jacobian @ v,
        "J' r": lambda c: c.jacobian.T @ np.ones(c.jacobian.shape[0]),
    }
    if "finite-difference" in (curv.engine, curv64.engine):
        asked = {name: asked[name] for name in ("loss", "gradient", "hessian")}
    loose = 10 if curv.engine == "finite-difference" else 1
    for name, ask in asked.items():
        true, found = ask(curv64), ask(curv)
        error = _apart(found, true)
        if not error <= SINGLE * loose and not error <= 100 * loose * _sensitivity(ask, curv64, truth, true):
            report.findings.append((f"{name} in {curv.dtype}", error))


def _apart(found: np.ndarray, true: np.ndarray) -> float:
    scale = float(np.linalg.norm(true))
    return float(np.linalg.norm(np.asarray(found, np.float64) - true)) / (scale if scale > 1e-6 else 1.0)


def _sensitivity(ask: Callable[[Any], Any], curv: Any, truth: Truth, true: np.ndarray) -> float:
    """How far float64 moves where the parameters move by float32's rounding."""
    rng, moves = np.random.default_rng(5), []
    net = curv._net.block
    original = _state(net)
    try:
        for _ in range(3):
            for p, w in zip(net.collect_params().values(), original):
                noise = w * rng.uniform(-1, 1, w.shape) * 6e-8
                p.set_data((mx.np if mx.util.is_np_array() else mx.nd).array(w + noise, dtype="float64"))
            moves.append(_apart(ask(curv), true))
    finally:
        for p, w in zip(net.collect_params().values(), original):
            p.set_data((mx.np if mx.util.is_np_array() else mx.nd).array(w, dtype="float64"))
    return max(moves)
