"""Training that needs second derivatives: losses made of a net's derivatives by its input.

    gp = penalty(critic, "wgan-gp")
    with autograd.record():
        loss = (critic(fake) - critic(real)).mean() + 10 * gp(between)
    loss.backward()                                     # into the parameters' own .grad: write, add, any Trainer

MXNet's own double backward raises on nearly every layer and is silently wrong on Dense. Here the gradient of phi(dD/dx)
by the parameters is that of the tangent of D along v = phi'(dD/dx), held fixed: one ordinary backward pass.
"""

from __future__ import annotations

from typing import Any, Callable, Mapping, Sequence

import numpy as np

from hessmx._mxnet import mx
from hessmx._threads import alone
from hessmx.errors import InputError, choose
from hessmx.problem.data import Batches
from hessmx.problem.net import Net, Selection
from hessmx.problem.outputs import Output
from hessmx.uses.derivatives import Derivatives, Gradients, Jacobians, Orders

Function = Callable[..., Any]
_TINY = {np.dtype(np.float32): 1e-30, np.dtype(np.float64): 1e-200}  # a square root's slope at 0 stays finite


def _squares(derivative: Any) -> Any:
    """Sum of squares of each sample: (N,)."""
    return mx.nd.square(_plain(derivative).reshape((derivative.shape[0], -1))).sum(axis=1)


def _length(derivative: Any) -> Any:
    return mx.nd.sqrt(_squares(derivative) + _TINY[np.dtype(derivative.dtype)])


def _wgan_gp(gradient: Any, target: float = 1.0) -> Any:
    return mx.nd.square(_length(gradient) - target)


def _one_sided(gradient: Any, target: float = 1.0) -> Any:
    return mx.nd.square(mx.nd.relu(_length(gradient) - target))


def _sobolev(gradient: Any, target: Any) -> Any:
    return _squares(_plain(gradient) - _plain(target))


NAMED: dict[str, tuple[str, Function]] = {
    "wgan-gp": ("gradient", _wgan_gp),  # (|g| - 1)^2: Gulrajani et al. 2017, equation 3
    "wgan-lp": ("gradient", _one_sided),  # max(0, |g| - 1)^2: Petzka et al. 2018, equation 7
    "r1": ("gradient", _squares),  # |g|^2, to be weighted with gamma / 2: Mescheder et al. 2018, equation 9
    "sobolev": ("gradient", _sobolev),  # |g - target|^2: Czarnecki et al. 2017, equation 1
    "jacobian": ("jacobian", _squares),  # |J|_F^2: Sokolic et al. 2017; of an encoder, contractive: Rifai et al. 2011
}


def penalty(
    net: Any,
    function: str | Function,
    of: str | Sequence[str] = "gradient",
    *,
    coordinates: str | None = None,
    output: Output = None,
    wrt: int = 0,
    params: Selection = None,
    mode: str | None = None,
    reduction: str = "mean",
    seed: int = 0,
) -> Penalty:
    """A loss made of the derivatives of `net` by its input; call it inside `autograd.record()` and add it to the loss.

    function     "wgan-gp", "wgan-lp", "r1", "sobolev" (gradient, target), "jacobian" (also the contractive penalty), or
                 function(derivative, ..., *extra) of arrays, written with array functions, one value per sample
    of           "gradient" (N, *input shape); "jacobian" (N, outputs, *input shape); or names of derivatives, each of
                 the output's shape, for PDE residuals: ("u", "u_t", "u_xx")
    coordinates  letters for the entries of one input, in their order: "xt"; with derivatives by name only
    output       which number of a sample the gradient is of: None (sum of its outputs), an index, weights, or
                 function(output, label): as in `hessmx.inputs`
    wrt          which of several inputs the derivatives are by
    params       regex, predicate or list; by default all with grad_req other than 'null'
    mode         "train" or "predict"; by default as MXNet's own: train inside `record()`, else predict
    reduction    "mean" over samples or "sum"

    Cost in forward passes (a gradient: 3): 3 for the value and 9 for its gradient by the parameters; jacobian: as often
    as there are outputs; a derivative of order k: about 2^k, 3 times that with the gradient. Compiled once for each
    batch shape. Raises UnsupportedOps where an operator of the net lacks the rule, or the rule of its rule.

    In train mode the gradient is that of the sum of all outputs over the batch: through batch statistics each sample
    moves all outputs. Running statistics are not updated by it, and Dropout draws a mask of its own, the same for value
    and gradient. x is a constant: nothing flows to whatever made it.
    """
    if isinstance(function, str):
        of, function = NAMED[choose("function", function, NAMED)]
    elif not callable(function):
        raise InputError(f"function must be a function of the derivative or a name, not {type(function).__name__}")
    choose("reduction", reduction, ("mean", "sum"))
    if mode is not None:
        choose("mode", mode, ("train", "predict"))
    if not isinstance(wrt, (int, np.integer)) or wrt < 0:
        raise InputError(f"wrt must be the number of an input, from 0, not {wrt!r}")
    found = Net(net, params)

    def make(train: bool) -> Derivatives:
        if of == "jacobian":
            return Jacobians(found, None, wrt, train, seed)
        if of == "gradient":
            return Gradients(found, output, wrt, train, seed)
        return Orders(found, parse_orders(of, coordinates), wrt, train, seed)

    if of != "gradient" and output is not None:
        raise InputError("output= chooses what a gradient is of; a jacobian and derivatives by name are of all outputs")
    return Penalty(found, function, make, mode, reduction)


class Penalty:
    """See `penalty`. Calling it gives one number (1,); inside `autograd.record()` it is on the tape."""

    def __init__(
        self, net: Net, function: Function, make: Callable[[bool], Derivatives], mode: str | None, reduction: str
    ):
        self.net, self.function, self.mode, self.reduction = net, function, mode, reduction
        self._make = make
        self._made: dict[bool, Derivatives] = {}
        self._batches = Batches([], net.dtype, net.context)

    @alone
    def __call__(self, x: Any, *extra: Any, label: Any = None) -> Any:
        """On inputs x (N, ...), or a list of inputs; `extra` goes to the function, `label` to the output's."""
        derivatives = self._derivatives()
        inputs = [self._batches.array(a, "x") for a in (x if isinstance(x, (list, tuple)) else [x])]
        labels = [] if label is None else self._batches.array(label, "label")
        recording = mx.autograd.is_recording()
        with mx.autograd.pause(train_mode=mx.autograd.is_training()):
            batch = derivatives.batch(inputs, labels)
            values = derivatives.values(batch)
        if not recording:
            return _as_numpy(self._reduced(values, extra))
        for value in values:
            value.attach_grad()
        total = mx.nd.add_n(self._reduced(values, extra), *[0 * v.sum() for v in values])  # it may not look at all
        with mx.autograd.pause(train_mode=mx.autograd.is_training()):
            cotangents = mx.autograd.grad(total, values, retain_graph=True, create_graph=False)
            gradient = derivatives.pull_back(batch, cotangents)
            gradient = {name: array.copy() for name, array in gradient.items()}
        return _as_numpy(total + self._tied(gradient))

    def _derivatives(self) -> Derivatives:
        train = mx.autograd.is_training() if self.mode is None else self.mode == "train"
        if train not in self._made:
            self._made[train] = self._make(train)
        return self._made[train]

    def _reduced(self, values: Sequence[Any], extra: tuple) -> Any:
        """The function's values over the batch, as one number; outside of the samples' axis they are added up."""
        found = self.function(*map(_as_numpy, values), *extra)
        samples = values[0].shape[0]
        shape = getattr(found, "shape", None)
        if not shape or (shape[0] != samples):
            raise InputError(
                f"function must return one value per sample, an array ({samples}, ...), not "
                f"{type(found).__name__ if shape is None else f'shape {tuple(shape)}'}; the mean is taken afterwards"
            )
        total = _plain(found).reshape((-1,)).sum()
        return total / samples if self.reduction == "mean" else total

    def _tied(self, gradient: Mapping[str, Any]) -> Any:
        """Zero, with this gradient by the parameters: <G, w - w held fixed>, in operators that the tape knows."""
        terms = []
        for name, array in gradient.items():
            weight = _plain(self.net.parameters[name].data(self.net.context))
            moved = (weight - weight.detach()).reshape((-1,))
            terms.append(mx.nd.dot(moved, array.reshape((-1,)).astype(moved.dtype, copy=False)).astype(self.net.dtype))
        return mx.nd.add_n(*terms)


def _plain(array: Any) -> Any:
    return array.as_nd_ndarray() if hasattr(array, "as_nd_ndarray") else array


def _as_numpy(array: Any) -> Any:
    """What user code deals with: MXNet's NumPy arrays where it has asked for them."""
    return array.as_np_ndarray() if mx.util.is_np_array() else array


def parse_orders(of: Any, coordinates: str | None) -> list[tuple]:
    """("u", "u_t", "u_xx") with coordinates "xt" -> [(), (1,), (0, 0)]."""
    wanted = [of] if isinstance(of, str) else list(of)
    if not isinstance(coordinates, str) or not coordinates or len(set(coordinates)) != len(coordinates):
        raise InputError(
            "derivatives by name need coordinates=, a letter for each entry of an input in its order, such as 'xt' for "
            f"inputs (x, t); not {coordinates!r}"
        )
    orders = []
    for name in wanted:
        letters = str(name)[2:] if str(name).startswith("u_") else ""
        if (str(name) != "u" and not letters) or set(letters) - set(coordinates):
            example = f"'u' or 'u_' and letters of {coordinates!r}, such as 'u_{coordinates[0]}'"
            raise InputError(f"of holds {name!r}; expected {example}")
        orders.append(tuple(sorted(coordinates.index(letter) for letter in letters)))
    if not orders:
        raise InputError("of names no derivative; expected some such as 'u', 'u_t', 'u_xx'")
    return orders
