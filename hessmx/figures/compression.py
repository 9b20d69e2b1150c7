"""What compression costs: bits and pruning, predicted beside measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from hessmx.figures.canvas import FAINT, MODEL, NEGATIVE, POSITIVE, axes_on, caption, legend, new_figure
from hessmx.uses.pruning import PruningCurve
from hessmx.uses.quantisation import BitCosts, BitPlan

_CURVES = (POSITIVE, MODEL, "#3a8a5c", NEGATIVE, "#6a4c93", FAINT)
_MARKERS = "os^Dvx"


def bit_costs(result: BitCosts, plan: BitPlan | None = None,
              axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Left: predicted against measured rise, a point for each weight and width. Right: predicted; `plan` is framed."""
    left, right = axes or new_figure(9.6, 1.9 + max(2.4, 0.42 * len(result.weights))).subplots(
        1, 2, gridspec_kw={"width_ratios": [1, 1.15]})
    _agreement(result, axes_on(left))
    costs = np.abs(result.predicted)
    shown = np.maximum(costs, costs[costs > 0].min() if costs.any() else 1.0)
    norm = LogNorm(shown.min(), max(shown.max(), 1.01 * shown.min()))
    right.imshow(shown, cmap="viridis_r", norm=norm, aspect="auto")
    for i, row in enumerate(result.predicted):
        for j, value in enumerate(row):
            dark = shown[i, j] > np.sqrt(shown.min() * shown.max())
            right.text(j, i, f"{value:.1g}", ha="center", va="center", fontsize=8, color="white" if dark else "black")
    if plan is not None:
        for i, bits in enumerate(plan.bits):
            j = int(np.flatnonzero(result.bits == bits)[0])
            right.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False,
                                      edgecolor=NEGATIVE, linewidth=2.2,
                                     clip_on=False))
    right.set_xticks(range(len(result.bits)), [str(b) for b in result.bits], fontsize="small")
    right.set_yticks(range(len(result.weights)), [f"{n}\n{s:,}" for n, s in zip(result.weights, result.sizes)],
                     fontsize=8)
    right.set_xlabel("bits")
    title = "predicted rise of the loss"
    right.set_title(title if plan is None else f"{title}; framed: best at {plan.budget:g} bits on average", loc="left",
                    fontsize="small")
    left.figure.suptitle(f"What rounding each weight costs\n{caption(result.provenance)}", x=0.01, ha="left",
                         fontsize="medium")
    return left, right


def _agreement(result: BitCosts, ax: Axes) -> None:
    """Both signs on logarithmic axes around a linear middle, where the loss's own rounding begins."""
    middle = max(1e-6 * abs(result.loss), float(np.abs(result.measured).max()) * 1e-7, 1e-12)
    top = float(np.nanmax(np.abs(np.concatenate([result.measured.ravel(), result.predicted.ravel()])))) or 1.0
    ax.plot([-top, top], [-top, top], color=FAINT, linewidth=1, label="equal")
    shades = colormaps["plasma"](np.linspace(0, 0.85, len(result.bits)))
    for j, bits in enumerate(result.bits):
        ax.plot(result.measured[:, j], result.predicted[:, j], _MARKERS[j % 6], markersize=5, color=shades[j],
                label=f"{bits} bits")
    ax.set_xscale("symlog", linthresh=middle)
    ax.set_yscale("symlog", linthresh=middle)
    low = min(0.0, float(np.nanmin(result.measured)), float(result.predicted.min()))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_tick_params(labelsize=8)
    decades = 10.0 ** np.arange(np.floor(np.log10(top)), np.log10(middle), -2)
    ticks = [*(-decades if low < 0 else []), 0.0, *decades]
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.set_xlim(2 * low - middle, 2 * top)
    ax.set_ylim(2 * low - middle, 2 * top)
    ax.minorticks_off()
    ax.set_xlabel("measured rise of the loss")
    ax.set_ylabel("predicted: g'd + d'Hd/2")
    rank = result.rank_correlation()
    ax.set_title(f"rank correlation {rank:.3f}" if np.isfinite(rank) else "", loc="left", fontsize="small")
    legend(ax, loc="upper left")


def pruning(results: Sequence[PruningCurve] | PruningCurve, axes: Sequence[Axes] | None = None,
            metric: str = "metric") -> list[Axes]:
    """Rise of the loss against sparsity, measured and predicted; and the metric, where there is one."""
    curves = [results] if isinstance(results, PruningCurve) else list(results)
    scored = any(np.isfinite(c.base_metric) for c in curves)
    if axes is None:
        axes = list(new_figure(9.6 if scored else 6.4, 4.0).subplots(1, 1 + scored, squeeze=False)[0])
    left = axes_on(axes[0])
    for curve, colour, marker in zip(curves, _CURVES, _MARKERS):
        at = 100 * curve.sparsities
        left.plot(at, curve.measured, marker=marker, markersize=4, color=colour, linewidth=1.8, label=curve.method)
        left.plot(at, curve.joint, "--", color=colour, linewidth=1.2)
        left.plot(at, curve.separate, ":", color=colour, linewidth=1.2)
    left.plot([], [], "--", color=FAINT, label="predicted together")
    left.plot([], [], ":", color=FAINT, label="saliencies added up")
    floor = max(1e-4, 1e-3 * abs(curves[0].loss))
    left.set_yscale("symlog", linthresh=floor)
    left.axhline(curves[0].loss, color=FAINT, linewidth=0.8)
    left.annotate("the loss itself", (1, curves[0].loss), (-2, 2), xycoords=("axes fraction", "data"),
                  textcoords="offset points", ha="right", fontsize=8, color=FAINT)
    left.set_ylabel("rise of the loss")
    left.minorticks_off()
    kind = "weights" if curves[0].kind == "weights" else "units and filters"
    left.set_xlabel(f"{kind} removed, %")
    legend(left, loc="lower right")
    if scored:
        right = axes_on(axes[1])
        for curve, colour, marker in zip(curves, _CURVES, _MARKERS):
            right.plot([0, *100 * curve.sparsities], [curve.base_metric, *curve.metric], marker=marker, markersize=4,
                       color=colour, linewidth=1.8, label=curve.method)
        right.set_xlabel(f"{kind} removed, %")
        right.set_ylabel(metric)
    left.figure.suptitle(f"Pruned without training on\n{caption(curves[0].provenance)}", x=0.01, ha="left",
                         fontsize="medium")
    return list(axes)
