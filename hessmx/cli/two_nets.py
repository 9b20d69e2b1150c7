"""path, merge, importance: two nets, or two tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from hessmx import figures, files
from hessmx._mxnet import mx
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, load_net, options, write
from hessmx.progress import reporter
from hessmx.uses import ewc, merging
from hessmx.uses import paths as between
from hessmx.uses.nets import accuracy

OTHER = (
    click.option("--other-net", metavar="FILE|MODULE:FUNCTION", help="By default the graph of --net."),
    click.option("--other-params", required=True, metavar="FILE", help="Parameters of the second net."),
)


@click.command()
@options(NET, OTHER, OBJECTIVE)
@click.option("--bend", default="bezier", show_default=True, type=click.Choice(("none", *between.KINDS)),
              help="A curve with one bend, trained to be low, beside the straight line.")
@click.option("--steps", default=200, show_default=True, type=click.IntRange(1), help="To train the bend.")
@click.option("--points", default=between.POINTS, show_default=True, type=click.IntRange(3), help="On each path.")
@click.option("--test", metavar="FILE", help=".npz with x and class numbers y: the accuracy along the path.")
def path(other_net: str | None, other_params: str, bend: str, steps: int, points: int, test: str | None, out: str,
         **objective: Any) -> None:
    """Loss, slope and curvature from one trained net to another, and the barrier between them."""
    curv = curvature(**objective)
    describe(curv)
    other = load_net(other_net or objective["net"], other_params)
    metric = None if test is None else accuracy(*files.load_data(test))
    with reporter(True, "straight path") as progress:
        found = [between.straight(curv, other, points, metric, progress)]
    if bend != "none":
        with reporter(True, "training the bend") as progress:
            found.append(between.bent(curv, other, bend, steps, points=points, metric=metric, progress=progress))
    for one in found:
        click.echo(f"{one.kind:9} from loss {one.losses[0]:.4g} to {one.losses[-1]:.4g}, barrier {one.barrier:.4g} at "
                   f"t = {one.peak:.2f}, length {one.length:.4g}, curvature from {one.curvatures.min():.3g} to "
                   f"{one.curvatures.max():.3g}"
                   + ("" if metric is None else f", accuracy at least {one.metric.min():.4f}"))
        write(out, f"path-{one.kind}", one)
    write(out, "path", found[-1], figures.paths(found, metric="accuracy"))


@click.command()
@options(NET, OTHER, OBJECTIVE)
@click.option("--other-data", metavar="FILE", help=".npz that the second net was trained on; by default --data.")
@click.option("--method", default="full", show_default=True, type=click.Choice(merging.METHODS),
              help="Whole Gauss-Newton matrices, their diagonals, or the plain mean.")
@click.option("--matrix", default="ggn", show_default=True, type=click.Choice(merging.MATRICES))
@click.option("--damping", type=click.FloatRange(0), help="Pull to the plain mean, in mean diagonal entries.")
def merge(other_net: str | None, other_params: str, other_data: str | None, method: str, matrix: str,
          damping: float | None, out: str, **objective: Any) -> None:
    """One net of two, by the weight that each net's curvature gives its parameters; saved as merged.params."""
    first = curvature(**objective)
    describe(first)
    second = curvature(**{**objective, "net": other_net or objective["net"], "params": other_params,
                          "data": other_data or objective["data"]})
    with reporter(True, "merging") as progress:
        found = merging.merge([first, second], None, method, matrix, damping, progress=progress)
    click.echo("".join(f"{name:>14}" for name in ("", "net 1", "net 2", "mean", "merged")))
    for i, row in enumerate(found.losses):
        click.echo(f"{f'loss of task {i + 1}':>14}" + "".join(f"{value:14.6g}" for value in row))
    click.echo(f"{found.products} products" + ("" if found.converged else "; NOT converged: more damping, please"))
    write(out, "merge", found, figures.merged(found))
    _save(first, found.parameters, Path(out) / "merged.params")


@click.command()
@options(NET, OBJECTIVE)
@click.option("--matrix", default="ggn", show_default=True, type=click.Choice(ewc.MATRICES))
def importance(matrix: str, out: str, **objective: Any) -> None:
    """What the task needs of every parameter, for an EWC penalty in later training."""
    curv = curvature(**objective)
    describe(curv)
    found = ewc.importance(curv, matrix)
    places = np.argsort(found.importance)[::-1]
    share = np.cumsum(found.importance[places]) / found.importance.sum()
    click.echo(f"half of the importance lies in {np.searchsorted(share, 0.5) + 1:,} of {len(places):,} parameters "
               f"({found.products} gradients)")
    write(out, "importance", found, figures.importance(found))
    click.echo("train on with hessmx.uses.ewc.Penalty(net, hessmx.files.load('importance.json'), strength=...)")


def _save(curv: Any, values: np.ndarray, target: Path) -> None:
    """A parameter file of the first net's names with other values: for load_net beside the same graph."""
    arrays = {name: curv._net.array(name) for name in curv._net.all}
    for name, where in curv.param_slices.items():
        shaped = values[where].reshape(curv.param_shapes[name])
        arrays[name] = mx.nd.array(shaped, dtype=arrays[name].dtype)
    mx.nd.save(str(target), {f"arg:{name}": array for name, array in arrays.items()})
    click.echo(f"wrote {target}")
