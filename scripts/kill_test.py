"""Kill resumable runs with SIGKILL at random moments, continue them, and compare with runs that were left alone.

    python scripts/kill_test.py [--kills 20] [--seed 0] [--tasks lanczos power ...]

Exits with 1 if a single bit of a result differs. Needs no network and no MXNet.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parent.parent / "hessmx"
PRODUCT_SECONDS = 0.002  # a product as slow as that of a small net, so that kills fall everywhere


def load_algorithms() -> dict:
    """The algorithms alone: the package's own import would bring MXNet's seconds to every restart."""
    package = types.ModuleType("hessmx")
    package.__path__ = [str(PACKAGE)]  # type: ignore[attr-defined]
    sys.modules["hessmx"] = package
    from hessmx.algorithms.lanczos import eigenpairs
    from hessmx.algorithms.slq import spectrum
    from hessmx.algorithms.trace import trace

    return {
        "lanczos": lambda a, s: eigenpairs(a, 4, "BE", state=s),
        "block": lambda a, s: eigenpairs(a, 4, block=3, state=s),
        "power": lambda a, s: eigenpairs(a, 3, "LM", "power", state=s),
        "spectrum": lambda a, s: spectrum(a, 5, 30, state=s),
        "hutchinson": lambda a, s: trace(a, "hutchinson", 150, state=s),
        "hutch++": lambda a, s: trace(a, "hutch++", rtol=0.01, state=s),
        "xtrace": lambda a, s: trace(a, "xtrace", 120, state=s),
    }


TASKS = ("lanczos", "block", "power", "spectrum", "hutchinson", "hutch++", "xtrace")


def work(task: str, state_file: str, out: str) -> None:
    """One run, in a process of its own; `out` gets the result's fields."""
    tasks = load_algorithms()
    from scipy.sparse.linalg import LinearOperator

    from hessmx.algorithms.state import RunState

    rng = np.random.default_rng(5)
    factor = rng.standard_normal((400, 30)) * np.geomspace(1, 0.1, 30)
    noise = rng.standard_normal(400)

    def product(v: np.ndarray) -> np.ndarray:
        time.sleep(PRODUCT_SECONDS)
        return factor @ (factor.T @ v.ravel()) + noise * v.ravel()

    print("ready", flush=True)
    state = RunState(state_file, every=0.0) if state_file else None
    result = tasks[task](LinearOperator((400, 400), matvec=product, dtype=np.float64), state)
    fields = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name != "provenance"}
    np.savez(out, **{name: np.asarray(value) for name, value in fields.items() if value is not None})


def start(task: str, state: str, out: Path) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, __file__, "--work", task, state, str(out)], stdout=subprocess.PIPE)
    process.stdout.readline()  # type: ignore[union-attr]
    return process


def finish(process: subprocess.Popen) -> None:
    if process.wait():
        raise SystemExit(f"a run failed with code {process.returncode}")
    process.stdout.close()  # type: ignore[union-attr]


def killed_run(task: str, folder: Path, kills: int, rng: np.random.Generator) -> int:
    """Kill a run `kills` times at most, then let it end; returns how many kills fell before its end."""
    done = 0
    for _ in range(kills):
        process = start(task, str(folder / "state.npz"), folder / "killed.npz")
        time.sleep(rng.uniform(0.0, 0.4))
        alive = process.poll() is None
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]
        done += alive
        if not alive:
            (folder / "state.npz").unlink()  # it had ended: begin again
    finish(start(task, str(folder / "state.npz"), folder / "killed.npz"))
    return done


def compare(task: str, kills: int, rng: np.random.Generator) -> bool:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finish(start(task, "", folder / "alone.npz"))
        done = killed_run(task, folder, kills, rng)
        with np.load(folder / "alone.npz") as alone, np.load(folder / "killed.npz") as killed:
            same = all(alone[field].tobytes() == killed[field].tobytes() for field in alone.files)
            products = int(killed["products"])
    verdict = "bit-identical" if same else "DIFFERENT"
    print(f"{task:12s} killed {done:2d} times, {products} products: {verdict}", flush=True)
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20, help="for each task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return 0
    rng = np.random.default_rng(options.seed)
    results = [compare(task, options.kills, rng) for task in options.tasks]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
