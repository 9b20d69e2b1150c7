"""Curvature against epochs or steps, with the optimiser's threshold and rate beside it."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np
from matplotlib.axes import Axes

from hessmx.errors import InputError
from hessmx.figures.canvas import FAINT, MODEL, NEGATIVE, POSITIVE, axes_on, caption, legend, new_figure, titled

SHARPNESS, EIGENVALUE = "sharpness", "eigenvalue "


def history(result: Any, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """One panel for each question that was asked, over the epochs or steps (a training.History)."""
    names = [name for name in result.names if not name.startswith(EIGENVALUE)] or list(result.names)
    rates = np.isfinite(result.learning_rates).any()
    count = len(names) + bool(rates)
    drawn = (
        list(axes)
        if axes is not None
        else list(new_figure(6.4, 0.8 + 1.8 * count).subplots(count, 1, sharex=True, squeeze=False)[:, 0])
    )
    for ax, name in zip(drawn, names):
        ax.plot(result.when, result.of(name), color=POSITIVE, linewidth=1.6, **_marks(result))
        if name == SHARPNESS and np.isfinite(result.thresholds).any():
            _threshold(ax, result)
            legend(ax)
        _panel(ax, name)
    if rates and len(drawn) > len(names):
        below = drawn[len(names)]
        below.plot(result.when, result.learning_rates, color=MODEL, drawstyle="steps-post", **_marks(result))
        _panel(below, "learning rate")
    drawn[0].set_title("Curvature during training", loc="left", fontsize="medium", pad=20)
    drawn[0].annotate(
        caption(result.provenance),
        (0, 1),
        (0, 6),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize="x-small",
        color="grey",
    )
    drawn[-1].set_xlabel(result.unit, fontsize="small")
    return drawn


def stability(result: Any, ax: Axes | None = None) -> Axes:
    """Sharpness as the optimiser sees it, over its own threshold: 1 is the edge of stability (a training.History)."""
    if SHARPNESS not in result.names or not np.isfinite(result.thresholds).any():
        raise InputError("this history has no sharpness: ask for it, FollowCurvature(ask=['sharpness'], trainer=...)")
    ax = axes_on(ax)
    share = result.of(SHARPNESS) / result.thresholds
    ax.plot(result.when, share, color=POSITIVE, linewidth=1.6, **_marks(result))
    ax.axhline(1, color=NEGATIVE, linestyle="--", linewidth=1.2, label="threshold")
    finite = share[np.isfinite(share)]
    last = float(np.median(finite[-max(1, len(finite) // 4) :])) if finite.size else np.nan
    ax.set_xlabel(result.unit)
    ax.set_ylabel("sharpness / threshold")
    ax.set_ylim(0, max(1.2, 1.1 * float(np.max(finite, initial=0))))
    legend(ax)
    return titled(ax, f"In the last quarter at {last:.2f} of what is stable at this rate", result.provenance)


def ridge(result: Any, ax: Axes | None = None) -> Axes:
    """The largest eigenvalues over time, one line each (FollowCurvature with eigenvalues=k)."""
    names = [name for name in result.names if name.startswith(EIGENVALUE)]
    if not names:
        raise InputError("this history holds no eigenvalues: FollowCurvature(eigenvalues=k)")
    ax = axes_on(ax)
    values = np.stack([result.of(name) for name in names])
    for i in range(len(names) - 1, -1, -1):
        shade = 1 - 0.75 * i / max(1, len(names) - 1)
        below = values[i + 1] if i + 1 < len(names) else np.minimum(0, np.nanmin(values))
        ax.fill_between(result.when, below, values[i], color=POSITIVE, alpha=0.12 * shade, linewidth=0)
        ax.plot(result.when, values[i], color=POSITIVE, alpha=shade, linewidth=1.4, **_marks(result))
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.set_xlabel(result.unit)
    ax.set_ylabel("eigenvalue")
    return titled(ax, f"The {len(names)} largest eigenvalues during training", result.provenance)


def _marks(result: Any) -> dict[str, Any]:
    """Dots where there are few enough to be seen apart: a line of one point cannot be seen at all."""
    return {"marker": "o", "markersize": 3} if len(result.when) <= 60 else {}


def _threshold(ax: Axes, result: Any) -> None:
    ax.plot(result.when, result.thresholds, "--", color=NEGATIVE, linewidth=1.2, label="threshold of stability")


def _panel(ax: Axes, name: str) -> None:
    ax.set_ylabel(name, fontsize="small")
    ax.tick_params(labelsize="small")
    ax.spines[["top", "right"]].set_visible(False)
