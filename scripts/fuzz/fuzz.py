"""Random nets against differences of their own values; says what is wrong, what is refused, and what was tried.

    python scripts/fuzz/fuzz.py --nets 200                        dtypes and modes mixed
    python scripts/fuzz/fuzz.py --nets 1 --seed 17 --dtype float32 --show     one net again, with its text
    python scripts/fuzz/fuzz.py --nets 1000 --onednn both --jobs 2

Nets run in child processes: one that dies is a finding like any other, and oneDNN's switch is read once per process.
Failures are shrunk and printed as code. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[0] = str(ROOT)

DTYPES = ("float32", "float64", "float16")
CHUNK = 25  # nets for one child
SECONDS = 1200  # for one chunk


def dtype_of(seed: int, asked: str) -> str:
    """Mixed: three of six in float32, two in float64, one in float16."""
    return ("float32", "float64", "float32", "float16", "float32", "float64")[seed % 6] if asked == "mixed" else asked


# -- one child


def work(seeds: range, options: argparse.Namespace) -> None:
    """One line of JSON for each net, the seed first so that a dead process names its net."""
    from scripts.fuzz.generate import generate
    from scripts.fuzz.judge import judge

    for seed in seeds:
        print(json.dumps({"seed": seed}), flush=True)
        dtype = dtype_of(seed, options.dtype)
        spec = generate(seed, None if options.mode == "mixed" else options.mode, options.size)
        if any(text in spec.text() for text in options.skip):
            continue
        report = judge(spec, dtype)
        line: dict[str, Any] = {
            "seed": seed, "dtype": dtype, "mode": spec.mode, "verdict": report.verdict, "findings": report.findings,
            "notes": report.notes, "undecided": report.undecided, "message": report.message, "kinds": spec.kinds,
            "numpy": spec.numpy, "hybrid": spec.hybrid, "engine": report.engine,
        }
        if options.show:
            line["program"] = spec.program(dtype)
        elif report.verdict == "wrong" and options.shrink:
            line["program"] = smallest(spec, dtype, report.findings[0][0]).program(dtype)
        print(json.dumps(line), flush=True)
    sys.stdout.flush()
    os._exit(0)  # MXNet reports at its end what failed on purpose while nets were grown


def smallest(spec: Any, dtype: str, finding: str) -> Any:
    """The smallest net in which something is off in the same way: raised, or a number."""
    from scripts.fuzz.judge import judge
    from scripts.fuzz.shrink import shrink

    def fails(smaller: Any) -> bool:
        report = judge(smaller, dtype)
        return any(what.startswith("raised") == finding.startswith("raised") for what, _ in report.findings)

    return shrink(spec, fails)


# -- all of them


def run(seeds: range, onednn: bool, options: argparse.Namespace, tell: Callable[[dict[str, Any], bool], None]) -> None:
    """Each result is told as it comes; what is left of a chunk is run again after a death."""
    environment = {**os.environ, "MXNET_MKLDNN_ENABLED": "1" if onednn else "0", "PYTHONPATH": str(ROOT)}
    environment.setdefault("OMP_NUM_THREADS", "1")
    while len(seeds):
        command = [sys.executable, __file__, "--worker", str(seeds.start), str(seeds.stop), "--dtype", options.dtype]
        command += ["--mode", options.mode, "--size", str(options.size)]
        command += [f"--skip={text}" for text in options.skip]
        command += ["--show"] * options.show + ["--no-shrink"] * (not options.shrink)
        last = seeds.start
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, env=environment, **pipes) as child:
            watchdog = threading.Timer(SECONDS, child.kill)
            watchdog.start()
            assert child.stdout is not None
            for text in child.stdout:
                line = json.loads(text) if text.startswith("{") else {}
                last = line.get("seed", last)
                if "verdict" in line:
                    tell(line, onednn)
            watchdog.cancel()
        if child.returncode == 0:
            return
        dead = {"seed": last, "dtype": dtype_of(last, options.dtype), "mode": options.mode, "kinds": [], "notes": []}
        dead["message"] = f"exit code {child.returncode}"
        tell({**dead, "verdict": "wrong", "findings": [["the process died", None]], "engine": ""}, onednn)
        seeds = range(last + 1, seeds.stop)


def main() -> int:
    options = _options()
    if options.worker:
        work(range(*options.worker), options)
    stop = options.seed + options.nets
    chunks = [range(start, min(start + CHUNK, stop)) for start in range(options.seed, stop, CHUNK)]
    switches = {"on": [True], "off": [False], "both": [True, False]}[options.onednn]
    totals = Totals()
    with ThreadPoolExecutor(options.jobs) as pool:
        tasks = [pool.submit(run, chunk, on, options, totals.add) for on in switches for chunk in chunks]
        for task in tasks:
            task.result()
    return totals.show()


class Totals:
    """Counts, printed as they come and at the end."""

    def __init__(self) -> None:
        self.verdicts: Counter[tuple] = Counter()
        self.kinds: Counter[str] = Counter()
        self.messages: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()

    def add(self, line: dict[str, Any], onednn: bool) -> None:
        self.verdicts[line["dtype"], line["mode"], "on" if onednn else "off", line["verdict"]] += 1
        self.kinds.update(set(line["kinds"]))
        self.notes.update(line["notes"])
        if line["verdict"] == "refused":
            self.messages[_without_numbers(line["message"])] += 1
        if line["engine"] not in ("", "reverse-over-forward"):
            self.notes[f"engine {line['engine']}"] += 1
        if line["verdict"] == "wrong":
            what = ", ".join(what if error is None else f"{what} {error:.1e}" for what, error in line["findings"])
            place = f"seed {line['seed']} {line['dtype']} {line['mode']} oneDNN {'on' if onednn else 'off'}"
            print(f"{place}: WRONG {what}")
            print(f"  {line['message']}" if line["message"] else "", end="\n" if line["message"] else "")
        if line.get("program"):
            print(line["program"].partition("class Net")[1] + line["program"].partition("class Net")[2])
        sys.stdout.flush()

    def show(self) -> int:
        print(f"{'dtype':8s} {'mode':8s} {'oneDNN':6s} {'right':>6s} {'wrong':>6s} {'refused':>8s} {'undecided':>10s}")
        for place in sorted({key[:3] for key in self.verdicts}):
            counts = [self.verdicts[(*place, verdict)] for verdict in ("right", "wrong", "refused", "undecided")]
            print("{:8s} {:8s} {:6s} {:6d} {:6d} {:8d} {:10d}".format(*place, *counts))
        print("nets with: " + ", ".join(f"{kind} {count}" for kind, count in sorted(self.kinds.items())))
        for title, counts in (("notes", self.notes), ("refused", self.messages)):
            for text, count in counts.most_common():
                print(f"{title}: {count} x {text}")
        wrong = sum(count for key, count in self.verdicts.items() if key[3] == "wrong")
        print(f"{sum(self.verdicts.values())} nets, {wrong} wrong")
        return int(wrong > 0)


def _without_numbers(message: str) -> str:
    return "".join("#" if c.isdigit() else c for c in message)[:160]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--nets", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="of the first net; the others follow")
    parser.add_argument("--dtype", choices=(*DTYPES, "mixed"), default="mixed")
    parser.add_argument("--mode", choices=("predict", "train", "mixed"), default="mixed")
    parser.add_argument("--size", type=int, default=8, help="steps that a net grows by at the most; some then fan out")
    parser.add_argument("--onednn", choices=("on", "off", "both"), default="on")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--skip", action="append", default=[], help="leave out nets with this text (known faults)")
    parser.add_argument("--show", action="store_true", help="print the text of every net")
    parser.add_argument("--no-shrink", dest="shrink", action="store_false")
    parser.add_argument("--worker", nargs=2, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
