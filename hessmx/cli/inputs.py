"""inputs: what the net's output does when its input changes."""

from __future__ import annotations

import click
import numpy as np

from hessmx import figures, files
from hessmx import inputs as library
from hessmx.cli.common import NET, load_net, options, write
from hessmx.errors import DataError
from hessmx.results import InputGradients, Provenance


@click.command()
@options(NET)
@click.option("--output", type=click.IntRange(0), help="Number of the output; not needed if there is one output.")
@click.option("--samples", default=6, show_default=True, type=click.IntRange(1), help="The first so many samples.")
def inputs(net: str, params: str | None, data: str, out: str, seed: int, output: int | None, samples: int) -> None:
    """Gradient of an output with respect to each sample's input."""
    x, _ = files.load_data(data, labels=False)
    if isinstance(x, list):
        raise DataError(f"{data} holds {len(x)} inputs; this command differentiates by one array x")
    x = np.asarray(x[:samples])
    gradients = library.gradient(load_net(net, params, x), x, output)
    sizes = np.linalg.norm(gradients.reshape(len(gradients), -1), axis=1)
    click.echo("sample  length of the gradient")
    for i, size in enumerate(sizes):
        click.echo(f"{i:6}  {size:.6g}")
    name = "the output" if output is None else f"output {output}"
    where = Provenance(matrix="input gradient", dtype=str(gradients.dtype), seed=seed, num_samples=len(x))
    found = InputGradients(x, gradients, name, where)
    write(out, "inputs", found, figures.input_gradients(found))
