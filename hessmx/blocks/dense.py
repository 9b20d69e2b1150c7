"""Plain dense nets with any activation."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Callable, Sequence

from hessmx._mxnet import mx
from hessmx.blocks.activations import ACTIVATIONS
from hessmx.blocks.maxout import Maxout
from hessmx.blocks.options import at_least
from hessmx.errors import InputError, choose

nn: Any = mx.gluon.nn


def dense_net(sizes: Sequence[int], activation="relu", pieces: int = 5, use_bias: bool = True, dtype="float32",
              weight_initializer=None, bias_initializer="zeros", prefix=None, params=None) -> Any:
    """Dense layers `sizes[0] -> sizes[1] -> ... -> sizes[-1]`, the last one linear.

    activation: a name in ACTIVATIONS; "maxout" (hidden layers are Maxout with `pieces` pieces, 5 as in Goodfellow et
    al. 2013, section 5.1); a Block class or function without arguments that makes a Block; or a function (F, x).
    """
    sizes = _checked(sizes)
    layer = dict(use_bias=use_bias, dtype=dtype,
                 weight_initializer=weight_initializer, bias_initializer=bias_initializer)
    make_activation = None if isinstance(activation, str) and activation == "maxout" else _factory(activation)
    net = nn.HybridSequential(prefix=prefix, params=params)
    with net.name_scope():
        for inputs, outputs in zip(sizes[:-2], sizes[1:-1]):
            if make_activation is None:
                net.add(Maxout(outputs, pieces, in_units=inputs, **layer))
            else:
                net.add(nn.Dense(outputs, in_units=inputs, **layer), _made(make_activation, dtype))
        net.add(nn.Dense(sizes[-1], in_units=sizes[-2], **layer))
    return net


def _checked(sizes) -> tuple[int, ...]:
    sizes = tuple(sizes) if hasattr(sizes, "__iter__") else (sizes,)
    if len(sizes) < 2:
        raise InputError(f"sizes must hold at least an input and an output size, not {sizes!r}: pass e.g. (64, 32, 10)")
    return tuple(at_least(f"sizes[{i}]", size, 1) for i, size in enumerate(sizes))


def _factory(activation) -> Callable[[], mx.gluon.HybridBlock]:
    if isinstance(activation, str):
        return ACTIVATIONS[choose("activation", activation, [*ACTIVATIONS, "maxout"])]
    if isinstance(activation, mx.gluon.Block) or not callable(activation):
        came = type(activation).__name__ if isinstance(activation, mx.gluon.Block) else repr(activation)
        raise InputError(f"activation must be a name, a function (F, x) or a function that makes a Block, not {came}: "
                         "pass the class, or a function without arguments that returns a new Block")
    required = _required_arguments(activation)
    if required not in (0, 2):
        raise InputError(f"activation must take (F, x), or nothing and return a Block, not {required} argument(s) like "
                         f"{activation!r}: wrap it in a lambda F, x: ...")
    return activation if required == 0 else partial(nn.HybridLambda, activation)


def _required_arguments(function) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:  # built-in functions may have no signature
        raise InputError(f"activation {function!r} hides what it takes: wrap it in a lambda F, x: ...") from error
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)


def _made(make, dtype):
    block = make()
    if not isinstance(block, mx.gluon.HybridBlock):
        raise InputError(f"activation must make a HybridBlock, but {make!r} returned {type(block).__name__}: "
                         "return e.g. nn.GELU()")
    block.cast(dtype)
    return block
