"""A bar on a terminal, nothing in a pipe."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Callable, Iterator

from tqdm import tqdm

Report = Callable[..., None]


@contextmanager
def reporter(enabled: bool, title: str) -> Iterator[Report | None]:
    """Yields report(done, total, message) that moves a bar of products, or None where none is wanted."""
    if not enabled:
        yield None
        return
    with tqdm(desc=title, unit="product", disable=None, leave=False) as bar:

        def report(done: int, total: int | None, message: str) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if message:
                bar.set_postfix_str(message)

        yield report
