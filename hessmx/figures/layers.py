"""Curvature layer by layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hessmx.figures.canvas import NEGATIVE, POSITIVE, axes_on, caption, matrix_name, new_figure
from hessmx.results import Layers


def layers(result: Layers, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Bars for each layer, first layer on top: trace with its standard error, and top eigenvalue."""
    rows = result.rows
    left, right = axes or new_figure(8.4, 1.7 + 0.42 * len(rows)).subplots(1, 2, sharey=True)
    places = np.arange(len(rows))
    traces, errors = np.array([r.trace for r in rows]), np.nan_to_num([r.trace_stderr for r in rows])
    tops = np.array([r.top_eigenvalue for r in rows])
    for ax, values, error, name in ((left, traces, errors, "trace"), (right, tops, None, "top eigenvalue")):
        axes_on(ax)
        ax.barh(places, values, xerr=error, color=np.where(values < 0, NEGATIVE, POSITIVE), alpha=0.8, capsize=3)
        ax.set_xlabel(name + (" ± standard error" if ax is left else ""))
        ax.margins(x=0.22)
        spread = values.max(initial=0) - values.min(initial=0) or 1.0
        for place, value, e, row in zip(places, values, error if error is not None else 0 * values, rows):
            text = f"{value:.3g}" + (f" ({row.share:.0%})" if ax is left else "")
            ax.text(max(value, 0) + e + 0.02 * spread, place, text, va="center", fontsize="x-small")
    left.set_yticks(places, [f"{r.name}\n{r.num_params:,} parameters" for r in rows])
    left.set_ylim(len(rows) - 0.4, -0.6)
    left.set_title("trace (share of all layers)", loc="left", fontsize="small")
    right.set_title("largest eigenvalue", loc="left", fontsize="small")
    title = f"Each layer's own block of the {matrix_name(result.provenance)}\n{caption(result.provenance)}"
    left.figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    return left, right
