"""Every revert string of the contracts is exactly one error class, and nothing else is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minga.chain.abi import encode
from minga.chain.errors import REFUSALS, Refusal, contract_error, translate
from minga.chain.rpc import Reverted
from minga.core.errors import ContractError

CONTRACTS = Path(__file__).parents[2] / "contracts"
REASON = re.compile(r'"((?:market|registry|token|disputes|beacon): [^"]+)"')


def revert_strings() -> set[str]:
    """Every string that the shipped contracts' code (not their prose) can revert with."""
    sources = [*CONTRACTS.glob("*.vy"), *(CONTRACTS / "modules").glob("*.vy")]
    assert {path.name for path in sources} >= {"Market.vy", "Registry.vy", "Token.vy", "Disputes.vy", "BlockBeacon.vy"}
    lines = [line.partition("#")[0] for path in sources for line in path.read_text().splitlines()]
    return {reason for line in lines for reason in REASON.findall(line)}


def test_the_table_is_total_and_one_to_one() -> None:
    reasons = revert_strings()
    assert len(reasons) > 100
    assert set(REFUSALS) == reasons
    assert len(set(REFUSALS.values())) == len(REFUSALS)
    assert len({kind.code for kind in REFUSALS.values()}) == len(REFUSALS)


@pytest.mark.parametrize("reason", sorted(REFUSALS))
def test_each_says_what_happened_and_what_to_do(reason: str) -> None:
    data = bytes.fromhex("08c379a0") + encode("(string)", (reason,))
    error = translate(Reverted(data, "execution reverted"))
    assert type(error) is REFUSALS[reason]
    assert isinstance(error, Refusal)
    assert error.reason == reason
    assert error.fact
    assert error.remedy
    assert error.http_status == 409
    assert error.code == reason.replace(": ", "-").replace(" ", "-")


def test_foreign_reasons_and_none_at_all() -> None:
    foreign = contract_error("ERC20: transfer amount exceeds balance")
    assert type(foreign) is ContractError
    assert "exceeds balance" in foreign.fact
    panic = translate(Reverted(bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"), "reverted"))
    assert "17" in panic.fact
    for data in (b"", b"\x08\xc3\x79\xa0", b"\x08\xc3\x79\xa0" + b"\xff" * 64, b"abcd"):
        assert type(translate(Reverted(data, "execution reverted"))) is ContractError
