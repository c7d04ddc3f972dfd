"""Where all the money of a network is, to the last unit: everybody's balance, and what the contracts hold.

Knows: addresses and balances. Does not know: why anything moved. Rule: what nobody made and nobody burnt must add up to
the same before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minga.chain.chain import Chain
    from minga.core.crypto import Address

CONTRACTS = ("market", "registry", "disputes")


async def money(chain: Chain, people: Mapping[str, Address]) -> dict[str, int]:
    """Token units by holder: people by their roles, contracts by their names.

    Raises:
        NetworkError: no node answers.
    """
    from minga.chain.contracts import Token

    token = Token(chain.spec.deployment.token)
    holders = {name: getattr(chain.spec.deployment, name) for name in CONTRACTS} | dict(people)
    found: dict[str, int] = {}
    for name, address in holders.items():
        units = await chain.read(token.balance_of(address))
        found[name] = units
    return found


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """What each holder has more (or, negative, less) than before; who is in one only had nothing in the other."""
    names = dict.fromkeys([*before, *after])
    return {name: after.get(name, 0) - before.get(name, 0) for name in names}
