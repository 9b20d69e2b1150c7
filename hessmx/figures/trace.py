"""A random estimate: its samples and its interval."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from hessmx.figures.canvas import FAINT, POSITIVE, axes_on, legend, matrix_name, titled
from hessmx.results import Estimate


def estimate(result: Estimate, ax: Axes | None = None, name: str = "Trace") -> Axes:
    """Every sample as a dot, the estimate as a line, its 95 % interval as a band."""
    ax = axes_on(ax, 6.4, 3.4)
    low, high = result.interval()
    index = np.arange(1, len(result.samples) + 1)
    if np.isfinite(low):
        ax.axhspan(low, high, color=POSITIVE, alpha=0.2, linewidth=0, label=f"95 % interval, {low:.4g} to {high:.4g}")
    ax.axhline(result.value, color=POSITIVE, label=f"estimate {result.value:.5g} ± {result.stderr:.2g}")
    ax.plot(index, result.samples, "o", color=FAINT, markersize=3.5, label=f"samples ({result.method})")
    ax.set_xlabel("sample")
    ax.set_ylabel(name.lower())
    ax.margins(y=0.1)
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return titled(ax, f"{name} of the {matrix_name(result.provenance)}", result.provenance)
