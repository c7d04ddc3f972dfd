"""What a provider asks of Disputes, the network's arbiter over verified work, and puts under it.

Knows: the contract's bindings, this provider's key. Does not know: leases' states, games' moves. Rule: what is put at
stake is what was wished for in all, never a part twice: the transaction's name says from what to what.
"""

from __future__ import annotations

from minga.chain.chain import Call, Chain
from minga.chain.contracts import Registry, Token
from minga.chain.disputes import Disputes
from minga.core.crypto import Address, Hash32, PrivateKey
from minga.core.eip712 import Domain
from minga.core.errors import InsufficientFunds
from minga.core.units import format_usd
from minga.protocol.dispute import Phase
from minga.protocol.lease import HOLD_SECONDS_MAX, Lease
from minga.provider.points import reach

GAMES_MAX = 256
"""Newest games among which a challenger's is looked for: more cannot be open at a time at any sane bond."""


class Court:
    """The arbiter of one network."""

    def __init__(self, chain: Chain) -> None:
        """Ask `chain`; whether the network has an arbiter shows when it is needed."""
        self._chain = chain

    @property
    def domain(self) -> Domain:
        """Where signatures for it count.

        Raises:
            NotFound: this network has none.
        """
        return self._chain.spec.disputes_domain

    @property
    def address(self) -> Address:
        """Where it is; errors as `domain`."""
        return Address(self.domain.market)

    @property
    def _contract(self) -> Disputes:
        return Disputes(self.address)

    def commit(self, lease: Lease, work: Hash32, root: Hash32, leaves: int, signature: bytes) -> Call[None]:
        """The call that commits to a trace."""
        return self._contract.commit(lease, work, root, leaves, signature)

    async def hold_seconds(self) -> int:
        """How long pay is to be held: twice as long as work can be challenged, since a game takes time, too."""
        window = (await self._chain.read(self._contract.preset())).window
        return min(2 * window, HOLD_SECONDS_MAX)

    async def put(self, key: PrivateKey, amount: int) -> int:
        """See that `amount` token units in all are at stake; what is, which may be more.

        Raises:
            NotFound: the network has no arbiter.
            InsufficientFunds: the key's address holds too few tokens, or no gas.
            ContractError: Registry refuses.
        """
        places, arbiter = self._chain.spec.deployment, self.address
        registry, token = Registry(places.registry), Token(places.token)
        before = (await self._chain.read(registry.stake_of(key.address, arbiter))).staked
        if before >= amount:
            return before
        change, name = amount - before, f"{arbiter}/{before}/{amount}"
        held = await self._chain.read(token.balance_of(key.address))
        if held < change:
            short, wanted = (format_usd(item, places.decimals) for item in (held, change))
            raise InsufficientFunds(f"{key.address} holds ${short}, ${wanted} more are to be staked", "fund it")
        if await self._chain.read(token.allowance(key.address, registry.address)) < change:
            await self._chain.send(f"stake-approve/{name}", token.approve(registry.address, change), key)
        reach("provider.stake.approved")
        await self._chain.send(f"stake/{name}", registry.stake(arbiter, change), key)
        reach("provider.stake.sent")
        return (await self._chain.read(registry.stake_of(key.address, arbiter))).staked

    async def may_check(self, validator: Address, channel: str) -> bool:
        """Whether `validator` is a staked referee, or the challenger of an open game about the channel's commitment."""
        read, contract = self._chain.read, self._contract
        seat = await read(contract.seat_of(validator))
        if seat is not None and (await read(contract.seat(seat))).active:
            return True
        newest = await read(contract.games())
        for number in range(newest, max(0, newest - GAMES_MAX), -1):
            game = await read(contract.game_of(number))
            if (game.channel, game.challenger) == (channel, validator) and game.phase is not Phase.DONE:
                return True
        return False
