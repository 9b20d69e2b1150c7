"""Runs the benchmarks one after the other, and writes their tables into docs/bench.md.

    python scripts/bench/run.py                               products, memory, startup
    python scripts/bench/run.py products memory --only gru    some scripts, chosen nets
    python scripts/bench/run.py --quick                       few repetitions: whether all works, not how fast

`peers.py`, which needs more libraries, runs where it is asked for by name, on all its nets.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from page import DOCS
from page import main as write
from processes import HERE

QUICK = {
    "products": ["--rounds", "1", "--seconds", "0.01"],
    "memory": [],
    "startup": ["--repetitions", "1"],
    "peers": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scripts", nargs="*", help="products, memory, startup, peers")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", help="nets, with commas between")
    parser.add_argument("--python", action="append", default=[], metavar="SIDE=PATH", help="a side's interpreter")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    passed = ["--threads", str(chosen.threads), *(f"--python={pair}" for pair in chosen.python)]
    passed += ["--only", chosen.only] if chosen.only else []
    scripts = chosen.scripts or ["products", "memory", "startup"]
    if unknown := set(scripts) - set(QUICK):
        parser.error(f"no such script: {', '.join(sorted(unknown))}; there are {', '.join(QUICK)}")
    for name in scripts:
        target = DOCS / f"bench-{name}.json"
        command = [sys.executable, str(HERE / f"{name}.py"), "--json", str(target)]
        command += passed if name != "peers" else []
        subprocess.run(command + (QUICK[name] if chosen.quick else []), check=True)
    write()


if __name__ == "__main__":
    main()
