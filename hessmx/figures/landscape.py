"""Loss along a line and on a plane."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm

from hessmx.figures.canvas import FAINT, MODEL, POSITIVE, axes_on, legend, titled
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
    unit = abs(result.direction_norm - 1) < 1e-4
    ax.set_xlabel(f"distance along {result.label}" if unit else f"multiple of {result.label} (length "
                  f"{result.direction_norm:.3g})")
    ax.set_ylabel("loss")
    legend(ax, loc="upper center")
    return titled(ax, f"Loss along {result.label}", result.provenance)


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
