"""A provider defends what it committed to: it opens its own tree when a game asks, and claims what silence gives it.

| the game waits for         | then                                                                           |
|----------------------------|--------------------------------------------------------------------------------|
| the 16 nodes below a node  | `expand`, from the leaves that the job left                                    |
| the leaf before            | `before`, with its proof                                                       |
| the challenger, too long   | `timeout`                                                                      |
| the draw                   | `draw`; anybody may                                                            |
| an appeal                  | `appeal`, if the jury was against us: who did the work knows that the jury erred |
| its end                    | `finish`, then `withdraw`                                                      |

Knows: games and leaves. Does not know: whether the work was right. Rule: every answer follows from the chain and from
the file of leaves, and its transaction has a name, so that a restart gives the same answer, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio.to_thread

from minga.chain.chain import Call, Chain
from minga.chain.contracts import Token
from minga.chain.disputes import Disputes
from minga.chain.games import GameRecord
from minga.core.crypto import PrivateKey
from minga.core.errors import ContractError, InvalidInput, MingaError
from minga.protocol.dispute import Ballots, Commitment, Game, Kind, Phase, Preset
from minga.protocol.merkle import Tree, rounds_for
from minga.provider.lease import World
from minga.provider.points import reach
from minga.provider.rules_verify import LEAVES

POLL_SECONDS = 1.0
LATER = frozenset({"beacon-not-yet", "disputes-too-early", "disputes-not-decided", "disputes-not-now"})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a game asks of its provider now: the name of the transaction, and the call. `cost`: token units it takes."""

    name: str
    call: Call[None]
    cost: int = 0


def answer(
    contract: Disputes, number: int, game: Game, jury: Ballots, made: Commitment, tree: Tree, preset: Preset, now: int,
    appeals: bool = True,
) -> Answer | None:  # fmt: skip
    """What the provider of `made` has to do in a game, if anything; pure.

    Args:
        contract, number, game, jury: the game as it is on chain, and its jury's votes.
        made: the commitment.
        tree: over its leaves.
        preset: the arbiter's.
        now: chain time.
        appeals: whether a lost jury is appealed against.

    Raises:
        InvalidInput: the tree is not the one that was committed to.
    """
    used = now - game.since
    if game.phase is Phase.EXPAND and game.kind in (Kind.LEAVES, Kind.DEEP):
        done = rounds_for(game.leaves) - game.rounds
        return Answer(f"expand/{done}", contract.expand(number, made, tree.children(done, game.index)))
    if game.phase is Phase.BEFORE:
        before = game.index - 1
        return Answer("before", contract.before(number, made, tree.leaves[before], tree.proof(before)))
    if game.phase is Phase.PICK and used > game.challenger_left:
        return Answer("timeout", contract.timeout(number))
    if game.phase is Phase.DRAW:
        if used >= preset.vote_seconds:
            return Answer("timeout", contract.timeout(number))
        return Answer(f"draw/{int(game.node, 16)}", contract.draw(number))
    if game.phase is Phase.JUDGED and used < preset.vote_seconds:
        lost = appeals and not jury.provider_right
        return Answer("appeal", contract.appeal(number), preset.seat_fee * game.pool.bit_count()) if lost else None
    if game.phase in (Phase.JUDGED, Phase.POOL_JUDGED):
        return Answer("finish", contract.finish(number))
    return Answer("withdraw", contract.withdraw(made.provider)) if game.phase is Phase.DONE else None


def tree_of(made: Commitment, leaves: Sequence[bytes]) -> Tree:
    """The tree over the leaves of a commitment.

    Raises:
        InvalidInput: they are not the committed ones.
    """
    tree = Tree(leaves)
    if "0x" + tree.root.hex() != made.root or len(tree.leaves) != made.leaves:
        raise InvalidInput("these are not the leaves that were committed to", "name the trace of this commitment")
    return tree


async def play(
    chain: Chain, key: PrivateKey, record: GameRecord, made: Commitment, tree: Tree, preset: Preset, appeals: bool
) -> str | None:
    """Give the answer that a game waits for, if it waits for one of ours; its name.

    Raises:
        ContractError: refused, and not only for now.
        NetworkError, InsufficientFunds: not done; to be tried again.
    """
    contract = Disputes(chain.spec.deployment.disputes)
    game, now = await chain.read(contract.game_of(record.game)), await chain.time()
    jury, _ = await chain.read(contract.votes_of(record.game))
    if game.phase is not Phase.DONE and await chain.read(contract.condemned(made.channel)):
        found: Answer | None = Answer("finish", contract.finish(record.game))
    else:
        found = answer(contract, record.game, game, jury, made, tree, preset, now, appeals)
    if found is None:
        return None
    name = f"dispute/{record.game}/{found.name}"
    token = Token(chain.spec.deployment.token)
    if found.cost and await chain.read(token.allowance(key.address, contract.address)) < found.cost:
        await chain.send(f"{name}/allow", token.approve(contract.address, found.cost), key)
    try:
        await chain.send(name, found.call, key)
    except ContractError as error:
        if error.code in LATER:
            return None
        raise
    return found.name


class Defender:
    """All games about the commitments of one provider."""

    def __init__(self, world: World, appeals: bool = True) -> None:
        """Of `world`'s leases; `appeals`: whether a lost jury is appealed against."""
        self._world = world
        self._appeals = appeals
        self._trees: dict[str, Tree] = {}
        self._over: set[int] = set()
        self._preset: Preset | None = None

    async def follow(self) -> None:
        """Look and answer, for ever; what fails is told once and tried again."""
        warned: str | None = None
        while True:
            try:
                await self.turn()
                warned = None
            except MingaError as error:
                if warned != error.fact:
                    self._world.announce("warning", error.as_dict()["error"])
                warned = error.fact
            await self._world.clock.sleep(POLL_SECONDS)

    async def turn(self) -> None:
        """Answer every game that waits for us now.

        Raises:
            MingaError: one of them could not be answered; the others were.
        """
        failed: MingaError | None = None
        for record in list(self._world.chain.view.disputes.games.values()):
            made = self._world.chain.view.commitments.get(record.channel)
            if made is None or made.provider != self._world.provider or record.game in self._over:
                continue
            try:
                await self._answer(record, made)
            except MingaError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _answer(self, record: GameRecord, made: Commitment) -> None:
        chain, world = self._world.chain, self._world
        if self._preset is None:
            self._preset = await chain.read(Disputes(chain.spec.deployment.disputes).preset())
        tree = await self._tree(made)
        try:
            did = await play(chain, world.key, record, made, tree, self._preset, self._appeals)
        except ContractError:
            if record.finished is None:
                raise
            did = "withdraw"  # nothing is owed: the game is lost
        if did is not None:
            reach("provider.dispute.answered")
            world.announce("dispute", {"game": record.game, "channel": made.channel, "did": did})
        if did == "withdraw":
            self._over.add(record.game)

    async def _tree(self, made: Commitment) -> Tree:
        if made.channel not in self._trees:
            run = self._world.leases.get(made.channel)
            name = next((item["blake3"] for item in run.state.files if item["path"] == LEAVES), None) if run else None
            if run is None or name is None:
                raise InvalidInput(f"the leaves of {made.channel[:18]} are gone", "restore this provider's folder")
            data = await anyio.to_thread.run_sync(lambda: b"".join(run.place.blobs.read(name)))
            leaves = [data[at : at + 32] for at in range(0, len(data), 32)]
            self._trees[made.channel] = await anyio.to_thread.run_sync(tree_of, made, leaves)
        return self._trees[made.channel]
