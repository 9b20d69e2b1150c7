"""One row of the operator case table: an operator, inputs to draw, attributes. Data only; MXNet is not imported here.

A row is drawn from its own seed (a checksum of its name), so neither the order of rows nor a new row moves another
row's numbers. Domains keep draws away from kinks and poles by much more than a difference step; rows that sit on a
kink on purpose say `kink=True`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional

import numpy as np

Shape = tuple  # of int


def _signed(rng: np.random.Generator, shape: Shape, low: float, high: float) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape) * rng.uniform(low, high, shape)


def _distinct(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Nonzero values in (-1.5, 1.5), no two within 1/size of each other (max, sort, topk)."""
    n = int(np.prod(shape, dtype=int))
    grid = (np.arange(n) + rng.uniform(0.3, 0.7, n)) / max(n, 1) * 3 - 1.5
    return rng.permutation(grid + 0.05 * np.sign(grid)).reshape(shape)


def _square(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    """Invertible, distinct singular values."""
    return 0.5 * rng.standard_normal(shape) + np.diag(1.5 + 0.5 * np.arange(shape[-1]))


def _spd(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    a = 0.4 * rng.standard_normal(shape)
    return a @ np.swapaxes(a, -1, -2) + np.diag(1.0 + 0.6 * np.arange(shape[-1]))


def _triangular(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    return np.tril(0.5 * rng.standard_normal(shape), -1) + np.diag(1.0 + 0.3 * np.arange(shape[-1]))


def _simplex(rng: np.random.Generator, shape: Shape) -> np.ndarray:
    p = rng.uniform(0.3, 1.0, shape)
    return p / p.sum(-1, keepdims=True)


DOMAINS: Mapping[str, Callable] = {
    "real": lambda rng, shape: _signed(rng, shape, 0.1, 1.6),  # nonzero
    "distinct": _distinct,
    "positive": lambda rng, shape: rng.uniform(0.4, 2.0, shape),
    "above_one": lambda rng, shape: rng.uniform(1.2, 3.0, shape),
    "unit": lambda rng, shape: _signed(rng, shape, 0.1, 0.8),  # inside (-1, 1)
    "probability": lambda rng, shape: rng.uniform(0.1, 0.9, shape),
    "fraction": lambda rng, shape: rng.integers(-2, 3, shape) + rng.uniform(0.1, 0.4, shape),  # not n, not n + 1/2
    "half": lambda rng, shape: 0.5 * rng.integers(-3, 3, shape) + rng.uniform(0.20, 0.30, shape),
    "quarter": lambda rng, shape: 0.5 * rng.integers(-3, 3, shape) + rng.uniform(-0.05, 0.05, shape) + 0.06,
    "binary": lambda rng, shape: rng.integers(0, 2, shape).astype(float),
    "sign": lambda rng, shape: rng.choice([-1.0, 1.0], shape),
    "simplex": _simplex,
    "square": _square,
    "spd": _spd,
    "triangular": _triangular,
}


@dataclass(frozen=True)
class Array:
    """What to draw for one input: a domain above, integers in [low, high), or the literal `values`."""

    shape: Shape
    domain: str = "real"
    low: int = 0
    high: int = 0
    values: Optional[tuple] = None
    dtype: str = "float64"

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        if self.values is not None:
            drawn = np.array(self.values, dtype="float64").reshape(self.shape)
        elif self.domain == "index":
            drawn = rng.integers(self.low, self.high, self.shape)
        else:
            drawn = DOMAINS[self.domain](rng, self.shape)
        return np.asarray(drawn).astype(self.dtype)

    @property
    def floating(self) -> bool:
        """Whether differentiating with respect to it makes sense."""
        return self.values is None and self.domain not in ("index", "binary", "sign") and self.dtype == "float64"


def real(*shape: int) -> Array:
    return Array(shape, "real")


def distinct(*shape: int) -> Array:
    return Array(shape, "distinct")


def positive(*shape: int) -> Array:
    return Array(shape, "positive")


def index(*shape: int, high: int, low: int = 0, dtype: str = "float64") -> Array:
    return Array(shape, "index", low, high, dtype=dtype)


def literal(values: object, dtype: str = "float64") -> Array:
    a = np.array(values, dtype="float64")
    return Array(a.shape, "literal", values=tuple(a.ravel().tolist()), dtype=dtype)


FIRST = {
    "fake": "a loss layer: the gradient of another function than its output",
    "straight": "straight-through: the gradient of the identity",
    "scaled": "the gradient times a constant, by design",
    "dropped": "zero, though the output depends on the input",
    "wrong": "a bug",
    "raises": "no gradient at all",
}


@dataclass(frozen=True, eq=False)
class Case:
    """One operator call. `op` as in Symbol JSON; `inputs` in the order of Symbol JSON, auxiliary states last.

    wrt       indices of the inputs to differentiate (default: all floating ones)
    outputs   indices of the outputs that carry gradients (default: all that the operator shows)
    train     whether the operator runs in train mode
    symmetric indices of inputs that are symmetric matrices: only symmetric directions and symmetrised gradients count
    kink      the draw sits where the derivative jumps: no comparison with differences
    random    the operator draws its outputs itself: no comparison either
    first     what MXNet's own gradient is, where it is not right: one of FIRST
    dtype     "float32" for operators whose CPU kernel takes nothing wider
    seed      another draw, where the first one happens to lie on a kink
    """

    op: str
    inputs: tuple
    attrs: Mapping[str, object] = field(default_factory=dict)
    wrt: Optional[tuple] = None
    outputs: Optional[tuple] = None
    train: bool = False
    symmetric: tuple = ()
    kink: bool = False
    random: bool = False
    first: str = ""
    dtype: str = "float64"
    seed: int = 0
    note: str = ""

    @property
    def name(self) -> str:
        """Unique, readable, stable: also the seed of the draws."""
        shapes = ",".join("x".join(map(str, a.shape)) + _letter(a) for a in self.inputs)
        attrs = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        tail = "".join(f" {flag}" for flag in ("train", "kink") if getattr(self, flag))
        tail += " float32" if self.dtype == "float32" else ""
        tail += f" outputs={','.join(map(str, self.outputs))}" if self.outputs else ""
        return f"{self.op}({shapes}{';' + attrs if attrs else ''}){tail}".replace(" ", "_")

    @property
    def moving(self) -> tuple:
        """Indices of the inputs to differentiate."""
        return (
            self.wrt if self.wrt is not None else tuple(i for i, a in enumerate(self.inputs) if a.floating or self.kink)
        )

    @property
    def sparse(self) -> bool:
        """Whether the gradient must be a row_sparse array."""
        return self.attributes.get("sparse_grad") == "True" or self.op == "_contrib_SparseEmbedding"

    @property
    def attributes(self) -> dict:
        """Attributes as Symbol JSON writes them."""
        return {key: str(value) for key, value in self.attrs.items()}

    @property
    def numpy_shapes(self) -> bool:
        """Whether the operator must run under `mx.util.np_shape(True)` (shape () is a scalar)."""
        return self.op.startswith(("_np_", "_npi_", "_npx_"))

    def draw(self) -> list:
        """The inputs: float64 arrays, unless a row says otherwise."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()) + self.seed)
        drawn = [a.draw(rng) for a in self.inputs]
        return [x.astype(self.dtype) if x.dtype == "float64" else x for x in drawn]


def _letter(a: Array) -> str:
    return "" if a.domain == "real" else ":" + a.domain


COMPARISON_WORDS = (
    "equal",
    "not_equal",
    "greater",
    "greater_equal",
    "lesser",
    "lesser_equal",
    "logical_and",
    "logical_or",
    "logical_xor",
)
