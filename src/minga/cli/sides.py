"""The challenger's side of a game, played from leaves that somebody did again; the provider's is `provider.defending`.

Knows: nodes and calls. Does not know: where the leaves are from. Rule: it goes into the first node that its own leaves
have otherwise, and into none when they have all alike: then there is nothing to say, and the clock decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minga.core.errors import ContractError, InvalidInput

if TYPE_CHECKING:
    from minga.chain.games import GameRecord
    from minga.cli.court import Court
    from minga.core.crypto import PrivateKey
    from minga.protocol.dispute import Commitment

LATER = frozenset({"beacon-not-yet", "disputes-too-early", "disputes-not-decided", "disputes-not-now"})


async def as_challenger(
    court: Court, key: PrivateKey, record: GameRecord, made: Commitment, own: Sequence[bytes], appeals: bool
) -> str | None:
    """Make the move that a game waits for, if it waits for the challenger or for anybody; its name.

    Raises:
        InvalidInput: our leaves are as the provider's, or too few.
        ContractError: refused, and not only for now.
        NetworkError, InsufficientFunds: not done.
    """
    from minga.chain.contracts import Token
    from minga.chain.disputes import Disputes
    from minga.core.crypto import from_hex
    from minga.protocol.merkle import Tree
    from minga.validator.moves import first_difference
    from minga.validator.watch import look

    chain, contract = court.chain, Disputes(court.chain.spec.deployment.disputes)
    seen = await look(chain, contract, record, court.preset, key.address)
    name: str = seen.stage
    call = None
    if seen.stage == "pick" and record.rounds_shown == seen.done + 1:
        if len(own) != made.leaves:
            raise InvalidInput(f"{len(own)} leaves of {made.leaves}", "do all of the work again, or run a validator")
        shown = [from_hex(child) for child in record.children]
        index = first_difference(Tree(own), seen.done, seen.node, shown)
        if index is None:
            raise InvalidInput("all nodes shown are as ours: there is nothing to dispute", "let the game end")
        name, call = f"pick/{seen.done}", contract.pick(record.game, shown, index)
    elif seen.overdue and seen.mover != "challenger":
        name, call = "timeout", contract.timeout(record.game)
    elif seen.stage == "draw":
        name, call = f"draw/{seen.node}", contract.draw(record.game)
    elif seen.stage == "appeal" and seen.verdict == 1 and appeals:
        cost = court.preset.seat_fee * record.pool.bit_count()
        token = Token(chain.spec.deployment.token)
        if await chain.read(token.allowance(key.address, contract.address)) < cost:
            await chain.send(f"play/{record.game}/allow", token.approve(contract.address, cost), key)
        call = contract.appeal(record.game)
    elif seen.stage == "decided":
        call = contract.finish(record.game)
    if call is None:
        return None
    try:
        await chain.send(f"play/{record.game}/{name}", call, key)
    except ContractError as error:
        if error.code in LATER:
            return None
        raise
    return name
