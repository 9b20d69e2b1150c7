"""landscape: exact loss along a line or on a plane."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from hessmx import figures
from hessmx.cli.common import NET, OBJECTIVE, STATE, curvature, describe, options, write
from hessmx.curvature import Curvature
from hessmx.progress import reporter
from hessmx.uses import landscape as library

NAMES = {
    "eigenvectors": ("the top eigenvector", "the second eigenvector"),
    "random": ("a random direction", "another random direction"),
}


@click.command()
@options(NET, OBJECTIVE, (STATE,))
@click.option("--kind", default="line", show_default=True, type=click.Choice(("line", "plane")))
@click.option("--along", default="eigenvectors", show_default=True, type=click.Choice(tuple(NAMES)),
              help="Top eigenvectors, or random directions with the net's own filter norms.")
@click.option("--radius", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="How far to go, in multiples of the directions.")
@click.option("--points", default=25, show_default=True, type=click.IntRange(2), help="Along each direction.")
def landscape(kind: str, along: str, radius: float, points: int, state: str | None, out: str,
              **objective: Any) -> None:
    """Exact loss along directions, beside its quadratic model."""
    curv = curvature(**objective)
    describe(curv)
    directions, names, grid = _directions(curv, along), NAMES[along], np.linspace(-radius, radius, points)
    found: Any
    with reporter(True, "landscape") as progress:
        if kind == "line":
            found = library.line(curv, directions[:, 0], grid, label=names[0], state=state, progress=progress)
        else:
            found = library.plane(curv, directions, grid, grid, labels=names, state=state, progress=progress)
    click.echo(f"loss {found.loss:.6g} at the trained parameters, from {np.nanmin(found.losses):.6g} to "
               f"{np.nanmax(found.losses):.6g} on the {kind}")
    write(out, f"landscape-{kind}", found, figures.line(found) if kind == "line" else figures.plane(found))


def _directions(curv: Curvature, along: str) -> np.ndarray:
    return library.random_directions(curv, 2, curv.seed) if along == "random" else curv.eigenpairs(2).vectors
