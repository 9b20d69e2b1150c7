"""The sides of the benchmark as processes, and the options that every script has."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIDES = ("hessmx", "torch", "jax")


class Side:
    """A worker process: told and answering in lines of JSON; sleeps between them."""

    def __init__(self, name: str, python: str, threads: int):
        self.name = name
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip

    def ask(self, **order: Any) -> Any:
        try:
            self.process.stdin.write(json.dumps(order) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        return json.loads(line) if line else {"error": "the process ended"}

    def close(self) -> None:
        """Lets the process end, and sees it end: a late one would be measured with the next."""
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()


def options(doc: str, nets: Any) -> argparse.ArgumentParser:
    """The options of all scripts: chosen nets, a file for results, sides, and their interpreters."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(nets), help="nets, with commas between: " + ", ".join(nets))
    parser.add_argument("--json", type=Path, help="file for the results; nets that are in it and not run stay")
    parser.add_argument("--sides", default=",".join(SIDES), help="libraries, with commas between")
    parser.add_argument("--python", action="append", default=[], metavar="SIDE=PATH", help="a side's interpreter")
    parser.add_argument("--threads", type=int, default=2, help="of each library (JAX takes every core)")
    return parser


def interpreters(chosen: argparse.Namespace) -> dict[str, str]:
    """Side -> interpreter, for the sides asked for."""
    given = dict(pair.split("=", 1) for pair in chosen.python)
    return {side: given.get(side, sys.executable) for side in chosen.sides.split(",")}


def keep(path: Path | None, results: dict[str, Any], order: Any) -> dict[str, Any]:
    """The results with those of other nets that the file holds; written back, in `order`."""
    if path is None:
        return results
    known = json.loads(path.read_text()) if path.exists() else {}
    merged = {**known, **results}
    merged = {name: merged[name] for name in order if name in merged}
    path.write_text(json.dumps(merged, indent=1) + "\n")
    return merged
