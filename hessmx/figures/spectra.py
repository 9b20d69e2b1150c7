"""Spectral densities: the whole picture on a linear axis, and both signs by magnitude."""

from __future__ import annotations

from typing import cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hessmx.figures.canvas import FAINT, NEGATIVE, POSITIVE, axes_on, matrix_name, new_figure, titled
from hessmx.results import Spectrum, between

DECADES = 7  # below the largest magnitude; float32 products resolve no more


def density(spectrum: Spectrum, ax: Axes | None = None, points: int = 1500) -> Axes:
    """Density over λ, logarithmic upwards; ticks at the foot are the quadrature's nodes."""
    ax = axes_on(ax)
    low, high = spectrum.range
    margin = 4 * spectrum.default_width()
    grid = np.linspace(low - margin, high + margin, points)
    values, error = spectrum.density(grid), np.nan_to_num(spectrum.density_stderr(grid))
    floor = min(0.02 / (spectrum.dim * spectrum.default_width()), values.max() * 1e-2)  # a fiftieth of one eigenvalue
    band = np.maximum(values - error, floor), np.maximum(values + error, floor)
    ax.fill_between(grid, *band, color=POSITIVE, alpha=0.25, linewidth=0)
    ax.plot(grid, np.maximum(values, floor), color=POSITIVE, linewidth=1.5)
    ax.set_yscale("log")
    ax.set_ylim(floor, values.max() * 3)
    nodes = spectrum.nodes[spectrum.weights > 0]
    ax.plot(nodes, np.full(nodes.shape, floor), "|", color=FAINT, markersize=9, clip_on=False)
    ax.axvline(0, color=FAINT, linewidth=0.8, linestyle=":")
    ax.set_xlim(grid[0], grid[-1])
    ax.set_xlabel(f"eigenvalue λ (from {low:.4g} to {high:.4g}; grey ticks: Lanczos nodes)")
    ax.set_ylabel("density, smoothed")
    return titled(ax, f"Spectral density of the {matrix_name(spectrum.provenance)}", spectrum.provenance)


def log_density(spectrum: Spectrum, axes: tuple[Axes, Axes] | None = None, points: int = 600) -> tuple[Axes, Axes]:
    """Density per decade of |λ|: negative side left and mirrored, positive side right, same height and range."""
    left, right = axes or _pair()
    top = np.log10(np.abs(spectrum.nodes).max() or 1.0) + 0.5
    grid = np.linspace(top - DECADES, top, points)
    shares = spectrum.shares()
    heights = [spectrum.log_density(grid, sign) for sign in (-1, 1)]
    peak = max(float(h.max()) for h in heights) or 1.0
    for ax, h, colour, name in ((left, heights[0], NEGATIVE, "negative"), (right, heights[1], POSITIVE, "positive")):
        axes_on(ax)
        floor = np.maximum(h, peak * 1e-9)
        ax.fill_between(10**grid, floor, peak * 1e-9, color=colour, alpha=0.3, linewidth=0)
        ax.loglog(10**grid, floor, color=colour, linewidth=1.5)
        ax.set_xlim(10 ** grid[0], 10 ** grid[-1])
        ax.set_ylim(peak * 1e-6, peak * 3)
        ax.set_title(f"{name}: {between(shares[name])} of all eigenvalues", fontsize="small")
    left.invert_xaxis()
    left.set_xlabel("−λ")
    right.set_xlabel("λ")
    left.set_ylabel("share of eigenvalues per decade")
    right.tick_params(labelleft=False)
    if spectrum.sides()[1] > 5e-4:
        told = f"zero: {between(shares['zero'])}"
        left.text(0.99, 0.03, told, transform=left.transAxes, ha="right", fontsize="small", color=FAINT)
    return left, right


def spectrum(result: Spectrum) -> Figure:
    """Both views on one sheet, with the numbers that tell how much to believe."""
    figure = new_figure(7.6, 7.4)
    above, below = cast("tuple[Figure, Figure]", figure.subfigures(2, 1, height_ratios=(1.15, 1)))
    density(result, above.add_subplot())
    left, right = below.subplots(1, 2)
    log_density(result, (left, right))
    probes = len(result.nodes)
    below.suptitle(f"The same by magnitude, one density for each sign ({probes} probes × {result.steps} Lanczos steps)",
                   fontsize="medium", x=0.01, ha="left")
    return figure


def _pair() -> tuple[Axes, Axes]:
    left, right = new_figure(7.2, 3.4).subplots(1, 2)
    return left, right
