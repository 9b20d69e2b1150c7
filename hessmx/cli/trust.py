"""check, ops: may the numbers be believed, and what is this net made of."""

from __future__ import annotations

from typing import Any

import click

from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, options, write
from hessmx.trust.check import check as check_curvature
from hessmx.trust.coverage import operators


@click.command()
@options(NET, OBJECTIVE)
@click.option("--vectors", default=2, show_default=True, type=click.IntRange(2), help="Random directions to try.")
@click.option("--locate", is_flag=True, help="Check every operator alone, and name the first one that is off.")
def check(vectors: int, locate: bool, out: str, **objective: Any) -> int:
    """Compare with losses and gradients of the net as it runs; says in one line whether to trust the numbers."""
    curv = curvature(**objective)
    found = check_curvature(curv, vectors, curv.seed, locate)
    click.echo(found.verdict)
    if found.located is not None:
        click.echo(found.located.verdict)
    write(out, "check", found)
    return 0 if found.trusted else 1


@click.command()
@options(NET, OBJECTIVE)
def ops(out: str, **objective: Any) -> None:
    """Operators of the net and the loss, and how each is differentiated."""
    curv = curvature(**objective)
    describe(curv)
    found = operators(curv)
    width = max(len(row.op) for row in found.rows)
    for row in found.rows:
        click.echo(f"{row.where:4}  {row.op:{width}}  {row.nodes:5} x  {row.rule}")
    click.echo(found.verdict)
    write(out, "ops", found)
