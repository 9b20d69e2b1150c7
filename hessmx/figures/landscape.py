"""Loss along a line and on a plane."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from hessmx.figures.canvas import FAINT, MODEL, NEGATIVE, POSITIVE, axes_on, caption, legend, new_figure, titled
from hessmx.uses.landscape import LandscapeLine, LandscapePlane


def line(result: LandscapeLine, ax: Axes | None = None) -> Axes:
    """Exact loss beside its quadratic model; the frame follows the loss, the model may leave it."""
    ax = axes_on(ax)
    ax.plot(result.radii, result.losses, color=POSITIVE, linewidth=2, label="loss, computed at every point")
    model = f"quadratic model, curvature {result.curvature:.4g}"
    ax.plot(result.radii, result.model, color=MODEL, linewidth=1.5, linestyle="--", label=model)
    ax.plot([0], [result.loss], "o", color=POSITIVE, markersize=5, label=f"trained net, loss {result.loss:.4g}")
    finite = result.losses[np.isfinite(result.losses)]
    if finite.size:
        low, high = min(finite.min(), result.loss), max(finite.max(), result.loss)
        room = 0.35 * (high - low) or abs(high) or 1.0
        ax.set_ylim(max(low - room, min(low, float(result.model.min())) - 0.12 * room), high + room)
    if result.curvatures is not None:
        _bends(result, ax)
    unit = abs(result.direction_norm - 1) < 1e-4
    ax.set_xlabel(f"distance along {result.label}" if unit else f"multiple of {result.label} (length "
                  f"{result.direction_norm:.3g})")
    ax.set_ylabel("loss")
    legend(ax, loc="upper center")
    return titled(ax, f"Loss along {result.label}", result.provenance)


def _bends(result: LandscapeLine, ax: Axes) -> None:
    """Curvature along the line on a scale of its own, to the right."""
    curvatures = np.asarray(result.curvatures)
    right = ax.twinx()
    right.plot(result.radii, curvatures, color=NEGATIVE, linewidth=1.2, label="curvature at every point")
    right.spines[["top"]].set_visible(False)
    low, high = float(np.nanmin(curvatures)), float(np.nanmax(curvatures))
    right.set_ylim(low - 0.1 * (high - low or 1), high + 0.5 * (high - low or 1))  # the legend is above
    bottom, top = ax.get_ylim()
    ax.set_ylim(bottom, top + 0.3 * (top - bottom))
    right.set_ylabel("curvature d'Hd", color=NEGATIVE, fontsize="small")
    right.tick_params(labelsize=8, colors=NEGATIVE)
    ax.plot([], [], color=NEGATIVE, linewidth=1.2, label="curvature at every point (right)")


def surface(result: LandscapePlane, ax: Any = None) -> Any:
    """The loss as a surface over the plane, contours on the floor; logarithmic heights where losses span decades."""
    if ax is None:
        ax = new_figure(6.4, 5.2).add_subplot(projection="3d")
    losses = np.ma.masked_invalid(result.losses)
    low, high = float(losses.min()), float(losses.max())
    logarithmic = low > 0 and high > 10 * low
    heights = np.log10(losses) if logarithmic else losses
    x, y = np.meshgrid(result.xs, result.ys)
    floor = float(heights.min()) - 0.35 * (float(np.ptp(heights)) or 1.0)
    ax.plot_surface(x, y, heights.filled(np.nan), cmap="viridis_r", linewidth=0, antialiased=True, rcount=80, ccount=80)
    if high > low:
        ax.contour(x, y, heights, 12, zdir="z", offset=floor, cmap="viridis_r", linewidths=0.8)
    centre = np.log10(result.loss) if logarithmic else result.loss
    ax.plot([0], [0], [centre], "o", color=NEGATIVE, markersize=5, zorder=9)
    ax.set_zlim(floor, None)
    ax.set_xlabel(result.labels[0], fontsize="small")
    ax.set_ylabel(result.labels[1], fontsize="small")
    ax.set_zlabel("log10 of the loss" if logarithmic else "loss", fontsize="small")
    ax.tick_params(labelsize=8)
    ax.locator_params(nbins=5)
    ax.set_title(f"Loss over a plane through the trained parameters\n{caption(result.provenance)}", loc="left",
                 fontsize="small")
    return ax


def plane(result: LandscapePlane, ax: Axes | None = None, levels: int = 14) -> Axes:
    """Contours of the exact loss, the quadratic model's as thin dashes, the training path if there is one."""
    ax = axes_on(ax, 6.4, 5.2)
    losses = np.ma.masked_invalid(result.losses)
    low, high = float(losses.min()), float(losses.max())
    logarithmic = low > 0 and high > 10 * low
    at = np.geomspace(low, high, levels) if logarithmic else np.linspace(low, high, levels)
    if high > low:
        norm = LogNorm(low, high) if logarithmic else None
        filled = ax.contourf(result.xs, result.ys, losses, at, cmap="viridis_r", norm=norm)
        bar = ax.figure.colorbar(filled, ax=ax, label="loss" + (" (logarithmic colours)" if logarithmic else ""))
        bar.ax.set_yticks(at[::3], [f"{value:.3g}" for value in at[::3]])
        bar.ax.minorticks_off()
        lines = ax.contour(result.xs, result.ys, losses, at[1:-1:3], colors="black", linewidths=0.6)
        ax.clabel(lines, fmt=lambda value: f"{value:.2g}", fontsize=8)
        ax.contour(result.xs, result.ys, result.model, at, colors="white", linewidths=0.8, linestyles="dashed")
        ax.plot([], [], color=FAINT, linewidth=0.8, linestyle="dashed", label="quadratic model, same levels")
    ax.plot([0], [0], "o", color="white", markeredgecolor="black", label=f"trained net, loss {result.loss:.4g}")
    if result.path is not None:
        ax.plot(*result.path.T, ".-", color=MODEL, linewidth=1, markersize=4, label="training path, projected")
    ax.set_xlim(result.xs[0], result.xs[-1])
    ax.set_ylim(result.ys[0], result.ys[-1])
    shares = result.explained if result.explained is not None else (None, None)
    labels = [
        name + (f" ({share:.0%} of the path's variance)" if share is not None else "")
        for name, share in zip(result.labels, shares)
    ]
    ax.set_xlabel(labels[0])
    ax.set_ylabel(labels[1])
    names = ax.get_legend_handles_labels()
    ax.figure.legend(*names, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return titled(ax, "Loss on a plane through the trained parameters", result.provenance)
