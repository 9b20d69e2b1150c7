"""What a Gluon Trainer makes of a gradient: its preconditioner, read from its states, and its threshold of stability.

Every optimiser here moves by -learning_rate * P^-1 (gradient + decay), some with momentum, P diagonal. On a quadratic
with P held still it is stable while the largest eigenvalue of P^-1 H stays below factor / learning_rate:

    sgd, rmsprop, adagrad     2                            textbook
    sgd with momentum m       2 (1 + m)                    Cohen et al. 2021, section 2 (heavy ball)
    nag                       2 (1 + m) / (1 + 2 m)        the same
    rmsprop, centered         2 (1 + gamma2)               heavy ball
    adam                      2 (1 + beta1) / (1 - beta1)  Cohen et al. 2022, section 3: 38 for the default beta1 = 0.9
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Mapping

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import InputError
from hessmx.problem.net import Net

Optimizer = Any  # mx.optimizer.Optimizer


@dataclass(frozen=True)
class Preconditioner:
    """P^-1 and the decay of one Trainer, as vectors (P,) over the parameters that are differentiated."""

    name: str
    learning_rate: float  # by its schedule, at the step reached
    factor: float  # of the threshold
    inverse: np.ndarray  # (P,) diagonal of P^-1, with each parameter's lr_mult
    decay: np.ndarray  # (P,) times w, added to the gradient before P^-1
    decoupled: np.ndarray  # (P,) times w, added to the step after it
    notes: tuple[str, ...] = ()

    @property
    def threshold(self) -> float:
        """Largest eigenvalue of P^-1 H that is stable at the learning rate it has."""
        return self.factor / self.learning_rate if self.learning_rate > 0 else np.inf


def read_trainer(trainer: Any, net: Net) -> Preconditioner:
    """The preconditioner as it is after the last step. Nothing is changed; costs a copy of the states."""
    optimizer = _optimizer(trainer)
    kind = _kind(optimizer)
    places = _places(trainer, net)
    parts: dict[str, list[np.ndarray]] = {"inverse": [], "decay": [], "decoupled": []}
    rate = float(optimizer.learning_rate)
    states = trainer._updaters[0].states
    for name, place in places.items():
        size = net.sizes[name]
        multiple = float(optimizer._get_lr(place)) / rate if rate > 0 else float(net.parameters[name].lr_mult)
        inverse = np.full(size, multiple)
        if kind.inverse is not None:
            inverse = inverse * kind.inverse(optimizer, _state(states, place, optimizer, net, name), place)
        decay = np.full(size, float(optimizer._get_wd(place)))
        parts["inverse"].append(inverse)
        parts["decay"].append(0 * decay if kind.decoupled else decay)
        parts["decoupled"].append(multiple * decay if kind.decoupled else 0 * decay)
    vectors = {name: np.concatenate(vector) for name, vector in parts.items()}
    notes = () if optimizer.clip_gradient is None else ("gradients are clipped, which the threshold leaves out",)
    return Preconditioner(type(optimizer).__name__.lower(), rate, kind.factor(optimizer), notes=notes, **vectors)


# -- the optimisers

State = Any  # tuple of float64 arrays (size,)


@dataclass(frozen=True)
class Kind:
    factor: Callable[[Optimizer], float]
    inverse: Callable[[Optimizer, State, int], np.ndarray] | None = None  # None: the identity, no state needed
    decoupled: bool = False


def _adam(optimizer: Optimizer, state: State, place: int) -> np.ndarray:
    """Bias corrections included: P = (1 - beta1^t) (sqrt(v) + eps) / sqrt(1 - beta2^t)."""
    t = optimizer._index_update_count[place]
    correction = np.sqrt(1 - optimizer.beta2**t) / (1 - optimizer.beta1**t)
    return correction / (np.sqrt(state[1]) + optimizer.epsilon)


def _rmsprop(optimizer: Optimizer, state: State, place: int) -> np.ndarray:
    if optimizer.centered:
        return 1 / np.sqrt(state[0] - state[1] ** 2 + optimizer.epsilon)
    return 1 / np.sqrt(state[0] + optimizer.epsilon)


def _adagrad(optimizer: Optimizer, state: State, place: int) -> np.ndarray:
    return 1 / np.sqrt(state[0] + optimizer.float_stable_eps)


KINDS: Mapping[str, Kind] = {
    "sgd": Kind(lambda o: 2 * (1 + o.momentum)),
    "nag": Kind(lambda o: 2 * (1 + o.momentum) / (1 + 2 * o.momentum)),
    "rmsprop": Kind(lambda o: 2 * (1 + o.gamma2) if o.centered else 2.0, _rmsprop),
    "adam": Kind(lambda o: 2 * (1 + o.beta1) / (1 - o.beta1), _adam),
    "adagrad": Kind(lambda o: 2.0, _adagrad, decoupled=True),
}


def _kind(optimizer: Optimizer) -> Kind:
    name = type(optimizer).__name__.lower()
    if name not in KINDS:
        raise InputError(f"the Trainer uses {name}; its threshold of stability is known for {', '.join(KINDS)} only")
    return KINDS[name]


# -- what a Trainer holds

def _optimizer(trainer: Any) -> Optimizer:
    if not isinstance(trainer, mx.gluon.Trainer):
        raise InputError(f"trainer must be a gluon.Trainer, not {type(trainer).__name__}")
    if getattr(trainer, "_update_on_kvstore", False):
        raise InputError("this Trainer's states are in its kvstore: make it with update_on_kvstore=False")
    return trainer._updaters[0].optimizer


def _places(trainer: Any, net: Net) -> dict[str, int]:
    places = {name: trainer._param2idx.get(name) for name in net.names}
    missing = [name for name, place in places.items() if place is None]
    if missing:
        raise InputError(
            f"the Trainer does not train {len(missing)} of the {len(places)} parameter(s), the first is "
            f"{missing[0]!r}: choose those it trains with params="
        )
    return places


def _state(states: Mapping[int, Any], place: int, optimizer: Optimizer, net: Net, name: str) -> State:
    """The state's arrays, flat and in float64."""
    state = states.get(place)
    if state is None:
        raise InputError(
            f"the Trainer has no state for {name!r} yet: {type(optimizer).__name__} knows its preconditioner "
            "only after a step; take one, or load_states()"
        )
    if optimizer.multi_precision and net.dtypes[name] == np.float16:
        state = state[1]  # beside the parameter in float32
    arrays = state if isinstance(state, (tuple, list)) else (state,)
    return tuple(a.tostype("default").asnumpy().ravel().astype(np.float64) for a in arrays)
