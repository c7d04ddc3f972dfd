"""Keys from the command line: made, taken over, shown, never leaked, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Minga, one_error

SECRET = "11" * 32
ADDRESS = "0x19E7E376E7C213B7E7e7e46cc70A5dD086DAff2A"
"""The address of SECRET, known from elsewhere."""


def test_an_embedded_key_is_made_shown_and_exported(minga: Minga, home: Path) -> None:
    made = json.loads(minga("wallet", "create", "--embedded", "--json").out)
    shown = json.loads(minga("wallet", "show", "--json").out)
    assert shown == [{"name": "main", "address": made["address"], "embedded": True}]
    assert minga("wallet", "export-address").out == made["address"] + "\n"
    assert "embedded" in minga("wallet", "show").out
    for path in (home / "keys").iterdir():
        assert path.stat().st_mode & 0o077 == 0


def test_a_key_is_never_overwritten(minga: Minga) -> None:
    before = minga("wallet", "create", "--embedded").out
    one_error(minga("wallet", "create", "--embedded"), "conflict", 2)
    assert minga("wallet", "export-address").out.strip() in before


def test_a_sealed_key_needs_its_passphrase(minga: Minga, home: Path) -> None:
    one_error(minga("wallet", "create", "safe"), "key-locked", 2)
    assert not list((home / "keys").glob("*")) if (home / "keys").exists() else True
    ended = minga("wallet", "create", "safe", env={"MINGA_PASSPHRASE": "right"})
    assert ended.code == 0
    text = (home / "keys" / "safe.json").read_text()
    assert json.loads(text)["crypto"]["kdf"] == "scrypt"


def test_a_key_from_elsewhere_is_taken_over_from_a_file_or_stdin(minga: Minga, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"0x{SECRET}\n")
    env = {"MINGA_PASSPHRASE": "right"}
    ended = minga("wallet", "import", str(file), "--json", env=env)
    assert json.loads(ended.out) == {"name": "main", "address": ADDRESS}
    assert minga("wallet", "import", "-", "--name", "two", stdin=SECRET, env=env).code == 0
    assert SECRET not in ended.out + ended.err


@pytest.mark.parametrize("content", ["", "12", "zz" * 32, "11" * 33, "0x", "\x00" * 40, "00" * 32, "ff" * 32])
def test_what_is_not_a_secret_is_refused_and_not_repeated(minga: Minga, tmp_path: Path, content: str) -> None:
    file = tmp_path / "secret"
    file.write_text(content)
    ended = minga("wallet", "import", str(file), env={"MINGA_PASSPHRASE": "x"})
    one_error(ended, "invalid-input", 2)
    assert len(content) < 10 or content not in ended.err


@pytest.mark.parametrize("name", ["../up", "a/b", "", "x" * 65, "a b", "."])
def test_a_bad_name_is_refused(minga: Minga, name: str) -> None:
    one_error(minga("wallet", "create", "--embedded", name), "invalid-input", 2)


def test_missing_things_are_named(minga: Minga, tmp_path: Path) -> None:
    one_error(minga("wallet", "export-address", "nobody"), "not-found", 2)
    one_error(minga("wallet", "import", str(tmp_path / "none")), "not-found", 2)
    one_error(minga("wallet", "import", str(tmp_path)), "invalid-input", 2)


def test_the_faucet_is_for_the_embedded_chain_alone(minga: Minga, home: Path) -> None:
    places = dict.fromkeys(("registry", "market", "token"), "0x" + "11" * 20)
    chain = {
        "rpc_urls": ["http://127.0.0.1:1"], "chain_id": 1, "confirmations": 3,
        "deployment": {**places, "start_block": 0, "decimals": 6},
    }  # fmt: skip
    (home / "networks").mkdir(parents=True)
    (home / "networks" / "real.json").write_text(json.dumps({"chain": chain, "boards": []}))
    minga("wallet", "create", "--embedded")
    one_error(minga("wallet", "faucet"), "invalid-input", 2)
    ended = minga("wallet", "balance", ADDRESS)
    one_error(ended, "rpc-unavailable", 5)
