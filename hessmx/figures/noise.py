"""Gradients of single samples, and what their noise makes of batches."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hessmx.figures.canvas import FAINT, MODEL, POSITIVE, axes_on, caption, legend, new_figure, short_log_ticks
from hessmx.uses.noise import GradientNoise, SampleGradients


def sample_gradients(result: SampleGradients, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Length of each sample's gradient over its loss, and its cosine with the mean gradient over that length."""
    left, right = axes or new_figure(8.4, 4.0).subplots(1, 2)
    norms = np.maximum(result.norms, 1e-12)
    bars = np.maximum([norms - np.maximum(result.low, 1e-12), result.high - norms], 0)
    axes_on(left).errorbar(np.maximum(result.losses, 1e-12), norms, bars, fmt="o", color=POSITIVE, markersize=2.5,
                           alpha=0.5, elinewidth=0.6, label="samples" + (", 95 % intervals" if result.probes else ""))
    left.axhline(max(result.mean_norm, 1e-12), color=MODEL, linestyle="--", label="length of the mean gradient")
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xlabel("loss of the sample")
    left.set_ylabel("length of its gradient")
    legend(left, loc="lower right")
    axes_on(right).plot(norms, result.mean_cosines, "o", color=POSITIVE, markersize=2.5, alpha=0.5)
    right.axhline(0, color=FAINT, linewidth=0.8)
    right.set_xscale("log")
    right.set_ylim(-1.05, 1.05)
    right.set_xlabel("length of its gradient")
    right.set_ylabel("cosine with the mean gradient")
    for ax in (left, right):
        short_log_ticks(ax)
    left.figure.suptitle(f"Gradients of single samples\n{caption(result.provenance)}", x=0.01, ha="left",
                         fontsize="medium")
    return left, right


def noise(result: GradientNoise, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """What a step at the best rate gains with batches of every size, and that rate; bands: 95 % intervals."""
    left, right = axes or new_figure(8.4, 4.0).subplots(1, 2)
    critical, (low, high) = result.critical.value, result.critical.interval()
    sizes = 2.0 ** np.arange(0, np.log2(1e3 * max(critical, 1)) if np.isfinite(critical) else 8, 0.25)
    full = result.square / result.bend if result.bend > 0 else float("nan")
    panels = ((left, 1.0, "share of the whole gradient's gain"), (right, full, "best rate"))
    for ax, scale, name in panels:
        axes_on(ax).set_xscale("log")
        ax.plot(sizes, scale / (1 + critical / sizes), color=POSITIVE, linewidth=2)
        if np.isfinite(high):
            ax.fill_between(sizes, scale / (1 + high / sizes), scale / (1 + max(low, 0) / sizes), color=POSITIVE,
                            alpha=0.2, linewidth=0)
            ax.axvline(critical, color=MODEL, linestyle="--",
                       label=f"critical batch size {_short(critical)}\n95 %: {_short(max(low, 0))} to {_short(high)}")
        simple = result.simple.value
        if np.isfinite(simple) and simple > 0:
            ax.axvline(simple, color=FAINT, linestyle=":", label=f"tr(S) / |g|² = {_short(simple)}")
        ax.set_xlabel("samples in a batch")
        ax.set_ylabel(name)
    left.set_ylim(0, 1.05)
    if np.isfinite(full):
        right.set_yscale("log")
    else:
        left.text(0.5, 0.6, "no rate is best: the loss does not bend\nupwards along the gradient",
                  transform=left.transAxes, ha="center", fontsize="small", color=FAINT)
    legend(left, loc="best")
    left.figure.suptitle(f"Gradient noise and batch size\n{caption(result.provenance)}", x=0.01, ha="left",
                         fontsize="medium")
    return left, right


def _short(size: float) -> str:
    return f"{size:,.0f}" if size >= 1000 else f"{size:.3g}"
