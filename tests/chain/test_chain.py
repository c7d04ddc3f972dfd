"""A network's description: kept, checked, whole on disk."""

from __future__ import annotations

import json
import os
import stat
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from minga.chain.chain import ChainSpec, Deployment, write_private
from minga.core.crypto import Address
from minga.core.errors import InvalidInput, NotFound

SPEC = ChainSpec(
    ("https://one.test/key", "http://127.0.0.1:8545"),
    8453,
    12,
    Deployment(Address("0x" + "ab" * 20), Address("0x" + "cd" * 20), Address("0x" + "ef" * 20), 1000, 6),
)


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    SPEC.save(tmp_path / "networks" / "main.json")
    assert ChainSpec.load(tmp_path / "networks" / "main.json") == SPEC
    assert SPEC.domain.chain_id == 8453
    assert SPEC.domain.market == SPEC.deployment.market


@pytest.mark.parametrize(
    "change",
    [
        {"rpc_urls": []},
        {"rpc_urls": "https://one.test"},
        {"rpc_urls": ["ftp://one.test"]},
        {"rpc_urls": ["http://"]},
        {"rpc_urls": ["http://[::1"]},
        {"rpc_urls": [5]},
        {"chain_id": 0},
        {"chain_id": True},
        {"chain_id": "1"},
        {"chain_id": 2**53},
        {"confirmations": -1},
        {"confirmations": 65},
        {"deployment": None},
        {"more": 1},
    ],
)
def test_what_is_no_description_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ChainSpec.from_dict(SPEC.as_dict() | change)
    assert caught.value.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"market": "0x12"},
        {"disputes": "0x12"},
        {"beacon": None},
        {"start_block": -1},
        {"decimals": 37},
        {"decimals": None},
        {"owner": "x"},
    ],
)
def test_a_wrong_deployment_is_refused(change: dict[str, Any]) -> None:
    body = SPEC.as_dict()
    with pytest.raises(InvalidInput):
        ChainSpec.from_dict(body | {"deployment": body["deployment"] | change})
    with pytest.raises(InvalidInput):
        ChainSpec.from_dict({key: value for key, value in body.items() if key != "chain_id"})


def test_addresses_are_lower_case(tmp_path: Path) -> None:
    body = SPEC.as_dict()
    body["deployment"]["market"] = "0x" + "CD" * 20
    assert ChainSpec.from_dict(body) == SPEC


def test_files_that_are_missing_or_torn(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="minga up"):
        ChainSpec.load(tmp_path / "none.json")
    for content in ("", "{", "[]", json.dumps({"rpc_urls": 1.5})):
        (tmp_path / "torn.json").write_text(content)
        with pytest.raises(InvalidInput):
            ChainSpec.load(tmp_path / "torn.json")
    with pytest.raises(InvalidInput):
        ChainSpec.load(tmp_path)


def test_a_file_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_private(path, b"first")

    def fail(handle: int) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_private(path, b"second")
    monkeypatch.undo()
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_network_file_from_before_disputes_loads_and_says_what_it_lacks() -> None:
    body = SPEC.as_dict()
    for name in ("disputes", "beacon"):
        del body["deployment"][name]
    old = ChainSpec.from_dict(body)
    assert old == SPEC
    assert not old.deployment.has_disputes
    with pytest.raises(NotFound, match="no contract for disputes"):
        _ = old.disputes_domain


def test_a_network_with_disputes_comes_back_with_their_domain(tmp_path: Path) -> None:
    places = replace(SPEC.deployment, disputes=Address("0x" + "12" * 20), beacon=Address("0x" + "34" * 20))
    replace(SPEC, deployment=places).save(tmp_path / "main.json")
    found = ChainSpec.load(tmp_path / "main.json")
    assert found.deployment == places
    assert found.deployment.has_disputes
    assert found.disputes_domain.market == places.disputes
    assert found.disputes_domain.separator != found.domain.separator


def test_specs_differ_by_every_field() -> None:
    assert replace(SPEC, confirmations=13) != SPEC
    assert ChainSpec.from_dict(json.loads(json.dumps(SPEC.as_dict()))) == SPEC
