"""Saved nets and data that are damaged: refused in one line, whatever the damage, and never the end of the process."""

from __future__ import annotations

import json
import os
import random
import signal
import struct

import numpy as np
import pytest

import hessmx
from hessmx import files
from hessmx._child import cause_of_death
from hessmx._formats import Malformed, check_graph, check_params
from hessmx._mxnet import mx
from hessmx.errors import HessmxError

nn = mx.gluon.nn
X, Y = np.random.default_rng(0).normal(size=(6, 2, 5, 5)), np.arange(6) % 3
ODD = [0, -1, 2, 99, 2**31, 2**63, 0.5, None, True, "", "x", "-1", "(0, 0)", "(99999999,)", [], {}, [[]], [0, 0, 0]]
WORDS = [0, 1, 2, 3, 33, 0xFFFFFFFF, 0x7FFFFFFF, 2**40, 2**63 - 1, 2**64 - 1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A net of many layers, data for it, and a result, in a folder."""
    folder = tmp_path_factory.mktemp("saved")
    net = nn.HybridSequential(prefix="net_")
    with net.name_scope():
        net.add(nn.Conv2D(4, 3, padding=1, groups=2), nn.BatchNorm(), nn.Conv2DTranspose(2, 2, strides=2))
        net.add(nn.AvgPool2D(3, 2, 1, ceil_mode=True), nn.LeakyReLU(0.1), nn.Flatten(), nn.Dense(3))
    net.initialize()
    net.hybridize()
    net(mx.nd.array(X))
    net.export(str(folder / "net"))
    np.savez(folder / "data.npz", x=X.astype(np.float32), y=Y)
    files.save(curvature(folder).eigenpairs(2), folder / "eigen.json")
    return folder


def curvature(folder):
    x, y = files.load_data(folder / "data.npz")
    net = files.load_net(folder / "net-symbol.json", folder / "net-0000.params", x)
    return hessmx.Curvature(net, mx.gluon.loss.SoftmaxCELoss(), (x, y))


def places(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def changed_json(content, draw):
    """One to three entries deleted, renamed, or replaced by something odd."""
    value = json.loads(content)
    for _ in range(draw.choice([1, 1, 2, 3])):
        *path, key = draw.choice(list(places(value)))
        holder = value
        for step in path:
            holder = holder[step]
        if draw.random() < 0.2:
            del holder[key]
        elif isinstance(holder, dict) and draw.random() < 0.1:
            holder[key + "x"] = holder.pop(key)
        else:
            holder[key] = draw.choice(ODD)
    return json.dumps(value).encode()


def changed_bytes(content, draw):
    """One to four words overwritten, bytes flipped, put in or taken out, or the end cut off."""
    content = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 4])):
        place, kind = draw.randrange(len(content)), draw.random()
        if kind < 0.2:
            content[place] ^= 1 << draw.randrange(8)
        elif kind < 0.3:
            del content[max(place, 1) :]
        elif kind < 0.4:
            content[place:place] = bytes(draw.randrange(256) for _ in range(draw.choice([1, 4, 8])))
        elif kind < 0.5 and place:
            del content[place : place + draw.choice([1, 4, 8])]
        else:
            width = draw.choice([4, 8])
            word = (draw.choice(WORDS) % 256**width).to_bytes(width, "little")
            content[place // 4 * 4 : place // 4 * 4 + width] = word
    return bytes(content)


FUZZ = [  # file, how it is changed, what reads it, how many
    ("net-symbol.json", changed_json, lambda folder: curvature(folder).loss(), 40),
    ("net-0000.params", changed_bytes, lambda folder: curvature(folder).loss(), 40),
    ("data.npz", changed_bytes, lambda folder: curvature(folder).loss(), 30),
    ("eigen.json", changed_json, lambda folder: files.load(folder / "eigen.json"), 80),
]


@pytest.mark.parametrize(("name", "change", "read", "count"), FUZZ, ids=[row[0] for row in FUZZ])
def test_damaged_files_are_read_or_refused(saved, name, change, read, count):
    """In a child, which says by its exit what came: a refusal or an answer, or anything else."""
    content, draw = (saved / name).read_bytes(), random.Random(name)
    damaged = [change(content, draw) for _ in range(count)]

    def run():
        for number, text in enumerate(damaged):
            (saved / "reached").write_text(str(number))
            (saved / name).write_bytes(text)
            try:
                read(saved)
            except HessmxError as error:
                assert "\n" not in str(error)
        (saved / "reached").write_text("the end")

    cause = cause_of_death(run, 300)
    (saved / name).write_bytes(content)
    reached = (saved / "reached").read_text()
    assert (cause, reached) == (None, "the end"), damaged[int(reached)]
    read(saved)


def array(magic=0xF993FAC9, storage=0, shape=(2,), device=(1, 0), dtype=0, data=bytes(8)):
    head = struct.pack("<Ii", magic, storage) + struct.pack(f"<i{len(shape)}q", len(shape), *shape)
    return head + struct.pack("<iii", *device, dtype) + data


def container(*arrays, count=None, names=(b"arg:w",)):
    text = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    head = struct.pack("<QQQ", 0x112, 0, len(arrays) if count is None else count)
    return head + b"".join(arrays) + struct.pack("<Q", len(names)) + text


BAD_PARAMS = [
    (container(struct.pack("<Iii", 0xF993FAC9, 0, -1) + bytes(24)), "of -1 dimensions"),
    (container(array(shape=(2**40,))), "cut short"),
    (container(array(shape=(2**62, 4))), "cut short"),
    (container(array(shape=(-2,))), "shape (-2,)"),
    (container(array(dtype=77)), "dtype 77"),
    (container(array(device=(9, 0))), "device 9"),
    (container(array(storage=2)), "stored in way 2"),
    (container(array(), count=2**60), "announced"),
    (container(array(), names=(b"a", b"b")), "1 arrays and 2 names"),
    (container(array(), array(), names=(b"arg:w", b"arg:w")), "'arg:w' twice"),
    (container(array(), names=(b"\xff\xfe",)), "a name is no text"),
    (container(array(magic=200)), "of 200 dimensions"),
]


@pytest.mark.parametrize(("content", "said"), BAD_PARAMS, ids=[row[1] for row in BAD_PARAMS])
def test_arrays_are_looked_through_before_mxnet_reads_them(content, said):
    with pytest.raises(Malformed) as caught:
        check_params(content)
    assert said in str(caught.value)


def test_sound_arrays_of_all_kinds_pass(tmp_path):
    rows = mx.nd.sparse.row_sparse_array((np.ones((2, 3)), [1, 4]), shape=(6, 3))
    kinds = ["float16", "float32", "float64", "uint8", "int8", "int32", "int64"]
    mx.nd.save(str(tmp_path / "a"), {"rows": rows, **{k: mx.nd.ones((2, 3), dtype=k) for k in kinds}})
    content = (tmp_path / "a").read_bytes()
    check_params(content)
    assert set(mx.nd.load_frombuffer(content)) == {"rows", *kinds}
    stored = struct.pack("<qq", 1, 4)
    with pytest.raises(Malformed, match="numbers of rows that are none"):
        check_params(content.replace(stored, struct.pack("<qq", 1, 6)))


def test_graphs_whose_shapes_end_the_process_are_refused_in_a_child(tmp_path):
    """As Convolution with num_group=0 does by a division, were it not refused by its attribute."""
    assert cause_of_death(lambda: os.kill(os.getpid(), signal.SIGFPE)) == "SIGFPE"
    assert cause_of_death(lambda: os._exit(3)) == "exit 3"
    assert cause_of_death(lambda: 1 / 0) is None
    assert cause_of_death(lambda: signal.pause(), seconds=0.2) is None


def test_loops_in_the_graph_are_looked_through_too():
    body = lambda x, states: (x * 2, [states[0] + x])  # noqa: E731
    out, _ = mx.sym.contrib.foreach(body, mx.sym.Variable("x"), [mx.sym.Variable("s")])
    graph = json.loads(out.tojson(remove_amp_cast=False))
    check_graph(graph)
    loop = next(node for node in graph["nodes"] if "subgraphs" in node)
    loop["subgraphs"][0]["heads"][0] = [99, 0, 0]
    with pytest.raises(Malformed, match="an output is node 99"):
        check_graph(graph)
