"""Bad input in the shell: exit code 2, one line on stderr that names the trouble, no traceback."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hessmx._mxnet import mx
from hessmx.cli import main

ROOT = Path(__file__).parents[2]
X, Y = np.random.default_rng(0).normal(size=(6, 4)), np.arange(6) % 3
FACTORIES = """
from mxnet import gluon
def bare():
    return gluon.nn.Dense(3, in_units=4)
def deferred():
    net = gluon.nn.Dense(3)
    net.initialize()
    return net
def number():
    return 3
def broken():
    raise OSError("no weights here")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A sound net and sound data, to be spoilt by a case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "bad_nets", raising=False)
    net = mx.gluon.nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(mx.gluon.nn.Dense(3, in_units=4))
    net.initialize()
    net.hybridize()
    net(mx.nd.array(X))
    net.export("net")
    np.savez("data.npz", x=X, y=Y)
    (tmp_path / "bad_nets.py").write_text(FACTORIES)
    return tmp_path


def data(**arrays):
    return lambda: np.savez("data.npz", **arrays)


def params(change):
    def spoil():
        mx.nd.save("net-0000.params", change(mx.nd.load("net-0000.params")))

    return spoil


def with_nan(values):
    return {name: value * float("nan") for name, value in values.items()}


def cut():
    path = Path("net-0000.params")
    path.write_bytes(path.read_bytes()[:-4])


def nothing():
    pass


def graph(change):
    """Spoil the graph in the file."""

    def spoil():
        path = Path("net-symbol.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return spoil


def encrypted():
    """The bit that says so in both headers of each member; what follows is then no longer readable."""
    path = Path("data.npz")
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 4)
    path.write_bytes(content)


def announcing(entries):
    """An array whose header announces more entries than the file holds."""

    def spoil():
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "<f8", "fortran_order": False, "shape": (entries,)})
        with zipfile.ZipFile("data.npz", "w") as archive:
            archive.writestr("x.npy", member.getvalue() + bytes(80))

    return spoil


CASES = [
    # name, what spoils the files, options that replace or join the sound ones, what the line must say
    ("unknown command", nothing, ["eigne"], "No such command 'eigne'"),
    ("unknown option", nothing, ["eigen", "--wich", "LA"], "No such option"),
    ("missing loss", nothing, ["eigen", "--loss", None], "Missing option '--loss'"),
    ("unknown loss", nothing, ["eigen", "--loss", "softmax"], "'softmax' is not one of 'softmax-ce'"),
    ("unknown engine", nothing, ["eigen", "--engine", "magic"], "'magic' is not one of"),
    ("k = 0", nothing, ["eigen", "-k", "0"], "0 is not in the range x>=1"),
    ("k beyond P", nothing, ["eigen", "-k", "99"], "k must be a whole number from 1 to 15"),
    ("k not a number", nothing, ["eigen", "-k", "many"], "'many' is not a valid integer"),
    ("negative decay", nothing, ["eigen", "--weight-decay", "-1"], "-1.0 is not in the range"),
    ("missing graph", nothing, ["eigen", "--net", "nowhere-symbol.json"], "nowhere-symbol.json does not exist"),
    ("missing params", nothing, ["eigen", "--params", "nowhere.params"], "nowhere.params does not exist"),
    ("missing data", nothing, ["eigen", "--data", "nowhere.npz"], "nowhere.npz does not exist"),
    ("no --params", nothing, ["eigen", "--params", None], "name its parameters with --params"),
    ("swapped files", nothing, ["eigen", "--net", "net-0000.params", "--params", "net-symbol.json"], "swapped"),
    ("cut params", cut, ["eigen"], "damaged or cut short"),
    ("text as params", lambda: Path("net-0000.params").write_text("x"), ["eigen"], "not a parameter file"),
    ("text as graph", lambda: Path("net-symbol.json").write_text("x"), ["eigen"], "not a graph written by export"),
    ("other names", params(lambda p: {f"{n}x": v for n, v in p.items()}), ["eigen"], "do not belong together"),
    ("other shapes", params(lambda p: {n: mx.nd.ones((2, 2)) for n in p}), ["eigen"], "does not fit the graph"),
    ("NaN in parameters", params(with_nan), ["eigen"], "NaN"),
    ("text as data", lambda: Path("data.npz").write_text("x,y"), ["eigen"], "not an .npz file"),
    ("no y", data(x=X), ["eigen"], "lacks y"),
    ("NaN in data", data(x=X * np.nan, y=Y), ["eigen"], "NaN"),
    ("lengths differ", data(x=X, y=Y[:3]), ["eigen"], "same number of samples"),
    ("no samples", data(x=X[:0], y=Y[:0]), ["eigen"], "no sample"),
    ("wrong width", data(x=np.ones((6, 5)), y=Y), ["eigen"], "(6, 5)"),
    ("text in x", data(x=np.array(["a"] * 6), y=Y), ["eigen"], "x must hold numbers"),
    ("filter without match", nothing, ["eigen", "--params-filter", "conv"], "matches 'conv'"),
    ("filter not a regex", nothing, ["eigen", "--params-filter", "(("], "not a regular expression"),
    ("no such module", nothing, ["eigen", "--net", "no_nets:net", "--params", None], "cannot import 'no_nets'"),
    ("no such function", nothing, ["eigen", "--net", "bad_nets:net", "--params", None], "no function 'net'"),
    ("not a net", nothing, ["eigen", "--net", "bad_nets:number", "--params", None], "must return a Gluon Block"),
    ("failing factory", nothing, ["eigen", "--net", "bad_nets:broken", "--params", None], "no weights here"),
    ("not initialized", nothing, ["eigen", "--net", "bad_nets:bare", "--params", None], "not initialized"),
    ("shapes unknown", nothing, ["eigen", "--net", "bad_nets:deferred", "--params", None], "not initialized"),
    ("out is a file", lambda: Path("taken").write_text(""), ["eigen", "--out", "taken"], "cannot write"),
    ("state in no folder", nothing, ["spectrum", "--state", "no/where.npz"], "no such folder"),
    ("state of another run", lambda: np.savez("s.npz", a=1), ["spectrum", "--state", "s.npz"], "not a state file"),
    ("no other net", nothing, ["landscape", "--along", "net"], "give --other-params"),
    ("two snapshots", nothing, ["landscape", "--along", "trajectory", "--snapshot", "net-0000.params"], "three times"),
    ("head that is none", graph(lambda g: g.update(heads=[[99, 0, 0]])), ["eigen"], "an output is node 99"),
    ("output that is none", graph(lambda g: g["heads"][0].__setitem__(1, 7)), ["eigen"], "output 7 of node 3, which"),
    ("input that is none", graph(lambda g: g["nodes"][3]["inputs"][0].__setitem__(1, 5)), ["eigen"], "reads output 5"),
    ("input left out", graph(lambda g: g["nodes"][3]["inputs"].pop()), ["eigen"], "reads 2 of its 3 inputs"),
    ("no units", graph(lambda g: g["nodes"][3]["attrs"].update(num_hidden="0")), ["eigen"], "num_hidden=0"),
    ("shape in words", graph(lambda g: g["nodes"][1]["attrs"].update(__shape__="(a, b)")), ["eigen"], "says '(a, b)'"),
    ("nested graph", lambda: Path("net-symbol.json").write_text("[" * 10**5), ["eigen"], "nested too deeply"),
    ("encrypted data", encrypted, ["eigen"], "is encrypted"),
    ("10^12 entries", announcing(10**12), ["eigen"], "announces shape (1000000000000,)"),
    ("no entry a sample", data(x=X[:, :0], y=Y), ["eigen"], "x has shape (6, 0): samples without any entry"),
    ("no entry a label", data(x=X, y=X[:, :0]), ["eigen"], "y has shape (6, 0)"),
    ("inputs with a gap", data(x0=X, x2=X, y=Y), ["eigen"], "without a gap, but holds x0, x2"),
    ("x and x0", data(x=X, x0=X, y=Y), ["eigen"], "holds x and x0"),
    ("another name", data(X=X, y=Y), ["eigen"], "lacks x, it has X, y"),
    ("too many inputs", data(x0=X, x1=X, y=Y), ["eigen"], "has 1 input(s), data, and the data 2"),
    ("data from a pipe", lambda: os.mkfifo("pipe"), ["eigen", "--data", "pipe"], "pipe is no plain file"),
    ("graph from a pipe", lambda: os.mkfifo("pipe"), ["eigen", "--net", "pipe"], "pipe is no plain file"),
    ("params from a pipe", lambda: os.mkfifo("pipe"), ["eigen", "--params", "pipe"], "pipe is no plain file"),
    ("data from a device", nothing, ["eigen", "--data", "/dev/zero"], "is no plain file"),
    ("output beyond", nothing, ["inputs", "--loss", None, "--output", "9"], "output"),
]

SOUND = {"--net": "net-symbol.json", "--params": "net-0000.params", "--data": "data.npz", "--loss": "softmax-ce"}


def arguments(command, *changes):
    chosen = {**SOUND, **dict(zip(changes[::2], changes[1::2]))}
    return [command, *(text for item in chosen.items() if item[1] is not None for text in item)]


@pytest.mark.parametrize("spoil, command, said", [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_input_is_one_line_and_exit_code_two(folder, capsys, spoil, command, said):
    spoil()
    code = main(arguments(*command))
    stderr = capsys.readouterr().err
    assert code == 2, stderr
    assert said in stderr
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr


def test_sound_input_is_accepted(folder):
    assert main(arguments("eigen")) == 0


def test_from_outside_the_process_too(folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hessmx.cli", *arguments("eigen", "--data", "nowhere.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hessmx: nowhere.npz does not exist\n"


def test_interruption_is_one_line(folder, capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("hessmx.cli.curvature.curvature", interrupted)
    assert main(arguments("eigen")) == 130
    assert capsys.readouterr().err.strip() == "hessmx: interrupted"


SLOW = """
import signal, sys, time
print("importing", flush=True)
class Slow:
    def find_spec(self, name, *rest):
        if name == "mxnet":
            time.sleep(20)
sys.meta_path.insert(0, Slow())
sys.argv[0] = "hessmx"
from hessmx.cli import main
"""


def heeded():
    """As from a terminal: what runs in the background inherits that interrupts are ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_an_interrupt_while_the_package_is_imported_is_one_line():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=environment, preexec_fn=heeded)  # fmt: skip
    command.stdout.readline()
    time.sleep(2)  # into the import of MXNet, which lasts
    command.send_signal(signal.SIGINT)
    assert command.communicate(timeout=15)[1] == "hessmx: interrupted\n"
    assert command.returncode == 130


def test_interrupts_are_python_s_own_once_the_command_runs(folder):
    heeded()
    assert main(arguments("eigen")) == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("limit", [0, 3000])
def test_a_full_disk_is_one_line_and_leaves_nothing(folder, capsys, limit):
    """Files may not grow beyond `limit` bytes: the result, or its picture, cannot be written whole."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    Path("out").mkdir()
    Path("out/eigen.json").write_text("old")
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
        code = main(arguments("eigen", "--out", "out"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, before)
    stderr = capsys.readouterr().err
    assert (code, stderr.count("\n")) == (2, 1)
    assert "cannot write out" in stderr
    assert sorted(path.name for path in Path("out").iterdir()) == ["eigen.json"]
    if not limit:
        assert Path("out/eigen.json").read_text() == "old"
