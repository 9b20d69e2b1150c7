"""Nets, data and results through files: what was saved comes back bit for bit; what is wrong is said in one line."""

from __future__ import annotations

import dataclasses
import json
import sys

import numpy as np
import pytest

import hessmx
from hessmx import files
from hessmx._mxnet import mx
from hessmx.errors import DataError, FileError, HessmxError
from hessmx.results import Eigenpairs, Estimate, LayerCurvature, Layers, Provenance, Spectrum

nn = mx.gluon.nn


class TwoInputs(mx.gluon.HybridBlock):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        with self.name_scope():
            self.left, self.right = nn.Dense(3), nn.Dense(3)

    def hybrid_forward(self, F, a, b):
        return self.left(a) * self.right(b)


def dense():
    net = nn.HybridSequential(prefix="small_")
    with net.name_scope():
        net.add(nn.Dense(4, activation="tanh"), nn.BatchNorm(), nn.Dense(2))
    return net


def export(net, folder, dtype, inputs):
    net.initialize(mx.init.Xavier())
    net.cast(dtype)
    net.hybridize()
    out = net(*inputs)
    net.export(str(folder / "net"))
    return folder / "net-symbol.json", folder / "net-0000.params", out


@pytest.fixture
def saved(tmp_path):
    return export(dense(), tmp_path, "float32", [mx.nd.ones((5, 3))])[:2]


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make, count", [(dense, 1), (TwoInputs, 2)])
def test_load_net_gives_the_same_outputs_in_the_same_precision(tmp_path, dtype, make, count):
    inputs = [mx.nd.array(np.random.default_rng(i).normal(size=(5, 3)), dtype=dtype) for i in range(count)]
    symbol, params, out = export(make(), tmp_path, dtype, inputs)
    net = files.load_net(symbol, params)
    again = net(*inputs)
    assert again.dtype == np.dtype(dtype)
    assert np.array_equal(again.asnumpy(), out.asnumpy())
    assert {p.dtype for p in net.collect_params().values()} == {np.dtype(dtype).type}


def test_running_statistics_are_not_trainable(saved):
    parameters = files.load_net(*saved).collect_params()
    frozen = {name.rpartition("_running")[1] for name, p in parameters.items() if p.grad_req == "null"}
    assert frozen == {"_running"}


def damaged(name):
    """A function that spoils the exported pair (symbol, params) in one way."""

    def renamed(s, p):
        mx.nd.save(str(p), {"arg:other_weight": mx.nd.ones((2, 2))})

    def reshaped(s, p):
        values = mx.nd.load(str(p))
        mx.nd.save(str(p), {k: mx.nd.ones((7, 7)) if k.endswith("dense0_weight") else v for k, v in values.items()})

    def complete(s, p):
        mx.nd.save(str(p), {**mx.nd.load(str(p)), "arg:data": mx.nd.ones((5, 3))})

    return {
        "no symbol": lambda s, p: s.unlink(),
        "no params": lambda s, p: p.unlink(),
        "cut params": lambda s, p: p.write_bytes(p.read_bytes()[:-9]),
        "text params": lambda s, p: p.write_text("hello"),
        "text symbol": lambda s, p: s.write_text("hello"),
        "other JSON": lambda s, p: s.write_text("[1, 2]"),
        "bad graph": lambda s, p: s.write_text(s.read_text().replace("FullyConnected", "NoSuchOperator")),
        "unnamed": lambda s, p: mx.nd.save(str(p), [mx.nd.ones(2)]),
        "renamed": renamed,
        "reshaped": reshaped,
        "no input": complete,
        "folder": lambda s, p: (p.unlink(), p.mkdir()),
    }[name]


BAD_NETS = [
    ("no symbol", "net-symbol.json does not exist"),
    ("no params", "net-0000.params does not exist"),
    ("cut params", "damaged or cut short"),
    ("text params", "not a parameter file"),
    ("text symbol", "not a graph written by export"),
    ("other JSON", "has no 'nodes'"),
    ("bad graph", "MXNet cannot read"),
    ("unnamed", "arrays without names"),
    ("renamed", "net-0000.params lacks small_batchnorm0_beta"),
    ("renamed", "net-symbol.json lacks other_weight"),
    ("reshaped", "small_dense0_weight is (7, 7)"),
    ("no input", "has no input"),
    ("folder", "cannot be read"),
]


@pytest.mark.parametrize("damage, said", BAD_NETS)
def test_bad_net_files_are_one_clear_line(saved, damage, said):
    damaged(damage)(*saved)
    with pytest.raises(FileError) as caught:
        files.load_net(*saved)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("swapped", [lambda s, p: (p, s), lambda s, p: (s, s), lambda s, p: (p, p)])
def test_swapped_files_are_recognised(saved, swapped):
    with pytest.raises(FileError, match="are the two files swapped"):
        files.load_net(*swapped(*saved))


FACTORY = """
from mxnet.gluon import nn
def good():
    return nn.Dense(2, in_units=3)
def wrong():
    return 3
def broken():
    raise RuntimeError("no data here")
"""

BAD_FACTORIES = [
    ("nets", "written module:function"),
    ("no_such_module:good", "cannot import 'no_such_module'"),
    ("nets:missing", "has no function 'missing'"),
    ("nets:wrong", "must return a Gluon Block, not int"),
    ("nets:broken", "nets:broken() failed: no data here"),
]


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    sys.modules.pop("nets", None)


def test_factory_with_parameters_of_its_own_file(factories):
    net = nn.Dense(2, in_units=3)
    net.initialize(mx.init.Xavier())
    net.save_parameters("dense.params")
    made = files.make_net("nets:good", "dense.params")
    assert np.array_equal(made.weight.data().asnumpy(), net.weight.data().asnumpy())


@pytest.mark.parametrize("factory, said", BAD_FACTORIES)
def test_bad_factories_are_one_clear_line(factories, factory, said):
    with pytest.raises(FileError) as caught:
        files.make_net(factory)
    assert said in str(caught.value)


def test_parameters_of_another_net_do_not_fit_a_factory(factories, saved):
    with pytest.raises(FileError, match="does not fit the net"):
        files.make_net("nets:good", saved[1])


DATA = [
    # arrays in the file, names of the inputs that come out
    ({"x": (4, 2), "y": (4,)}, 1),
    ({"x0": (4, 2), "x1": (4, 3), "y": (4,)}, 2),
]


@pytest.mark.parametrize("shapes, count", DATA)
def test_load_data(tmp_path, shapes, count):
    arrays = {name: np.random.default_rng(len(name)).normal(size=shape) for name, shape in shapes.items()}
    np.savez(tmp_path / "d.npz", **arrays)
    x, y = files.load_data(tmp_path / "d.npz")
    inputs = x if isinstance(x, list) else [x]
    assert [a.tolist() for a in [*inputs, y]] == [arrays[name].tolist() for name in shapes]
    assert len(inputs) == count


BAD_DATA = [
    (lambda p: None, FileError, "does not exist"),
    (lambda p: p.write_text("x, y"), FileError, "not an .npz file"),
    (lambda p: p.write_bytes(b""), FileError, "not an .npz file"),
    (lambda p: np.savez(p, a=np.ones(2)), DataError, "lacks x and y, it has a"),
    (lambda p: np.savez(p, x=np.ones(2)), DataError, "lacks y, it has x"),
    (lambda p: np.savez(p, x=np.array([object()]), y=np.ones(1)), FileError, "plain arrays"),
    (lambda p: np.ones(3).dump(p), FileError, "not an .npz file"),
]


@pytest.mark.parametrize("write, error, said", BAD_DATA)
def test_bad_data_files_are_one_clear_line(tmp_path, write, error, said):
    path = tmp_path / "d.npz"
    write(path)
    with pytest.raises(error) as caught:
        files.load_data(path)
    assert said in str(caught.value)


def random(*shape):
    return np.random.default_rng(0).normal(size=shape)


WHERE = Provenance("reverse-over-forward", "hessian", "predict", "mean", "float64", 3, 70, 51)
RESULTS = [
    Eigenpairs(random(2), random(5000, 2), random(2), np.array([True, False]), 30, "lanczos", "LA", ("one",), WHERE),
    Eigenpairs(random(1), random(6, 1), random(1), np.array([True]), 3, "power", "LM"),
    Estimate(1.5, float("nan"), random(1), 1, "hutchinson", float("inf"), (), WHERE),
    Spectrum(random(40, 32), np.full((40, 32), 1 / 32), 51, 1280, 32, seed=4, provenance=WHERE),
    Layers((LayerCurvature("dense0", 12, 0.5, 1.5, 0.1, 1.0),), WHERE),
]


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@pytest.mark.smoke
@pytest.mark.parametrize("result", RESULTS, ids=lambda r: type(r).__name__)
def test_results_come_back_bit_for_bit(tmp_path, result):
    path = files.save(result, tmp_path / "new" / "r.json")
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert same(files.load(path), result)
    assert sorted(p.name for p in path.parent.iterdir() if p.suffix not in (".json", ".npz")) == []


def test_large_arrays_stand_beside_the_json(tmp_path):
    path = files.save(RESULTS[0], tmp_path / "r.json")
    assert path.stat().st_size < 3000
    path.with_suffix(".npz").write_bytes(b"something else")
    with pytest.raises(FileError, match="damaged or belongs to another result"):
        files.load(path)
    path.with_suffix(".npz").unlink()
    with pytest.raises(FileError, match=r"needs r.npz beside it"):
        files.load(path)


@pytest.mark.parametrize("text, said", [("{", "not a result"), ("[]", "no 'type'"), ('{"type": "Odd"}', "'Odd'")])
def test_files_that_are_no_results(tmp_path, text, said):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(HessmxError, match=said):
        files.load(tmp_path / "r.json")


def test_an_interrupted_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "r.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.json"]


def test_unwritable_folder_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot write"):
        files.save(RESULTS[1], tmp_path / "file" / "r.json")


def test_a_net_that_cannot_run_on_the_data_is_one_clear_line(tmp_path):
    """Two inputs, and data for one: no tracer can read it, and it cannot be run as it is either."""
    symbol, params, _ = export(TwoInputs(), tmp_path, "float32", [mx.nd.ones((5, 3))] * 2)
    with pytest.raises(HessmxError) as caught:
        hessmx.Curvature(files.load_net(symbol, params), mx.gluon.loss.L2Loss(), (np.ones((5, 3)), np.ones((5, 3))))
    assert "cannot be run on this data" in str(caught.value)
    assert "\n" not in str(caught.value)
