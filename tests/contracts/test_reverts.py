"""Every revert string in the sources has a case here that meets it, and no case is without its string."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
from evm import ROOT, Contract, Reverted, Revm, deploy
from lockstep import FEE_RECIPIENT
from stage import DEPOSIT, HOLD, SECONDS, WINDOW, Stage
from token_signatures import authorization_signature, permit_signature

from minga.core.crypto import ZERO_ADDRESS
from minga.core.units import Amount
from minga.protocol.messages import Voucher

Case = Callable[[Stage], object]
CASES: dict[str, Case] = {}
HOSTILE = {"market: token took a fee", "registry: token took a fee"}


def case(reason: str) -> Callable[[Case], Case]:
    """Enter a case under the revert string that its last call must meet."""

    def enter(function: Case) -> Case:
        assert reason not in CASES
        CASES[reason] = function
        return function

    return enter


def open_case(reason: str, **changes: object) -> None:
    """An `open` whose offer (`offer_…`) or order is wrong."""
    offer = {name.removeprefix("offer_"): value for name, value in changes.items() if name.startswith("offer_")}
    order = {name: value for name, value in changes.items() if not name.startswith("offer_")}
    CASES[reason] = lambda stage: stage.open(stage.offer(**offer), **order)


open_case("market: offer expired", offer_valid_until=1)
open_case("market: offer cancelled", offer_epoch=1)
open_case("market: bad close window", offer_close_window=WINDOW - 1)
open_case("market: bad hold", offer_hold_bps=1)
open_case("market: bad duration", seconds=59)
open_case("market: no units", units=0)
open_case("market: no signer", signer=ZERO_ADDRESS)
open_case("market: deposit too small", deposit=999)
open_case("market: deposit too large", deposit=2**96)
open_case("market: machine fully leased", units=3)
open_case("market: unregistered provider", offer_provider="0x" + "77" * 20)
open_case("market: bad signature", signature=bytes(65))


@case("market: lease exists")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.close(lease, 0)
    stage.open()


@case("market: unknown lease")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.send(stage.tenant, stage.market, "start_close", replace(lease, signer=stage.tenant.address).as_tuple(), 0)


@case("market: lease closed")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.close(lease, 5)
    stage.redeem(lease, 6)


@case("market: lease closing")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.send(stage.tenant, stage.market, "start_close", lease.as_tuple(), 0)
    stage.send(stage.tenant, stage.market, "top_up", lease.as_tuple(), 1)


@case("market: no amount")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.market, "top_up", stage.open().as_tuple(), 0)


@case("market: end not later")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.send(stage.tenant, stage.market, "extend", *stage.extend_args(lease, stage.now + SECONDS))


@case("market: end too late")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.market, "extend", *stage.extend_args(stage.open(), 2**56))


@case("market: bad voucher")
def _(stage: Stage) -> None:
    lease = stage.open()
    message = Voucher(lease.channel, Amount(5))
    stage.send(stage.stranger, stage.market, "redeem", lease.as_tuple(), 6, stage.signed(message, stage.session))


@case("market: not the tenant")
def _(stage: Stage) -> None:
    stage.send(stage.provider, stage.market, "start_close", stage.open().as_tuple(), 0)


@case("market: not the provider")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.market, "close", stage.open().as_tuple(), 0, b"", 0)


@case("market: not the arbiter")
def _(stage: Stage) -> None:
    lease = stage.open(stage.held_offer())
    stage.close(lease, DEPOSIT)
    stage.send(stage.provider, stage.market, "resolve", lease.as_tuple(), 0)


@case("market: not held")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.market, "finish_hold", stage.open(stage.held_offer()).as_tuple())


@case("market: hold is over")
def _(stage: Stage) -> None:
    lease = stage.open(stage.held_offer())
    stage.close(lease, DEPOSIT)
    stage.wait(HOLD)
    stage.send(stage.arbiter, stage.market, "resolve", lease.as_tuple(), 0)


@case("market: above the held part")
def _(stage: Stage) -> None:
    lease = stage.open(stage.held_offer())
    stage.close(lease, DEPOSIT)
    stage.send(stage.arbiter, stage.market, "resolve", lease.as_tuple(), 198_001)


@case("market: too early")
def _(stage: Stage) -> None:
    lease = stage.open()
    stage.wait(SECONDS + WINDOW - 1)
    stage.send(stage.stranger, stage.market, "finish_close", lease.as_tuple())


@case("market: no fees")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.market, "collect_fees")


@case("market: nothing owed")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.market, "withdraw", stage.tenant.address)


@case("market: bad receiver")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.market, "withdraw", stage.market.address)


@case("market: transfer failed")
def _(stage: Stage) -> None:
    stage.send(stage.tenant, stage.token, "approve", stage.market.address, DEPOSIT - 1)
    stage.open()


@case("market: token took a fee")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.token, "set_fee", 1)
    stage.open()


def new_market(stage: Stage, **changes: object) -> Contract:
    """Deploy another Market."""
    given = {
        "token": stage.token.address,
        "registry": stage.registry.address,
        "fee_bps": 100,
        "fee_recipient": FEE_RECIPIENT,
    } | changes
    return deploy(stage.machine, "Market", ["address", "address", "uint256", "address"], list(given.values()))


CASES["market: not a contract"] = lambda stage: new_market(stage, token="0x" + "77" * 20)
CASES["market: fee too high"] = lambda stage: new_market(stage, fee_bps=301)
CASES["market: no fee recipient"] = lambda stage: new_market(stage, fee_recipient=ZERO_ADDRESS)
CASES["market: other token"] = lambda stage: new_market(stage, token=deploy(stage.machine, "Token").address)
CASES["registry: not a contract"] = lambda stage: deploy(stage.machine, "Registry", ["address"], ["0x" + "77" * 20])


def registry_case(reason: str, who: str, name: str, *args: object) -> None:
    """One wrong call to Registry; an argument that names a party is replaced by its address."""

    def run(stage: Stage) -> None:
        given = [getattr(stage, a).address if isinstance(a, str) and hasattr(stage, a) else a for a in args]
        stage.send(getattr(stage, who), stage.registry, name, *given)

    CASES[reason] = run


registry_case("registry: already registered", "provider", "register", "uri", "provider")
registry_case("registry: not registered", "stranger", "update", "uri", "stranger")
registry_case("registry: no agent key", "stranger", "register", "uri", ZERO_ADDRESS)
registry_case("registry: attestation expired", "stranger", "attest", "provider", b"m", b"c", 1, 1)
registry_case("registry: already appointed", "arbiter", "appoint", "market", 1)
registry_case("registry: no market", "stranger", "appoint", ZERO_ADDRESS, 1)
registry_case("registry: bad factor", "stranger", "appoint", "market", 1_001)
registry_case("registry: no amount", "provider", "stake", "arbiter", 0)
registry_case("registry: amount too large", "provider", "stake", "arbiter", 2**128)
registry_case("registry: unknown arbiter", "provider", "stake", "stranger", 1)
registry_case("registry: not the market", "stranger", "lock", "provider", "arbiter", 1)
registry_case("registry: bad receiver", "arbiter", "slash", "provider", 1, "registry")
registry_case("registry: nothing at stake", "stranger", "slash", "provider", 1, "stranger")
registry_case("registry: stake is locked", "provider", "start_unstake", "arbiter", 10 * DEPOSIT + 1)
registry_case("registry: nothing unbonding", "provider", "finish_unstake", "arbiter", "provider")


@case("registry: stake too small")
def _(stage: Stage) -> None:
    stage.open(stage.held_offer(), deposit=10 * DEPOSIT + 1)


@case("registry: still unbonding")
def _(stage: Stage) -> None:
    stage.send(stage.provider, stage.registry, "start_unstake", stage.arbiter.address, 1)
    stage.wait(21 * 86_400 - 1)
    stage.send(stage.provider, stage.registry, "finish_unstake", stage.arbiter.address, stage.provider.address)


@case("registry: transfer failed")
def _(stage: Stage) -> None:
    stage.send(stage.provider, stage.token, "approve", stage.registry.address, 0)
    stage.send(stage.provider, stage.registry, "stake", stage.arbiter.address, 1)


@case("registry: token took a fee")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.token, "set_fee", 5_000)
    stage.send(stage.provider, stage.registry, "stake", stage.arbiter.address, 2)


# -------------------------------------------------------------------------------------------------------- test token


@case("token: allowance too small")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.token, "transferFrom", stage.tenant.address, stage.stranger.address, 1)


@case("token: balance too small")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.token, "transfer", stage.tenant.address, 2**200)


@case("token: no receiver")
def _(stage: Stage) -> None:
    stage.send(stage.stranger, stage.token, "transfer", ZERO_ADDRESS, 1)


def permit(stage: Stage, deadline: int, value: int) -> None:
    """A permit for one token, signed for `value`."""
    owner, market = stage.tenant, stage.market.address
    v, r, s = permit_signature(stage.world, owner.address, value, 0, deadline, owner.key)
    stage.send(stage.stranger, stage.token, "permit", owner.address, market, 1, deadline, v, r, s)


CASES["token: permit expired"] = lambda stage: permit(stage, stage.now - 1, 1)
CASES["token: bad signature"] = lambda stage: permit(stage, stage.now, 2)


def authorize(stage: Stage, after: int, receiver: str) -> None:
    """A transfer of one token to the stranger, who sends it."""
    owner, nonce = stage.tenant, b"n" * 32
    v, r, s = authorization_signature(
        stage.world, owner.address, 1, after, stage.now + 1, nonce, owner.key, stage.stranger.address
    )
    args = (owner.address, receiver, 1, after, stage.now + 1, nonce, v, r, s)
    stage.send(stage.stranger, stage.token, "receiveWithAuthorization", *args)


CASES["token: not the receiver"] = lambda stage: authorize(stage, 0, stage.tenant.address)
CASES["token: authorization not valid now"] = lambda stage: authorize(stage, stage.now, stage.stranger.address)


@case("token: authorization used")
def _(stage: Stage) -> None:
    authorize(stage, 0, stage.stranger.address)
    authorize(stage, 0, stage.stranger.address)


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("reason", sorted(CASES))
def test_revert(reason: str) -> None:
    """The case meets its revert string, with no other before it."""
    stage = Stage(Revm(), freezing=reason in HOSTILE)
    with pytest.raises(Reverted) as caught:
        CASES[reason](stage)
    assert caught.value.reason == reason


def test_every_revert_string_has_a_case() -> None:
    """The sources' revert strings and the cases are the same set."""
    found = set()
    for name in ("Market", "Registry", "Token"):
        text = (ROOT / "contracts" / f"{name}.vy").read_text()
        found |= set(re.findall(r'"((?:market|registry|token): [^"]+)"', text))
        assert_count = len(re.findall(r"\bassert\b", text))
        assert assert_count == len(re.findall(r'"(?:market|registry|token): [^"]+"', text)), name
    assert found == set(CASES)


def test_every_revert_string_is_in_the_prose() -> None:
    """What the interfaces say about reverts is what the contracts do, constructors and the test token aside."""
    constructor = {"not a contract", "other token", "fee too high", "no fee recipient"}
    prose = "".join(path.read_text() for path in (ROOT / "contracts" / "interfaces").glob("I[MR]*.vyi"))
    named = set(re.findall(r'"((?:market|registry): [^"]+)"', " ".join(prose.split())))
    expected = {reason for reason in CASES if not reason.startswith("token")}
    expected = {reason for reason in expected if reason.split(": ")[1] not in constructor}
    assert named == expected
