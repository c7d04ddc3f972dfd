"""Short scenes of a dispute: one lease, one commitment whose leaf 7 is wrong, and whatever a test changes in them.

What it is: the steps that bring a game to where a test begins, each on both sides at once. What it does not know: what
the test is about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dispute_world import DisputeWorld, Job, padded
from evm import Machine, Revm
from lockstep import Party

from minga.core.units import Amount
from minga.protocol.dispute import Commitment, Phase, Verdict, seats_in
from minga.protocol.lease import Lease

SALT = b"salt" * 8
DEPOSIT = 1_000_000
WRONG = 7
LEAVES = 40


class Scene:
    """A provider with a false commitment, its tenant, a challenger, and a pool of referees."""

    def __init__(self, machine: Machine | None = None, *, pool: int = 5, freezing: bool = False, **how: Any) -> None:
        self.world = DisputeWorld(machine or Revm(), freezing=freezing, staked=False, crowd=max(pool, 4), **how)
        world = self.world
        self.tenant, self.challenger, self.provider = world.tenants[0], world.tenants[1], world.providers[0]
        self.stranger, self.court, self.machine = world.stranger, world.court, world.machine
        for party in world.referees[:pool]:
            assert world.act(party, "join", world.preset.referee_stake)
        self.lease = world.lease(self.tenant, self.provider, DEPOSIT)

    def job(self, leaves: int = LEAVES, wrong: int | None = WRONG, **how: Any) -> Job:
        """The provider's commitment to the scene's lease."""
        return self.world.job(self.lease, self.provider, leaves, wrong, **how)

    def must(self, party: Party, name: str, *args: Any, **how: Any) -> None:
        """A call that both sides accept."""
        assert self.world.act(party, name, *args, **how), self.world.outcomes

    def refused(self, party: Party, name: str, *args: Any, **how: Any) -> str:
        """A call that both sides refuse; the revert string."""
        before = self.world.outcomes.copy()
        assert not self.world.act(party, name, *args, **how), f"{name} went through"
        (reason,) = self.world.outcomes - before
        return reason

    def raw(self, party: Party, name: str, *args: Any) -> bytes:
        """A call to the contract alone."""
        given = [item.as_tuple() if isinstance(item, Lease | Commitment) else item for item in args]
        return self.world.send(party, self.court, name, tuple(given))

    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.machine.set_time(self.machine.now + seconds)

    def phase(self, game: int = 1) -> Phase:
        """Where the game stands."""
        return self.world.table(game).phase

    def challenge(self, job: Job | None = None, *, end: bool = False) -> int:
        """The challenger opens a game; its number."""
        job = job or (self.world.jobs[0] if self.world.jobs else self.job())
        self.must(self.challenger, "challenge_end" if end else "challenge", job.commitment)
        return len(self.world.rules.tables)

    def down(self, game: int, leaf: int = WRONG) -> None:
        """Play down to one leaf."""
        job = self.world.job_of(game)
        while self.phase(game) is Phase.EXPAND:
            shown = self.world.children(game)
            self.must(job.provider, "expand", game, job.commitment, shown)
            rounds = self.world.rules.tables[game].rounds
            self.must(self.challenger, "pick", game, shown, leaf >> 4 * (rounds - 1) & 15)

    def before(self, game: int) -> None:
        """The provider opens the leaf before."""
        job, at = self.world.job_of(game), self.world.rules.tables[game].index - 1
        args, proof = (game, job.commitment, job.tree.leaves[at]), job.tree.proof(at)
        self.must(job.provider, "before", *args, padded(proof), spec=(*args, proof))

    def to_draw(self, leaf: int = WRONG) -> int:
        """A game that awaits its draw."""
        game = self.challenge()
        self.down(game, leaf)
        if self.phase(game) is Phase.BEFORE:
            self.before(game)
        return game

    def draw(self, game: int) -> None:
        """The jury."""
        self.world.set_block(self.world.machine.number + 3)
        self.must(self.stranger, "draw", game)

    def votes(self, game: int, verdict: int = Verdict.DOES_NOT, silent: int = 0) -> None:
        """Whoever votes here commits and reveals `verdict`, but for the seats in `silent`; the others' time passes."""
        for name in ("commit_vote", "reveal_vote"):
            table = self.world.table(game)
            for seat in seats_in(table.votings[table.voting].voters & ~silent):
                vote = (self.world.vote(game, seat, verdict, SALT),) if name == "commit_vote" else (verdict, SALT)
                self.must(self.world.referee_of(seat), name, game, seat, *vote)
            if silent and name == "commit_vote":
                self.wait(self.world.preset.vote_seconds)

    def judged(self, verdict: int = Verdict.DOES_NOT, leaf: int = WRONG) -> int:
        """A game that its jury has judged."""
        game = self.to_draw(leaf)
        self.draw(game)
        self.votes(game, verdict)
        return game

    def finished(self, verdict: int = Verdict.DOES_NOT) -> int:
        """A game that is over, without an appeal."""
        game = self.judged(verdict)
        self.wait(self.world.preset.vote_seconds)
        self.must(self.stranger, "finish", game)
        return game

    def end_lease(self, settled: int) -> None:
        """The provider closes the lease with a voucher."""
        world, record = self.world, self.world.by_id[int(self.lease.id, 16)]
        record.best = settled
        amount, signature = world.best_voucher(record)
        assert world.call(
            self.provider, world.market, "close", (self.lease.as_tuple(), amount, signature, 1),
            lambda: world.spec.close(self.provider.address, world.now, self.lease, amount, signature),
        )  # fmt: skip

    def owed(self, party: Party) -> int:
        """What Disputes owes somebody; both sides agree."""
        found: int = self.court.view("owed", party.address)[0]
        assert found == self.world.rules.owed.get(party.address, 0)
        return found


def forged(commitment: Commitment) -> Commitment:
    """A commitment that nobody made: more at stake."""
    return replace(commitment, exposure=Amount(commitment.exposure + 1))
