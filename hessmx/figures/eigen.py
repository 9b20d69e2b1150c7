"""Eigenvalues with what is known about their errors."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hessmx.figures.canvas import FAINT, NEGATIVE, POSITIVE, axes_on, legend, matrix_name, titled
from hessmx.results import Eigenpairs

WHICH = {"LA": "Largest", "SA": "Smallest", "LM": "Largest-magnitude", "BE": "Extreme"}


def eigenvalues(pairs: Eigenpairs, ax: Axes | None = None) -> Axes:
    """Stems, blue above and red below zero; error bars are residuals: each bar holds an exact eigenvalue."""
    ax = axes_on(ax)
    index = np.arange(1, len(pairs.values) + 1)
    ax.axhline(0, color=FAINT, linewidth=0.8)
    for sign, colour in ((1, POSITIVE), (-1, NEGATIVE)):
        side = np.where(pairs.values < 0, -1, 1) == sign
        ax.vlines(index[side], 0, pairs.values[side], color=colour, alpha=0.35, linewidth=3)
        for good, face in ((True, colour), (False, "white")):
            chosen = side & (pairs.converged == good)
            if chosen.any():
                ax.errorbar(index[chosen], pairs.values[chosen], pairs.residuals[chosen], fmt="o", color=colour,
                            markerfacecolor=face, capsize=4, label=_label(good, sign, pairs))
    ax.set_xlabel("number")
    ax.set_ylabel("eigenvalue λ")
    ax.set_xlim(0.4, len(index) + 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.margins(y=0.12)
    legend(ax, loc="best", title=_evidence(pairs), title_fontsize="small")
    count = f"{len(index)} eigenvalues" if len(index) > 1 else "eigenvalue"
    return titled(ax, f"{WHICH.get(pairs.which, pairs.which)} {count} of the {matrix_name(pairs.provenance)}",
                  pairs.provenance)


def _label(converged: bool, sign: int, pairs: Eigenpairs) -> str:
    side = "" if len(set(pairs.values < 0)) == 1 else "positive, " if sign > 0 else "negative, "
    return side + ("converged" if converged else "not converged")


def _evidence(pairs: Eigenpairs) -> str:
    return f"error bars: ‖Av − λv‖, at most {pairs.residuals.max():.1e}\n{pairs.products} products ({pairs.method})"
