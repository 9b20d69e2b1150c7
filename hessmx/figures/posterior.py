"""Posteriors: a regression with its band, reliability of probabilities, the parts of the evidence."""

from __future__ import annotations

from typing import Any, Mapping

import numpy as np
from matplotlib.axes import Axes

from hessmx.errors import InputError
from hessmx.figures.canvas import FAINT, MODEL, NEGATIVE, POSITIVE, axes_on, legend, titled

_COLOURS = (NEGATIVE, POSITIVE, MODEL, FAINT)


def band(x: Any, prediction: Any, data: tuple[Any, Any] | None = None, output: int = 0, ax: Axes | None = None) -> Axes:
    """A regression over one input x (N,): mean, two standard deviations of the function and of what is observed.

    prediction  a uses.predictions.Prediction of a squared loss; data  points (x, y) that it was fitted to
    """
    x = np.ravel(np.asarray(x, float))
    if x.size != len(prediction.outputs):
        raise InputError(f"x must be one number for each of {len(prediction.outputs)} predictions, not {x.size}")
    order, ax = np.argsort(x), axes_on(ax)
    mean = prediction.outputs[order, output]
    for variance, shade, label in (
        (prediction.variances, 0.15, "observations, ± 2 standard deviations"),
        (prediction.variances - prediction.noise, 0.35, "function"),
    ):
        half = 2 * np.sqrt(np.maximum(variance[order, output], 0))
        ax.fill_between(x[order], mean - half, mean + half, color=POSITIVE, alpha=shade, linewidth=0, label=label)
    ax.plot(x[order], mean, color=POSITIVE, linewidth=1.6, label="mean")
    if data is not None:
        y = np.asarray(data[1], float).reshape(len(data[1]), -1)[:, output]
        ax.plot(np.ravel(data[0]), y, ".", color="black", markersize=4, label="data")
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    legend(ax)
    return titled(ax, "Prediction of the linearised net", prediction.provenance)


def reliability(results: Any, ax: Axes | None = None) -> Axes:
    """Share of right answers over confidence; on the diagonal what is said is true. One Calibration, or name -> one."""
    named: Mapping[str, Any] = results if isinstance(results, Mapping) else {"prediction": results}
    ax = axes_on(ax, 7.6, 4.2)
    ax.plot([0, 1], [0, 1], color=FAINT, linewidth=0.8, linestyle=":")
    for (name, found), colour in zip(named.items(), _COLOURS * len(named)):
        seen = found.counts > 0
        sizes = 12 + 220 * found.counts[seen] / found.counts.sum()
        ax.scatter(found.confidence[seen], found.correct[seen], s=sizes, color=colour, alpha=0.35, linewidth=0)
        ax.plot(found.confidence[seen], found.correct[seen], color=colour, linewidth=1.4,
                label=f"{name}\nECE {found.ece:.3f}, NLL {found.nll:.3f}")
    ax.set_xlim(0, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_xlabel("confidence (area of a dot: share of the samples)")
    ax.set_ylabel("right answers")
    legend(ax, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return titled(ax, "Reliability of the probabilities", next(iter(named.values())).provenance)


def evidence(result: Any, ax: Axes | None = None) -> Axes:
    """What the log marginal likelihood consists of, in nats (a uses.laplace.Evidence)."""
    ax = axes_on(ax, 6.4, 2.6)
    parts = {"log likelihood": result.log_likelihood, "log prior": result.log_prior, "posterior volume": result.occam,
             "log evidence": result.value}
    rows = np.arange(len(parts))[::-1]
    bars = ax.barh(rows, list(parts.values()), color=[POSITIVE] * 3 + [MODEL], height=0.6)
    ax.bar_label(bars, [f" {value:.4g} " for value in parts.values()], fontsize="small")
    ax.margins(x=0.18)
    ax.axvline(0, color=FAINT, linewidth=0.8)
    ax.set_yticks(rows, list(parts), fontsize="small")
    ax.set_xlabel(f"nats ({result.effective_params:.4g} parameters determined by the data)")
    return titled(ax, f"Evidence of the {result.structure} posterior", result.provenance)
