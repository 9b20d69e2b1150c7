"""Small nets for the uses: what they compute is written beside them in NumPy; what must not change is compared."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from hessmx._mxnet import mx
from hessmx.blocks import dense_net

SOFTMAX = mx.gluon.loss.SoftmaxCrossEntropyLoss()


def problem(samples: int = 60, inputs: int = 5, classes: int = 3, seed: int = 0):
    """x, y of classes that a plane separates, nearly."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, inputs))
    return x, np.argmax(x[:, :classes] + 0.5 * rng.normal(size=(samples, classes)), axis=1).astype(float)


def trained(x, y, sizes=(5, 6, 3), dtype="float64", seed=0, steps=150, rate=0.05, activation="tanh"):
    """A dense net trained to a low loss, hybridized."""
    mx.random.seed(seed)
    net = dense_net(sizes, activation, dtype=dtype)
    net.initialize(mx.init.Xavier())
    net.hybridize()
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": rate})
    data, labels = mx.nd.array(x, dtype=dtype), mx.nd.array(y, dtype=dtype)
    for _ in range(steps):
        with mx.autograd.record():
            losses = SOFTMAX(net(data), labels)
        losses.backward()
        trainer.step(len(x))
    return net


def dense_loss(w, x, y, sizes=(5, 6, 3), activation=np.tanh):
    """Softmax cross-entropy of a dense net with flat parameters w (weight, bias, weight, bias, ...), in NumPy."""
    h, start = x, 0
    for i, (n, m) in enumerate(zip(sizes, sizes[1:])):
        weight, bias = w[start : start + m * n].reshape(m, n), w[start + m * n : start + m * n + m]
        start += m * n + m
        h = h @ weight.T + bias
        h = activation(h) if i < len(sizes) - 2 else h
    z = h - h.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(y)), y.astype(int)]))


def second_derivative(f, w, d, step=1e-3):
    """d'Hd by fourth-order central differences of f."""
    values = [f(w + k * step * d) for k in (-2, -1, 0, 1, 2)]
    return (-values[0] + 16 * values[1] - 30 * values[2] + 16 * values[3] - values[4]) / (12 * step**2)


def slope(f, w, d, step=1e-3):
    values = [f(w + k * step * d) for k in (-2, -1, 1, 2)]
    return (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)


@contextmanager
def unchanged(*nets):
    """Values, gradients, grad_req, hybridization and random states are the same afterwards, in the same arrays."""
    def state():
        parameters = [p for net in nets for p in net.collect_params().values()]
        return ([id(p._data[0]) for p in parameters], [p.grad_req for p in parameters], [n._active for n in nets],
                np.random.get_state()[1].tolist(),  # noqa: NPY002
                [p.data().asnumpy().tolist() for p in parameters],
                [p.grad().asnumpy().tolist() if p.grad_req != "null" else None for p in parameters])

    before = state()
    mx.random.seed(77)
    yield
    drawn = mx.nd.random.uniform(shape=(3,)).asnumpy()
    mx.random.seed(77)
    assert np.array_equal(drawn, mx.nd.random.uniform(shape=(3,)).asnumpy()), "MXNet's random state was moved"
    assert state() == before


def exported(net, x, folder, name="net"):
    """The net saved by export() and loaded from its files."""
    from hessmx import load_net

    net.hybridize()
    dtype = next(iter(net.collect_params().values())).dtype
    net(mx.nd.array(x, dtype=dtype))
    net.export(str(folder / name))
    return load_net(folder / f"{name}-symbol.json", folder / f"{name}-0000.params")
