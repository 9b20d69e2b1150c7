"""Work that may end the process, tried in a forked child first."""

from __future__ import annotations

import faulthandler
import os
import signal
import time
import warnings
from typing import Any, Callable

_ALIVE = 77  # the exit code of a child that has come through


def cause_of_death(task: Callable[[], Any], seconds: float = 60) -> str | None:
    """What ends a process that runs `task`: a signal or an exit; None if nothing does.

    Errors that `task` raises are left for the caller to meet. A child that takes longer than `seconds` is ended, and
    nothing is said of it. Nothing is tried where processes cannot fork.
    """
    if not hasattr(os, "fork"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python 3.12 warns of threads; the child uses none of them
        child = os.fork()
    if child == 0:
        _run(task)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return _told(status)
            time.sleep(0.002)
    except BaseException:
        _end(child)
        raise
    _end(child)
    return None


def _run(task: Callable[[], Any]) -> None:
    try:
        faulthandler.disable()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        task()
    except BaseException:
        pass
    finally:
        os._exit(_ALIVE)


def _told(status: int) -> str | None:
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    code = os.WEXITSTATUS(status)
    return None if code == _ALIVE else f"exit {code}"


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
