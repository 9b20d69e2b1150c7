"""In the shell, importing the package is part of the command: what goes wrong then is one line too, no traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any, NoReturn


def in_command() -> bool:
    """Whether this process is the `hessmx` command, or `python -m hessmx...`."""
    called = list(getattr(sys, "orig_argv", ()))  # Python 3.9 has none
    module = called[called.index("-m") + 1 :][:1] if "-m" in called else []
    return os.path.basename(sys.argv[0]) == "hessmx" or any(name.split(".")[0] == "hessmx" for name in module)


def leave(line: str, code: int) -> NoReturn:
    """One line on stderr, and out."""
    print(f"hessmx: {line}", file=sys.stderr, flush=True)
    os._exit(code)


def _interrupted(number: int, frame: Any) -> None:
    leave("interrupted", 130)


def quiet_interrupts() -> None:
    """Until `usual_interrupts` an interrupt ends the command; half-imported libraries would show a traceback."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if in_command() and usual and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _interrupted)


def usual_interrupts() -> None:
    if signal.getsignal(signal.SIGINT) is _interrupted:
        signal.signal(signal.SIGINT, signal.default_int_handler)


quiet_interrupts()
