"""A dispute over JSON-RPC on the embedded chain, through the bindings; and what the bindings refuse to believe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from fixtures import LocalNetwork
from minga.chain.abi import encode, load_interface
from minga.chain.chain import Receipt
from minga.chain.contracts import Market, Registry, Token
from minga.chain.dispute_errors import NotDecided, NotNow, NotTheChallenger, TooFewReferees
from minga.chain.dispute_events import Applied, Challenged, Committed, Drawn, Finished, LeafOpened
from minga.chain.disputes import BlockBeacon, Disputes
from minga.chain.local import LocalChain
from minga.chain.node import RpcChain
from minga.core.crypto import Address, Hash32, PrivateKey, keccak, to_hex
from minga.core.errors import BadAnswer, InvalidInput
from minga.core.units import Amount
from minga.protocol.dispute import SHORT, Commitment, Kind, Outcome, Phase, Verdict, seats_in, vote_hash
from minga.protocol.lease import Lease, lease_of
from minga.protocol.merkle import Tree
from minga.protocol.messages import Offer, Ordered, sign

T = TypeVar("T")
WORK = Hash32("0x" + "77" * 32)
SALT = b"salt" * 8
DEPOSIT = 1_000_000
DISPUTES = Disputes(Address("0x" + "01" * 20))


@dataclass
class Table:
    """Everybody around one commitment."""

    chain: RpcChain
    keys: dict[str, PrivateKey]
    lease: Lease
    tree: Tree

    @property
    def disputes(self) -> Disputes:
        """The contract."""
        return Disputes(self.chain.spec.deployment.disputes)


async def setup(network: LocalNetwork, chain: RpcChain) -> Table:
    """A tenant, a staked provider, a challenger, and a lease."""
    places = chain.spec.deployment
    names = ("tenant", "provider", "challenger", "referee 0", "referee 1", "referee 2")
    keys = {name: await network.funded_key(name, tokens=100_000_000) for name in names}
    for name, key in keys.items():
        for spender in (places.market, places.registry, places.disputes):
            await chain.send(f"{name}/{spender}", Token(places.token).approve(spender, 10**9), key)
    tenant, provider = keys["tenant"], keys["provider"]
    registry, market = Registry(places.registry), Market(places.market)
    await chain.send("register", registry.register("https://provider.example", provider.address), provider)
    await chain.send("stake", registry.stake(places.disputes, SHORT.factor * DEPOSIT), provider)
    offer = Offer(
        provider.address, WORK, WORK, Amount(1), 1, Amount(1), 60, 86_400, 60, 3_600, places.disputes, 1_000, 3_600,
        await chain.time() + 3_600, 0, WORK,
    )  # fmt: skip
    session = keys["tenant"]
    signature = sign(offer, chain.spec.domain, provider)
    opening = market.open(offer, signature, WORK, 1, 1, 3_600, DEPOSIT, session.address)
    opened = await chain.send("open", opening, tenant)
    at = next(seen.at.time for seen in opened.events)
    lease = lease_of(offer, tenant.address, WORK, 1, 1, session.address, at)
    return Table(chain, keys, lease, Tree([keccak(bytes([leaf])) for leaf in range(40)]))


async def commit(table: Table) -> Commitment:
    """The provider's commitment, as its event tells it."""
    signature = sign(Ordered(table.lease.channel, WORK), table.chain.spec.disputes_domain, table.keys["tenant"])
    root = Hash32(to_hex(table.tree.root))
    call = table.disputes.commit(table.lease, WORK, root, len(table.tree.leaves), signature)
    receipt = await table.chain.send("commit", call, table.keys["provider"])
    return event(receipt, Committed).commitment


def event(receipt: Receipt, kind: type[T]) -> T:
    """The one event of a kind."""
    (found,) = [seen.event for seen in receipt.events if isinstance(seen.event, kind)]
    return found


async def play_down(table: Table, game: int, commitment: Commitment, leaf: int) -> LeafOpened:
    """Expand and pick, as the game says on the chain."""
    chain, disputes = table.chain, table.disputes
    while (now := await chain.read(disputes.game_of(game))).phase is Phase.EXPAND:
        done = table.tree.rounds - now.rounds
        shown = table.tree.children(done, now.index)
        await chain.send(f"expand/{done}", disputes.expand(game, commitment, shown), table.keys["provider"])
        child = leaf >> 4 * (now.rounds - 1) & 15
        with pytest.raises(NotTheChallenger):
            await chain.send(f"pick/{done}", disputes.pick(game, shown, child), table.keys["provider"])
        last = await chain.send(f"pick/{done}", disputes.pick(game, shown, child), table.keys["challenger"])
    return event(last, LeafOpened)


async def vote(table: Table, game: int, voters: int) -> None:
    """Every juror commits and reveals that the step does not follow."""
    chain, disputes = table.chain, table.disputes
    for name in ("commit", "reveal"):
        for seat in seats_in(voters):
            owner = (await chain.read(disputes.seat(seat))).referee
            key = next(key for key in table.keys.values() if key.address == owner)
            hashed = vote_hash(game, 0, owner, Verdict.DOES_NOT, SALT)
            committing = disputes.commit_vote(game, seat, hashed)
            revealing = disputes.reveal_vote(game, seat, Verdict.DOES_NOT, SALT)
            await chain.send(f"{name}/{seat}", committing if name == "commit" else revealing, key)


@pytest.mark.anyio
async def test_a_false_commitment_is_challenged_judged_and_slashed(own_chain: LocalChain, tmp_path: Path) -> None:
    """On the embedded chain with its own preset, from the commitment to the tenant's refund."""
    network = LocalNetwork(own_chain.folder, own_chain.spec)
    async with network.open(tmp_path / "files") as chain:
        table = await setup(network, chain)
        disputes, keys = table.disputes, table.keys
        commitment = await commit(table)
        assert await chain.read(disputes.commitment_hash(table.lease.channel)) == commitment.hash
        with pytest.raises(TooFewReferees):
            await chain.send("early", disputes.challenge(commitment), keys["challenger"])
        for name in ("referee 0", "referee 1", "referee 2"):
            await chain.send(f"join/{name}", disputes.join(SHORT.referee_stake), keys[name])
        assert await chain.read(disputes.pool()) == 0b111
        game = event(await chain.send("challenge", disputes.challenge(commitment), keys["challenger"]), Challenged).game
        opened = await play_down(table, game, commitment, 7)
        assert (opened.leaf, opened.before) == (7, to_hex(table.tree.leaves[6]))
        round = int((await chain.read(disputes.game_of(game))).node, 16)
        drawn = event(await chain.send("draw", disputes.draw(game), keys["tenant"]), Drawn)
        assert int(await chain.read(BlockBeacon(chain.spec.deployment.beacon).value(round)), 16) > 0
        with pytest.raises(NotNow):
            await chain.send("draw again", disputes.draw(game), keys["tenant"])
        await vote(table, game, drawn.voters)
        with pytest.raises(NotDecided):
            await chain.send("hasty", disputes.finish(game), keys["tenant"])
        await chain.rpc.request("evm_increaseTime", SHORT.vote_seconds + 1)
        ended = event(await chain.send("finish", disputes.finish(game), keys["tenant"]), Finished)
        assert (ended.outcome, ended.slashed) == (Outcome.CONVICTED, SHORT.factor * DEPOSIT)
        assert await chain.read(disputes.condemned(table.lease.channel))
        over = await chain.read(disputes.game_of(game))
        assert (over.phase, over.kind, over.challenger) == (Phase.DONE, Kind.LEAVES, keys["challenger"].address)
        closing = Market(chain.spec.deployment.market).close(table.lease, 0, b"", 1)
        await chain.send("close", closing, keys["provider"])
        applied = event(await chain.send("apply", disputes.apply(table.lease), keys["tenant"]), Applied)
        assert applied.for_tenant + applied.for_challenger == DEPOSIT
        owed = await chain.read(disputes.owed(keys["challenger"].address))
        assert owed == ended.to_challenger + applied.for_challenger
        await chain.send("withdraw", disputes.withdraw(keys["challenger"].address), keys["challenger"])
        kinds = {type(seen.event).__name__ for seen in (await chain.poll()).confirmed}
        assert {"Committed", "Challenged", "Expanded", "Picked", "LeafOpened", "Drawn", "Finished", "Joined"} <= kinds


def test_views_check_what_they_read() -> None:
    """A game with an unknown phase, outcome, kind or player is a node's mistake."""
    call = DISPUTES.game_of(1)
    outputs = load_interface("Disputes").function("game_of", 1).outputs
    sound = [WORK, DISPUTES.address, DISPUTES.address, 5, 0, 0, 0, 1, 2, 3, WORK, 4, 5, 6, 7]
    assert call.decode(encode(outputs, (tuple(sound),))).phase is Phase.DRAW
    for place in (3, 4, 5, 6):
        wrong = [*sound[:place], 99, *sound[place + 1 :]]
        with pytest.raises(BadAnswer):
            call.decode(encode(outputs, (tuple(wrong),)))


def test_seats_and_votes_are_read_as_they_are_meant() -> None:
    """No seat is None; a voting is four sets."""
    seat_of = DISPUTES.seat_of(DISPUTES.address)
    assert seat_of.decode(encode("(uint256)", (0,))) is None
    assert seat_of.decode(encode("(uint256)", (1,))) == 0
    kind = "(uint256,uint256,uint256,uint256)"
    jury, pool = DISPUTES.votes_of(1).decode(encode(f"({kind},{kind})", ((7, 7, 7, 3), (0, 0, 0, 0))))
    assert jury.provider_right
    assert pool.voters == 0


def test_a_move_has_sixteen_nodes_and_a_proof_is_filled_up() -> None:
    """What does not fit the tree is refused before it costs gas; a short proof is padded."""
    commitment = Commitment(WORK, DISPUTES.address, DISPUTES.address, WORK, WORK, 40, Amount(1), 2)
    with pytest.raises(InvalidInput):
        DISPUTES.expand(1, commitment, [WORK] * 15)
    with pytest.raises(InvalidInput):
        DISPUTES.pick(1, [WORK] * 17, 0)
    tree = Tree([keccak(bytes([leaf])) for leaf in range(40)])
    call = DISPUTES.before(1, commitment, tree.leaves[15], tree.proof(15))
    assert call.data[-32 * 12 :] == bytes(32 * 12)
    assert tree.proof(15)[0] in call.data
