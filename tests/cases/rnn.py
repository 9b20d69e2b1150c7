"""The fused RNN operator: every mode, layers, directions, states in and out, lengths, projections."""

from __future__ import annotations

from tests.cases.case import Case, literal, real

GATES = {"rnn_relu": 1, "rnn_tanh": 1, "lstm": 4, "gru": 3}
SEEDS = {("rnn_relu", 2, True): 1}  # draws whose units are all away from their kinks
STEPS, BATCH, INPUT, HIDDEN = 3, 2, 2, 2


def _size(mode: str, layers: int, directions: int) -> int:
    """Length of the flat parameter vector: per direction of each layer W, R, and two biases."""
    total, width = 0, INPUT
    for _ in range(layers):
        total += directions * GATES[mode] * HIDDEN * (width + HIDDEN + 2)
        width = HIDDEN * directions
    return total


def _row(mode: str, layers: int = 1, bidirectional: bool = False, train: bool = False, **attrs: object) -> Case:
    directions = 2 if bidirectional else 1
    states = (real(layers * directions, BATCH, HIDDEN),) * (2 if mode == "lstm" else 1)
    inputs = (real(STEPS, BATCH, INPUT), real(_size(mode, layers, directions)), *states)
    table = {"state_size": HIDDEN, "num_layers": layers, "mode": mode, "state_outputs": True, "p": 0.0}
    seed = SEEDS.get((mode, layers, bidirectional), 0)
    return Case("RNN", inputs, {**table, "bidirectional": bidirectional, **attrs}, train=train, seed=seed)


ROWS = [
    _row(mode, layers, bidirectional, train)
    for mode in GATES
    for layers, bidirectional, train in (
        (1, False, True),
        (1, False, False),
        (1, True, True),
        (2, False, True),
        (2, True, True),
    )
] + [_row("lstm", train=True, state_outputs=False), _row("gru", train=True, state_outputs=False)]

_LENGTHS = _row("lstm", train=True)
ROWS.append(
    Case(
        "RNN",
        (*_LENGTHS.inputs, literal([2.0, 3.0])),
        {**_LENGTHS.attrs, "use_sequence_length": True},
        train=True,
        first="raises",
        note="GPU only",
    )
)
