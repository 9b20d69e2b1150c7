"""Paths between nets, merged nets, and what a task needs of each layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from hessmx.figures.canvas import FAINT, MODEL, NEGATIVE, POSITIVE, axes_on, caption, legend, new_figure, titled
from hessmx.problem.groups import layer
from hessmx.uses.ewc import Importance
from hessmx.uses.merging import Merged
from hessmx.uses.paths import NetPath

_COLOURS = {"straight": NEGATIVE, "bezier": POSITIVE, "chain": "#3a8a5c"}


def paths(results: Sequence[NetPath] | NetPath, axes: Sequence[Axes] | None = None,
          metric: str = "metric") -> list[Axes]:
    """Loss along paths between two nets, the barrier marked; curvature along them; the metric if there is one."""
    drawn = [results] if isinstance(results, NetPath) else list(results)
    scored = any(np.isfinite(path.metric).all() for path in drawn)
    if axes is None:
        axes = list(new_figure(9.6 if scored else 8.0, 3.8).subplots(1, 3 if scored else 2, squeeze=False)[0])
    for ax in axes:
        axes_on(ax)
        ax.set_xlabel("t, from the first net (0) to the second (1)", fontsize="small")
    for path in drawn:
        colour, name = _COLOURS[path.kind], f"{path.kind}, length {path.length:.3g}"
        axes[0].plot(path.t, path.losses, color=colour, linewidth=2, label=f"{name}: barrier {path.barrier:.2g}")
        axes[1].plot(path.t, path.curvatures, color=colour, linewidth=2, label=path.kind)
        if scored:
            axes[2].plot(path.t, path.metric, color=colour, linewidth=2, label=path.kind)
        if path.barrier > 0:
            top = int(np.argmin(np.abs(path.t - path.peak)))
            ends = (1 - path.peak) * path.losses[0] + path.peak * path.losses[-1]
            axes[0].plot([path.peak] * 2, [ends, path.losses[top]], color=colour, linewidth=1, linestyle=":")
    axes[0].plot([0, 1], [drawn[0].losses[0], drawn[0].losses[-1]], "o", color="black", markersize=4)
    room = max(float(path.losses.max()) for path in drawn)
    axes[0].set_ylim(0 if min(float(p.losses.min()) for p in drawn) >= 0 else None, 1.4 * room if room > 0 else None)
    axes[0].set_title("loss", loc="left", fontsize="small")
    axes[1].set_title("curvature along the path, d²L/dt²", loc="left", fontsize="small")
    axes[1].set_yscale("symlog", linthresh=max(float(np.abs(p.curvatures).max()) for p in drawn) * 1e-2 or 1.0)
    axes[1].axhline(0, color=FAINT, linewidth=0.8)
    axes[1].minorticks_off()
    if scored:
        axes[2].set_title(metric, loc="left", fontsize="small")
    legend(axes[0], loc="upper left")
    axes[0].figure.suptitle(f"From one net to another\n{caption(drawn[0].provenance)}", x=0.01, ha="left",
                            fontsize="medium")
    return list(axes)


def merged(result: Merged, ax: Axes | None = None) -> Axes:
    """Loss of every task under each net as it was, their mean, and the merged net."""
    count = len(result.losses)
    ax = axes_on(ax, 1.6 + 1.5 * (count + 2), 3.8)
    names = [f"net {i + 1}" for i in range(count)] + ["mean", f"merged\n({result.method})"]
    width = 0.8 / count
    for i, row in enumerate(result.losses):
        at = np.arange(len(row)) + (i - (count - 1) / 2) * width
        ax.bar(at, row, width, color=(POSITIVE, MODEL, "#3a8a5c", FAINT)[i % 4], alpha=0.85,
               label=f"task {i + 1}, weight {result.weights[i]:.2g}")
        for x, value in zip(at, row):
            ax.text(x, value, f"{value:.2g}", ha="center", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), names)
    if result.losses.min() > 0 and result.losses.max() > 30 * result.losses.min():
        ax.set_yscale("log")
    ax.set_ylabel("loss")
    ax.margins(y=0.2)
    legend(ax, loc="upper right")
    return titled(ax, "One net of several", result.provenance)


def importance(result: Importance, ax: Axes | None = None) -> Axes:
    """Share of the diagonal's sum in each layer, and how unequal its entries are."""
    groups: dict[str, list[np.ndarray]] = {}
    for name, part in zip(result.names, np.split(result.importance, np.cumsum(result.sizes)[:-1])):
        groups.setdefault(layer(name), []).append(part)
    rows = {name: np.concatenate(parts) for name, parts in groups.items()}
    ax = axes_on(ax, 7.2, 1.4 + 0.5 * len(rows))
    positive = [row[row > 0] for row in rows.values()]
    lowest = min((float(np.percentile(row, 5)) for row in positive if row.size), default=1e-3)
    for i, row in enumerate(positive):
        if row.size:
            low, q1, half, q3, high = np.percentile(row, [5, 25, 50, 75, 95])
            ax.plot([low, high], [i, i], color=POSITIVE, linewidth=1.2)
            ax.plot([q1, q3], [i, i], color=POSITIVE, linewidth=7, alpha=0.5, solid_capstyle="butt")
            ax.plot([half], [i], "|", color=POSITIVE, markersize=14, markeredgewidth=2)
    total = float(result.importance.sum()) or 1.0
    ax.set_yticks(range(len(rows)), [f"{name}\n{row.sum() / total:.0%} of the sum" for name, row in rows.items()],
                  fontsize=8)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xscale("log")
    ax.set_xlim(lowest / 2, None)
    ax.set_xlabel("entry of the Fisher matrix's diagonal: median, middle half, 5 % to 95 %", fontsize="small")
    return titled(ax, "What the task needs of each layer", result.provenance)
