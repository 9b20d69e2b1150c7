"""landscape: exact loss along a line or on a plane."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from hessmx import figures
from hessmx.cli.common import NET, OBJECTIVE, STATE, curvature, describe, load_net, options, write
from hessmx.curvature import Curvature
from hessmx.errors import InputError
from hessmx.progress import reporter
from hessmx.uses import landscape as library
from hessmx.uses.directions import SCALES
from hessmx.uses.nets import vector_of

NAMES = {
    "eigenvectors": ("the top eigenvector", "the second eigenvector"),
    "random": ("a random direction", "another random direction"),
    "gradient": ("the gradient", "the top eigenvector"),
    "net": ("the way to the other net", "a random direction"),
    "trajectory": ("the training's first direction", "its second direction"),
}


@click.command()
@options(NET, OBJECTIVE, (STATE,))
@click.option("--kind", default="line", show_default=True, type=click.Choice(("line", "plane", "surface")))
@click.option("--along", default="eigenvectors", show_default=True, type=click.Choice(tuple(NAMES)),
              help="Top eigenvectors; random directions; the gradient and the top eigenvector; the way to another net.")
@click.option("--other-params", metavar="FILE", help="Parameters of the other net, for --along net.")
@click.option("--snapshot", "snapshots", multiple=True, metavar="FILE",
              help="Parameters met in training, in order, for --along trajectory; three or more.")
@click.option("--normalise", default="filter", show_default=True, type=click.Choice(SCALES),
              help="Lengths of random directions: of the net's own filters, its layers, or none.")
@click.option("--radius", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="How far to go, in multiples of the directions.")
@click.option("--points", default=25, show_default=True, type=click.IntRange(2), help="Along each direction.")
@click.option("--derivatives", is_flag=True, help="Exact slope and curvature at every point of a line.")
def landscape(kind: str, along: str, other_params: str | None, snapshots: tuple[str, ...], normalise: str,
              radius: float, points: int, derivatives: bool, state: str | None, out: str, **objective: Any) -> None:
    """Exact loss along directions, beside its quadratic model."""
    curv = curvature(**objective)
    describe(curv)
    moved = _trajectory(curv, objective["net"], snapshots) if along == "trajectory" else None
    other = _other(curv, objective["net"], other_params) if along == "net" else None
    directions, names = _directions(curv, along, normalise, other, moved), NAMES[along]
    grid = np.linspace(-radius, radius, points)
    found: Any
    with reporter(True, "landscape") as progress:
        if kind == "line":
            found = library.line(curv, directions[:, 0], grid, label=names[0], derivatives=derivatives, state=state,
                                 progress=progress)
        else:
            found = library.plane(curv, directions, grid, grid, labels=names, trajectory=moved, state=state,
                                  progress=progress)
    click.echo(f"loss {found.loss:.6g} at the trained parameters, from {np.nanmin(found.losses):.6g} to "
               f"{np.nanmax(found.losses):.6g} on the {kind}")
    draw: Any = {"line": figures.line, "plane": figures.plane, "surface": figures.surface}[kind]
    write(out, f"landscape-{kind}", found, draw(found))


def _directions(curv: Curvature, along: str, normalise: str, other: Any, moved: Any) -> np.ndarray:
    """(P, 2); what has no second direction of its own gets the one that NAMES tells."""
    if along == "trajectory":
        return np.asarray(moved.directions)
    if along == "eigenvectors":
        return curv.eigenpairs(2).vectors
    if along == "gradient":
        g = np.asarray(curv.gradient(), float)
        return np.stack([g / (np.linalg.norm(g) or 1.0), curv.eigenpairs(1).vectors[:, 0]], axis=1)
    drawn = library.random_directions(curv, 2, curv.seed, normalise=normalise)
    return drawn if along == "random" else np.stack([library.towards(curv, other), drawn[:, 0]], axis=1)


def _other(curv: Curvature, net: str, params: str | None) -> np.ndarray:
    if params is None:
        raise InputError("--along net needs the parameters of the other net: give --other-params FILE")
    return vector_of(curv, load_net(net, params))


def _trajectory(curv: Curvature, net: str, snapshots: tuple[str, ...]) -> Any:
    if len(snapshots) < 3:
        raise InputError(f"--along trajectory needs --snapshot FILE three times or more, not {len(snapshots)}")
    return library.trajectory([vector_of(curv, load_net(net, file)) for file in snapshots], curv.parameters())
