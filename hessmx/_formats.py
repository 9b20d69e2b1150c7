"""Saved nets and data, looked through before MXNet or NumPy reads them.

MXNet trusts its files: a wrong length or number in them ends the process. Everything here raises Malformed, in words
about the file's own content, and allocates nothing that the file does not hold.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
from math import prod
from typing import Any, Mapping, Sequence, Union

import numpy as np

from hessmx._mxnet import mx
from hessmx.errors import FileError, one_line
from hessmx.graph.symbols import call, scope

PathLike = Union[str, "os.PathLike[str]"]

PARAMS_MAGIC = (0x112).to_bytes(8, "little")
_V1, _V2, _V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA  # how an array begins; the oldest ones begin with their dimensions
_ITEMSIZE = {0: 4, 1: 8, 2: 2, 3: 1, 4: 4, 5: 1, 6: 8, 7: 1, 12: 2}  # MXNet's numbers of dtypes
_DIMENSIONS = 32
_DENSE, _ROWS = 0, 1
_MARKS = ("ctx_group", "lr_mult", "wd_mult", "force_mirroring")  # what old files have among an operator's attributes

# Whole numbers that some kernel divides by, or counts with.
_POSITIVE = set(
    """num_group num_groups num_filter num_hidden stride dilate kernel num_outputs input_dim output_dim scale nsize
    block_size sections pooled_size state_size num_layers num_heads heads group_size max_displacement kernel_size
    stride1 stride2 num_deformable_group height width""".split()
)


class Malformed(ValueError):
    """What is wrong with a file's content."""


def read_bytes(path: PathLike, limit: int = -1) -> bytes:
    if not os.path.exists(path):
        raise FileError(f"{path} does not exist")
    if not os.path.isfile(path) and not os.path.isdir(path):
        raise FileError(f"{path} is no plain file: a pipe or device cannot be read twice; write it to a file first")
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}") from error


# ---- parameters

class _Reader:
    """The bytes of a parameter file from front to back."""

    def __init__(self, content: bytes):
        self.content, self.place = content, 0

    def take(self, size: int) -> int:
        """Go on by `size` bytes; where they begin."""
        start = self.place
        if size < 0 or size > len(self.content) - start:
            raise Malformed(f"it is damaged or cut short: {size:,} bytes are announced at byte {start:,}, "
                            f"of which it holds {len(self.content) - start:,}")  # fmt: skip
        self.place += size
        return start

    def number(self, kind: str) -> int:
        (value,) = struct.unpack_from("<" + kind, self.content, self.take(struct.calcsize(kind)))
        return int(value)

    def shape(self, ndim: int, kind: str = "q") -> tuple[int, ...]:
        if not 0 <= ndim <= _DIMENSIONS:
            raise Malformed(f"it is damaged: an array of {ndim} dimensions at byte {self.place:,}")
        sizes = tuple(self.number(kind) for _ in range(ndim))
        if any(size < 0 for size in sizes):
            raise Malformed(f"it is damaged: an array of shape {sizes} at byte {self.place:,}")
        return sizes

    def dtype(self) -> int:
        number = self.number("i")
        if number not in _ITEMSIZE:
            raise Malformed(f"it is damaged: dtype {number} at byte {self.place:,}")
        return number


def check_params(content: bytes) -> None:
    """That MXNet can read these bytes as named arrays (src/ndarray/ndarray.cc, NDArray::Load)."""
    reader = _Reader(content)
    if reader.number("Q") != 0x112:
        raise Malformed("it does not begin as a file of arrays does")
    reader.number("Q")
    count = reader.number("Q")
    reader.take(0 if count <= len(content) else count)
    for _ in range(count):
        _check_array(reader)
    names = []
    for _ in range(reader.number("Q")):
        size = reader.number("Q")
        start = reader.take(size)
        names.append(content[start : start + size])
    if len(names) not in (0, count):
        raise Malformed(f"it is damaged: {count} arrays and {len(names)} names")
    twice = {name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else set()
    if twice:
        raise Malformed(f"it holds {min(twice).decode(errors='replace')!r} twice")
    try:
        [name.decode() for name in names]
    except UnicodeDecodeError as error:
        raise Malformed(f"it is damaged: a name is no text: {error}") from error


def _check_array(reader: _Reader) -> None:
    magic = reader.number("I")
    if magic not in (_V1, _V2, _V3):
        _check_dense(reader, reader.shape(magic, "I"))
        return
    storage = _DENSE if magic == _V1 else reader.number("i")
    if storage not in (_DENSE, _ROWS):
        raise Malformed(f"it holds an array stored in way {storage}: parameters are dense, or stored by rows")
    rows = reader.shape(reader.number("i")) if storage == _ROWS else ()
    shape = reader.shape(reader.number("i"))
    if storage == _DENSE:
        _check_dense(reader, shape)
        return
    _check_context(reader)
    dtype, index_dtype = reader.dtype(), reader.dtype()
    indexed = reader.shape(reader.number("i"))
    if not shape or rows[1:] != shape[1:] or indexed != rows[:1] or index_dtype != 6:
        raise Malformed(f"it is damaged: {rows} of the rows of an array of shape {shape}, numbered by {indexed}")
    reader.take(prod(rows) * _ITEMSIZE[dtype])
    start = reader.take(8 * indexed[0])
    numbers = np.frombuffer(reader.content, "<i8", indexed[0], start)
    if numbers.size and (numbers[0] < 0 or numbers[-1] >= shape[0] or (np.diff(numbers) <= 0).any()):
        raise Malformed(f"it is damaged: an array of {shape[0]} rows has numbers of rows that are none")


def _check_dense(reader: _Reader, shape: Sequence[int]) -> None:
    if not shape:  # an array that was never filled
        return
    _check_context(reader)
    reader.take(_ITEMSIZE[reader.dtype()] * prod(shape))


def _check_context(reader: _Reader) -> None:
    device, number = reader.number("i"), reader.number("i")
    if device not in (1, 2, 3, 5) or number < 0:
        raise Malformed(f"it is damaged: device {device}, {number} at byte {reader.place:,}")


# ---- graphs

def parse_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except RecursionError as error:
        raise Malformed("its brackets are nested too deeply") from error
    except ValueError as error:
        raise Malformed(str(error)) from error


def check_graph(graph: Any) -> None:
    """That nodes, what they read and the outputs exist, as MXNet's Symbol JSON says it."""
    nodes = graph.get("nodes") if isinstance(graph, dict) else None
    if not isinstance(nodes, list) or not nodes:
        raise Malformed("it has no 'nodes', a list of operators and variables")
    counts: list[int] = []
    with scope():
        for place, node in enumerate(nodes):
            if not isinstance(node, dict) or not all(isinstance(node.get(key), str) for key in ("op", "name")):
                raise Malformed(f"node {place} has no 'op' and 'name'")
            for entry in _entries(node.get("inputs"), f"the inputs of {node['name']!r}"):
                _check_entry(entry, counts, f"{node['name']!r} reads")
            counts.append(1 if node["op"] == "null" else _outputs(node))
    variables = [node["name"] for node in nodes if node["op"] == "null"]
    if len(set(variables)) < len(variables):
        raise Malformed(f"two variables are called {next(v for v in variables if variables.count(v) > 1)!r}")
    heads = _entries(graph.get("heads"), "its 'heads'")
    if not heads:
        raise Malformed("it has no output: 'heads' is empty")
    for entry in heads:
        _check_entry(entry, counts, "an output is")


def _entries(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Malformed(f"{what} are no list")
    return value


def _check_entry(entry: Any, counts: Sequence[int], who: str) -> None:
    whole = isinstance(entry, list) and len(entry) in (2, 3) and all(type(number) is int for number in entry)
    if not whole or min(entry) < 0:
        raise Malformed(f"{who} {entry!r}; expected [node, output, version]")
    node, output = entry[:2]
    if node >= len(counts):
        raise Malformed(f"{who} node {node}, which does not stand before it")
    if output >= counts[node]:
        raise Malformed(f"{who} output {output} of node {node}, which has {counts[node]}")


def _outputs(node: Mapping[str, Any]) -> int:
    """Number of outputs of an operator; refuses attributes that no kernel can work with."""
    attrs: Any = next((node[key] for key in ("attrs", "param", "attr") if node.get(key)), {})
    if not isinstance(attrs, dict) or not all(isinstance(value, str) for value in attrs.values()):
        raise Malformed(f"the attributes of {node['name']!r} are no texts by name")
    for key, value in attrs.items():
        if key in _POSITIVE and any(int(number) < 1 for number in re.findall(r"-?\d+(?![\d.])", value)[:8]):
            raise Malformed(f"{node['name']!r} has {key}={value}; expected at least 1")
    for graph in node.get("subgraphs") or []:
        check_graph(graph)
    own = {k: v for k, v in attrs.items() if not k.startswith("__") and k not in _MARKS}
    if node.get("subgraphs"):
        return int(own["num_outputs"]) if own.get("num_outputs", "").isdigit() else 1
    given = [mx.sym.Variable(f"x{i}") for i in range(len(node["inputs"]))]
    try:
        outputs = call(node["op"], given, own)
    except mx.base.MXNetError as error:
        raise Malformed(f"MXNet cannot read {node['name']!r} ({node['op']}): {one_line(error)}") from error
    first: Any = outputs[0]
    needed = len(first.list_inputs())  # those that are not given are made up
    if needed > len(given):
        raise Malformed(f"{node['name']!r} ({node['op']}) reads {len(given)} of its {needed} inputs")
    return len(outputs)


# ---- data

def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an .npz file, once their announced sizes are found to be those of the file."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.flag_bits & 1:
                raise Malformed(f"{member.filename} in it is encrypted")
            if member.filename.endswith(".npy"):
                with archive.open(member) as file:
                    _check_npy(file, member)
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _check_npy(file: Any, member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.hasobject:
        raise Malformed(f"{member.filename} in it holds Python objects")
    announced = prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or announced > member.file_size:
        raise Malformed(f"{member.filename} in it announces shape {shape}, {announced:,} bytes, and holds fewer")
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    if announced > pages * page:
        raise Malformed(f"{member.filename} in it has shape {shape}, {announced:,} bytes: more than the memory here")
