"""What is signed: the same hash everywhere, worth nothing anywhere else, and no bit of it can be changed."""

from __future__ import annotations

import importlib.util
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from evm import ROOT, Reverted, Revm, deploy
from forgeries import FORGERIES, RandomDice
from lockstep import key, offer_words
from stage import DEPOSIT, Stage

from minga.core.crypto import CURVE_ORDER, Address, Hash32, PrivateKey
from minga.core.eip712 import Domain
from minga.core.errors import InvalidInput, InvalidSignature
from minga.core.units import Amount
from minga.protocol import messages
from minga.protocol.messages import Extend, Offer, Release, Voucher, sign, verify

VECTORS: list[dict[str, Any]] = json.loads((ROOT / "tests" / "vectors" / "eip712.json").read_text())
SEED = 20_260_101
MUTATIONS = 100_000


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['type']}-{v['chain_id']}")
def test_vectors(vector: dict[str, Any]) -> None:
    """Our hashes and signatures are those of the shared vectors, byte by byte."""
    message = getattr(messages, vector["type"])(**vector["message"])
    domain, signer = Domain(vector["chain_id"], vector["market"]), PrivateKey(bytes.fromhex(vector["secret"][2:]))
    assert "0x" + domain.separator.hex() == vector["domain_separator"]
    assert "0x" + message.struct_hash().hex() == vector["struct_hash"]
    assert "0x" + sign(message, domain, signer).hex() == vector["signature"]
    verify(message, domain, bytes.fromhex(vector["signature"][2:]), vector["signer"])


def test_the_vectors_are_what_eth_account_makes() -> None:
    """The file is the output of its script."""
    path = ROOT / "tests" / "vectors" / "make_eip712.py"
    spec = importlib.util.spec_from_file_location("make_eip712", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.vectors() == VECTORS


def test_the_contract_takes_what_eth_account_signs() -> None:
    """An offer and a voucher made by another implementation, from types written down there."""
    from eth_account import Account
    from eth_account.messages import encode_typed_data

    stage = Stage()
    domain = {"name": "Minga", "version": "1", "chainId": 31337, "verifyingContract": stage.market.address}

    def typed(message: Any, owner: PrivateKey) -> bytes:
        name, _, rest = message.TYPE.partition("(")
        fields = [dict(zip(("type", "name"), each.split(" "), strict=True)) for each in rest[:-1].split(",")]
        values = {each["name"]: getattr(message, each["name"]) for each in fields}
        signable = encode_typed_data(domain, {name: fields}, values)
        return bytes(Account.sign_message(signable, owner.secret()).signature)

    offer = stage.offer()
    lease = stage.open(offer, signature=typed(offer, stage.provider.agent))
    tenant, market = stage.tenant, stage.market
    ends_at = stage.now + 9_999
    stage.send(
        tenant, market, "extend", lease.as_tuple(), ends_at, typed(Extend(lease.channel, ends_at), stage.provider.agent)
    )
    voucher = typed(Voucher(lease.channel, Amount(5)), stage.session)
    stage.send(stage.stranger, market, "redeem", lease.as_tuple(), 5, voucher)
    release = typed(Release(lease.channel, Amount(9)), stage.provider.agent)
    stage.send(tenant, market, "release", lease.as_tuple(), 9, release, 1)
    assert stage.events["Closed"]["settled"] == 9


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda f: f.__name__.strip("_"))
@pytest.mark.parametrize("call", ["open", "redeem", "close", "release", "extend"])
def test_a_signature_made_for_something_else_is_worth_nothing(call: str, forgery: Any) -> None:
    """Another chain, contract, lease, type or key, or another form of the same: each call refuses each of them."""
    stage, dice = Stage(), RandomDice(SEED)
    agent, lease = stage.provider.agent, stage.open()
    by_agent = call in ("open", "release", "extend")
    amount = Amount(5)
    message: Any = {
        "open": stage.offer(salt=Hash32("0x" + "44" * 32)),
        "redeem": Voucher(lease.channel, amount),
        "close": Voucher(lease.channel, amount),
        "release": Release(lease.channel, amount),
        "extend": Extend(lease.channel, stage.now + 9_999),
    }[call]
    signature = forgery(stage.world, dice, message, agent if by_agent else stage.session)
    rest: dict[str, tuple[Any, ...]] = {
        "redeem": (lease.as_tuple(), 5, signature),
        "close": (lease.as_tuple(), 5, signature, 0),
        "release": (lease.as_tuple(), 5, signature, 0),
        "extend": (lease.as_tuple(), stage.now + 9_999, signature),
    }
    args = stage.open_args(message, attempt=2, signature=signature) if call == "open" else rest[call]
    sender = {"redeem": stage.stranger, "close": stage.provider}.get(call, stage.tenant)
    with pytest.raises(Reverted) as caught:
        stage.send(sender, stage.market, call, *args)
    assert caught.value.reason == ("market: bad signature" if by_agent else "market: bad voucher")


def test_a_voucher_of_a_reopened_lease_is_worth_nothing() -> None:
    """The same id, opened on another fork of the chain with another signer or offer, is another channel."""
    first, second = Stage(), Stage()
    old = first.open()
    voucher = first.voucher(old, DEPOSIT)
    new = second.open(second.offer(price_per_hour=Amount(7)))
    assert (old.id, second.market.address) == (new.id, first.market.address)
    with pytest.raises(Reverted, match="market: bad voucher"):
        second.send(second.stranger, second.market, "redeem", new.as_tuple(), *voucher[1:])


def test_the_domain_follows_the_chain_after_a_fork() -> None:
    """The separator is of the chain that runs, never one remembered from deployment."""
    for chain_id in (1, 8453):
        machine = Revm(chain_id=chain_id)
        stage = Stage(machine, chain_id=chain_id)
        assert (
            stage.market.call(stage.stranger.address, "domain_separator")
            == Domain(chain_id, stage.market.address).separator
        )
        stage.close(stage.open(), 5)


# ---------------------------------------------------------------------------------------------------------- mutations


def mutated_signature(dice: random.Random, signature: bytes) -> bytes:
    """A signature near a good one: a flipped bit, a changed byte, its mirror, another v, r and s exchanged."""
    kind = dice.randrange(8)
    if kind < 4:
        flipped = int.from_bytes(signature, "big") ^ (1 << dice.randrange(520))
        return flipped.to_bytes(65, "big")
    if kind < 6:
        at = dice.randrange(65)
        return signature[:at] + bytes((signature[at] ^ dice.randrange(1, 256),)) + signature[at + 1 :]
    mirror = (CURVE_ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")
    if kind == 6:
        return signature[:32] + mirror + bytes((55 - signature[64],))
    return signature[32:64] + signature[:32] + signature[64:]


def mutated_vouchers(dice: random.Random, good: Voucher, signature: bytes) -> Iterator[tuple[Voucher, bytes]]:
    """Half with another amount, half with another signature."""
    while True:
        if dice.randrange(2):
            yield replace(good, cumulative=Amount(good.cumulative ^ (1 << dice.randrange(128)))), signature
        else:
            yield good, mutated_signature(dice, signature)


def mutated_offers(dice: random.Random, good: Offer, signature: bytes) -> Iterator[tuple[Offer, bytes]]:
    """Half with one bit of one field changed, half with another signature."""
    kinds = [each.split(" ") for each in Offer.TYPE.partition("(")[2][:-1].split(",")]
    while True:
        if dice.randrange(4) == 0:
            yield good, mutated_signature(dice, signature)
            continue
        kind, name = dice.choice(kinds)
        value = getattr(good, name)
        if isinstance(value, int):
            changed: Any = value ^ (1 << dice.randrange(int(kind.removeprefix("uint"))))
        else:
            bits = (len(value) - 2) * 4
            changed = f"0x{int(value, 16) ^ (1 << dice.randrange(bits)):0{bits // 4}x}"
        yield replace(good, **{name: changed}), signature


def refused(message: Any, domain: Domain, signature: bytes, signer: Address) -> bool:
    """Whether the protocol's own check refuses it."""
    try:
        verify(message, domain, signature, signer)
    except (InvalidSignature, InvalidInput):
        return True
    return False


def test_no_mutated_voucher_is_accepted() -> None:
    """Half of the mutations: neither `verify` nor the contract takes one of them."""
    stage, dice = Stage(), random.Random(SEED)
    lease = stage.open(deposit=2**95)
    good = Voucher(lease.channel, Amount(2**64 + 12_345))
    signature = stage.signed(good, stage.session)
    stream, reasons = mutated_vouchers(dice, good, signature), Counter[str]()
    rest = lease.as_tuple()
    for _ in range(MUTATIONS // 2):
        voucher, changed = next(stream)
        assert refused(voucher, stage.world.domain, changed, stage.session.address), (voucher, changed.hex())
        with pytest.raises(Reverted) as caught:
            stage.market.call(stage.stranger.address, "redeem", rest, voucher.cumulative, changed)
        reasons[caught.value.reason] += 1
    assert reasons == {"market: bad voucher": MUTATIONS // 2}
    assert stage.account(lease)[1] == 0
    stage.market.call(stage.stranger.address, "redeem", rest, good.cumulative, signature)


def test_no_mutated_offer_is_accepted() -> None:
    """The other half: most fail at the signature, the others at a term that is itself out of bounds."""
    stage, dice = Stage(), random.Random(SEED)
    # Terms in the middle of their ranges, so that a changed bit mostly leaves them sound and the signature decides.
    good = stage.held_offer(
        units=2**30, seconds_max=2**31, valid_until=2**62, close_window=40_000, hold_seconds=300_000
    )
    signature = stage.signed(good)
    stream, reasons = mutated_offers(dice, good, signature), Counter[str]()
    _, _, *order = stage.open_args(good)
    for _ in range(MUTATIONS // 2):
        offer, changed = next(stream)
        assert refused(offer, stage.world.domain, changed, stage.provider.agent.address), (offer, changed.hex())
        with pytest.raises(Reverted) as caught:
            stage.market.call(stage.tenant.address, "open", offer_words(offer), changed, *order)
        reasons[caught.value.reason] += 1
    assert reasons["market: bad signature"] > MUTATIONS // 4
    assert "" not in reasons
    stage.market.call(stage.tenant.address, "open", offer_words(good), signature, *order)


def test_ecrecover_in_the_module_gives_the_zero_address_for_rubbish_and_nobody_is_zero() -> None:
    """A signature that recovers to nobody never meets a signer: zero signers and agents are refused when they enter."""
    stage = Stage()
    with pytest.raises(Reverted, match="market: no signer"):
        stage.open(signer="0x" + "00" * 20)
    with pytest.raises(Reverted, match="registry: no agent key"):
        stage.send(stage.provider, stage.registry, "update", "", "0x" + "00" * 20)
    other = deploy(stage.machine, "Wallet", ["address"], [key("nobody").address])
    rubbish = stage.machine.message(
        stage.stranger.address, other.address, other.data("isValidSignature", b"d" * 32, bytes(65))
    )
    assert rubbish == bytes(32)
