"""The net has no hole that we know of: remove a safety line from the contracts, and the random schedules notice.

Each mutant is one edit of the sources. Rule: it must be caught by the lockstep or by an invariant within a few seeds;
one that lives is a hole in the tests (or a line that the contracts do not need).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import invariants
import pytest
from evm import ROOT, Reverted, Revm, build_script
from forgeries import RandomDice
from lockstep import World
from schedule import DECK

SEEDS, STEPS = 12, 300

MUTANTS: dict[str, tuple[str, str, str]] = {
    "a fee of rounded parts": (
        "Market.vy",
        "fee: uint256 = accounting._fee_down(settled, FEE_BPS) - accounting._fee_down(account.settled, FEE_BPS)",
        "fee: uint256 = accounting._fee_down(settled - account.settled, FEE_BPS)",
    ),
    "an old voucher lowers what is settled": (
        "Market.vy", "return max(account.settled, min(convert(gross, uint256), account.deposit))",
        "return min(convert(gross, uint256), account.deposit)",
    ),
    "a voucher above the deposit": (
        "Market.vy", "return max(account.settled, min(convert(gross, uint256), account.deposit))",
        "return max(account.settled, convert(gross, uint256))",
    ),
    "a lease id lives twice": (
        "Market.vy", 'assert self.lease_hash[lease_id] == empty(bytes32), "market: lease exists"', "pass",
    ),
    "units are not freed": (
        "Market.vy", "self._leased_plus_one[lease.provider][lease.machine] -= convert(lease.units, uint256)", "pass",
    ),
    "anybody's rest is believed": (
        "Market.vy",
        'assert self.lease_hash[lease_id] == keccak256(abi_encode(lease)), "market: unknown lease"',
        'assert self.lease_hash[lease_id] != empty(bytes32), "market: unknown lease"',
    ),
    "a failed payout is forgotten": ("Market.vy", "self.owed[receiver] += amount", "pass"),
    "a withdrawal can be repeated": ("Market.vy", "self.owed[msg.sender] = 0", "pass"),
    "fees can be collected twice": ("Market.vy", "self._fees_collected = earned", "pass"),
    "the window is not waited for": (
        "Market.vy", "account.ends_at + convert(lease.close_window, uint256), \"market: too early\"",
        "account.ends_at, \"market: too early\"",
    ),
    "a start of close delays the exit": (
        "Market.vy", "account.ends_at = min(account.ends_at, block.timestamp)", "account.ends_at = block.timestamp",
    ),
    "a held part is paid at once": (
        "Market.vy", "still_locked: uint256 = settled if lease.hold_seconds > 0 else 0", "still_locked: uint256 = 0",
    ),
    "a hold can end twice": (
        "Market.vy", "    self._accounts[lease_id] = 0\n    log IMarket.HoldEnded", "    log IMarket.HoldEnded",
    ),
    "stake is not unlocked": (
        "Market.vy", "extcall IRegistry(REGISTRY).unlock(lease.provider, lease.arbiter, account.settled)", "pass",
    ),
    "a high s is taken": ("modules/eip712.vy", "if s > S_MAX or (v != 27 and v != 28):", "if v != 27 and v != 28:"),
    "another contract's signature is taken": (
        "modules/eip712.vy", "abi_encode(DOMAIN_TYPE, name, VERSION, chain.id, self)",
        "abi_encode(DOMAIN_TYPE, name, VERSION, chain.id)",
    ),
    "the hold is not of what the fee leaves": (
        "modules/accounting.vy", "(gross - gross * fee_bps // BPS) * hold_bps // BPS", "gross * hold_bps // BPS",
    ),
    "stake that covers leases unbonds": (
        "Registry.vy", "held.staked - amount >= covered", "held.staked >= covered",
    ),
    "unbonding can be finished twice": (
        "Registry.vy", "    self._stakes[msg.sender][arbiter].unbonding = 0\n", "",
    ),
    "anybody locks": (
        "Registry.vy",
        'assert self.market_of[arbiter] == msg.sender, "registry: not the market"\n    locked: uint256 = '
        "self._stakes[provider][arbiter].locked + exposure",
        "locked: uint256 = self._stakes[provider][arbiter].locked + exposure",
    ),
    "a slash takes staked tokens first": (
        "Registry.vy", "from_unbonding: uint256 = min(amount, held.unbonding)",
        "from_unbonding: uint256 = min(amount - min(amount, held.staked), held.unbonding)",
    ),
}  # fmt: skip


def caught(instead: dict[str, Any]) -> str:
    """What notices the mutant first; empty when nothing does."""
    for seed in range(SEEDS):
        try:
            world, dice = World(Revm(), freezing=seed % 2 == 0, code={"instead": instead}), RandomDice(seed)
            for step in range(1, STEPS + 1):
                dice.choice(DECK)(world, dice)
                if step % 10 == 0:
                    invariants.agreement(world)
                    for check in invariants.INVARIANTS:
                        check(world)
        except (AssertionError, Reverted) as error:
            return f"seed {seed}: {error}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """One line less, or wrong, and the schedules notice."""
    file, sound, broken = MUTANTS[name]
    sources = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", sources)
    text = (sources / file).read_text()
    assert text.count(sound) == 1, f"the line to change is there {text.count(sound)} times"
    (sources / file).write_text(text.replace(sound, broken))
    build, contract = build_script(), "Registry" if file == "Registry.vy" else "Market"
    instead = {contract: build.compile_contract(sources / f"{contract}.vy", build.settings(), sources)}
    assert caught(instead), f"nothing noticed that {name}"
