"""What the tests of the blocks share."""

import warnings

import numpy as np

from hessmx._mxnet import mx


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def array(values, dtype="float64"):
    return mx.nd.array(values, dtype=dtype)


def initialized(block, seed=0):
    """The block with every parameter drawn from a standard normal distribution."""
    block.initialize(mx.init.Zero())
    for number, p in enumerate(block.collect_params().values()):
        p.set_data(array(normal(*p.shape, seed=(seed, number)), p.dtype))
    return block


def reload(block, x, folder):
    """The block exported and read back by MXNet."""
    block.hybridize()
    block(x)
    block.export(str(folder / "net"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot decide type")  # MXNet warns so for every net
        return mx.gluon.SymbolBlock.imports(str(folder / "net-symbol.json"), ["data"], str(folder / "net-0000.params"))


def trained(net):
    return [p for p in net.collect_params().values() if p.grad_req != "null"]


def vector(net):
    return np.concatenate([p.data().asnumpy().ravel() for p in trained(net)])


def set_vector(net, values):
    start = 0
    for p in trained(net):
        size = int(np.prod(p.shape))
        p.set_data(array(values[start:start + size].reshape(p.shape), p.dtype))
        start += size


def gradient(net, x, head):
    """d <head, net(x)> / d parameters, (P,)."""
    with mx.autograd.record(train_mode=False):
        y = net(x)
    y.backward(array(head, y.dtype))
    return np.concatenate([p.grad().asnumpy().ravel() for p in trained(net)])


def hessian_by_differences(net, x, head, step=1e-5):
    """Central differences of float64 gradients of <head, net(x)^2>, (P, P)."""
    def slope(values):
        set_vector(net, values)
        return gradient(lambda_square(net), x, head)

    start = vector(net)
    rows = [(slope(start + step * e) - slope(start - step * e)) / (2 * step) for e in np.eye(start.size)]
    set_vector(net, start)
    return np.array(rows)


def lambda_square(net):
    """The net followed by a square, so that the last layer has curvature too."""
    squared = mx.gluon.nn.HybridSequential()
    squared.add(net, mx.gluon.nn.HybridLambda("square"))
    return squared
