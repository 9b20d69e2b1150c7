"""A whole curvature matrix of a small net."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm

from hessmx.errors import InputError
from hessmx.figures.canvas import FAINT, axes_on, matrix_name, titled
from hessmx.results import Provenance


def matrix(entries: np.ndarray, slices: Mapping[str, slice] | None = None, ax: Axes | None = None,
           provenance: Provenance | None = None) -> Axes:
    """Entries (P, P) as colours, red above zero and blue below, logarithmic in size; lines between parameters."""
    entries = np.asarray(entries, float)
    if entries.ndim != 2 or entries.shape[0] != entries.shape[1]:
        raise InputError(f"expected a square matrix (P, P), got shape {entries.shape}; use curv.hessian.to_dense()")
    ax = axes_on(ax, 6.8, 5.8)
    size = float(np.abs(entries).max()) or 1.0
    norm = SymLogNorm(linthresh=size * 1e-3, vmin=-size, vmax=size)
    image = ax.imshow(entries, cmap="RdBu_r", norm=norm, interpolation="nearest")
    ticks = [-size, -size / 30, 0.0, size / 30, size]
    bar = ax.figure.colorbar(image, ax=ax, label="second derivative of the loss", ticks=ticks)
    bar.ax.set_yticklabels([f"{value:.2g}" for value in ticks])
    bar.ax.minorticks_off()
    if slices:
        for where in list(slices.values())[1:]:
            ax.axhline(where.start - 0.5, color=FAINT, linewidth=0.6)
            ax.axvline(where.start - 0.5, color=FAINT, linewidth=0.6)
        middles = [(where.start + where.stop - 1) / 2 for where in slices.values()]
        ax.set_yticks(middles, list(slices))
        ax.set_xticks(middles, list(slices), rotation=35, ha="right")
    where_from = provenance or Provenance()
    return titled(ax, f"All {len(entries)} × {len(entries)} entries of the {matrix_name(where_from)}", where_from)
