"""Influence of training samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hessmx.figures.canvas import FAINT, NEGATIVE, POSITIVE, axes_on, caption, legend, matrix_name, new_figure, titled
from hessmx.uses.influence import Influence, SelfInfluence


def influence(result: Influence, axes: tuple[Axes, Axes] | None = None, column: int = 0,
              count: int = 8) -> tuple[Axes, Axes]:
    """All scores in order, and the training samples at both ends by number; one column of the result."""
    left, right = axes or new_figure(8.4, 4.2).subplots(1, 2, width_ratios=(1.3, 1))
    scores = np.sort(result.scores[:, column])[::-1]
    index = np.arange(1, len(scores) + 1)
    axes_on(left).axhline(0, color=FAINT, linewidth=0.8)
    for side, colour, name in ((scores > 0, POSITIVE, "helped"), (scores < 0, NEGATIVE, "did harm")):
        left.fill_between(index, 0, np.where(side, scores, 0.0), color=colour, alpha=0.6, linewidth=0, step="mid",
                          label=f"{side.sum():,} {name}, sum {scores[side].sum():.3g}")
    largest = float(np.abs(scores).max()) or 1.0
    left.set_yscale("symlog", linthresh=1e-3 * largest)
    left.set_xlabel("training samples, most helpful first")
    left.set_ylabel("change if the sample were left out")
    legend(left, loc="upper right")
    count = min(count, len(scores) // 2) or 1
    chosen = np.concatenate([result.helpful(count, column), result.harmful(count, column)[::-1]])
    values, places = result.scores[chosen, column], np.arange(len(chosen))
    axes_on(right).barh(places, values, color=np.where(values < 0, NEGATIVE, POSITIVE), alpha=0.8)
    right.axvline(0, color=FAINT, linewidth=0.8)
    right.set_yticks(places, [f"{i}, loss {result.losses[i]:.2g}" for i in chosen], fontsize="x-small")
    right.invert_yaxis()
    right.set_xlabel("the same, samples at both ends by number")
    right.xaxis.set_major_locator(MaxNLocator(4))
    right.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    state = "" if result.converged else ", NOT CONVERGED"
    how = f"quantity {result.values[column]:.4g}, {matrix_name(result.provenance)}, damping {result.damping:.3g}{state}"
    left.figure.suptitle(f"Influence of training samples: {how}\n{caption(result.provenance)}", x=0.01, ha="left",
                         fontsize="medium")
    return left, right


def self_influence(result: SelfInfluence, ax: Axes | None = None, marked: Sequence[int] | np.ndarray = (),
                   mark: str = "marked") -> Axes:
    """Each sample's influence on its own loss over that loss; `marked` sample numbers in red."""
    ax = axes_on(ax, 6.4, 4.4)
    floor = 1e-12
    red = np.isin(result.samples, marked)
    losses, values = np.maximum(result.losses, floor), np.maximum(result.values, floor)
    for chosen, colour, name in ((~red, POSITIVE, "samples"), (red, NEGATIVE, mark)):
        if chosen.any():
            ax.errorbar(losses[chosen], values[chosen], result.stderr[chosen], fmt="o", markersize=3, color=colour,
                        alpha=0.5, elinewidth=0.6, label=f"{chosen.sum():,} {name}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("loss of the training sample")
    ax.set_ylabel("rise of its loss if it were left out")
    legend(ax, loc="upper left", title="bars: standard error" if result.probes else None, title_fontsize="small")
    return titled(ax, f"Influence of samples on themselves, {matrix_name(result.provenance)}, "
                  f"damping {result.damping:.3g}", result.provenance)
