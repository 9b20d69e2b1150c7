"""eigen, trace, spectrum, layers: questions to one curvature matrix."""

from __future__ import annotations

from typing import Any

import click

from hessmx import figures
from hessmx.cli.common import MATRIX, NET, OBJECTIVE, curvature, describe, given, notes, options, write
from hessmx.results import between


@click.command()
@options(NET, OBJECTIVE, MATRIX)
@click.option("-k", "count", default=5, show_default=True, type=click.IntRange(1), help="Number of eigenvalues.")
@click.option("--which", default="LA", show_default=True, type=click.Choice(("LA", "SA", "LM", "BE")),
              help="Largest, smallest, largest in magnitude, both ends.")
@click.option("--method", default="lanczos", show_default=True, type=click.Choice(("lanczos", "eigsh", "power")))
def eigen(count: int, which: str, method: str, out: str, matrix: str, state: str | None, **objective: Any) -> None:
    """Extreme eigenvalues and eigenvectors, with true residuals."""
    curv = curvature(**objective)
    describe(curv)
    pairs = curv.eigenpairs(count, which, method, matrix, **given(state=state))
    click.echo(f"{'eigenvalue':>14}  {'residual':>9}")
    for value, residual, converged in zip(pairs.values, pairs.residuals, pairs.converged):
        click.echo(f"{value:14.7g}  {residual:9.1e}" + ("" if converged else "  not converged"))
    notes(pairs)
    write(out, "eigen", pairs, figures.eigenvalues(pairs))


@click.command()
@options(NET, OBJECTIVE, MATRIX)
@click.option("--method", default="auto", show_default=True,
              type=click.Choice(("auto", "hutch++", "xnystrace", "xtrace", "hutchinson")))
@click.option("--budget", type=click.IntRange(1), help="Matrix-vector products to spend.")
@click.option("--rtol", type=click.FloatRange(0, min_open=True), help="Stop at this relative error.")
def trace(method: str, budget: int | None, rtol: float | None, out: str, matrix: str, state: str | None,
          **objective: Any) -> None:
    """Trace with its standard error."""
    curv = curvature(**objective)
    describe(curv)
    estimate = curv.trace(method, matrix, **given(budget=budget, rtol=rtol, state=state))
    low, high = estimate.interval()
    click.echo(f"trace {estimate.value:.6g} ± {estimate.stderr:.2g} (95 % interval {low:.6g} to {high:.6g}, "
               f"{estimate.products} products)")
    notes(estimate)
    write(out, "trace", estimate, figures.estimate(estimate))


@click.command()
@options(NET, OBJECTIVE, MATRIX)
@click.option("--probes", default=10, show_default=True, type=click.IntRange(1), help="Random starting vectors.")
@click.option("--steps", default=64, show_default=True, type=click.IntRange(1), help="Lanczos steps for each.")
def spectrum(probes: int, steps: int, out: str, matrix: str, state: str | None, **objective: Any) -> None:
    """Density of all eigenvalues."""
    curv = curvature(**objective)
    describe(curv)
    found = curv.spectrum(matrix, probes=probes, steps=steps, **given(state=state))
    low, high = found.range
    shares = ", ".join(f"{side} {between(share)}" for side, share in found.shares().items())
    click.echo(f"from {low:.6g} to {high:.6g}; shares at 95 %: {shares} ({found.products} products)")
    notes(found)
    write(out, "spectrum", found, figures.spectrum(found))


@click.command()
@options(NET, OBJECTIVE)
@click.option("--matrix", default="hessian", show_default=True, type=click.Choice(("hessian", "ggn", "fisher")))
def layers(out: str, matrix: str, **objective: Any) -> None:
    """Top eigenvalue, trace and share of every layer."""
    curv = curvature(**objective)
    describe(curv)
    found = curv.layers(matrix=matrix)
    width = max(len(row.name) for row in found.rows)
    click.echo(f"{'layer':{width}}  {'parameters':>10}  {'top eigenvalue':>14}  {'trace':>12}  {'± stderr':>9}  share")
    for row in found.rows:
        click.echo(f"{row.name:{width}}  {row.num_params:10,}  {row.top_eigenvalue:14.6g}  {row.trace:12.6g}  "
                   f"{row.trace_stderr:9.2g}  {row.share:5.1%}")
    write(out, "layers", found, figures.layers(found))
