"""Keys on disk: sealed, marked, private, whole."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import keyring
import keyring.backend
import pytest
from eth_account import Account
from keyring.errors import NoKeyringError, PasswordDeleteError

from minga.chain.keys import KeyInfo, KeyStore, passphrase_from, remember_passphrase
from minga.core.crypto import new_key
from minga.core.errors import Conflict, InvalidInput, KeyLocked, MissingPrerequisite, NotFound

ENTROPY = bytes(range(32))
FAST = 2  # scrypt's work factor; the real one takes half a second


def store(folder: Path, passphrase: str = "correct horse") -> KeyStore:
    return KeyStore(folder, lambda name: passphrase, scrypt_n=FAST)


def test_a_sealed_key_comes_back_and_is_a_standard_keystore(tmp_path: Path) -> None:
    keys = store(tmp_path / "keys")
    key = keys.create("main", ENTROPY)
    assert key.secret() == new_key(ENTROPY).secret()
    assert keys.load("main").secret() == key.secret()
    path = tmp_path / "keys" / "main.json"
    body = json.loads(path.read_text())
    assert body["version"] == 3
    assert body["crypto"]["kdf"] == "scrypt"
    assert key.secret().hex() not in path.read_text()
    assert bytes(Account.decrypt(body, "correct horse")) == key.secret()
    assert keys.info() == [KeyInfo("main", key.address, False)]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [found.name for found in path.parent.iterdir()] == ["main.json"]


def test_the_real_work_factor_is_geths(tmp_path: Path) -> None:
    keys = KeyStore(tmp_path, lambda name: "p")
    keys.create("main", ENTROPY)
    assert json.loads((tmp_path / "main.json").read_text())["crypto"]["kdfparams"]["n"] == 1 << 18


def test_a_wrong_passphrase_opens_nothing(tmp_path: Path) -> None:
    store(tmp_path).create("main", ENTROPY)
    with pytest.raises(KeyLocked) as caught:
        store(tmp_path, "wrong").load("main")
    assert "wrong" not in str(caught.value)


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    keys = store(tmp_path)
    key = keys.create("main", ENTROPY)
    for make in (keys.create, keys.create_embedded):
        with pytest.raises(Conflict):
            make("main", bytes(32))
    assert keys.load("main").secret() == key.secret()


def test_an_embedded_key_is_marked_and_works_nowhere_else(tmp_path: Path) -> None:
    keys = store(tmp_path)
    key = keys.create_embedded("operator", ENTROPY)
    assert json.loads((tmp_path / "operator.embedded.json").read_text())["embedded"] is True
    assert keys.info() == [KeyInfo("operator", key.address, True)]
    assert keys.load("operator", embedded_ok=True).secret() == key.secret()
    with pytest.raises(InvalidInput):
        keys.load("operator")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "x" * 65, "ü", "a.json"])
def test_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    for act in (lambda: store(tmp_path).create(name, ENTROPY), lambda: store(tmp_path).load(name)):
        with pytest.raises(InvalidInput):
            act()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"crypto": {}, "version": 3}', '{"version": 4}', "\x00"])
def test_a_file_that_is_no_key_is_one_clear_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "main.json").write_text(content)
    (tmp_path / "plain.embedded.json").write_text(content)
    with pytest.raises(InvalidInput):
        store(tmp_path).load("main")
    with pytest.raises(InvalidInput):
        store(tmp_path).load("plain", embedded_ok=True)
    assert store(tmp_path).info() == []
    with pytest.raises(NotFound):
        store(tmp_path).load("other")


def test_an_embedded_file_for_another_address_is_refused(tmp_path: Path) -> None:
    keys = store(tmp_path)
    keys.create_embedded("operator", ENTROPY)
    path = tmp_path / "operator.embedded.json"
    body = json.loads(path.read_text()) | {"address": "0x" + "11" * 20}
    path.write_text(json.dumps(body))
    with pytest.raises(InvalidInput):
        keys.load("operator", embedded_ok=True)


def test_passphrases_come_in_their_order(tmp_path: Path, ring: Ring) -> None:
    file = tmp_path / "passphrase"
    file.write_text("from file\n")
    ring.kept["minga", "main"] = "from keyring"
    both = {"MINGA_PASSPHRASE": "from environment", "MINGA_PASSPHRASE_FILE": str(file)}
    assert passphrase_from(both)("main") == "from environment"
    assert passphrase_from({"MINGA_PASSPHRASE_FILE": str(file)})("main") == "from file"
    assert passphrase_from({}, lambda name: f"typed for {name}")("main") == "from keyring"
    assert passphrase_from({}, lambda name: f"typed for {name}")("other") == "typed for other"
    assert passphrase_from({}, lambda name: "typed", use_keyring=False)("main") == "typed"
    with pytest.raises(KeyLocked):
        passphrase_from({})("other")
    with pytest.raises(KeyLocked):
        passphrase_from({"MINGA_PASSPHRASE_FILE": str(tmp_path / "none")})("main")


def test_the_keyring_remembers_and_forgets(ring: Ring) -> None:
    remember_passphrase("main", "secret")
    assert passphrase_from({})("main") == "secret"
    remember_passphrase("main", None)
    remember_passphrase("main", None)
    with pytest.raises(KeyLocked):
        passphrase_from({})("main")
    ring.broken = True
    with pytest.raises(MissingPrerequisite):
        remember_passphrase("main", "secret")
    assert passphrase_from({}, lambda name: "typed")("main") == "typed"


class Ring(keyring.backend.KeyringBackend):
    """An OS keyring in memory; `broken` is one that is not running."""

    priority = 1  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}
        self.broken = False

    def _check(self) -> None:
        if self.broken:
            raise NoKeyringError("none is running")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.kept.pop((service, username), None) is None:
            raise PasswordDeleteError("not there")


@pytest.fixture
def ring() -> Ring:
    before = keyring.get_keyring()
    ring = Ring()
    keyring.set_keyring(ring)
    yield ring
    keyring.set_keyring(before)
