"""Peak memory of a process that asks for gradients only, beside one with products at kept parameters.

    python scripts/bench/memory.py [--json docs/bench-memory.json] [--only dense,small] [--sides hessmx,torch]

Every number comes from a fresh process that has imported its library and holds net and data. Also for PyTorch, with
its retained graph. `growth.py` watches memory over thousands of products.
"""

from __future__ import annotations

import json
import sys

import tables
from cases import TITLES
from processes import Side, interpreters, keep, options

ASKED = {"gradient": ["gradient"], "hvp": ["hvp kept"], "both": ["gradient", "hvp kept", "ggn kept"]}


def peaks(case: str, side_name: str, python: str, threads: int) -> dict[str, dict[str, float]]:
    """MiB: the most needed beyond what the process held before, and the most it held."""
    found = {}
    for name, functions in ASKED.items():
        side = Side(side_name, python, threads)
        built = side.ask(case=case)
        answer = side.ask(peak=functions) if isinstance(built, list) else built
        side.close()
        if "error" not in answer:
            found[name] = answer
    return found


def main() -> None:
    parser = options(__doc__, TITLES)
    parser.set_defaults(sides="hessmx,torch")
    chosen = parser.parse_args()
    results = {}
    for case in chosen.only.split(","):
        sides = interpreters(chosen).items()
        results[case] = {side: peaks(case, side, python, chosen.threads) for side, python in sides}
        print(case, json.dumps(results[case]), file=sys.stderr, flush=True)
        keep(chosen.json, results, TITLES)
    print(tables.memory(results))


if __name__ == "__main__":
    main()
