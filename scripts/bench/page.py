"""Writes the benchmarks' tables into docs/bench.md from docs/bench.json and docs/bench-peers.json.

    python scripts/bench/products.py --json docs/bench.json
    python scripts/bench/peers.py --json docs/bench-peers.json
    python scripts/bench/page.py
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
sys.path.insert(0, str(HERE))
import tables  # noqa: E402


def main() -> None:
    page = DOCS / "bench.md"
    text = page.read_text()
    for name, file, make in (("products", "bench.json", tables.products), ("peers", "bench-peers.json", tables.peers)):
        table = make(json.loads((DOCS / file).read_text()))
        text = re.sub(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
    page.write_text(text)


if __name__ == "__main__":
    main()
