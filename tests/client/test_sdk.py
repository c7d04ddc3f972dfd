"""What a program gets from `minga.connect()`: the right network and key, or one clear error before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from minga import sdk
from minga.chain.chain import ChainSpec, Deployment
from minga.chain.local import EMBEDDED_CHAIN_ID
from minga.client import functions
from minga.client.functions import function
from minga.client.home import Home, Network
from minga.client.jobfile import JobSpec
from minga.core.crypto import Address
from minga.core.errors import Conflict, InvalidInput, KeyLocked, MingaError, NotFound

ONE, TWO, THREE = (Address(f"0x{number:040x}") for number in (1, 2, 3))


def save(home: Path, name: str, chain_id: int = EMBEDDED_CHAIN_ID) -> None:
    spec = ChainSpec(("http://127.0.0.1:9",), chain_id, 0, Deployment(ONE, TWO, THREE, 0, 6))
    Network(name, spec, ()).save(Home(home))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home that the environment names."""
    monkeypatch.setenv("MINGA_HOME", str(tmp_path))
    for name in ("MINGA_NETWORK", "MINGA_PASSPHRASE", "MINGA_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_the_only_network_needs_no_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="known: none"):
        sdk.connect()
    save(home, "local")
    assert sdk.connect().network.name == "local"
    save(home, "other")
    with pytest.raises(NotFound, match="local, other"):
        sdk.connect()
    assert sdk.connect(network="other").network.name == "other"
    monkeypatch.setenv("MINGA_NETWORK", "local")
    assert sdk.connect().network.name == "local"
    with pytest.raises(NotFound):
        sdk.connect(network="third")
    with pytest.raises(InvalidInput):
        sdk.connect(network="../third")


def test_nothing_is_made_by_connecting_alone(home: Path) -> None:
    save(home, "local")
    with sdk.connect() as client:
        assert client.network.chain.chain_id == EMBEDDED_CHAIN_ID
    assert sorted(path.name for path in home.iterdir()) == ["networks"]


def test_a_plain_key_is_used_on_the_embedded_chain_alone(home: Path) -> None:
    from minga.chain.keys import KeyStore

    save(home, "local")
    save(home, "real", chain_id=1)
    made = KeyStore(home / "keys", lambda name: "").create_embedded(sdk.MAIN_KEY, bytes(32))
    key = sdk.connect(network="local")._make().__dict__["_key"]
    assert key().address == made.address
    with pytest.raises(MingaError):
        sdk.connect(network="real")._make().__dict__["_key"]()


def test_a_locked_key_is_one_error(home: Path) -> None:
    from minga.chain.keys import KeyStore

    save(home, "real", chain_id=1)
    KeyStore(home / "keys", lambda name: "secret", scrypt_n=2**10).create(sdk.MAIN_KEY, bytes(32))
    key = sdk.Client.connect(home, "real")._make().__dict__["_key"]
    with pytest.raises(KeyLocked):
        key()


def test_a_client_that_was_closed_says_so(home: Path) -> None:
    save(home, "local")
    client = sdk.connect()
    client.close()
    client.close()
    for call in (client.jobs, client.offers, lambda: client.submit(JobSpec(run="x")), lambda: client.attach("abcd")):
        with pytest.raises(Conflict, match="closed"):
            call()


def test_a_function_without_a_client_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_default", [])
    with pytest.raises(InvalidInput, match="no client"):
        function(budget="1")(abs).remote(-1)
    asked = []

    def make():
        asked.append(1)
        raise NotFound("there is no network", "minga up")

    functions.set_default_client(make)
    with pytest.raises(NotFound):
        function(budget="1")(abs).remote(-1)
    assert asked == [1]


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory": "lots"}, {"cpus": "many"}, {"cpus": float("nan")}, {"disk": "-1GB"}, {"gpu": "H100:-1"},
        {"result": "exec"}, {"budget": "two"}, {"budget": "-2"},
    ],
)  # fmt: skip
def test_wrong_sizes_of_a_function_are_told_where_it_is_written(wrong: dict) -> None:
    with pytest.raises(InvalidInput):
        function(**wrong)(abs)
