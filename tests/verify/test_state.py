"""The form of a state: one value, one form; what a stranger sends is refused unless it is exactly that."""

from __future__ import annotations

import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import InvalidInput, TooLarge
from minga.verify import state as form
from minga.verify.state import file_hash, inspect_state, pack, read_state, state_hash, write_state

TORCH_TYPES = [getattr(torch, name) for name, _ in form.TYPES.values()]


def equal(left, right) -> bool:
    """The same types and the same bits, whatever NaN says about itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, torch.Tensor):
        same = (left.dtype, left.shape) == (right.dtype, right.shape)
        return same and bytes(left.reshape(-1).view(torch.uint8)) == bytes(right.reshape(-1).view(torch.uint8))
    if isinstance(left, np.ndarray):
        return (left.dtype, left.shape, left.tobytes()) == (right.dtype, right.shape, right.tobytes())
    return left == right


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.binary(max_size=8)
)
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@st.composite
def tensors(draw):
    dtype, shape = draw(st.sampled_from(TORCH_TYPES)), draw(SHAPES)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = draw(st.binary(min_size=size, max_size=size))
    if dtype is torch.bool:
        raw = bytes(byte & 1 for byte in raw)
    if not size:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(dtype).reshape(shape)


ARRAYS = (
    tensors()
    .filter(lambda one: not str(one.dtype).startswith(("torch.float8", "torch.bfloat")))
    .map(lambda one: one.numpy())
)
STATES = st.recursive(
    SCALARS | tensors() | ARRAYS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("ab", max_size=3) | st.integers(-9, 9), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(STATES)
def test_what_is_written_comes_back_and_has_one_hash(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("state") / "one.state"
    digest = write_state(path, value)
    data = path.read_bytes()
    packed = pack(value)
    assert digest == state_hash(value) == file_hash(path) == blake3(data).digest()
    assert packed.bytes == len(data) == sum(map(len, packed.pieces()))
    again = read_state(path)
    assert equal(again, value)
    assert state_hash(again) == digest


def test_the_form_is_the_documented_one():
    value = {"b": torch.tensor([1.5, -2.0]), "a": [1, 2.0, (None, True)], 3: np.arange(3, dtype=np.int16)}
    data = b"".join(map(bytes, pack(value).pieces()))
    length = struct.unpack("<Q", data[8:16])[0]
    header = json.loads(data[16 : 16 + length])
    assert data[:8] == b"MINGAST1"
    assert (16 + length) % 64 == 0
    assert header == [
        "map",
        [3, ["array", "I16", [3]]],
        ["a", ["list", 1, ["float", "4000000000000000"], ["tuple", None, True]]],
        ["b", ["tensor", "F32", [2]]],
    ]
    body = data[16 + length :]
    assert body[:6] == struct.pack("<3h", 0, 1, 2)
    assert body[6:64] == bytes(58)
    assert body[64:72] == struct.pack("<2f", 1.5, -2.0)
    assert len(body) == 128


def test_a_known_state_has_a_known_hash():
    """So that a change of the form does not go unseen: it would make every kept trace worthless."""
    value = {"step": 7, "w": torch.arange(6, dtype=torch.float32).reshape(2, 3), "lr": 0.1, "names": ["x", "y"]}
    assert state_hash(value).hex() == "c5ca3d0a96237f4f0cd1ef2d6bed15ad46960974643cd60b857ab63cb927fea0"


def test_order_of_insertion_layout_and_sharing_do_not_matter():
    matrix = torch.arange(6.0).reshape(2, 3)
    one = {"x": matrix, "y": matrix.t()}
    other = {"y": matrix.t().contiguous(), "x": matrix.clone()}
    assert state_hash(one) == state_hash(other)
    assert state_hash({"x": np.arange(6.0).reshape(2, 3).T}) == state_hash({"x": np.arange(6.0).reshape(2, 3).T.copy()})
    big = np.arange(3, dtype=">i4")
    assert state_hash(big) == state_hash(big.astype("<i4"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), ([1], (1,)), ("1", 1), (b"a", "a"), (0.0, -0.0), ({1: 2}, {"1": 2}), ([], {}), (None, []),
        (torch.zeros(2, 1), torch.zeros(1, 2)), (torch.zeros(1), np.zeros(1, np.float32)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)), (torch.zeros(()), torch.zeros(1)), (2**53, float(2**53)),
        ([torch.zeros(1), torch.ones(1)], [torch.ones(1), torch.zeros(1)]),
    ],
)  # fmt: skip
def test_different_values_have_different_hashes(one, other):
    assert state_hash(one) != state_hash(other)


def test_one_flipped_bit_anywhere_is_another_hash():
    weights = torch.zeros(5000)
    before = state_hash(weights)
    for at in (0, 1, 2500, 4999):
        weights.view(torch.int32)[at] ^= 1
        assert state_hash(weights) != before
        weights.view(torch.int32)[at] ^= 1
    assert state_hash(weights) == before


def test_subclasses_of_plain_values_are_plain():
    from collections import OrderedDict
    from enum import IntEnum, StrEnum

    class Number(IntEnum):
        two = 2

    class Word(StrEnum):
        two = "two"

    assert state_hash([Number.two, Word.two, np.float64(0.5)]) == state_hash([2, "two", 0.5])
    assert state_hash(OrderedDict(b=1, a=2)) == state_hash({"a": 2, "b": 1})
    assert state_hash(torch.nn.Parameter(torch.ones(2))) == state_hash(torch.ones(2))


def nested(levels: int):
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "fact"),
    [
        ({"a": {"b": [1, {2}]}}, r"state\.a\.b\[1\] is a builtins\.set"),
        ({"model": object()}, r"state\.model is a builtins\.object"),
        ({(1, 2): 3}, "key"),
        ({True: 3}, "key"),
        ({2**60: 3}, "key"),
        ("\ud800", "surrogate"),
        (nested(14), "nested over 13"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.empty(2, device="meta"), "without data"),
        (np.array(["text"]), "elements of type"),
        (np.array([object()]), "elements of type"),
        (np.random.default_rng(0), "no form in a state"),
        (torch.zeros([1] * 17), "17 dimensions"),
        (1 << 2000, "2001 bits"),
    ],
)
def test_what_has_no_form_is_named(value, fact):
    with pytest.raises(InvalidInput, match=fact):
        pack(value)


def test_the_deepest_state_comes_back(tmp_path):
    write_state(tmp_path / "deep", nested(13))
    assert read_state(tmp_path / "deep") == nested(13)
    value: object = np.zeros(1)
    for _ in range(13):
        value = {"down": value}
    write_state(tmp_path / "deep", value)
    assert equal(read_state(tmp_path / "deep"), value)


# ---------------------------------------------------------------------------------------------------------- strangers


def made(header, body: bytes = b"", fill: bytes = b" ", magic: bytes = b"MINGAST1", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    text += fill * (-(16 + len(text)) % 64)
    return magic + struct.pack("<Q", len(text) if length is None else length) + text + body


PART = ["tensor", "F32", [2]]
BAD = {
    "nothing": b"",
    "short": b"MINGAST1",
    "other magic": made(1, magic=b"MINGAST2"),
    "pickle": b"\x80\x04\x95" + bytes(64),
    "length beyond the end": made(1, length=1 << 62),
    "length not filled": made(1, length=40),
    "not JSON": made(b"{]"),
    "a float": made(b"1.5"),
    "a list without a kind": made([[1]]),
    "an empty list": made([]),
    "a JSON object": made({"a": 1}),
    "an unknown kind": made(["code", "import os"]),
    "a float of the wrong length": made(["float", "00"]),
    "a float of no digits": made(["float", "zz" * 8]),
    "bytes of no digits": made(["bytes", "zz"]),
    "capital digits": made(["bytes", "AB"]),
    "a small integer in words": made(["int", "7"]),
    "an integer of a million digits": made(["int", "9" * 1_000_000]),
    "a key twice": made(["map", ["a", 1], ["a", 2]]),
    "keys in another order": made(["map", ["b", 1], ["a", 2]]),
    "a key that is a list": made(["map", [["list"], 1]]),
    "a boolean key": made(["map", [True, 1]]),
    "a pair of three": made(["map", ["a", 1, 2]]),
    "white space": made(b'["list", 1]'),
    "filled with tabs": made(1, fill=b"\t"),
    "too much filling": made(b"1" + b" " * 64),
    "a type of nobody": made(["tensor", "F31", [2]], bytes(64)),
    "an array that numpy lacks": made(["array", "BF16", [2]], bytes(64)),
    "a negative side": made(["tensor", "F32", [-2]], bytes(64)),
    "a side that is a float's": made(["tensor", "F32", [True]], bytes(64)),
    "sides without end": made(["tensor", "F32", [1] * 17], bytes(64)),
    "more elements than bytes": made(["tensor", "F32", [1 << 39, 1 << 39]], bytes(64)),
    "fewer bytes than elements": made(PART, bytes(63)),
    "more bytes than elements": made(PART, bytes(128)),
    "bytes for nothing": made(1, bytes(64)),
    "bytes in the gap": made(PART, bytes(63) + b"\x01"),
    "a boolean of two": made(["tensor", "BOOL", [2]], b"\x02" + bytes(63)),
    "deeper than may be": made(b"[" * 40 + b"]" * 40),
    "deeper than a process stands": made(b"[" * 100_000 + b"]" * 100_000),
    "a lone surrogate": made(b'"\\ud800"'),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_state_is_refused(tmp_path, name):
    path = tmp_path / "bad.state"
    path.write_bytes(BAD[name])
    with pytest.raises(InvalidInput):
        read_state(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_another_state(tmp_path_factory, data):
    """Any one byte changed: an error of ours, or a state whose hash is that of the file, so another one."""
    value = {"a": torch.arange(3.0), "b": [1, 2.5, "x"], "c": np.array([True, False]), "d": (None, b"yz", 2**70)}
    good = b"".join(map(bytes, pack(value).pieces()))
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda new: new != good[at]))
    path = tmp_path_factory.mktemp("damaged") / "one.state"
    path.write_bytes(good[:at] + bytes([byte]) + good[at + 1 :])
    try:
        found = read_state(path)
    except InvalidInput:
        return
    assert state_hash(found) == file_hash(path) != state_hash(value)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 500))
def test_a_file_cut_short_is_refused(tmp_path_factory, kept):
    good = b"".join(map(bytes, pack({"a": torch.arange(40.0), "b": 1}).pieces()))
    path = tmp_path_factory.mktemp("cut") / "one.state"
    path.write_bytes(good[: min(kept, len(good) - 1)])
    with pytest.raises(InvalidInput):
        read_state(path)


def test_a_limit_is_kept_before_anything_is_read(tmp_path):
    path = tmp_path / "big.state"
    write_state(path, torch.zeros(1000))
    with pytest.raises(TooLarge, match="limit is 1000"):
        read_state(path, bytes_max=1000)
    with pytest.raises(TooLarge):
        inspect_state(path, bytes_max=1000)
    with pytest.raises(OSError, match="No such file"):
        read_state(tmp_path / "none")


def test_a_false_size_takes_no_memory(tmp_path):
    """A header that claims a terabyte is refused by the size of the file, in a process that may have 1 GiB more."""
    path = tmp_path / "huge.state"
    path.write_bytes(made(["tensor", "F64", [1 << 37]], bytes(64)))
    program = (
        "import sys, resource, torch, pathlib\n"
        "from minga.verify.state import read_state\n"
        "from minga.core.errors import InvalidInput\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)\n"
        "try: read_state(pathlib.Path(sys.argv[1]))\n"
        "except InvalidInput as error: print(error.fact)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert "asks for" in done.stdout


def test_a_state_is_inspected_without_its_tensors(tmp_path):
    path = tmp_path / "one.state"
    write_state(path, {"step": 3, "w": torch.zeros(2, 3, dtype=torch.bfloat16), "k": np.zeros(2)})
    program = (
        "import sys, pathlib\n"
        "from minga.verify.state import inspect_state, file_hash\n"
        "print(inspect_state(pathlib.Path(sys.argv[1])), file_hash(pathlib.Path(sys.argv[1])).hex())\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == f"{{'k': ('F64', (2,)), 'step': 3, 'w': ('BF16', (2, 3))}} {file_hash(path).hex()}\n"


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "one.state"
    write_state(path, 1)
    with pytest.raises(InvalidInput):
        write_state(path, {"x": object()})
    assert read_state(path) == 1
    assert [item.name for item in tmp_path.iterdir()] == ["one.state"]
