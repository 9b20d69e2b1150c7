from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.state import RunState
from hessmx.algorithms.trace import trace
from hessmx.errors import FileError, InputError
from tests.algorithms.support import counted, rotated

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "kill_test.py"
SPECTRUM = np.r_[np.geomspace(20, 1, 10), np.random.default_rng(3).standard_normal(190) * 0.1]


@pytest.mark.parametrize("task", ["lanczos", "spectrum"])
def test_killed_runs_continue_to_the_same_bits(task: str) -> None:
    """kill -9 at random moments; the script does twenty, for every algorithm."""
    run = subprocess.run([sys.executable, str(SCRIPT), "--kills", "2", "--tasks", task], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "bit-identical" in run.stdout


def interrupted(operator, at: int):
    """The operator, failing at product number `at`."""
    count = iter(range(1, 10**9))

    def apply(v: np.ndarray) -> np.ndarray:
        if next(count) == at:
            raise KeyboardInterrupt
        return operator @ v

    return LinearOperator(operator.shape, matvec=apply, matmat=apply, dtype=operator.dtype)


RUNS = {
    "lanczos": lambda a, **o: eigenpairs(a, 3, **o).vectors,
    "block": lambda a, **o: eigenpairs(a, 3, block=2, **o).vectors,
    "power": lambda a, **o: eigenpairs(a, 3, method="power", **o).vectors,
    "spectrum": lambda a, **o: spectrum(a, 3, 20, **o).weights,
    "hutchinson": lambda a, **o: trace(a, "hutchinson", rtol=0.3, **o).samples,
    "hutch++": lambda a, **o: trace(a, "hutch++", rtol=0.02, **o).samples,
    "xtrace": lambda a, **o: trace(a, "xtrace", 40, **o).samples,
}


@pytest.mark.parametrize("at", [1, 2, 7, 11])
@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_spends_only_what_is_left(name: str, at: int, tmp_path: Path) -> None:
    operator, run = rotated(SPECTRUM), RUNS[name]
    alone, all_columns = counted(operator)
    expected = run(alone)
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(operator, at), state=RunState(tmp_path / "s.npz", every=0))
    rest, columns = counted(operator)
    assert np.array_equal(run(rest, state=RunState(tmp_path / "s.npz", every=0)), expected)
    assert sum(all_columns) - sum(columns) >= at - 3  # at most one step of two products is repeated


def test_a_finished_run_costs_nothing_again(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s.npz", every=0)
    first = spectrum(rotated(SPECTRUM), 2, 10, state=state)
    again, columns = counted(rotated(SPECTRUM))
    assert np.array_equal(spectrum(again, 2, 10, state=state).nodes, first.nodes)
    assert not columns
    state.remove()
    assert not list(tmp_path.iterdir())


def test_other_runs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    spectrum(rotated(SPECTRUM), 2, 10, state=RunState(path, key="net A", every=0))
    with pytest.raises(InputError, match=r"belongs to another run \(steps=10 there, 12 here\)"):
        spectrum(rotated(SPECTRUM), 2, 12, state=RunState(path, key="net A"))
    with pytest.raises(InputError, match="key='net A' there, 'net B' here"):
        spectrum(rotated(SPECTRUM), 2, 10, state=RunState(path, key="net B"))


def test_damage_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    state = RunState(path, every=0)
    state.open(task="x")
    state.save(numbers=np.arange(100.0))
    whole = bytearray(path.read_bytes())
    path.write_bytes(whole[:-40])
    with pytest.raises(FileError, match="cannot be read"):
        state.open(task="x")
    np.savez(path, __meta__=np.frombuffer(b'{"signature": {}, "sha256": "0"}', np.uint8), numbers=np.zeros(3))
    with pytest.raises(FileError, match="checksum"):
        state.open(task="x")


def test_snapshots_wait_their_turn(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s.npz", every=3600)
    state.open(task="x")
    state.save(numbers=np.arange(3))
    assert not state.path.exists()
    state.save(force=True, numbers=np.arange(3))
    np.testing.assert_array_equal(state.open(task="x")["numbers"], [0, 1, 2])


def test_missing_folder() -> None:
    with pytest.raises(FileError, match="no such folder"):
        eigenpairs(np.eye(3), state="/no/such/folder/s.npz")
