"""The nets of penalty_cases.py in Gluon, their penalties, and what PyTorch found; a script of the docs uses it too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from hessmx._mxnet import mx
from hessmx.training import penalty
from tests.uses.penalty_cases import BURGERS, CASES, EPS, LENGTH, PLATE, SLOPE, residual

nn, record = mx.gluon.nn, mx.autograd.record
STORED = json.loads((Path(__file__).parent / "penalties.json").read_text())["cases"]


def layer(kind, *sizes):
    if kind == "dense":
        return nn.Dense(sizes[1], in_units=sizes[0])
    if kind == "conv":
        return nn.Conv2D(sizes[1], 3, strides=sizes[2], padding=1, in_channels=sizes[0])
    if kind == "layernorm":
        return nn.LayerNorm(in_channels=sizes[0], epsilon=EPS)
    if kind == "batchnorm":
        return nn.BatchNorm(in_channels=sizes[0], epsilon=EPS)
    named = {"softplus": lambda: nn.Activation("softrelu"), "gelu": nn.GELU, "silu": nn.Swish, "elu": nn.ELU,
             "leaky": lambda: nn.LeakyReLU(SLOPE), "flatten": nn.Flatten}  # fmt: skip
    return named.get(kind, lambda: nn.Activation(kind))()


def built(layers, values, dtype="float64"):
    net = nn.HybridSequential()
    net.add(*[layer(*one) for one in layers])
    net.initialize()
    net.cast(dtype)
    trained = [p for p in net.collect_params().values() if p.grad_req != "null"]
    assert len(trained) == len(values)
    for p, value in zip(trained, values):
        p.set_data(mx.nd.array(value, dtype=dtype))
    return net


def array(value, dtype="float64"):
    return mx.nd.array(value, dtype=dtype)


def gradient(net):
    return np.concatenate([p.grad().asnumpy().ravel() for p in net.collect_params().values() if p.grad_req != "null"])


def of(name, net, target, labels):
    """The penalty of a case, and what it is called with beside x."""
    kind = CASES[name][2]
    if kind == "loss":
        loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
        return penalty(net, "r1", output=loss), (), {"label": array(labels)}
    if kind == "sobolev":
        return penalty(net, "sobolev"), (array(target),), {}
    if kind not in (BURGERS, PLATE):
        return penalty(net, kind), (LENGTH,) if kind == "wgan-lp" else (), {}
    letters = ("", "t", "x", "xx") if kind == BURGERS else ("", "xxxx", "xxtt")
    names = ["u_" + text if text else "u" for text in letters]

    def square(*found):
        return mx.nd.square(residual(kind, dict(zip(letters, found)).__getitem__))

    return penalty(net, square, of=names, coordinates="xt"), (), {}
