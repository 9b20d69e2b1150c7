"""quantise, prune: what compression will cost, layer by layer."""

from __future__ import annotations

from typing import Any

import click
import numpy as np

from hessmx import figures, files
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, options, write
from hessmx.progress import reporter
from hessmx.uses import int8 as int8_nets
from hessmx.uses import pruning, quantisation
from hessmx.uses.nets import Metric, accuracy

TEST = click.option("--test", metavar="FILE", help=".npz with x and class numbers y: the accuracy on it is told, too.")


class Numbers(click.ParamType):
    """A list of numbers, written 2,3,4."""

    name = "numbers"

    def __init__(self, kind: type):
        self.kind = kind

    def convert(self, value: Any, parameter: Any, context: Any) -> Any:
        try:
            return value if isinstance(value, tuple) else tuple(self.kind(text) for text in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as 2,3,4", parameter, context)


@click.command()
@options(NET, OBJECTIVE)
@click.option("--bits", default="2,3,4,6,8", show_default=True, type=Numbers(int), help="Widths to try.")
@click.option("--mean-bits", type=click.FloatRange(2), help="Size budget: the best bits for it, per entry on average.")
@click.option("--per", default="tensor", show_default=True, type=click.Choice(("tensor", "channel")),
              help="One scale for a weight, or for each of its rows.")
@click.option("--int8", is_flag=True, help="Run MXNet's own int8 (oneDNN), all weights but those of --keep.")
@click.option("--keep", default="", metavar="NAME,NAME", help="Weights that stay in float32 with --int8.")
@options((TEST,))
def quantise(bits: tuple[int, ...], mean_bits: float | None, per: str, int8: bool, keep: str, test: str | None,
             out: str, **objective: Any) -> None:
    """What rounding each weight will cost, and the best bits for a size."""
    curv = curvature(**objective)
    describe(curv)
    with reporter(True, "roundings") as progress:
        found = quantisation.costs(curv, bits, per, progress=progress)
    width = max(map(len, found.weights))
    click.echo(f"{'rise of the loss: predicted (measured)':{width}}" + "".join(f"{b:>14} bits" for b in found.bits))
    for name, guesses, truths in zip(found.weights, found.predicted, found.measured):
        click.echo(f"{name:{width}}" + "".join(f"  {a:8.1e} ({b:7.0e})" for a, b in zip(guesses, truths)))
    click.echo(f"rank correlation with what was measured: {found.rank_correlation():.3f}, HAWQ-V2's trace rule "
               f"{found.rank_correlation('trace_rule'):.3f} ({found.products} products)")
    plan = None
    if mean_bits is not None:
        plan = quantisation.measure_plan(curv, quantisation.choose_bits(found, mean_bits), per)
        click.echo(f"best at {mean_bits:g} bits: " + ", ".join(f"{n} {b}" for n, b in zip(plan.weights, plan.bits)))
        click.echo(f"rise of the loss: predicted {plan.joint:.3g}, measured {plan.measured:.3g}")
        write(out, "quantise-plan", plan)
    write(out, "quantise", found, figures.bit_costs(found, plan))
    if int8:
        _, run = int8_nets.quantise(curv, tuple(filter(None, keep.split(","))), per, metric=_metric(test))
        click.echo(f"MXNet's int8: loss {run.loss:.6g} -> {run.loss + run.rise:.6g} (by the weights "
                   f"{run.weights_only:.2g}), {1e3 * run.seconds:.3g} -> {1e3 * run.int8_seconds:.3g} ms"
                   + ("" if np.isnan(run.metric) else f", accuracy {run.metric:.4f} -> {run.int8_metric:.4f}"))
        click.echo(f"exclude_layers={list(run.exclude)!r}")
        write(out, "quantise-int8", run)


@click.command()
@options(NET, OBJECTIVE)
@click.option("--groups", default="weights", show_default=True, type=click.Choice(("weights", "unit")),
              help="Remove single weights, or whole units and filters.")
@click.option("--method", "methods", multiple=True, type=click.Choice(pruning.METHODS),
              help="May be given several times; by default magnitude and obd, with units exact and greedy, too.")
@click.option("--sparsities", default="0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9", show_default=True, type=Numbers(float))
@options((TEST,))
def prune(groups: str, methods: tuple[str, ...], sparsities: tuple[float, ...], test: str | None, out: str,
          **objective: Any) -> None:
    """Loss against sparsity, predicted and measured, without training on."""
    curv = curvature(**objective)
    describe(curv)
    chosen = None if groups == "weights" else groups
    curves = []
    for method in methods or (pruning.METHODS[:2] if chosen is None else pruning.METHODS):
        with reporter(True, f"saliencies, {method}") as progress:
            found = pruning.saliencies(curv, method, chosen, progress=progress)
        curves.append(pruning.curve(curv, found, sparsities, _metric(test)))
        write(out, f"prune-{method}", curves[-1])
    click.echo("rise of the loss: predicted (measured)" + ("" if test is None else ", accuracy"))
    click.echo("removed " + "".join(f"{curve.method:>26}" for curve in curves))
    for i, share in enumerate(curves[0].sparsities):
        click.echo(f"{share:7.1%} " + "".join(f"{_cell(curve, i):>26}" for curve in curves))
    write(out, "prune", curves[-1], figures.pruning(curves, metric="accuracy"))


def _cell(curve: pruning.PruningCurve, i: int) -> str:
    text = f"{curve.joint[i]:.1e} ({curve.measured[i]:.1e})"
    return text if np.isnan(curve.metric[i]) else f"{text} {curve.metric[i]:.3f}"


def _metric(test: str | None) -> Metric | None:
    return None if test is None else accuracy(*files.load_data(test))
