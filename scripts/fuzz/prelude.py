"""What the text of a random net may use. This file is executed in front of each net, and printed with it."""

import numpy as np

from hessmx._mxnet import mx

gluon, nn, rnn = mx.gluon, mx.gluon.nn, mx.gluon.rnn
Dropout, InstanceNorm = nn.Dropout, nn.InstanceNorm


class unrolled(gluon.HybridBlock):
    """A cell over the first `steps` of (N, T, C), from states that a Dense makes of all of it."""

    def __init__(self, cell, steps, last=False):
        super().__init__()
        self.cell, self.steps, self.last = cell, steps, last
        with self.name_scope():
            self.starts = [nn.Dense(state["shape"][-1], activation="tanh") for state in cell.state_info(1)]
            for i, start in enumerate(self.starts):
                self.register_child(start, f"start{i}")

    def hybrid_forward(self, F, x):
        states = [start(x) for start in self.starts]
        x = F.slice_axis(x, axis=1, begin=0, end=self.steps)
        outputs, states = self.cell.unroll(self.steps, x, begin_state=states, layout="NTC", merge_outputs=True)
        return states[-1] if self.last else outputs


class Attention(gluon.HybridBlock):
    """Self-attention over (N, T, C), heads folded into the batch."""

    def __init__(self, units, heads):
        super().__init__()
        self.heads = heads
        with self.name_scope():
            self.q, self.k, self.v = (nn.Dense(units * heads, flatten=False) for _ in range(3))

    def hybrid_forward(self, F, x):
        def split(a):
            return F.reshape(F.transpose(F.reshape(a, (0, 0, -4, self.heads, -1)), (0, 2, 1, 3)), (-3, 0, 0))

        q, k, v = split(self.q(x)), split(self.k(x)), split(self.v(x))
        read = F.batch_dot(F.softmax(F.batch_dot(q, k, transpose_b=True) * 0.5, axis=-1), v)
        return F.reshape(F.transpose(F.reshape(read, (-4, -1, self.heads, 0, 0)), (0, 2, 1, 3)), (0, 0, -3))


def spd(x, F):
    """x x' + I for every sample of (N, K, C)."""
    ones = F.ones_like(F.reshape(F.slice_axis(x, axis=2, begin=0, end=1), shape=(0, -1)))
    return F.linalg_syrk(x) + F.linalg_makediag(ones)


def set_values(net, seed):
    """Weights by their fan-in, other parameters around what they start at; rounded to the net's dtype."""
    for i, (name, p) in enumerate(net.collect_params().items()):
        rng = np.random.default_rng([seed, i])
        noise = rng.standard_normal(p.shape)
        if name.endswith("running_var"):
            value = 0.5 + rng.random(p.shape)
        elif name.endswith("gamma"):  # one that is fixed is 1, and MXNet writes that into it
            value = 1 + 0.3 * noise * (p.grad_req != "null")
        elif len(p.shape) > 1:
            value = noise * 1.2 / np.sqrt(max(np.prod(p.shape[1:]), 1))
        else:
            value = 0.25 + 0.3 * noise if name.endswith("alpha") else 0.3 * noise
        make = mx.np.array if mx.util.is_np_array() else mx.nd.array
        p.set_data(make(value.astype(p.dtype), dtype=p.dtype))


def draw(kind, shape, seed):
    """Inputs and labels (float64): real, whole numbers, classes, signs, 0 or 1, counts, probabilities."""
    rng = np.random.default_rng(seed)
    name, _, high = kind.partition(":")
    if name in ("class", "whole"):
        return rng.integers(0, int(high), shape).astype("float64")
    if name in ("sign", "binary"):
        return rng.integers(0, 2, shape) * (2.0 if name == "sign" else 1.0) - (name == "sign")
    if name == "count":
        return rng.poisson(1.5, shape).astype("float64")
    if name == "simplex":
        weights = rng.uniform(0.2, 1, shape)
        return weights / weights.sum(axis=-1, keepdims=True)
    return rng.standard_normal(shape).astype("float16").astype("float64")  # the same value in every dtype
