"""stability, history: curvature as an optimiser sees it, now and over a run."""

from __future__ import annotations

from typing import Any

import click

from hessmx import figures
from hessmx._mxnet import mx
from hessmx.cli.common import NET, OBJECTIVE, curvature, describe, notes, options, write
from hessmx.errors import FileError
from hessmx.uses.history import load_history


@click.command()
@options(NET, OBJECTIVE)
@click.option("--states", metavar="FILE", help="What Trainer.save_states() wrote: a pickle, so only one of your own.")
@click.option("--optimizer", help="Instead of --states, one without any: sgd or nag.")
@click.option("--learning-rate", type=click.FloatRange(0), help="Instead of the rate in --states.")
@click.option("--momentum", type=click.FloatRange(0, 1), help="With --optimizer.")
@click.option("--matrix", default="hessian", show_default=True, type=click.Choice(("hessian", "ggn")))
def stability(states: str | None, optimizer: str | None, learning_rate: float | None, momentum: float | None,
              out: str, matrix: str, **objective: Any) -> None:
    """Sharpness as the Trainer's optimiser sees it, its threshold, and the learning rate that would be stable."""
    if (states is None) == (optimizer is None):
        raise click.UsageError("say what it is trained with: --states FILE, or --optimizer sgd --learning-rate RATE")
    curv = curvature(**objective)
    describe(curv)
    found: Any = curv.sharpness(matrix, trainer=_trainer(curv, states, optimizer, learning_rate, momentum))
    click.echo(f"{found.optimizer}, learning rate {found.learning_rate:.6g}: sharpness {found.top_eigenvalue:.6g} ± "
               f"{found.residual:.1e}, threshold {found.threshold:.6g}")
    side = "above: steps overshoot along the top eigenvector" if found.ratio > 1 else "below it"
    click.echo(f"{found.ratio:.3f} of the threshold, {side}; stable up to learning rate "
               f"{found.stable_learning_rate:.6g}")
    notes(found)
    write(out, "stability", found)


def _trainer(curv: Any, states: str | None, optimizer: str | None, rate: float | None, momentum: float | None) -> Any:
    settings = {} if momentum is None else {"momentum": momentum}
    try:
        trainer = mx.gluon.Trainer(curv._net.block.collect_params(), optimizer or "sgd", settings)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"--optimizer {optimizer}: {' '.join(str(error).split())}") from error
    if states is not None:
        try:
            trainer.load_states(states)
        except Exception as error:  # whatever a pickle can raise
            raise FileError(f"{states} is not what Trainer.save_states() wrote: {type(error).__name__}") from error
        _check_shapes(trainer, states)
    if rate is not None:
        trainer.optimizer.lr_scheduler = None
        trainer.set_learning_rate(rate)
    return trainer


def _check_shapes(trainer: Any, states: str) -> None:
    """States are numbered, by the names of the parameters in order: those of another net may fit by number only."""
    for place, parameter in enumerate(trainer._params):
        state = trainer._updaters[0].states.get(place)
        for array in state if isinstance(state, tuple) else (state,):
            if array is not None and tuple(array.shape) != tuple(parameter.shape):
                raise FileError(f"{states} does not fit the net: state {place} has shape {tuple(array.shape)}, "
                                f"{parameter.name} has {tuple(parameter.shape)}")


@click.command()
@click.argument("file")
@click.option("--out", default="hessmx-out", show_default=True, metavar="DIR", help="Folder for results.")
def history(file: str, out: str) -> None:
    """Figures of a training run, finished or not, from the file that FollowCurvature writes."""
    found = load_history(file)
    if not len(found.when):
        raise FileError(f"{file} holds no answers yet")
    last = ", ".join(f"{name} {value:.6g}" for name, value in zip(found.names, found.values[:, -1]))
    click.echo(f"{len(found.when)} rows, last at {found.unit} {found.when[-1]}: {last}")
    write(out, "history", found, figures.history(found))
    if "sharpness" in found.names:
        write(out, "history-stability", found, figures.stability(found))
    if any(name.startswith("eigenvalue ") for name in found.names):
        write(out, "history-eigenvalues", found, figures.ridge(found))
