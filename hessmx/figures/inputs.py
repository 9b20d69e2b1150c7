"""What an output's derivative says about each input."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hessmx.errors import InputError
from hessmx.figures.canvas import POSITIVE, axes_on, new_figure, titled
from hessmx.results import InputGradients


def saliency(inputs: np.ndarray, gradients: np.ndarray, titles: Sequence[str] | None = None, columns: int = 6,
             output: str = "output") -> list[Axes]:
    """Pairs of pictures (N, height, width): the input above, the gradient of an output below on one common scale."""
    x, g = np.asarray(inputs, float), np.asarray(gradients, float)
    if x.ndim != 3 or x.shape != g.shape:
        raise InputError(f"inputs and gradients must both have shape (N, height, width), not {x.shape} and {g.shape}")
    count = min(len(x), columns)
    figure = new_figure(1.5 * count + 1.4, 3.7)
    axes = figure.subplots(2, count, squeeze=False)
    size = float(np.abs(g[:count]).max()) or 1.0
    for i in range(count):
        axes[0, i].imshow(x[i], cmap="gray_r", interpolation="nearest")
        drawn: Any = axes[1, i].imshow(g[i], cmap="RdBu_r", vmin=-size, vmax=size, interpolation="nearest")
        axes[0, i].set_title(titles[i] if titles else f"sample {i}", fontsize="small")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("input", fontsize="small")
    axes[1, 0].set_ylabel("gradient", fontsize="small")
    bar = figure.colorbar(drawn, ax=list(axes[1]), label="per unit of a pixel", shrink=0.95)
    bar.ax.tick_params(labelsize="x-small")
    figure.suptitle(f"Which pixels raise {output} (red) and which lower it (blue)", fontsize="medium")
    return list(axes.flat)


def input_gradients(result: InputGradients) -> list[Axes]:
    """Pictures where an input is an image (or a flat square one), bars of every input's mean size otherwise."""
    x, g = (_images(np.asarray(a, float)) for a in (result.inputs, result.gradients))
    if x.ndim == 3:
        return saliency(x, g, output=result.output)
    ax = axes_on(None)
    mean = np.abs(g.reshape(len(g), -1)).mean(axis=0)
    ax.bar(np.arange(len(mean)), mean, color=POSITIVE)
    ax.set_xlabel("input number")
    ax.set_ylabel(f"mean of |d {result.output} / d input|")
    return [titled(ax, f"How strongly {result.output} depends on each input", result.provenance)]


def _images(a: np.ndarray) -> np.ndarray:
    """(N, height, width) where the shape allows it, otherwise as it came."""
    if a.ndim == 4:
        return a.mean(axis=1)
    side = math.isqrt(a.shape[1]) if a.ndim == 2 else 0
    return a.reshape(-1, side, side) if side > 3 and side * side == a.shape[1] else a
