"""kfac, laplace: Kronecker factors of the curvature, and a posterior made of them."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from hessmx import figures, files
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, given, notes, options, write
from hessmx.errors import InputError
from hessmx.operators.factors import MATRICES, SHARING
from hessmx.uses import laplace as library
from hessmx.uses.factored import factored
from hessmx.uses.predictions import LINKS, calibration


@click.command()
@options(NET, OBJECTIVE)
@click.option("--matrix", default="ggn", show_default=True, type=click.Choice(tuple(MATRICES)))
@click.option("--sharing", default="expand", show_default=True, type=click.Choice(SHARING),
              help="How weights used at many positions are treated.")
@click.option("--corrected", is_flag=True, help="EK-FAC: the true diagonal in the factors' eigenbasis.")
@click.option("--damping", type=click.FloatRange(0, min_open=True), help="Of the solves that are compared.")
def kfac(matrix: str, sharing: str, corrected: bool, damping: float | None, out: str, **objective: Any) -> None:
    """Kronecker factors of every layer, how near they are, and what they save in a solve."""
    curv = curvature(**objective)
    describe(curv)
    found = factored(curv, curv.kfac(matrix, sharing, corrected), matrix, **given(damping=damping))
    width = max(map(len, found.blocks))
    click.echo(f"{'block':{width}}  {'outputs':>7}  {'inputs':>6}  {'trace':>12}  top eigenvalue")
    for name, (o, i), trace, top in zip(found.blocks, found.shapes, found.traces, found.top_eigenvalues):
        click.echo(f"{name:{width}}  {o:7}  {i:6}  {trace:12.6g}  {top:14.6g}")
    click.echo(f"off by {found.error:.1%} from the matrix, by {found.diagonal_error:.1%} from its diagonal blocks; "
               f"a solve with damping {found.damping:.3g} takes {found.alone} products alone, {found.helped} with it")
    notes(found)
    write(out, "kfac", found, figures.factored(found))


@click.command()
@options(NET, OBJECTIVE)
@click.option("--structure", default="kfac", show_default=True, type=click.Choice(library.STRUCTURES))
@click.option("--prior", type=click.FloatRange(0, min_open=True), help="Prior precision; see also --fit.")
@click.option("--noise", default=1.0, show_default=True, type=click.FloatRange(0, min_open=True),
              help="Standard deviation, for a squared loss.")
@click.option("--by", type=click.Choice(("layer", "kind")), help="A prior precision for each layer or kind.")
@click.option("--fit", is_flag=True, help="Prior precision and noise that maximise the evidence.")
@click.option("--test", metavar="FILE", help=".npz with x and y to predict.")
@click.option("--link", default="probit", show_default=True, type=click.Choice(LINKS))
def laplace(structure: str, prior: float | None, noise: float, by: str | None, fit: bool, test: str | None, link: str,
            out: str, **objective: Any) -> None:
    """Gaussian posterior over the parameters: its evidence, and predictions with their uncertainty."""
    curv = curvature(**objective)
    describe(curv)
    posterior = library.laplace(curv, structure, prior, noise, by=by)
    posterior = posterior.fit() if fit else posterior
    found = posterior.evidence()
    click.echo(f"log evidence {found.value:.6g} nats, {found.effective_params:.4g} of {posterior.mean.size:,} "
               "parameters determined by the data")
    for name, value in zip(found.groups, found.prior_precisions):
        click.echo(f"prior precision of {name}: {value:.6g}")
    if posterior.noisy:
        click.echo(f"noise: {found.noise:.6g}")
    notes(found)
    write(out, "laplace", found, figures.evidence(found))
    if test is not None:
        _predict(posterior, test, link, out)


def _predict(posterior: library.Laplace, test: str, link: str, out: str) -> None:
    """Negative log-likelihood (and calibration) on data of their own, beside the net's without uncertainty."""
    x, y = files.load_data(test)
    if isinstance(y, list):
        raise InputError(f"{test} holds several labels, expected one array y")
    predicted = {name: posterior.predict(x, kind) for name, kind in (("net alone", "point"), ("posterior", link))}
    for name, made in predicted.items():
        click.echo(f"{name}: {made.nll(y):.6g} nats per sample")
    made = predicted["posterior"]
    if made.probabilities is None:
        plain = not isinstance(x, list) and np.asarray(x)[0].size == 1
        write(out, "prediction", made, figures.band(x, made, (x, y)) if plain else None)
        return
    tested = {name: calibration(each, y) for name, each in predicted.items()}
    for name, each in tested.items():
        click.echo(f"{name}: {each.accuracy:.1%} right, expected calibration error {each.ece:.4f}")
    write(out, "calibration", tested["posterior"], figures.reliability(tested))
