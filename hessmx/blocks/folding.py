"""Biases folded into the weights: a layer on x with weight W and bias b is the layer on [x, 1] with weight [W b].

Every layer appends its own column of ones, so hidden layers need no unit that carries the 1 along, and the parameter
vector of the folded net is a permutation p of the original one: vectors are v[p], Hessians H[p][:, p], spectra equal.
What is lost: a penalty or learning rate (`wd_mult`, `lr_mult`) cannot treat b differently from W any more.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from hessmx._mxnet import mx
from hessmx.blocks.maxout import Maxout, largest_piece
from hessmx.errors import InputError, ParameterError

nn: Any = mx.gluon.nn
_CONTAINERS = (nn.HybridSequential, nn.Sequential)
_LAYERS = (nn.Dense, Maxout)  # exact types: a subclass may use its bias in another way


class FoldedDense(mx.gluon.HybridBlock):
    """Dense, or Maxout if `pieces`, on an input with a column of ones: weight (units * pieces, in_units + 1)."""

    def __init__(self, units, in_units, pieces=None, flatten=True, dtype="float32", act=None, prefix=None, params=None):
        super().__init__(prefix=prefix, params=params)
        self.units, self.in_units, self.pieces, self.flatten = units, in_units, pieces, flatten
        with self.name_scope():
            self.weight = self.params.get("weight", shape=(units * (pieces or 1), in_units + 1), dtype=dtype)
            self.act = act and nn.Activation(act, prefix=act + "_")

    def hybrid_forward(self, F, x, weight):
        inputs = F.Flatten(x) if self.flatten else x
        ones = F.ones_like(F.slice_axis(inputs, axis=-1, begin=0, end=1))
        z = F.FullyConnected(F.concat(inputs, ones, dim=-1), weight, no_bias=True, flatten=self.flatten,
                             num_hidden=self.units * (self.pieces or 1))
        if self.pieces is not None:
            return largest_piece(F, z, self.units, self.pieces, None if self.flatten else x)
        return z if self.act is None else self.act(z)

    def __repr__(self):
        kind = self.act or "linear" if self.pieces is None else f"pieces={self.pieces}"
        return f"{type(self).__name__}({self.in_units} + 1 -> {self.units}, {kind})"


class FoldedNet(nn.HybridSequential):
    """What `fold_bias` returns; `permutation` p says where its parameters come from: folded vector = original[p]."""

    permutation: np.ndarray


def fold_bias(net: Any) -> FoldedNet:
    """The equal net without biases, on copies of the parameters.

    `net`: Dense, Maxout, PReLU and blocks without parameters, in (nested) HybridSequential or Sequential.
    Parameters with grad_req 'null' are frozen in the folded net too and are not counted in `.permutation`.
    """
    layers = _flat(net)
    _check(layers, net)
    copies = {id(layer): _folded(layer) if _has_bias(layer) else _copied(layer) for layer in layers}
    folded = FoldedNet()
    folded.add(*(copies[id(layer)] for layer in layers))
    folded.permutation = _permutation(net, {id(layer): layer for layer in layers}.values())
    return folded


def unfold_bias(folded: FoldedNet) -> Any:
    """The net with biases again, on copies; its vectors are those of the net that was folded."""
    if not isinstance(folded, FoldedNet):
        raise InputError(f"unfold_bias takes what fold_bias returned, not {type(folded).__name__}: fold it first")
    layers = list(folded._children.values())
    copies = {id(layer): _unfolded(layer) if isinstance(layer, FoldedDense) else _copied(layer) for layer in layers}
    net = nn.HybridSequential()
    net.add(*(copies[id(layer)] for layer in layers))
    return net


def _flat(block) -> list:
    if type(block) not in _CONTAINERS:
        return [block]
    return [layer for child in block._children.values() for layer in _flat(child)]


def _has_bias(layer) -> bool:
    return type(layer) in _LAYERS and layer.bias is not None


def _foldable(block) -> bool:
    plain = isinstance(block, mx.gluon.HybridBlock) and not block.collect_params().keys()
    return plain or type(block) in _LAYERS or isinstance(block, nn.PReLU)


def _check(layers, net) -> None:
    unknown = sorted({type(block).__name__ for block in layers if not _foldable(block)})
    if unknown:
        raise InputError("fold_bias works on Dense, Maxout, PReLU and blocks without parameters in sequence, not on "
                         f"{', '.join(unknown)}: fold the dense part of the net alone")
    missing = [name for name, p in net.collect_params().items() if p._data is None]
    if missing:
        raise ParameterError(f"fold_bias needs the values of the parameters, {missing[0]!r} has none: "
                             "call net.initialize() and run one batch through the net")
    owners = [id(p) for layer in {id(b): b for b in layers}.values() for p in layer.collect_params().values()]
    if len(owners) != len(set(owners)):
        raise InputError("fold_bias cannot fold different layers that share parameters: add one layer twice instead")
    mixed = [b.name for b in layers if _has_bias(b) and b.weight.grad_req != b.bias.grad_req]
    if mixed:
        raise ParameterError(f"weight and bias of {', '.join(mixed)} differ in grad_req, a folded weight has only one: "
                             "set them equal")


def _folded(layer) -> FoldedDense:
    maxout = type(layer) is Maxout
    units, pieces = (layer.units, layer.pieces) if maxout else (layer.weight.shape[0], None)
    folded = FoldedDense(units, layer.weight.shape[1], pieces, layer._flatten, layer.weight.dtype,
                         layer.act and layer.act._act_type)
    _fill(folded.weight, layer.weight, mx.nd.concat(_value(layer.weight), _value(layer.bias).expand_dims(1), dim=1))
    return folded


def _unfolded(layer: FoldedDense):
    shared = dict(flatten=layer.flatten, dtype=layer.weight.dtype, in_units=layer.in_units)
    if layer.pieces is None:
        unfolded = nn.Dense(layer.units, activation=layer.act and layer.act._act_type, **shared)
    else:
        unfolded = Maxout(layer.units, layer.pieces, **shared)
    value = _value(layer.weight)
    _fill(unfolded.weight, layer.weight, value[:, :-1])
    _fill(unfolded.bias, layer.weight, value[:, -1])
    return unfolded


def _value(parameter):
    return parameter.data(parameter.list_ctx()[0])


def _fill(parameter, source, value) -> None:
    """Give `parameter` the devices and training options of `source`, and `value`."""
    parameter.initialize(init=mx.init.Zero(), ctx=source.list_ctx(), force_reinit=True)
    parameter.set_data(value)
    parameter.grad_req, parameter.lr_mult, parameter.wd_mult = source.grad_req, source.lr_mult, source.wd_mult


def _copied(block):
    # Neither a compiled graph nor the name scope, which leads to the parent, may be copied along.
    copied = copy.deepcopy(block, {id(block._cached_op): None, id(block._scope): None})
    copied._scope = type(block._scope)(copied)
    for parameter, source in zip(copied.collect_params().values(), block.collect_params().values()):
        _fill(parameter, source, _value(source))  # a copied array is not marked for autograd
    return copied


def _permutation(net, layers) -> np.ndarray:
    """Positions in the original vector, in the order of the folded one; `layers` without repetition."""
    trained = [p for p in net.collect_params().values() if p.grad_req != "null"]
    ends = np.cumsum([0] + [int(np.prod(p.shape)) for p in trained])
    index = {id(p): np.arange(start, end).reshape(p.shape) for p, start, end in zip(trained, ends[:-1], ends[1:])}
    parts = [np.zeros(0, np.int64)]
    for layer in layers:
        own = [index[id(p)] for p in layer.collect_params().values() if id(p) in index]
        parts += [np.column_stack(own)] if own and _has_bias(layer) else own
    return np.concatenate([part.ravel() for part in parts])
