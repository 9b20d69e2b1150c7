"""Curvature against epochs."""

from __future__ import annotations

from typing import Any, Sequence

from matplotlib.axes import Axes

from hessmx.figures.canvas import POSITIVE, caption, new_figure


def history(result: Any, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """One panel for each question that was asked, over the epochs (a training.History)."""
    count = len(result.names)
    drawn = (
        list(axes)
        if axes is not None
        else list(new_figure(6.4, 0.8 + 1.8 * count).subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    )
    for ax, name, values in zip(drawn, result.names, result.values):
        ax.plot(result.epochs, values, "o-", color=POSITIVE, markersize=3, linewidth=1.6)
        ax.set_ylabel(name, fontsize="small")
        ax.tick_params(labelsize="small")
        ax.spines[["top", "right"]].set_visible(False)
    drawn[0].set_title("Curvature during training", loc="left", fontsize="medium", pad=20)
    drawn[0].annotate(
        caption(result.provenance),
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize="x-small",
        color="grey",
    )
    drawn[-1].set_xlabel("epoch", fontsize="small")
    return drawn
