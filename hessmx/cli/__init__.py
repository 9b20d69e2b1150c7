"""The `hessmx` command. It reads options, calls the library, writes JSON and PNG files, and prints a summary.

Exit codes: 0; 1 if `check` finds that numbers cannot be trusted; 2 for bad input, with one line on stderr.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import click

from hessmx._command import usual_interrupts
from hessmx.cli.compress import prune, quantise
from hessmx.cli.curvature import eigen, layers, spectrum, trace
from hessmx.cli.demo import demo
from hessmx.cli.influence import influence
from hessmx.cli.inputs import inputs
from hessmx.cli.landscape import landscape
from hessmx.cli.noise import noise, samples
from hessmx.cli.posterior import kfac, laplace
from hessmx.cli.training import history, stability
from hessmx.cli.trust import check, ops
from hessmx.cli.two_nets import importance, merge, path
from hessmx.errors import HessmxError, HessmxWarning


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="hessmx")
def hessmx() -> None:
    """Curvature of the loss of a trained MXNet Gluon net: numbers with error bars, and figures."""


COMMANDS = (
    eigen, trace, spectrum, layers, landscape, inputs, influence, samples, noise,
    stability, history, quantise, prune, kfac, laplace, path, merge, importance, check, ops, demo,
)
for command in COMMANDS:
    hessmx.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    usual_interrupts()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", HessmxWarning)
        warnings.showwarning = _show_warning
        try:
            return int(hessmx.main(arguments, prog_name="hessmx", standalone_mode=False) or 0)
        except click.ClickException as error:
            return _refuse(error.format_message(), 2)
        except HessmxError as error:
            return _refuse(str(error), 2)
        except (click.Abort, KeyboardInterrupt):
            return _refuse("interrupted", 130)
        except MemoryError:
            return _refuse("not enough memory; use a smaller --batch-size", 2)


def _refuse(text: str, code: int) -> int:
    click.echo(f"hessmx: {' '.join(text.split())}", err=True)
    return code


def _show_warning(message: Any, *rest: Any, **options: Any) -> None:
    click.echo(f"hessmx: note: {' '.join(str(message).split())}", err=True)
