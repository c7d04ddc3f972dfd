"""What a provider serves is either exactly what it committed to and the tenant ordered, or it did not serve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from works import DOMAIN, KEEP, STEPS, Done, committed_to, done, facts

from minga.core.crypto import new_key
from minga.core.errors import NotServed
from minga.core.spec import FileEntry
from minga.core.work import Trace
from minga.protocol.messages import Ordered, sign
from minga.validator.evidence import check_facts, check_leaves, check_order, read_place

SIGNER = new_key(b"s" * 32)


@pytest.fixture
def made(tmp_path: Path) -> Done:
    return done(tmp_path / "provider", SIGNER)


def test_what_was_committed_to_passes(made):
    check_order(made.claim, made.work, made.signature, DOMAIN)
    assert check_leaves(made.claim, b"".join(made.leaves)) == tuple(made.leaves)
    assert check_facts(made.work, STEPS + 1, facts()) == STEPS


def test_other_work_is_not_served_work(made):
    with pytest.raises(NotServed, match="not the committed one"):
        check_order(made.claim, made.work.model_copy(update={"run": "true"}), made.signature, DOMAIN)


def test_an_order_that_the_tenant_did_not_sign_is_none(made):
    forged = sign(Ordered(made.claim.channel, made.claim.work), DOMAIN, new_key(b"x" * 32))
    for signature in (forged, b"", b"\x01" * 65):
        with pytest.raises(NotServed, match="not the tenant's"):
            check_order(made.claim, made.work, signature, DOMAIN)


def test_leaves_are_those_under_the_root(made):
    data = b"".join(made.leaves)
    for torn in (b"", data[:-1], data[:-32], data + bytes(32)):
        with pytest.raises(NotServed, match="bytes of leaves"):
            check_leaves(made.claim, torn)
    with pytest.raises(NotServed, match="committed root"):
        check_leaves(made.claim, bytes(32) + data[32:])
    with pytest.raises(NotServed, match="bytes of leaves"):
        check_leaves(replace(made.claim, leaves=0), b"")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"7", facts(every=2), facts(keep=KEEP + 1), facts(determinism="D2"), facts(leaves=STEPS),
     facts(steps=STEPS + 1), facts(steps="25"), facts(steps=True), b"{" + b" " * 5000 + b"}"],
)  # fmt: skip
def test_numbers_of_a_trace_fit_the_work(made, data):
    with pytest.raises(NotServed):
        check_facts(made.work, STEPS + 1, data)


def test_the_last_leaf_may_be_shorter(made):
    work = made.work.model_copy(update={"trace": Trace(every=10, keep=KEEP)})
    assert check_facts(work, 4, facts(every=10, leaves=4)) == STEPS
    with pytest.raises(NotServed):
        check_facts(work, 3, facts(every=10, leaves=3))


def test_states_are_those_of_their_leaves(made):
    evidence = made.evidence()
    assert evidence.state(0) is None
    assert evidence.state(KEEP) == made.files[f"trace/states/{KEEP:08d}.state"]
    with pytest.raises(NotServed, match="not served"):
        evidence.state(KEEP + 1)
    made.put(f"trace/states/{KEEP:08d}.state", b"another")
    with pytest.raises(NotServed, match="another one"):
        made.evidence().state(KEEP)
    huge = FileEntry(path="x", bytes=1 << 40, blake3=made.leaves[KEEP].hex())
    made.files[f"trace/states/{KEEP:08d}.state"] = huge
    with pytest.raises(NotServed, match="not served"):
        made.evidence().state(KEEP)


def test_a_replay_begins_at_the_kept_state_before(made):
    evidence = made.evidence()
    assert [evidence.start_for(leaf) for leaf in (0, 1, 9, 10, 11, 25)] == [0, 0, 0, 10, 10, 20]


@pytest.mark.parametrize(("data", "place"), [(b'{"machine":"x86_64"}', {"machine": "x86_64"}), (b"[]", {}), (b"{", {})])
def test_what_is_told_of_the_machine_may_be_anything(data, place):
    assert read_place(data) == place


def test_another_commitment_is_another_claim(made):
    other = committed_to(made, made.leaves[:-1])
    assert check_leaves(other.claim, b"".join(other.leaves)) == tuple(made.leaves[:-1])
    with pytest.raises(NotServed):
        check_leaves(other.claim, b"".join(made.leaves))
