"""What each call of a dispute costs, from receipts: scenes that end in one transaction, on machines that give receipts.

A game over 2**20 leaves, and a full pool of 63 referees that judges an appeal. What it does not know: the specification
(a machine's clock may be its own). Rule: the figure of a move is that of the dearest one of its kind in the game.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from dispute_world import FUND, PLACES, WORK, padded
from evm import Machine, block_hash, deploy
from lockstep import Party, key
from stage import DEPOSIT, Stage

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.eip712 import Domain
from minga.core.units import Amount
from minga.protocol.dispute import SHORT, Commitment, seats_in, vote_hash
from minga.protocol.merkle import ARITY, LEAVES_MAX, Tree
from minga.protocol.messages import Ordered, sign

COMMIT_GAS_TARGET = 100_000
MOVE_GAS_TARGET = 80_000
MOVES_TARGET = 20
BLOCK_GAS = 10_000_000
"""A third of the smallest gas limit of a block among the networks in question: what finishing may cost at most."""
SALT = b"salt" * 8
POOL = 63
LEAF = 0xB7F30
"""The disputed one of 2**20; the first of its node, so that the leaf before needs a proof."""
PRESET = replace(SHORT, window=86_400, clock=86_400, vote_seconds=86_400, jury=21)
"""The largest jury; clocks that outlast a machine that moves time with each transaction."""


@lru_cache(maxsize=1)
def great_tree() -> Tree:
    """A trace of 2**20 states."""
    return Tree([keccak(index.to_bytes(4, "big")) for index in range(LEAVES_MAX)])


class DisputeScenes:
    """One deployment with a full pool; see `measure`."""

    def __init__(self, machine: Machine) -> None:
        self.stage = stage = Stage(machine)
        self.machine, self.gas, self.moves = machine, Counter[str](), 0
        beacon = deploy(machine, "BlockBeacon", ["uint256"], [0])
        around = [each.address for each in (stage.market, stage.token, stage.registry, beacon)]
        self.court = deploy(machine, "Disputes", PLACES, [*around, FUND, PRESET.as_tuple()])
        self.beacon = beacon
        self.domain = Domain(stage.world.domain.chain_id, self.court.address)
        self.provider, self.challenger = stage.provider, stage.world.tenants[1]
        self.referees = [Party(f"referee {i}", key(f"referee {i}").address, key(""), key("")) for i in range(POOL)]
        self.lone = 0
        for party in (self.provider, self.challenger):
            stage.send(party, stage.token, "approve", self.court.address, 2**256 - 1)
        stage.send(self.provider, stage.token, "approve", stage.registry.address, 2**256 - 1)
        stage.send(self.provider, stage.registry, "stake", self.court.address, 10**12)

    def call(self, name: str, party: Party, function: str, *args: Any) -> None:
        """A measured call to Disputes; the dearest of its name counts."""
        self.stage.send(party, self.court, function, *args)
        self.gas[name] = max(self.gas[name], self.machine.gas_used)

    def measure(self) -> dict[str, int]:
        """Gas by scene."""
        for party in self.referees:
            self.stage.send(self.stage.stranger, self.stage.token, "mint", party.address, 2 * PRESET.referee_stake)
            self.stage.send(party, self.stage.token, "approve", self.court.address, 2**256 - 1)
            self.call("dispute_join", party, "join", PRESET.referee_stake)
        self.convicted_over_all_leaves()
        self.acquitted_by_the_pool(silent=False)
        self.acquitted_by_the_pool(silent=True)
        self.call("dispute_leave", self.referees[0], "leave")
        return dict(self.gas)

    def commitment(self, tree: Tree, name: str) -> tuple[Any, Commitment]:
        """A lease and the commitment to it."""
        stage = self.stage
        offer = stage.offer(arbiter=self.court.address, hold_bps=2_000, hold_seconds=604_800, units=100)
        self.lone += 1
        lease = stage.open(offer, attempt=1_000 + self.lone)
        root = Hash32(to_hex(tree.root))
        signature = sign(Ordered(lease.channel, WORK), self.domain, stage.session)
        args = (lease.as_tuple(), WORK, root, len(tree.leaves), signature)
        agent = replace(self.provider, address=self.provider.agent.address)
        self.call(name, agent if name.endswith("agent") else self.provider, "commit", *args)
        made = Commitment(
            lease.channel, self.provider.address, lease.tenant, WORK, root, len(tree.leaves), Amount(DEPOSIT), stage.now
        )
        return lease, made

    def play_down(self, game: int, tree: Tree, made: Commitment, leaf: int, name: str) -> None:
        """To one leaf, in expands and picks."""
        index = 0
        for done in range(tree.rounds):
            shown = tree.children(done, index)
            child = leaf >> 4 * (tree.rounds - done - 1) & ARITY - 1
            self.call(f"{name}_expand", self.provider, "expand", game, made.as_tuple(), shown)
            self.call(f"{name}_pick", self.challenger, "pick", game, shown, child)
            self.moves += 2
            index = ARITY * index + child

    def votes(self, game: int, voting: int, verdict: int, voters: Callable[[int], bool] = bool) -> None:
        """Every voter commits and reveals, but for those who are silent."""
        words = self.court.view("votes_of", game)
        seats = [seat for seat in seats_in(words[4 * voting]) if voters(seat + 1)]
        for seat in seats:
            owner = self.referees[seat]
            vote = vote_hash(game, voting, Address(owner.address), verdict, SALT)
            self.call("dispute_commit_vote", owner, "commit_vote", game, seat, vote)
        if len(seats) < len(seats_in(words[4 * voting])):
            self.stage.wait(PRESET.vote_seconds)
        for seat in seats:
            self.call("dispute_reveal_vote", self.referees[seat], "reveal_vote", game, seat, verdict, SALT)

    def draw(self, game: int) -> None:
        """The jury, from the next block's hash."""
        self.machine.set_block(self.machine.number + 3)
        self.call("dispute_draw", self.stage.stranger, "draw", game)

    def convicted_over_all_leaves(self) -> None:
        """2**20 leaves, the leaf before with a proof, then down to an operator; a jury of 21 convicts."""
        tree = great_tree()
        _, cleared = self.commitment(tree, "dispute_commit_agent")
        lease, made = self.commitment(tree, "dispute_commit")
        self.call("dispute_challenge_first", self.challenger, "challenge", cleared.as_tuple())
        self.call("dispute_challenge", self.challenger, "challenge", made.as_tuple())
        self.play_down(2, tree, made, LEAF, "dispute")
        proof = padded(tree.proof(LEAF - 1))
        self.call("dispute_before", self.provider, "before", 2, made.as_tuple(), tree.leaves[LEAF - 1], proof)
        self.moves += 1
        assert self.moves <= MOVES_TARGET
        self.draw(2)
        self.votes(2, 0, 2)
        self.stage.wait(PRESET.vote_seconds)
        self.call("dispute_finish_convicted", self.stage.stranger, "finish", 2)
        self.stage.close(lease, DEPOSIT // 2)
        self.call("dispute_apply", self.stage.stranger, "apply", lease.as_tuple())
        self.call("dispute_withdraw", self.challenger, "withdraw", self.challenger.address)
        self.stage.wait(PRESET.clock)
        self.call("dispute_timeout", self.stage.stranger, "timeout", 1)

    def acquitted_by_the_pool(self, *, silent: bool) -> None:
        """A jury of 21 convicts, all 63 acquit; or two of three are silent, and fined."""
        tree = Tree([block_hash(index) for index in range(3)])
        _, made = self.commitment(tree, "dispute_commit")
        self.call("dispute_challenge", self.challenger, "challenge", made.as_tuple())
        game = self.court.view("games")[0]
        if silent:
            self.call("dispute_deepen", self.challenger, "deepen", game)
        self.play_down(game, tree, made, 1, "dispute")
        if silent:
            self.call("dispute_operators", self.provider, "operators", game, tree.root, 3)
            self.play_down(game, tree, made, 1, "dispute_operator")
        self.draw(game)
        self.votes(game, 0, 2, (lambda place: place % 3 == 0) if silent else bool)
        self.call("dispute_appeal", self.provider, "appeal", game)
        self.votes(game, 1, 1, (lambda place: place % 3 == 0) if silent else bool)
        name = "dispute_finish_of_63_fined" if silent else "dispute_finish_of_63"
        self.call(name, self.stage.stranger, "finish", game)


def keep_gas(machine: Machine) -> int:
    """What it costs to keep a round of the beacon."""
    beacon = deploy(machine, "BlockBeacon", ["uint256"], [0])
    machine.set_block(machine.number + 5)
    beacon.call("0x" + "0c" * 20, "keep", machine.number - 2)
    return machine.gas_used


def measure(new_machine: Callable[[], Machine]) -> dict[str, int]:
    """Gas by scene."""
    return DisputeScenes(new_machine()).measure() | {"beacon_keep": keep_gas(new_machine())}
