"""influence: which training samples made the net what it is."""

from __future__ import annotations

from typing import Any

import click

from hessmx import figures, files
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, given, notes, options, write
from hessmx.uses import influence as library


@click.command()
@options(NET, OBJECTIVE)
@click.option("--test", metavar="FILE", help=".npz like --data: influence on the loss of these samples. Without it: on "
              "each training sample's own loss.")
@click.option("--matrix", default="ggn", show_default=True, type=click.Choice(library.MATRICES))
@click.option("--damping", type=click.FloatRange(0), help="Added to the matrix. By default 0 under a weight decay on "
              "all parameters, else a tenth of the mean eigenvalue.")
@click.option("--rtol", type=click.FloatRange(0, min_open=True), help="Of the solves.")
@click.option("--probes", default=64, show_default=True, type=click.IntRange(1), help="Without --test: random probes.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Samples to show at each end.")
def influence(test: str | None, matrix: str, damping: float | None, rtol: float | None, probes: int, top: int, out: str,
              **objective: Any) -> None:
    """Influence of every training sample on test samples, or on itself."""
    curv = curvature(**objective)
    describe(curv)
    if test is None:
        own = library.self_influence(curv, probes=probes, matrix=matrix, **given(damping=damping, rtol=rtol))
        click.echo(f"{'sample':>8}  {'rise of its loss without it':>27}  {'± stderr':>9}  {'loss':>10}")
        for i in own.order()[:top]:
            click.echo(f"{i:8}  {own.values[i]:27.6g}  {own.stderr[i]:9.2g}  {own.losses[i]:10.4g}")
        notes(own)
        return write(out, "self-influence", own, figures.self_influence(own))
    found = library.influence(curv, files.load_data(test), matrix=matrix, **given(damping=damping, rtol=rtol))
    click.echo(f"test loss {found.values[0]:.6g}; what it would change by without a training sample "
               f"({found.products} products):")
    click.echo(f"{'sample':>8}  {'change':>11}  {'loss':>10}")
    for title, chosen in (("helped", found.helpful(top)), ("did harm", found.harmful(top))):
        click.echo(title)
        for i in chosen:
            click.echo(f"{i:8}  {found.scores[i, 0]:11.4g}  {found.losses[i]:10.4g}")
    notes(found)
    write(out, "influence", found, figures.influence(found))
