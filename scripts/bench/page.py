"""Writes the benchmarks' tables into docs/bench.md from docs/bench-*.json, as far as those are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import tables

DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCES = {
    "costs": ("products", tables.costs),
    "products": ("products", tables.products),
    "differences": ("products", tables.differences),
    "memory": ("memory", tables.memory),
    "startup": ("startup", tables.startup),
    "peers": ("peers", tables.peers),
}


def main() -> None:
    page = DOCS / "bench.md"
    text = page.read_text()
    for name, (source, make) in SOURCES.items():
        file = DOCS / f"bench-{source}.json"
        if not file.exists():
            continue
        table = make(json.loads(file.read_text()))
        mark = rf"(<!-- table: {name} -->\n).*?(<!-- end -->)"
        text, found = re.subn(mark, rf"\g<1>{table}\n\g<2>", text, flags=re.DOTALL)
        assert found == 1, f"docs/bench.md needs one place for the table {name!r}, not {found}"
    page.write_text(text)


if __name__ == "__main__":
    main()
