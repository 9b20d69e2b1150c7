"""What MXNet's own first and second gradient of one case are, against float64 differences."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from hessmx._mxnet import mx
from scripts.operators.calls import Arrays, Operator, differences, inner
from tests.cases.case import Case

# Float32 arithmetic inside a float64 operator costs about 1e-5 after differencing; a wrong rule costs far more.
TOLERANCE = 1e-3
SHARP = 1e-7


def _random(arrays: Arrays, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.uniform(0.5, 1.5, a.shape) * rng.choice([-1.0, 1.0], a.shape)).astype(a.dtype) for a in arrays]


def _error(found: Arrays, true: Arrays) -> float:
    """Largest difference relative to the largest entry; absolute where all entries are zero."""
    largest = max([0.0] + [float(np.abs(t).max()) for t in true if t.size])
    worst = max([0.0] + [float(np.abs(f - t).max()) for f, t in zip(found, true) if t.size])
    error = worst / (largest if largest > SHARP else 1.0)
    return error if np.isfinite(error) else np.inf


def _grade(error: float, true: Arrays) -> str:
    if error > TOLERANCE:
        return "wrong"
    if all(np.abs(t).max() < SHARP if t.size else True for t in true):
        return "zero"
    return "right" if error < SHARP else "right to float32"


def _reason(error: Exception) -> str:
    """The line of an MXNet error that says something."""
    lines = [line for line in str(error).splitlines() if "Error" in line or "non-differentiable" in line]
    text = lines[-1] if lines else str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    text = re.sub(r"\[\d\d:\d\d:\d\d\] |\.\./\S+:\d+: ", "", text)
    return " ".join(text.split())[:160]


def _symmetrise(case: Case, gradients: Arrays) -> list[np.ndarray]:
    return [(g + np.swapaxes(g, -1, -2)) / 2 if i in case.symmetric else g for i, g in zip(case.moving, gradients)]


def measure(case: Case) -> Iterator[dict]:
    """The record (`forward`, `first`, `second`, errors, reasons), given after each stage: the next may crash."""
    with mx.util.np_shape(case.numpy_shapes):
        yield from _measure(case)


def _measure(case: Case) -> Iterator[dict]:
    record: dict = {"op": case.op}
    operator = Operator(case)
    point = operator.point()
    try:
        outputs = operator.forward(point)
    except Exception as error:  # MXNet raises many types
        yield {**record, "forward": "raises", "why": _reason(error)}
        return
    record["forward"] = "finite" if all(np.isfinite(y).all() for y in outputs) else "not finite"
    if not outputs:
        yield {**record, "forward": "no floating output"}
        return
    yield record
    heads, seeds = _random(outputs, 1), _random(point, 2)
    seeds = _symmetrise(case, seeds)
    record.update(_first(case, operator, point, heads))
    yield record
    if record["first"] != "raises":
        yield {**record, **_second(case, operator, point, heads, seeds)}


def _first(case: Case, operator: Operator, point: Arrays, heads: Arrays) -> dict:
    try:
        found = operator.gradient(point, heads)
    except Exception as error:
        return {"first": "raises", "why": _reason(error)}
    if case.random:
        return {"first": "random"}
    if case.kink:
        return {"first": "kink", "gradient": [str(np.round(g, 6).tolist()) for g in found]}
    true = differences(lambda x: inner(heads, operator.forward(x)), point)
    found, true = _symmetrise(case, found), _symmetrise(case, true)
    error = _error(found, true)
    grade = _grade(error, true)
    if grade == "wrong" and not any(g.any() for g in found):
        grade = "dropped"
    return {"first": grade, "first_error": float(f"{error:.1e}")}


def _second(case: Case, operator: Operator, point: Arrays, heads: Arrays, seeds: Arrays) -> dict:
    """Curvature of <heads, sigmoid(operator)>; where that is wrong, of the operator alone too."""
    try:
        found = operator.double(point, heads, seeds, layered=True)
    except Exception as error:
        return {"second": "raises", "why": _reason(error)}
    if case.kink or case.random or case.first == "straight":
        return {"second": "runs"}  # differences do not apply
    grade, error = _compare(case, operator, point, heads, seeds, found, layered=True)
    record = {"second": grade, "second_error": error}
    if grade == "wrong":
        try:
            found = operator.double(point, heads, seeds, layered=False)
            record["alone"] = _compare(case, operator, point, heads, seeds, found, layered=False)[0]
        except Exception as failure:
            record["alone"] = _reason(failure)
    return record


def _compare(
    case: Case, operator: Operator, point: Arrays, heads: Arrays, seeds: Arrays, found: Arrays, layered: bool
) -> tuple[str, float]:
    true = differences(lambda x: inner(seeds, operator.gradient(x, heads, layered)), point)
    found, true = _symmetrise(case, found), _symmetrise(case, true)
    error = _error(found, true)
    return _grade(error, true), float(f"{error:.1e}")
