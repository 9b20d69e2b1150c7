"""samples, noise: gradients of single samples, and what their noise makes of batches."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from hessmx import figures
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, notes, options, write
from hessmx.uses import noise as library

SIZES = 2 ** np.arange(0, 13, 2)


@click.command()
@options(NET, OBJECTIVE)
@click.option("--norms", default="loop", show_default=True, type=click.Choice(("loop", "probes")),
              help="A gradient for every sample, or random probes for all at once.")
@click.option("--probes", default=64, show_default=True, type=click.IntRange(1), help="Random probes.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(1), help="Samples to show.")
def samples(norms: str, probes: int, top: int, out: str, **objective: Any) -> None:
    """Loss, length of the gradient and its cosine with the mean gradient, of every sample."""
    curv = curvature(**objective)
    describe(curv)
    found = library.sample_gradients(curv, norms=norms, probes=probes)
    click.echo(f"length of the mean gradient {found.mean_norm:.6g}; the longest gradients of single samples:")
    click.echo(f"{'sample':>8}  {'length':>10}  {'95 % interval':>23}  {'cosine':>7}  {'loss':>10}")
    for i in np.argsort(-found.norms)[:top]:
        click.echo(f"{i:8}  {found.norms[i]:10.4g}  {found.low[i]:10.4g} to {found.high[i]:10.4g}  "
                   f"{found.mean_cosines[i]:7.3f}  {found.losses[i]:10.4g}")
    write(out, "samples", found, figures.sample_gradients(found))


@click.command()
@options(NET, OBJECTIVE)
@click.option("--probes", default=64, show_default=True, type=click.IntRange(2), help="Random probes.")
@click.option("--exact", is_flag=True, help="A loop over the samples instead: a product for each.")
@click.option("--subset", is_flag=True, help="The data are a random part of what is trained on.")
def noise(probes: int, exact: bool, subset: bool, out: str, **objective: Any) -> None:
    """Gradient noise: critical batch size, and the best rate of plain SGD for batches of several sizes."""
    curv = curvature(**objective)
    describe(curv)
    found = library.gradient_noise(curv, probes=probes, exact=exact, subset=subset)
    for name, estimate in (("critical batch size tr(HS) / g'Hg", found.critical),
                           ("simple noise scale tr(S) / |g|^2", found.simple)):
        low, high = estimate.interval()
        click.echo(f"{name}: {estimate.value:.5g} ± {estimate.stderr:.2g} (95 % interval {low:.5g} to {high:.5g})")
    if np.isfinite(found.critical.value):
        click.echo(f"{'batch':>8}  {'best rate':>10}  {'fall of the loss':>16}  share of the whole gradient's")
        for size in SIZES:
            click.echo(f"{size:8}  {found.best_rate(size):10.4g}  {found.gain(size):16.4g}  "
                       f"{1 / (1 + found.critical.value / size):5.1%}")
    notes(found)
    write(out, "noise", found, figures.noise(found))
