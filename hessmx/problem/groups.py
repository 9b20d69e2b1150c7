"""Parameters in groups: by layer, by kind, or by any function of the name."""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence, Union

from hessmx.errors import ParameterError, choose

Grouping = Union[str, Callable[[str], str], Mapping[str, Sequence[str]]]


def layer(name: str) -> str:
    """'dense0_weight' -> 'dense0': Gluon names a parameter after the block that owns it."""
    return name.rsplit("_", 1)[0] if "_" in name else name


def kind(name: str) -> str:
    """'dense0_weight' -> 'weight'."""
    return name.rsplit("_", 1)[-1]


_NAMED: dict[str, Callable[[str], str]] = {"layer": layer, "kind": kind, "parameter": lambda name: name}


def grouped(names: Sequence[str], by: Grouping) -> dict[str, tuple[str, ...]]:
    """Group name -> parameter names, in the order of the net."""
    if isinstance(by, Mapping):
        return {group: _known(group, chosen, names) for group, chosen in by.items()}
    if isinstance(by, str):
        by = _NAMED[choose("by", by, _NAMED)]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(str(by(name)), []).append(name)
    return {group: tuple(members) for group, members in groups.items()}


def _known(group: str, chosen: Any, names: Sequence[str]) -> tuple[str, ...]:
    wrong = [name for name in chosen if name not in names]
    if wrong or not chosen:
        raise ParameterError(
            f"group {group!r} must list some of the parameters {', '.join(names[:8])}, not {wrong or 'none'}"
        )
    return tuple(name for name in names if name in set(chosen))
