"""Everything hessmx raises on purpose.

    HessmxError
    ├── InputError            the caller's data, vectors, options (also a ValueError)
    │   ├── DataError         batches and labels: shapes, NaN, empty or one-shot loaders
    │   ├── ParameterError    parameters: uninitialised, NaN, none selected
    │   └── FileError         files: missing, unreadable, names that do not match
    ├── GraphError            the net or loss cannot be traced or rewritten
    │   ├── UnsupportedOps    operators without a rule; lists all of them, with node names
    │   └── RuleError         a tangent rule is missing or gives wrong numbers (hessmx.trust.testing)
    ├── EngineError           the engine asked for cannot answer this question
    └── ImportFailure         MXNet cannot be imported here (also an ImportError)

    HessmxWarning             something the user must know of a result that is given all the same

Every text says what was expected, what came, and what to do, in one line.
"""

from __future__ import annotations

import difflib
from typing import Any, Iterable


class HessmxError(Exception):
    """Base of all errors raised on purpose."""


class InputError(HessmxError, ValueError):
    """An argument is not what the function can work with."""


class DataError(InputError):
    """Data or labels cannot be used."""


class ParameterError(InputError):
    """Parameters of the net cannot be used."""


class FileError(InputError):
    """A file is missing, unreadable, or does not fit the others."""


class GraphError(HessmxError):
    """The net or the loss cannot be traced or rewritten."""


class UnsupportedOps(GraphError):
    """Operators without what an engine needs; `ops` maps operator name to (reason, node names)."""

    def __init__(self, engine: str, ops: dict[str, tuple[str, tuple[str, ...]]], advice: str):
        self.ops = ops
        listed = "; ".join(f"{op} ({reason}) at {', '.join(nodes)}" for op, (reason, nodes) in ops.items())
        super().__init__(f"engine '{engine}' cannot handle {len(ops)} operator(s) of this net: {listed}. {advice}")


class RuleError(GraphError):
    """A tangent rule is missing or gives wrong numbers."""


class EngineError(HessmxError):
    """The engine asked for cannot answer this question."""


class ImportFailure(HessmxError, ImportError):
    """MXNet cannot be imported on this machine."""


class HessmxWarning(UserWarning):
    """A result is given, but not the best kind; the text says why."""


def choose(name: str, value: str, options: Iterable[str], error: type[InputError] = InputError) -> str:
    """Return `value` if it is one of `options`; otherwise raise `error`, naming the nearest option."""
    known = list(options)
    if value in known:
        return value
    near = difflib.get_close_matches(str(value), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise error(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}{hint}")


def few(names: Any, count: int = 4) -> str:
    """The first names, and how many more there are."""
    names = [str(n) for n in names]
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "") or "nothing"


def one_line(error: BaseException) -> str:
    """What MXNet's messages say, without the C++ stack trace around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith(("Traceback", "Stack trace", "File ", "[bt]"))]
    text = told[0].split("Error: ", 1)[-1] if told else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
