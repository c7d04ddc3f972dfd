"""Wire models are strict, and hostile values are named, not echoed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput, UnsafePath
from minga.core.spec import Machine, Manifest, Terms, UnitSize, safe_relative

SIZE = {"cpu_milli": 1000, "memory_bytes": 2**30, "disk_bytes": 2**30}
MANIFEST = {"job": "0x" + "01" * 32, "attempt": 0, "name": "hello", "run": "echo hi", "size": SIZE}


def test_a_manifest_round_trips_and_its_hash_is_of_its_value():
    manifest = Manifest.parse(MANIFEST)
    again = Manifest.parse(manifest.canonical())
    assert again == manifest
    assert again.hash32() == manifest.hash32() != Manifest.parse(MANIFEST | {"run": "echo ho"}).hash32()


@pytest.mark.parametrize(
    "change",
    [
        {"surprise": 1},
        {"attempt": -1},
        {"attempt": "0"},
        {"run": ""},
        {"run": 5},
        {"envs": {"A-B": "x"}},
        {"envs": {"A": 5}},
        {"outputs": ["../x"]},
        {"outputs": ["/etc"]},
        {"ports": [0]},
        {"ports": [70000]},
        {"secrets": "xyz"},
        {"job": "0x12"},
        {"size": SIZE | {"cpu_milli": 0}},
        {"inputs": [{"kind": "mount", "target": "/a/../b", "blake3": "0" * 64, "bytes": 1}]},
        {"inputs": [{"kind": "mount", "target": "a", "blake3": "0" * 64, "bytes": 1}]},
        {"inputs": [{"kind": "mount", "target": "/a", "blake3": "Z" * 64, "bytes": 1}]},
        {"version": 2},
    ],
)
def test_wrong_manifests_are_refused_by_name(change):
    with pytest.raises(InvalidInput) as caught:
        Manifest.parse(MANIFEST | change)
    assert next(iter(change)) in caught.value.fact


def test_an_error_does_not_echo_the_value():
    with pytest.raises(InvalidInput) as caught:
        Manifest.parse(MANIFEST | {"envs": {"TOKEN": ["s3cret"]}})
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/a", "..", "a/../b", "a\\b", "a\x00b", "a\nb", ".", "x" * 1025])
def test_paths_that_leave_their_folder_are_refused(path):
    with pytest.raises(UnsafePath):
        safe_relative(path)


@given(st.text(max_size=60))
def test_an_accepted_path_never_leaves(path):
    try:
        found = safe_relative(path)
    except UnsafePath:
        return
    assert not found.startswith("/")
    assert ".." not in found.split("/")
    assert "\x00" not in found


def test_machine_and_terms_hash_every_field():
    machine = {
        "node": "0x" + "01" * 32,
        "arch": "x86_64",
        "cpu": "test",
        "cpus": 2,
        "memory_bytes": 2**33,
        "disk_bytes": 2**34,
        "os": "linux",
    }
    first = Machine.parse(machine).hash32()
    assert Machine.parse(machine | {"cpus": 3}).hash32() != first
    terms = {"transport_key": "0" * 64, "unit": SIZE, "sandbox": "bubblewrap"}
    assert Terms.parse(terms).hash32() != Terms.parse(terms | {"notice_s": 5}).hash32()
    assert Terms.parse(terms).unit == UnitSize(**SIZE)
