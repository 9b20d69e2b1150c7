"""Checks that blocks share."""

from __future__ import annotations

import numbers

from hessmx.errors import InputError


def at_least(name: str, value, least: int) -> int:
    """`value` as an int of at least `least`, or an InputError that names the argument."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InputError(f"{name} must be an integer of at least {least}, not {value!r}: pass e.g. {max(least, 2)}")
    return int(value)
