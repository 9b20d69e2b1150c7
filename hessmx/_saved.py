"""Saved results read back: every field must be what its class says, or the result would be believed."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Mapping

import numpy as np

from hessmx.errors import InputError

# Axes that have one length within a result; "..." stands for any others.
_SHAPES: dict[str, dict[str, str]] = {
    "Eigenpairs": {"values": "k", "vectors": "P k", "residuals": "k", "converged": "k"},
    "Estimate": {"samples": "m"},
    "VectorEstimate": {"value": "P", "stderr": "P"},
    "Solution": {"x": "P ..."},
    "Spectrum": {"nodes": "probes steps", "weights": "probes steps", "bounds": "probes steps"},
    "InputGradients": {"inputs": "N ...", "gradients": "N ..."},
    "LandscapeLine": {"radii": "points", "losses": "points", "model": "points"},
    "LandscapePlane": {"xs": "x", "ys": "y", "losses": "y x", "model": "y x"},
}
_WORDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}


def restored(data: Any, kinds: Mapping[str, type]) -> Any:
    """The result in `data`, as plain Python data under `type`; InputError for what no result of that kind holds."""
    name = data.get("type") if isinstance(data, dict) else None
    if not isinstance(name, str) or name not in kinds:
        got = f"type {name!r}" if isinstance(data, dict) else _shown(data)
        raise InputError(f"expected a saved result, got {got}; types are {', '.join(sorted(kinds))}")
    kind: Any = kinds[name]
    fields = {f.name: f for f in dataclasses.fields(kind)}
    unknown = sorted(set(map(str, data)) - set(fields) - {"type"})
    if unknown:
        raise InputError(f"{name} has no field {', '.join(map(repr, unknown))}: mistyped, or of another version")
    lacking = [f.name for f in fields.values() if f.name not in data and _required(f)]
    if lacking:
        raise InputError(f"{name} lacks {', '.join(map(repr, lacking))}")
    values = {
        key: _value(f"{name}.{key}", data[key], str(f.type), kinds) for key, f in fields.items() if key in data
    }
    _check_shapes(name, values)
    return kind(**values)


def _required(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _value(where: str, value: Any, annotation: str, kinds: Mapping[str, type]) -> Any:
    annotation, _, none = annotation.partition(" | ")
    if none and value is None:
        return None
    if annotation in _WORDS:
        return _scalar(where, value, annotation)
    if annotation.endswith("ndarray"):
        return _array(where, value)
    several = re.fullmatch(r"tuple\[(.+)\]", annotation)
    if several:
        return _several(where, value, several[1].split(", "), kinds)
    found = restored(value, kinds)
    if annotation in kinds and not isinstance(found, kinds[annotation]):
        raise InputError(f"{where} must be of type {annotation}, not {type(found).__name__}")
    return found


def _several(where: str, value: Any, annotations: list[str], kinds: Mapping[str, type]) -> tuple:
    """As many as there are annotations, or any number of the first one: tuple[str, str], tuple[str, ...]."""
    if not isinstance(value, list):
        raise InputError(f"{where} must be a list, not {_shown(value)}")
    if annotations[-1] == "...":
        annotations = annotations[:1] * len(value)
    if len(annotations) != len(value):
        raise InputError(f"{where} must hold {len(annotations)} entries, not {len(value)}")
    return tuple(_value(f"{where}[{i}]", *pair, kinds) for i, pair in enumerate(zip(value, annotations)))


def _scalar(where: str, value: Any, annotation: str) -> Any:
    kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}[annotation]
    if not isinstance(value, kinds) or (isinstance(value, bool) and annotation != "bool"):
        raise InputError(f"{where} must be {_WORDS[annotation]}, not {_shown(value)}")
    return value


def _array(where: str, value: Any) -> np.ndarray:
    """Numbers only: a ragged list, a text or a null among them makes no array of numbers."""
    try:
        array = np.asarray(value) if isinstance(value, (list, np.ndarray)) else None
    except ValueError:
        array = None
    if array is None or array.dtype.kind not in "biuf":
        raise InputError(f"{where} must be an array of numbers, not {_shown(value)}")
    return array


def _check_shapes(name: str, values: Mapping[str, Any]) -> None:
    lengths: dict[str, tuple[int, str]] = {}
    for key, text in _SHAPES.get(name, {}).items():
        array, axes = values.get(key), text.split()
        if array is None:
            continue
        fixed = [axis for axis in axes if axis != "..."]
        if array.ndim < len(fixed) or (fixed == axes and array.ndim != len(axes)):
            raise InputError(f"{name}.{key} must have the axes ({', '.join(axes)}), not shape {array.shape}")
        for axis, length in zip(fixed, array.shape):
            known, where = lengths.setdefault(axis, (length, key))
            if known != length:
                raise InputError(f"{name}.{key} has shape {array.shape}, which does not fit {where}: {axis} = {known}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
