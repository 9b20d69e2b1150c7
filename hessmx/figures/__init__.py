"""Pictures of results: a result comes in, Matplotlib Axes go out. Nothing is computed here and no global state is used.

Every function takes the Axes to draw on, or makes a Figure of its own: `save(figures.eigenvalues(pairs), "top.png")`.
"""

from hessmx.figures.canvas import save
from hessmx.figures.compression import bit_costs, pruning
from hessmx.figures.eigen import eigenvalues
from hessmx.figures.factored import factored
from hessmx.figures.influence import influence, self_influence
from hessmx.figures.inputs import input_gradients, saliency
from hessmx.figures.landscape import line, plane, surface
from hessmx.figures.layers import layers
from hessmx.figures.matrix import matrix
from hessmx.figures.noise import noise, sample_gradients
from hessmx.figures.posterior import band, evidence, reliability
from hessmx.figures.spectra import density, log_density, spectrum
from hessmx.figures.trace import estimate
from hessmx.figures.training import history, ridge, stability
from hessmx.figures.two_nets import importance, merged, paths

__all__ = [
    "band",
    "bit_costs",
    "density",
    "eigenvalues",
    "estimate",
    "evidence",
    "factored",
    "history",
    "importance",
    "influence",
    "input_gradients",
    "layers",
    "line",
    "log_density",
    "matrix",
    "merged",
    "noise",
    "paths",
    "plane",
    "pruning",
    "reliability",
    "ridge",
    "saliency",
    "sample_gradients",
    "save",
    "self_influence",
    "spectrum",
    "stability",
    "surface",
]
