"""Bindings and events are total over the shipped ABIs, and encode what the ABI declares."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

from minga.chain.abi import decode, encode, load_interface
from minga.chain.blocks import Log
from minga.chain.chain import Deployment
from minga.chain.contract_events import EVENTS, Opened, decode_event
from minga.chain.contracts import Authorization, Contract, Market, Permit, Registry, Token, deploy, transfer_wei
from minga.chain.disputes import BlockBeacon, Disputes
from minga.core.crypto import Address, Hash32
from minga.core.errors import BadAnswer
from minga.core.units import Amount
from minga.protocol.dispute import Commitment
from minga.protocol.lease import Lease, Phase
from minga.protocol.messages import Offer


def address(number: int) -> Address:
    return Address(f"0x{number:040x}")


def word(number: int) -> Hash32:
    return Hash32(f"0x{number:064x}")


PLACES = Deployment(address(1), address(2), address(3), 0, 6)
OFFER = Offer(address(9), word(1), word(2), Amount(3), 4, Amount(5), 6, 7, 8, 9, address(10), 11, 12, 13, 14, word(15))
LEASE = Lease(
    address(9), word(1), 2, address(3), address(4), word(5), word(6), Amount(7), 8, 9, address(10), 11, 12, 13
)
COMMITMENT = Commitment(word(50), address(51), address(52), word(53), word(54), 55, Amount(56), 57)
NOT_BOUND = {
    # asked by Market or an arbiter's contract, not by people; or read from events
    "Registry": {"lock", "unlock", "slash", "token", "factor_of"},
    "Market": {"token", "registry", "fee_recipient"},
    "Token": {
        "name", "symbol", "version", "totalSupply", "authorizationState", "DOMAIN_SEPARATOR",
        "transferFrom", "permit", "receiveWithAuthorization",
    },
    "Disputes": set(),
    "BlockBeacon": set(),
}  # fmt: skip


@pytest.mark.parametrize("contract", ["Market", "Registry", "Disputes", "BlockBeacon"])
def test_every_event_has_a_class_with_the_same_fields(contract: str) -> None:
    declared = load_interface(contract).events.values()
    assert {event.name for event in declared} == set(EVENTS[contract])
    for event in declared:
        assert {field.name for field in fields(EVENTS[contract][event.name])} == {name for name, _, _ in event.fields}


@pytest.mark.parametrize("kind", [Market, Registry, Token, Disputes, BlockBeacon])
def test_every_function_is_bound_or_left_out_on_purpose(kind: type[Contract]) -> None:
    named = {"balance_of": "balanceOf", "open": "open"}
    bound = {named.get(name, name) for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
    bound |= {"open_with_permit", "open_with_authorization"} if kind is Market else set()
    declared = {function.name for function in load_interface(kind.artifact).functions.values()}
    assert bound | NOT_BOUND[kind.artifact] == declared
    assert not bound & NOT_BOUND[kind.artifact]


@pytest.mark.parametrize(
    ("funding", "name"),
    [
        (None, "open/8"),
        (Permit(Amount(1), 2, 27, word(3), word(4)), "open_with_permit/9"),
        (Authorization(1, 2, word(3), 28, word(4), word(5)), "open_with_authorization/9"),
    ],
)
def test_open_encodes_its_arguments_in_order(funding: Permit | Authorization | None, name: str) -> None:
    call = Market(PLACES.market).open(OFFER, b"s" * 65, word(20), 21, 22, 23, 24, address(25), funding)
    function = load_interface("Market").functions[name]
    assert call.to == PLACES.market
    assert call.data[:4] == function.selector
    values = decode(function.inputs, call.data[4:])
    assert values[0] == tuple(getattr(OFFER, field.name) for field in fields(OFFER))
    assert values[1:8] == (b"s" * 65, word(20), 21, 22, 23, 24, address(25))
    assert function.names[:8] == ("offer", "signature", "job", "attempt", "units", "seconds", "deposit", "signer")


SAMPLES = {
    "offer": OFFER, "lease": LEASE, "signature": b"s" * 65, "job": word(30), "machine": word(31), "class_": word(32),
    "lease_id": word(33), "uri": "https://a.test", "commitment": COMMITMENT, "children": (word(40),) * 16,
    "proof": (word(41),) * 20, "channel": word(34), "work": word(35), "root": word(36), "leaf": word(37),
    "vote": word(38), "salt": word(39),
}  # fmt: skip


def sample(name: str, kind: str, place: int) -> object:
    """A value for an argument: its own by name, else one that tells its place."""
    return SAMPLES.get(name, address(place) if kind == "address" else 100 + place)


@pytest.mark.parametrize("kind", [Market, Registry, Token, Disputes, BlockBeacon])
def test_every_binding_passes_its_arguments_in_the_contracts_order(kind: type[Contract]) -> None:
    interface = load_interface(kind.artifact)
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name[0] == "_" or name == "open":
            continue
        names = list(inspect.signature(method).parameters)[1:]
        hints = inspect.get_annotations(method, eval_str=False)
        values = [sample(n, "address" if hints[n] == "Address" else "", place) for place, n in enumerate(names)]
        call = method(kind(address(50)), *values)
        function = interface.function("balanceOf" if name == "balance_of" else name, len(names))
        plain = [value.as_tuple() if isinstance(value, Lease | Commitment) else value for value in values]
        assert call.data == function.selector + encode(function.inputs, plain), name
        declared = [n for n in function.names if not n.startswith("arg")]  # public mappings have no names
        assert not declared or declared == names, name
        assert call.name == f"{kind.artifact}.{function.name}"


def test_a_lease_is_passed_back_in_the_contracts_order() -> None:
    call = Market(PLACES.market).redeem(LEASE, 5, b"v" * 65)
    values = decode(load_interface("Market").function("redeem", 3).inputs, call.data[4:])
    assert values == (LEASE.as_tuple(), 5, b"v" * 65)


def opened_log(emitter: Address = PLACES.market) -> Log:
    (event,) = [event for event in load_interface("Market").events.values() if event.name == "Opened"]
    lease_type = {name: kind for name, kind, _ in event.fields}["lease"]
    data = encode(f"({lease_type},uint256,uint256)", (LEASE.as_tuple(), 99, 100))
    topics = (event.topic, LEASE.id, *(Hash32("0x" + "00" * 12 + who[2:]) for who in (LEASE.tenant, LEASE.provider)))
    return Log(1, word(1), word(2), 0, emitter, topics, data)


def test_events_decode_to_their_class() -> None:
    expected = Opened(LEASE.id, LEASE.tenant, LEASE.provider, LEASE, 99, Amount(100))
    assert decode_event(opened_log(), PLACES) == expected


def test_logs_that_are_not_ours_are_nothing() -> None:
    assert decode_event(opened_log(address(77)), PLACES) is None
    assert decode_event(opened_log(PLACES.registry), PLACES) is None
    assert decode_event(Log(1, word(1), word(2), 0, PLACES.market, (), b""), PLACES) is None
    torn = opened_log()
    with pytest.raises(BadAnswer):
        decode_event(Log(1, word(1), word(2), 0, PLACES.market, torn.topics, torn.data[:-32]), PLACES)


def test_views_check_what_they_read() -> None:
    call = Market(PLACES.market).account_of(word(1))
    account = call.decode(encode("(uint256,uint256,uint256,uint256)", (1, 2, 3, 2)))
    assert (account.deposit, account.settled, account.ends_at, account.phase) == (1, 2, 3, Phase.CLOSING)
    with pytest.raises(BadAnswer):
        call.decode(encode("(uint256,uint256,uint256,uint256)", (1, 2, 3, 9)))
    with pytest.raises(BadAnswer):
        call.decode(b"")
    stake = Registry(PLACES.registry).stake_of(address(1), address(2))
    assert stake.decode(encode("((uint256,uint256,uint256,uint256))", ((1, 2, 3, 4),))).free_at == 4


def test_plain_transfers_and_deployments() -> None:
    gift = transfer_wei(address(5), 7)
    assert (gift.to, gift.value, gift.data) == (address(5), 7, b"")
    made = deploy("Registry", address(3))
    assert not made.to
    assert made.data == load_interface("Registry").bytecode + encode("(address)", (address(3),))
