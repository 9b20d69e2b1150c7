"""Top eigenpairs, a 1 % trace and the spectral density of the demo's nets: hessmx, PyHessian's own code, curvlinops.

    python scripts/bench/peers.py [--json docs/bench-peers.json] [--net dense,maxout]

Needs `pip install torch jax pyhessian curvlinops-for-pytorch`. All see the same weights (float32) and data;
the truth is JAX's Hessian in float64. Every library is used as its documentation shows: PyHessian on one batch with
the retained graph and its default tolerances, curvlinops through SciPy's eigsh; where a library cannot stop at
a requested error it is given the number of products that hessmx spent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")

import hessmx  # noqa: E402  (settles NumPy's aliases and threads before anything else is imported)
from hessmx._mxnet import mx  # noqa: E402
from hessmx.cli.demo import NETS, _digits, _train  # noqa: E402

import tables  # noqa: E402  # isort: skip
import jax  # noqa: E402  # isort: skip
import jax.numpy as jnp  # noqa: E402  # isort: skip
import numpy as np  # noqa: E402  # isort: skip
import torch  # noqa: E402  # isort: skip
from scipy.sparse.linalg import LinearOperator, eigsh  # noqa: E402  # isort: skip
from scipy.stats import norm  # noqa: E402  # isort: skip

jax.config.update("jax_enable_x64", True)
torch.set_num_threads(2)
TOP, PROBES, STEPS, BINS, RTOL = 10, 10, 64, 40, 0.01


class Problem:
    """One trained net, in all three libraries."""

    def __init__(self, name: str):
        self.train, _ = _digits(0)
        self.pieces = NETS[name].get("pieces", 1)
        self.net = _train(name, self.train, 0)
        arrays = [p.data().asnumpy() for p in self.net.collect_params().values()]
        self.layers = list(zip(arrays[::2], arrays[1::2]))

    def truth(self) -> np.ndarray:
        """Dense Hessian (P, P) in float64."""
        shapes = [a.shape for layer in self.layers for a in layer]
        cuts = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
        w = jnp.concatenate([jnp.asarray(a, jnp.float64).ravel() for layer in self.layers for a in layer])
        x, y = jnp.asarray(self.train[0], jnp.float64), jnp.asarray(self.train[1].astype(int))

        def loss(flat):
            parts = [p.reshape(s) for p, s in zip(jnp.split(flat, cuts), shapes)]
            z = x
            for i, (weight, bias) in enumerate(zip(parts[::2], parts[1::2])):
                z = z @ weight.T + bias
                if i < len(self.layers) - 1:
                    z = jnp.tanh(z) if self.pieces == 1 else z.reshape(len(x), -1, self.pieces).max(2)
            return -jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], 1).mean()

        product = jax.jit(jax.vmap(lambda v: jax.jvp(jax.grad(loss), (w,), (v,))[1]))
        rows = [np.asarray(product(chunk)) for chunk in np.array_split(np.eye(w.size), max(1, w.size // 32))]
        return np.concatenate(rows)

    def torch(self) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
        pieces = self.pieces

        class Best(torch.nn.Module):
            def forward(self, z: torch.Tensor) -> torch.Tensor:
                return z.view(len(z), -1, pieces).amax(2)

        modules: list[torch.nn.Module] = []
        for weight, bias in self.layers:
            linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
            linear.weight.data, linear.bias.data = torch.tensor(weight), torch.tensor(bias)
            modules += [linear, torch.nn.Tanh() if pieces == 1 else Best()]
        x, y = (torch.tensor(a) for a in self.train)
        return torch.nn.Sequential(*modules[:-1]), x, y.long()


def by_hessmx(problem: Problem, edges: np.ndarray) -> dict:
    loss = mx.gluon.loss.SoftmaxCrossEntropyLoss()
    curv = hessmx.Curvature(problem.net, loss, problem.train, batch_size=len(problem.train[0]))
    curv.hvp(np.ones(curv.num_params))  # compiled once, as the others are ready too
    top = timed(lambda: curv.eigenpairs(TOP))
    trace = timed(lambda: curv.trace("hutch++", rtol=RTOL))
    density = timed(lambda: curv.spectrum(probes=PROBES, steps=STEPS))
    return {
        "eigenvalues": (top[0].values, top[0].products, top[1]),
        "trace": (trace[0].value, trace[0].products, trace[1]),
        "density": (np.diff(density[0].cdf(edges)), density[0].products, density[1]),
    }


def by_pyhessian(problem: Problem, edges: np.ndarray, _: int) -> dict:
    from pyhessian import hessian

    spent, scope = [0], sys.modules["pyhessian.hessian"]
    original = scope.hessian_vector_product

    def counted(*args):
        spent[0] += 1
        return original(*args)

    scope.hessian_vector_product = counted
    net, x, y = problem.torch()
    asked = hessian(net, torch.nn.CrossEntropyLoss(), data=(x, y), cuda=False)
    found = {}
    for question, ask in {
        "eigenvalues": lambda: np.array(asked.eigenvalues(top_n=TOP)[0]),
        "trace": lambda: float(np.mean(asked.trace(maxIter=10_000))),
        "density": lambda: _smoothed(*asked.density(iter=STEPS, n_v=PROBES), edges),
    }.items():
        found[question] = asked_of(ask, spent)
    scope.hessian_vector_product = original
    return found


def _smoothed(nodes: list, weights: list, edges: np.ndarray) -> np.ndarray:
    """Bin masses of PyHessian's density: Gaussians of variance 1e-5 (its default), scaled as its density_plot does."""
    nodes, weights = np.real(np.array(nodes)), np.real(np.array(weights))
    sigma2 = 1e-5 * max(1, nodes.max(1).mean() - nodes.min(1).mean())
    shares = [norm.cdf(edges[:, None], n[None], np.sqrt(sigma2)) @ w for n, w in zip(nodes, weights)]
    return np.diff(np.mean(shares, axis=0))


def by_curvlinops(problem: Problem, edges: np.ndarray, budget: int) -> dict:
    import curvlinops

    net, x, y = problem.torch()
    parameters = [p for p in net.parameters() if p.requires_grad]
    operator = curvlinops.HessianLinearOperator(
        net, torch.nn.CrossEntropyLoss(), parameters, [(x, y)], check_deterministic=False
    )
    spent = [0]
    inner = operator._matmat

    def counted(block):
        spent[0] += (block[0] if isinstance(block, list) else block).shape[-1]
        return inner(block)

    operator._matmat = counted
    plain = operator.to_scipy()
    matrix = LinearOperator(plain.shape, matvec=lambda v: plain @ v.astype(np.float32), dtype=np.float32)
    found = {}
    for question, ask in {
        "eigenvalues": lambda: eigsh(matrix, k=TOP, which="LA", return_eigenvectors=False)[::-1],
        "trace": lambda: float(curvlinops.hutchpp_trace(operator, budget // 3 * 3)),
        "density": lambda: _of_grid(
            curvlinops.lanczos_approximate_spectrum(operator, STEPS, num_points=4096, num_repeats=PROBES), edges
        ),
    }.items():
        found[question] = asked_of(ask, spent)
    return found


def asked_of(ask, spent: list[int]) -> tuple | str:
    """(Answer, products, seconds), or why there is none: a library that fails is part of the comparison."""
    spent[0] = 0
    try:
        value, seconds = timed(ask)
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:90]}"
    return value, spent[0], seconds


def _of_grid(result: tuple, edges: np.ndarray) -> np.ndarray:
    """Bin masses of a density on a grid."""
    grid, density = (np.asarray(part, float) for part in result)
    cumulated = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(grid))])
    return np.diff(np.interp(edges, grid, cumulated))


def timed(ask) -> tuple:
    start = time.perf_counter()
    value = ask()
    return value, time.perf_counter() - start


def errors(answers: dict, true: np.ndarray, edges: np.ndarray) -> dict:
    """Products, seconds and true error of each answer."""
    masses = np.histogram(true, edges)[0] / len(true)
    top = np.sort(true)[::-1][:TOP]
    error = {
        "eigenvalues": lambda v: float(np.abs(np.sort(v)[::-1] / top - 1).max()),
        "trace": lambda v: float(abs(v / true.sum() - 1)),
        "density": lambda v: float(np.abs(v - masses).sum()),
    }
    rows: dict = {}
    for question, answer in answers.items():
        if isinstance(answer, str):
            rows[question] = {"refused": answer}
        else:
            value, products, seconds = answer
            rows[question] = dict(products=int(products), seconds=seconds, error=error[question](value))
    return rows


def compare(name: str) -> dict:
    problem = Problem(name)
    dense = problem.truth()
    true = np.linalg.eigvalsh((dense + dense.T) / 2)
    pad = 0.05 * (true[-1] - true[0])
    edges = np.linspace(true[0] - pad, true[-1] + pad, BINS + 1)
    own = by_hessmx(problem, edges)
    result = {"hessmx": errors(own, true, edges)}
    for library, ask in {"PyHessian": by_pyhessian, "curvlinops": by_curvlinops}.items():
        result[library] = errors(ask(problem, edges, own["trace"][1]), true, edges)
    return {"parameters": len(true), "results": result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--net", default=",".join(NETS))
    options = parser.parse_args()
    results = {name: compare(name) for name in options.net.split(",")}
    print(tables.peers(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
