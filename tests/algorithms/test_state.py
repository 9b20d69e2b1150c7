from __future__ import annotations

import io
import json
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.linalg import LinearOperator

from hessmx.algorithms.diagonal import diagonal
from hessmx.algorithms.frobenius import squared_frobenius
from hessmx.algorithms.lanczos import eigenpairs
from hessmx.algorithms.slq import spectrum
from hessmx.algorithms.solve import solve
from hessmx.algorithms.state import KIND, RunState
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
    """The operator, failing in the block that has product number `at`."""
    seen = 0

    def apply(v: np.ndarray) -> np.ndarray:
        nonlocal seen
        seen += 1 if v.ndim == 1 else v.shape[1]
        if seen >= at:
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
    "xnystrace": lambda a, **o: trace(a @ a, "xnystrace", 40, **o).samples,
}


@pytest.mark.parametrize("at", [1, 2, 7, 20])
@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_run_spends_only_what_is_left(name: str, at: int, tmp_path: Path) -> None:
    operator, run = rotated(SPECTRUM), RUNS[name]
    alone, all_columns = counted(operator)
    expected = run(alone)
    with pytest.raises(KeyboardInterrupt):
        run(interrupted(operator, at), state=RunState(tmp_path / "s.npz", every=0))
    rest, columns = counted(operator)
    assert np.array_equal(run(rest, state=RunState(tmp_path / "s.npz", every=0)), expected)
    assert sum(all_columns) - sum(columns) >= at - 2 * max(all_columns) - 1  # one step of two blocks at most


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
    meta = json.dumps({"kind": KIND, "signature": {}, "sha256": "0"}).encode()
    np.savez(path, __meta__=np.frombuffer(meta, np.uint8), numbers=np.zeros(3))
    with pytest.raises(FileError, match="checksum"):
        state.open(task="x")


def header(shape: str) -> bytes:
    """A file of npz format that promises an array of that shape."""
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("__meta__.npy", member)
    return buffer.getvalue()


STRANGERS = {
    "another npz": lambda path: np.savez(path, a=np.zeros(3)),
    "text": lambda path: path.write_text("hello"),
    "nothing": lambda path: path.write_bytes(b""),
    "an array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00"),
    "a promise of 8 TB": lambda path: path.write_bytes(header("(1000000000000,)")),
    "nested JSON": lambda path: np.savez(path, __meta__=np.frombuffer(b"[" * 100_000, np.uint8)),
    "JSON of another kind": lambda path: np.savez(path, __meta__=np.frombuffer(b"[1]", np.uint8)),
    "objects": lambda path: np.savez(path, __meta__=np.array([{}])),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_what_is_no_state_file_is_refused_and_left_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    STRANGERS[name](path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(FileError) as caught:
        spectrum(rotated(SPECTRUM), 2, 10, state=path)
    assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before


def test_a_second_run_with_the_same_file_is_refused_while_the_first_lasts(tmp_path: Path) -> None:
    path = tmp_path / "s.npz"
    first = RunState(path, every=0)
    first.open(task="x")
    for _ in range(2):  # before the first snapshot, and after
        with pytest.raises(FileError, match="in use by another run"):
            RunState(path).open(task="x")
        code = "from hessmx.algorithms.state import RunState; RunState(sys.argv[1]).open(task='x')"
        other = subprocess.run([sys.executable, "-c", BARE + code, str(path), str(SCRIPT.parents[1])],
                               capture_output=True, text=True)
        assert "in use by another run" in other.stderr
        first.save(numbers=np.arange(3))
    first.close()
    np.testing.assert_array_equal(RunState(path).open(task="x")["numbers"], [0, 1, 2])


BARE = "import sys, types; p = types.ModuleType('hessmx'); p.__path__ = [sys.argv[2] + '/hessmx']; " \
       "sys.modules['hessmx'] = p; "


def test_a_full_disk_leaves_the_last_snapshot_and_nothing_else(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s.npz", every=0)
    state.open(task="x")
    state.save(numbers=np.arange(3))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(FileError, match=r"cannot write the snapshot of 800000 bytes .* File too large"):
            state.save(numbers=np.zeros(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == ["s.npz"]
    np.testing.assert_array_equal(state.open(task="x")["numbers"], [0, 1, 2])


def test_snapshots_wait_their_turn(tmp_path: Path) -> None:
    state = RunState(tmp_path / "s.npz", every=3600)
    state.open(task="x")
    state.save(numbers=np.arange(3))
    assert not state.open(task="x")
    state.save(force=True, numbers=np.arange(3))
    np.testing.assert_array_equal(state.open(task="x")["numbers"], [0, 1, 2])


def test_missing_folder() -> None:
    with pytest.raises(FileError, match="no such folder"):
        eigenpairs(np.eye(3), state="/no/such/folder/s.npz")


@pytest.mark.parametrize("ask", [
    lambda a, state: diagonal(a, "xdiag", 10, state=state), lambda a, state: squared_frobenius(a, 10, state=state),
    lambda a, state: solve(a, np.ones(200), 1.0, state=state),
])
def test_what_cannot_be_continued_says_so(ask, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be continued"):
        ask(rotated(SPECTRUM), tmp_path / "s.npz")
    assert not list(tmp_path.iterdir())
