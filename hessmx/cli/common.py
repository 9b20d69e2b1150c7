"""Options that commands share, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from hessmx import files
from hessmx.curvature import MODES, Curvature
from hessmx.engines import ENGINES
from hessmx.errors import FileError
from hessmx.figures import save as save_figure
from hessmx.problem import losses
from hessmx.problem.order import mapping
from hessmx.results import Result

MATRICES = ("hessian", "ggn", "residual", "fisher", "mc-fisher", "kfac", "ekfac")

NET = (
    click.option("--net", required=True, metavar="FILE|MODULE:FUNCTION",
                 help="NAME-symbol.json that export() wrote, or a function that returns a net."),
    click.option("--params", metavar="FILE", help="NAME-0000.params that export() or save_parameters() wrote."),
    click.option("--data", required=True, metavar="FILE", help=".npz with the arrays x (or x0, x1, ...) and y."),
    click.option("--out", default="hessmx-out", show_default=True, metavar="DIR", help="Folder for results."),
    click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of every random number."),
)

OBJECTIVE = (
    click.option("--loss", required=True, type=click.Choice(tuple(losses.LOSSES)), help="Loss, by name."),
    click.option("--engine", default="auto", show_default=True, type=click.Choice(("auto", *ENGINES))),
    click.option("--reduction", default="mean", show_default=True, type=click.Choice(("mean", "sum")),
                 help="Over samples."),
    click.option("--mode", default="predict", show_default=True, type=click.Choice(MODES),
                 help="Of BatchNorm and Dropout."),
    click.option("--weight-decay", type=click.FloatRange(0), help="Strength of an L2 penalty, as in gluon.Trainer."),
    click.option("--batch-size", type=click.IntRange(1), help="Samples computed at once."),
    click.option("--params-filter", metavar="REGEX", help="Only parameters whose name matches."),
)

STATE = click.option("--state", metavar="FILE", help="Snapshot file: a killed run that is started again continues.")
MATRIX = (
    click.option("--matrix", default="hessian", show_default=True, type=click.Choice(MATRICES)),
    STATE,
)


def options(*groups: tuple[Callable[..., Any], ...]) -> Callable[..., Any]:
    """A decorator that adds groups of options, in the order of the help text."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([o for group in groups for o in group]):
            function = option(function)
        return function

    return decorate


def load_net(net: str, params: str | None, x: Any = None) -> Any:
    """The net of --net and --params, tried on the shapes of x."""
    if ":" in net and not net.endswith(".json"):
        return files.make_net(net, params)
    if params is None:
        raise FileError(f"--net {net} is a graph without values: name its parameters with --params FILE")
    return files.load_net(net, params, x)


def curvature(net: str, params: str | None, data: str, loss: str, seed: int, engine: str, reduction: str, mode: str,
              weight_decay: float | None, batch_size: int | None, params_filter: str | None) -> Curvature:
    """What is asked about, from the options of NET and OBJECTIVE; which array becomes which input is said."""
    x, y = files.load_data(data)
    block = load_net(net, params, x)
    told = mapping(block, [f"x{i}" for i in range(len(x))]) if isinstance(x, list) else None
    if told:
        click.echo(f"inputs: {told}")
    return Curvature(block, losses.by_name(loss), (x, y), params_filter, reduction, weight_decay, mode, engine, seed,
                     progress=True, batch_size=batch_size)


def given(**values: Any) -> dict[str, Any]:
    """Those options that the user gave; the library's defaults hold for the others."""
    return {name: value for name, value in values.items() if value is not None}


def write(out: str | Path, name: str, result: Result, picture: Any = None) -> None:
    """NAME.json and NAME.png in the folder, and a line that says so."""
    written = [files.save(result, Path(out) / f"{name}.json")]
    if picture is not None:
        written.append(save_figure(picture, Path(out) / f"{name}.png"))
    click.echo("wrote " + " and ".join(map(str, written)))


def describe(curv: Curvature) -> None:
    """One line: of what the numbers are."""
    click.echo(f"{curv.num_params:,} parameters, {curv.num_samples:,} samples, "
               f"{curv.reduction} loss {curv.loss():.6g}, engine {curv.engine}, {curv.dtype}")


def notes(result: Any) -> None:
    for note in getattr(result, "notes", ()):
        click.echo(f"note: {note}")
