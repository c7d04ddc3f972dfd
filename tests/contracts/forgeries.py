"""Dice, and the signatures that hostile parties would try: genuine ones made for something else, or bent.

What it is: where schedules draw their choices from, and one function per forgery. What it does not know: calls. Rule: a
forgery is never worth anything, whatever is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from lockstep import World, key

from minga.core.crypto import CURVE_ORDER, Hash32, PrivateKey, to_hex
from minga.core.eip712 import Domain, Struct
from minga.core.units import Amount
from minga.protocol.messages import Offer, Release, Voucher, sign
from minga.protocol.settlement import AMOUNT_MAX

T = TypeVar("T")


class Dice(Protocol):
    """Where choices come from."""

    def integer(self, low: int, high: int) -> int: ...
    def choice(self, options: Sequence[T]) -> T: ...


class RandomDice:
    """Dice from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def integer(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return self._random.randint(low, high)

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[int(self._random.random() * len(options))]


def rarely(dice: Dice, one_in: int = 8) -> bool:
    """True once in so many times; shrinks to False."""
    return dice.integer(1, one_in) == one_in


def amount(dice: Dice, typical: int) -> int:
    """An amount: mostly about `typical`, sometimes at an edge."""
    if rarely(dice):
        return dice.choice([0, 1, 99, 100, 101, 9_999, 10_001, AMOUNT_MAX, AMOUNT_MAX + 1, 2**128 - 1])
    return dice.integer(0, typical)


def signed(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> tuple[bytes, bool]:
    """A signature over `message`, and whether it is genuine: five in six are."""
    if not rarely(dice, 6):
        return sign(message, world.domain, owner), True
    return dice.choice(FORGERIES)(world, dice, message, owner), False


def _other_key(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    return sign(message, world.domain, key("forger"))


def _other_chain(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    return sign(message, Domain(world.chain_id + 1, world.market.address), owner)


def _other_contract(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    return sign(message, Domain(world.chain_id, world.registry.address), owner)


def _other_type(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    if isinstance(message, Voucher):
        return sign(Release(message.lease, message.cumulative), world.domain, owner)
    if isinstance(message, Release):
        return sign(Voucher(message.lease, message.settled), world.domain, owner)
    return sign(Voucher(Hash32(to_hex(message.struct_hash())), Amount(1)), world.domain, owner)


def _other_lease(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    field = "salt" if isinstance(message, Offer) else "lease"
    changes: Any = {field: Hash32("0x" + "77" * 32)}
    return sign(replace(message, **changes), world.domain, owner)  # type: ignore[type-var]


def _malleated(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    good = sign(message, world.domain, owner)
    mirror = CURVE_ORDER - int.from_bytes(good[32:64], "big")
    return good[:32] + mirror.to_bytes(32, "big") + bytes((55 - good[64],))


def _one_bit(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    good = int.from_bytes(sign(message, world.domain, owner), "big")
    return (good ^ 1 << dice.integer(0, 519)).to_bytes(65, "big")


def _wrong_size(world: World, dice: Dice, message: Struct, owner: PrivateKey) -> bytes:
    good = sign(message, world.domain, owner)
    return dice.choice([good[:64], good + b"\0", good[:-1] + bytes((good[64] - 27,)), b"\0", bytes(65), good + good])


FORGERIES = (_other_key, _other_chain, _other_contract, _other_type, _other_lease, _malleated, _one_bit, _wrong_size)
