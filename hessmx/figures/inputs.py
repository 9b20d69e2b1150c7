"""What an output's derivative says about each pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hessmx.errors import InputError
from hessmx.figures.canvas import new_figure


def saliency(inputs: np.ndarray, gradients: np.ndarray, titles: Sequence[str] | None = None,
             columns: int = 6) -> list[Axes]:
    """Pairs of pictures (N, height, width): the input above, the gradient of an output below on one common scale."""
    x, g = np.asarray(inputs, float), np.asarray(gradients, float)
    if x.ndim != 3 or x.shape != g.shape:
        raise InputError(f"inputs and gradients must both have shape (N, height, width), not {x.shape} and {g.shape}")
    count = min(len(x), columns)
    figure = new_figure(1.5 * count + 1.2, 3.7)
    axes = figure.subplots(2, count, squeeze=False)
    size = float(np.abs(g[:count]).max()) or 1.0
    for i in range(count):
        axes[0, i].imshow(x[i], cmap="gray_r", interpolation="nearest")
        drawn = axes[1, i].imshow(g[i], cmap="RdBu_r", vmin=-size, vmax=size, interpolation="nearest")
        axes[0, i].set_title(titles[i] if titles else f"sample {i}", fontsize="small")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
    axes[0, 0].set_ylabel("input", fontsize="small")
    axes[1, 0].set_ylabel("gradient", fontsize="small")
    bar = figure.colorbar(drawn, ax=list(axes[1]), label="d output / d pixel", shrink=0.9)
    bar.ax.tick_params(labelsize="x-small")
    figure.suptitle("Pixels that raise the output (red) and lower it (blue)", fontsize="medium")
    return list(axes.flat)
