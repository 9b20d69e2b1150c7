"""Paper, ink and captions shared by all pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from hessmx.files import replacing
from hessmx.results import Provenance

POSITIVE, NEGATIVE, MODEL, FAINT = "#1f5a96", "#b3262e", "#e08214", "#8a8a8a"
MATRIX_NAMES = {
    "hessian": "Hessian",
    "ggn": "Gauss-Newton matrix",
    "residual": "Hessian minus Gauss-Newton matrix",
    "fisher": "empirical Fisher matrix",
    "mc-fisher": "Monte-Carlo Fisher matrix",
    "kfac": "K-FAC matrix",
    "ekfac": "EK-FAC matrix",
    "ntk": "neural tangent kernel",
    "unknown": "matrix",
}


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def axes_on(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """The Axes given, or those of a new Figure; without the frame lines that carry no information."""
    ax = ax if ax is not None else new_figure(width, height).add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize="small")
    return ax


def titled(ax: Axes, title: str, provenance: Provenance) -> Axes:
    """Title, and under it in small grey print where the numbers come from."""
    origin = caption(provenance)
    ax.set_title(title, loc="left", fontsize="medium", pad=20 if origin else 8)
    if origin:
        ax.text(0, 1.02, origin, transform=ax.transAxes, fontsize="x-small", color=FAINT, va="bottom")
    return ax


def caption(p: Provenance) -> str:
    told = [
        f"{p.num_params:,} parameters" if p.num_params else "",
        f"{p.num_samples:,} samples" if p.num_samples else "",
        f"{p.reduction} loss" if p.reduction != "unknown" else "",
        f"{p.mode} mode" if p.mode != "unknown" else "",
        p.dtype if p.dtype != "unknown" else "",
        p.engine if p.engine != "unknown" else "",
    ]
    return " · ".join(text for text in told if text)


def matrix_name(p: Provenance) -> str:
    return MATRIX_NAMES.get(p.matrix, p.matrix)


def legend(ax: Axes, **options: Any) -> None:
    ax.legend(frameon=False, fontsize="small", **options)


def short_log_ticks(ax: Axes) -> Axes:
    """Plain numbers at 1, 2, 5 on logarithmic axes that span less than two decades, where labels would overlap."""
    for axis in (ax.xaxis, ax.yaxis):
        low, high = axis.get_view_interval()
        if axis.get_scale() == "log" and high < 100 * low:
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(lambda value, _: f"{value:g}")
            axis.set_minor_formatter(NullFormatter())
    return ax


def save(drawn: Any, path: str | os.PathLike[str], dpi: int = 150) -> Path:
    """Write the picture that Axes (or several, or a Figure) belong to; the kind follows from the ending."""
    while isinstance(drawn, (tuple, list)):
        drawn = drawn[0]
    figure = drawn if isinstance(drawn, Figure) else drawn.figure
    path = Path(path)
    with replacing(path) as file:
        figure.savefig(file, dpi=dpi, format=path.suffix.lstrip(".") or None)
    return path
