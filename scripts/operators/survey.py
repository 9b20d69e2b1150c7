"""Measures what MXNet does with the first and second gradient of every row of tests/cases, into survey.json.

    python scripts/operators/survey.py [--only OPERATOR ...]

Trying a double backward can kill the process, so a worker does it; it is started again when it dies, and a row on
which it died is tried once more alone: only a row that kills a fresh process is recorded as a crash.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from hessmx._mxnet import mx  # noqa: E402
from scripts.operators.registry import describe  # noqa: E402
from scripts.operators.registry import names as registry_names  # noqa: E402
from tests.cases import CASES  # noqa: E402

OUTPUT = Path(__file__).with_name("survey.json")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MXNET_SUBGRAPH_BACKEND": "NONE", "PYTHONPATH": str(ROOT)}
SECONDS = 300.0


class Worker:
    """A child process that measures rows; `ask` gives the record, or how the child ended."""

    def __init__(self, module: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"scripts.operators.{module}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
        )
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        if self.lines.get(timeout=SECONDS) is None:
            raise RuntimeError(f"the worker does not start: run python -m scripts.operators.{module} to see why")

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def ask(self, name: str) -> tuple[dict, bool]:
        """The last record the child gave, and whether it lived to the end of the row."""
        record: dict = {}
        try:
            self.process.stdin.write(name + "\n")
            self.process.stdin.flush()
            while True:
                line = self.lines.get(timeout=SECONDS)
                if line is None:
                    return record, False
                answer = json.loads(line)
                if answer.pop("done", False):
                    return record, True
                record = answer
        except (BrokenPipeError, queue.Empty):
            return record, False

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()

    def stop(self) -> str:
        """End the child; says how it ended if it was already dead."""
        try:
            ended = self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            ended = None
        self.process.kill()
        self.process.wait()
        return "still running" if ended is None else f"signal {-ended}" if ended < 0 else f"exit code {ended}"


def _missing_stage(record: dict) -> str:
    return next(stage for stage in ("forward", "first", "second", "after") if stage not in record)


def survey(names: list[str]) -> dict[str, dict]:
    """Records by row name."""
    records: dict[str, dict] = {}
    worker = Worker("worker")
    for done, name in enumerate(names):
        record, alive = worker.ask(name)
        if not alive:
            worker.stop()
            worker = Worker("worker")
            record, alive = worker.ask(name)
            if not alive:
                process = worker.stop()
                record = {**record, _missing_stage(record): "crashes", "ended": process}
                worker = Worker("worker")
            else:
                record = {**record, "after": f"row {names[done - 1]} or one before it damaged the process"}
        record.pop("name", None)
        records[name] = record
        if sys.stderr.isatty() or done % 100 == 0:
            print(f"{done + 1}/{len(names)} {name}", file=sys.stderr, flush=True)
    worker.close()
    return records


def registry() -> dict[str, dict]:
    """By canonical operator name: aliases, and whether a gradient is registered. Backward operators are left out."""
    aliases: dict[str, list[str]] = {}
    for name in registry_names():
        aliases.setdefault(describe(name)[0], []).append(name)
    worker = Worker("registry")
    found = {}
    for name in sorted(n for n in aliases if "backward" not in n):
        record, alive = worker.ask(name)
        if not alive:
            worker.stop()
            worker = Worker("registry")
        gradient = record.get("gradient", "unknown: the process dies")
        found[name] = {"aliases": sorted(set(aliases[name]) - {name}), "gradient": gradient}
    worker.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[], help="measure these operators again, keep the other records")
    only = set(parser.parse_args().only)
    chosen = [case.name for case in CASES if not only or case.op in only]
    known = json.loads(OUTPUT.read_text()) if only else {"rows": {}, "registry": registry()}
    measured = {**known["rows"], **survey(chosen)}
    rows = {case.name: measured[case.name] for case in CASES if case.name in measured}
    found = {"mxnet": mx.__version__, "registry": known["registry"], "rows": rows}
    OUTPUT.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
