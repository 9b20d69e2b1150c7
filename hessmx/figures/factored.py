"""K-FAC beside the matrix it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hessmx.figures.canvas import FAINT, MODEL, POSITIVE, axes_on, caption, matrix_name, new_figure


def factored(result: Any) -> Figure:
    """Left the trace of every block, right products of a solve without and with it (a uses.factored.Factored)."""
    figure = new_figure(8.6, 1.8 + 0.3 * max(len(result.blocks), 4))
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    rows = np.arange(len(result.blocks))[::-1]
    axes_on(left).barh(rows, result.traces, color=POSITIVE, height=0.6)
    labels = [f"{name}  {o} × {i}" for name, (o, i) in zip(result.blocks, result.shapes)]
    left.set_yticks(rows, labels, fontsize="small")
    left.set_xlabel("trace of the block")
    kind = {"kfac": "K-FAC", "ekfac": "EK-FAC"}.get(result.approximation, result.approximation)
    left.set_title(f"{kind} of the {matrix_name(result.provenance)}", loc="left", fontsize="medium")
    figure.supxlabel(caption(result.provenance), fontsize="x-small", color=FAINT, x=0.01, ha="left")
    bars = axes_on(right).bar([0, 1], [result.alone, result.helped], color=[FAINT, MODEL], width=0.6)
    right.bar_label(bars, fontsize="small")
    right.set_xticks([0, 1], ["CG alone", f"with {kind}"])
    right.set_ylabel(f"products to {result.rtol:.0e}")
    right.set_title(f"Solve, damping {result.damping:.2g}", loc="left", fontsize="medium")
    return figure
