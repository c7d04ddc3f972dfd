"""Requests, replies and the commitment: everything is bound, and hostile replies end in one clear error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from inference_small import VOCABULARY, WIDTH, request
from pydantic import ValidationError

from minga.core.errors import BadEvidence, ProviderError
from minga.protocol.merkle import Tree, proves
from minga.verify.inference_record import (
    CHUNK,
    TOKENS_MAX,
    Reply,
    Sampling,
    evidence_bytes,
    first_leaf,
    leaves,
    opened,
    root,
)


def evidence(rows: int, fill: str = "ab") -> str:
    return fill * (2 + 2 * min(128, rows * WIDTH))


def reply(**fields: Any) -> dict[str, Any]:
    """A well-formed reply to `request()`: 40 tokens in two chunks."""
    usual = {"tokens": [3] * 40, "finish": "length", "chunks": [evidence(32), evidence(8)]}
    return {**usual, **fields}


def open_it(value: Any, **fields: Any) -> list[bytes]:
    return opened(request(**fields), Reply.read(value), VOCABULARY, WIDTH)


# --------------------------------------------------------------------------------------------------------- the seed


def test_the_seed_follows_from_job_beacon_and_index_alone():
    seed = request().seed
    assert len(seed) == 32
    assert request(prompt=[1], model="0x" + "00" * 32, sampling=Sampling()).seed == seed
    others = [request(job="0x" + "aa" * 32), request(beacon="0x" + "aa" * 32), request(index=1)]
    assert len({seed, *(other.seed for other in others)}) == 4
    swapped = request(job=request().beacon, beacon=request().job)
    assert swapped.seed != seed


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": []},
        {"prompt": [-1]},
        {"tokens_max": 0},
        {"tokens_max": TOKENS_MAX + 1},
        {"job": "0x" + "AA" * 32},
        {"beacon": "0x12"},
        {"numerics": "fp16"},
        {"evidence": "none"},
        {"index": -1},
        {"unknown": 1},
    ],
)
def test_requests_have_one_form(fields):
    with pytest.raises(ValidationError):
        request(**fields)


@pytest.mark.parametrize(("temperature", "top_p"), [(-1, 1000), (5001, 1000), (800, 0), (800, 1001), (0.8, 1000)])
def test_sampling_is_in_thousandths(temperature, top_p):
    with pytest.raises(ValidationError):
        Sampling(temperature_milli=temperature, top_p_milli=top_p)


# ---------------------------------------------------------------------------------------------------- the commitment


def test_a_well_formed_reply_is_opened():
    assert open_it(reply()) == [bytes.fromhex(evidence(32)), bytes.fromhex(evidence(8))]
    assert open_it(json.dumps(reply()).encode()) == open_it(reply())
    assert evidence_bytes(request(), 32, 576) == 258
    assert evidence_bytes(request(), 1, 2) == 6
    assert evidence_bytes(request(evidence="logprobs"), 32, 576) == 64


def test_every_part_of_the_reply_and_the_request_is_committed_to():
    """Changing any token, any evidence or any field of the request changes the root."""
    base = root(request(), Reply.read(reply()))
    changed = [
        root(request(), Reply.read(reply(tokens=[*[3] * 39, 4]))),
        root(request(), Reply.read(reply(tokens=[4, *[3] * 39]))),
        root(request(), Reply.read(reply(chunks=[evidence(32, "cd"), evidence(8)]))),
        root(request(), Reply.read(reply(chunks=[evidence(32), evidence(8, "cd")]))),
    ]
    fields = {
        "prompt": [5, 7, 11], "tokens_max": 41, "stop": [1], "numerics": "bf16", "evidence": "logprobs", "index": 1,
        "model": "0x" + "99" * 32, "job": "0x" + "99" * 32, "beacon": "0x" + "99" * 32, "sampling": Sampling(),
    }  # fmt: skip
    for name, value in fields.items():
        changed.append(root(request(**{name: value}), Reply.read(reply())))
    assert len({base, *changed}) == 1 + len(changed)


def test_each_leaf_binds_all_before_it_and_can_be_proven_alone():
    found = leaves(request(), Reply.read(reply()))
    assert len(found) == 3
    assert found[0] == first_leaf(request())
    other = leaves(request(), Reply.read(reply(tokens=[4, *[3] * 39])))
    assert found[0] == other[0]
    assert found[1] != other[1]
    assert found[2] != other[2]
    tree = Tree(found)
    assert proves(tree.root, tree.rounds, 2, found[2], tree.proof(2))
    assert not proves(tree.root, tree.rounds, 1, found[2], tree.proof(2))


def test_tokens_cannot_pose_as_evidence():
    one = Reply(tokens=[3, 3], finish="length", chunks=["04000000" + "ab"])
    two = Reply(tokens=[3, 3, 4], finish="length", chunks=["ab"])
    assert root(request(), one) != root(request(), two)


# ---------------------------------------------------------------------------------------------------- hostile replies


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{" * 100_000,
        b"\xff\xfe",
        {"tokens": [1], "finish": "length"},
        reply(tokens=[]),
        reply(tokens="3"),
        reply(tokens=[-1] * 40),
        reply(tokens=[2**32] * 40),
        reply(tokens=[3.0] * 40),
        reply(tokens=[True] * 40),
        reply(tokens=[None] * 40),
        reply(tokens=[3] * (TOKENS_MAX + 1)),
        reply(tokens=[VOCABULARY] + [3] * 39),
        reply(tokens=[3] * 41, chunks=[evidence(32), evidence(9)]),
        reply(tokens=[3] * 39, chunks=[evidence(32), evidence(7)]),
        reply(finish="because"),
        reply(finish="stop"),
        reply(chunks=[]),
        reply(chunks=[evidence(32)]),
        reply(chunks=[evidence(32), evidence(8), evidence(8)]),
        reply(chunks=[evidence(32), ""]),
        reply(chunks=["", evidence(8)]),
        reply(chunks=[evidence(32), evidence(8)[:-2]]),
        reply(chunks=[evidence(32), evidence(8) + "ab"]),
        reply(chunks=[evidence(32), evidence(8)[:-1]]),
        reply(chunks=[evidence(32).upper(), evidence(8)]),
        reply(chunks=[evidence(32)[:-2] + "zz", evidence(8)]),
        reply(chunks=["ab " * 258, evidence(8)]),
        reply(chunks=[None, evidence(8)]),
        reply(more=1),
    ],
    ids=range(33),
)
def test_hostile_replies_are_refused_with_one_clear_error(value):
    with pytest.raises(BadEvidence) as caught:
        open_it(value)
    assert caught.value.fact
    assert caught.value.remedy
    assert isinstance(caught.value, ProviderError)


def test_replies_must_end_as_the_request_says():
    short = reply(tokens=[*[3] * 9, 1], finish="stop", chunks=[evidence(10)])
    assert open_it(short, stop=[1])
    for fields in ({}, {"stop": [2]}, {"stop": [3, 1]}):
        with pytest.raises(BadEvidence):
            open_it(short, **fields)
    with pytest.raises(BadEvidence, match="ends early"):
        open_it({**short, "finish": "length"}, stop=[1])
    last = reply(tokens=[*[3] * 39, 1], finish="length")
    assert open_it(last, stop=[1])
    assert open_it({**last, "finish": "stop"}, stop=[1])
    assert CHUNK == 32
