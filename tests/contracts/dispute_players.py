"""Seasons of disputes: honest players who are on line, and everybody else doing what they like.

What it is: one season is a world with some providers, referees and challengers, of whom some cheat, and its games from
the first challenge to the last withdrawal. Honest players make every move that is due before its deadline, whenever the
dice say; the others are silent, wrong, late, or play well for a bad cause; at most a third of the pool colludes with
them. What it does not know: the contract's rules, beyond which move is due. Rule: whoever is honest ends unharmed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import dispute_invariants as invariants
from dispute_world import FUND, DisputeWorld, Job, padded, trace, wrong_child
from evm import Machine, Revm
from forgeries import Dice, RandomDice, rarely
from lockstep import Party

from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.protocol.dispute import PRODUCTION, SHORT, Kind, Outcome, Phase, Preset, Verdict, seats_in, vote_hash
from minga.protocol.dispute_game import Table
from minga.protocol.lease import Phase as LeasePhase

Move = Callable[[], object]
REFUGE = Address("0x" + "5b" * 20)
STYLES = ("for the cheat", "for the cheat", "silent", "never reveals", "random")
VOTINGS = (Phase.VOTE, Phase.REVEAL, Phase.POOL_VOTE, Phase.POOL_REVEAL)
SALT = b"pepper!!" * 4
GAMES = 25
"""Games of a season: schedules that the campaign counts."""


@dataclass(frozen=True)
class Due:
    """A move that an honest player makes in time: by `until` (chain time, inclusive)."""

    until: int
    move: Move


class Season:
    """See the module. `games` are the games to be played."""

    def __init__(
        self, dice: Dice, games: int = GAMES, code: dict[str, Any] | None = None, machine: Machine | None = None
    ) -> None:
        self.dice = dice
        preset = _preset(dice)
        crowd = dice.choice([preset.jury, preset.jury + 2, 3 * preset.jury, 9, 12]) if not rarely(dice, 30) else 63
        crowd = max(crowd, preset.jury)
        freezing = rarely(dice, 3)
        self.world = DisputeWorld(
            machine or Revm(), freezing=freezing, staked=False, preset=preset, delay=dice.integer(0, 2), crowd=crowd,
            code=code or {},
        )  # fmt: skip
        world = self.world
        self.left = games
        self.honest_providers = set(dice.choice([(0, 1, 2), (0,), (1, 2), ()]))
        self.validator, self.shams = world.tenants[1], [world.tenants[0], world.tenants[2], world.stranger]
        self.colluders: dict[str, str] = {}
        self.truth: dict[int, Verdict] = {}
        for party in world.referees:
            if len(self.colluders) < crowd // 3 and dice.integer(0, 3):
                self.colluders[party.address] = dice.choice(STYLES)
            assert world.act(party, "join", preset.referee_stake)
        self.purse = {party.address: self._wealth(party) for party in self.honest_people()}

    # ---------------------------------------------------------------------------------------------------------- people

    def is_honest(self, party: Party) -> bool:
        """Whether this provider does what was ordered."""
        return self.world.providers.index(party) in self.honest_providers

    def honest_people(self) -> list[Party]:
        """Everybody who must end unharmed."""
        referees = [party for party in self.world.referees if party.address not in self.colluders]
        return [self.validator, *referees]

    def _wealth(self, party: Party) -> int:
        world, pool = self.world, self.world.rules.pool
        number = pool.number_of(party.address)
        stake = pool.seats[number].stake if number is not None else 0
        return world.ledger.balance(party.address) + world.rules.owed.get(party.address, 0) + stake

    # ---------------------------------------------------------------------------------------------------------- season

    def play(self) -> None:
        """All of it, checked as it goes and at the end."""
        steps = 0
        while self.left or self.live():
            steps += 1
            assert steps < 20_000, "the season does not end"
            self.step()
            if steps % 150 == 0:
                invariants.check_all(self.world)
        self.settle_all()
        self.judge()

    def step(self) -> None:
        """One thing happens."""
        dice, due = self.dice, list(self.due())
        lot = dice.integer(0, 9)
        if lot < 5 and due:
            dice.choice(due).move()
        elif lot < 7:
            self.mischief()
        elif lot < 8 and self.left and len(self.live()) < 4:
            self.challenge()
        else:
            self.pass_time(due)
        for game in self.live():
            if self.world.rules.tables[game].kind is not Kind.OPERATORS:
                self.truth[game] = self.world.job_of(game).verdict(self.world.rules.tables[game])

    def live(self) -> list[int]:
        """Games that are not over."""
        return [game for game, table in self.world.rules.tables.items() if table.phase is not Phase.DONE]

    def pass_time(self, due: list[Due]) -> None:
        """Time passes, never past what somebody honest has to do; blocks do, sometimes out of the beacon's reach."""
        dice, world = self.dice, self.world
        far = dice.choice([1, world.preset.vote_seconds // 3, world.preset.vote_seconds, world.preset.clock])
        target = world.now + dice.integer(0, far)
        if due:
            target = min(target, min(each.until for each in due))
        for table in map(world.table, self.live()):
            if table.phase in VOTINGS:  # whoever is on line looks again when a voting ends: something may be due then
                target = min(target, table.since + world.preset.vote_seconds)
        world.machine.set_time(max(world.now, target))
        world.set_block(world.machine.number + dice.choice([1, 1, 1, 2, 5, 300]))

    def challenge(self) -> None:
        """A new game: the validator on a false commitment, or somebody on any."""
        dice, world = self.dice, self.world
        open_jobs = [job for job in world.jobs if self._challengeable(job)]
        if not open_jobs or rarely(dice, 3):
            self.new_job()
            return
        job = dice.choice(open_jobs)
        party = self.validator if not job.true and dice.integer(0, 2) else dice.choice(self.shams)
        end = job.ends_early if party is self.validator else rarely(dice, 5)
        enough = world.rules.pool.active.bit_count() >= world.preset.jury
        made = world.act(party, "challenge_end" if end else "challenge", job.commitment)
        assert made == (enough and party.address not in world.ledger.frozen)
        self.left -= made
        if not enough:
            self.refill()
        if made and party is self.validator and not end and rarely(dice, 4):
            world.act(party, "deepen", len(world.rules.tables))

    def _challengeable(self, job: Job) -> bool:
        in_time = self.world.now < job.commitment.committed_at + self.world.preset.window
        return in_time and job.commitment.channel not in self.world.rules.condemned

    def new_job(self) -> None:
        """A lease with a commitment to it, true or false as its provider is."""
        dice, world = self.dice, self.world
        if len(world.jobs) >= 8 and any(self._challengeable(job) for job in world.jobs):
            return
        provider, tenant = dice.choice(world.providers), dice.choice(world.tenants)
        honest = self.is_honest(provider) or rarely(dice, 4)
        leaves = dice.choice([2, 5, 16, 17, 40, 300])
        wrong = None if honest or rarely(dice, 5) else dice.integer(1, leaves - 1)
        world.ledger.frozen.discard(tenant.address)
        if world.freezing:
            world.send(world.stranger, world.token, "freeze", (tenant.address, 0))
        lease = world.lease(tenant, provider, dice.integer(1, 10**6), hold_bps=dice.choice([0, 1_000, 10_000]))
        world.job(lease, provider, leaves, wrong, ends_early=not honest and wrong is None)

    def refill(self) -> None:
        """Referees who left, or were fined out, join again; honest ones first."""
        world = self.world
        for party in sorted(world.referees, key=lambda each: each.address in self.colluders):
            number = world.rules.pool.number_of(party.address)
            out = number is None or world.rules.pool.is_free(number, world.now)
            if out and (party.address not in self.colluders or self._room_for_colluder()):
                world.act(party, "join", world.preset.referee_stake)

    def _room_for_colluder(self) -> bool:
        active = [self.world.rules.pool.seats[seat].referee for seat in seats_in(self.world.rules.pool.active)]
        return 3 * (sum(owner in self.colluders for owner in active) + 1) <= len(active) + 1

    # ------------------------------------------------------------------------------------------------------- the honest

    def due(self) -> Iterator[Due]:
        """Every move that somebody honest has to make, with its deadline."""
        for game in self.live():
            table, job = self.world.table(game), self.world.job_of(game)
            if table.channel not in self.world.rules.condemned:
                yield from self._players_due(game, table, job)
                yield from self._referees_due(game, table)

    def _players_due(self, game: int, table: Table, job: Job) -> Iterator[Due]:
        provider, challenger = self.is_honest(job.provider), table.challenger == self.validator.address
        vote_until = table.since + self.world.preset.vote_seconds - 1
        if table.phase in (Phase.EXPAND, Phase.BEFORE, Phase.OPERATORS) and provider:
            yield Due(table.since + table.provider_left, lambda: self.must_answer(game, job))
        elif table.phase is Phase.PICK and challenger:
            yield Due(table.since + table.challenger_left, lambda: self.pick(game, job))
        elif table.phase is Phase.DRAW and (provider or challenger):
            yield Due(vote_until, lambda: self.draw(game))
        elif table.phase is Phase.JUDGED:
            right = table.votings[0].provider_right
            if provider and not right:
                yield Due(vote_until, lambda: self.appeal(game, job.provider))
            elif challenger and right:
                yield Due(vote_until, lambda: self.appeal(game, self.validator))

    def _referees_due(self, game: int, table: Table) -> Iterator[Due]:
        until = table.since + self.world.preset.vote_seconds - 1
        if table.phase not in VOTINGS:
            return
        ballots = table.votings[table.voting]
        commits = table.phase in (Phase.VOTE, Phase.POOL_VOTE)
        left = ballots.voters & ~ballots.committed if commits else ballots.committed & ~ballots.revealed
        for seat in seats_in(left):
            referee = self.world.referee_of(seat)
            if referee.address not in self.colluders:
                yield Due(until, lambda seat=seat: self.vote(game, seat, self.truth[game]))  # type: ignore[misc]

    def answer(self, game: int, job: Job) -> bool:
        """The provider's move, by its own key or its agent's; whether it was accepted."""
        world, table, party = self.world, self.world.table(game), job.provider
        if party.wallet is None and self.dice.integer(0, 1):
            party = replace(party, address=party.agent.address)
        if table.phase is Phase.EXPAND and table.kind is Kind.OPERATORS:
            tree = self.operator_tree(game)
            children = tree.children(tree.rounds - table.rounds, table.index)
            return world.act(party, "expand", game, job.commitment, children)
        if table.phase is Phase.EXPAND:
            return world.act(party, "expand", game, job.commitment, world.children(game))
        if table.phase is Phase.BEFORE:
            leaf, proof = job.tree.leaves[table.index - 1], job.tree.proof(table.index - 1)
            args = game, job.commitment, leaf
            return world.act(party, "before", *args, padded(proof), spec=(*args, proof))
        tree = self.operator_tree(game)
        return world.act(party, "operators", game, tree.root, len(tree.leaves))

    def must_answer(self, game: int, job: Job) -> None:
        """The honest provider's move is accepted."""
        assert self.answer(game, job), "an honest provider's answer was refused"

    def operator_tree(self, game: int) -> Any:
        """The operators of the step that a game came down to."""
        return trace(f"operators {game}", 20 + game)

    def pick(self, game: int, job: Job) -> None:
        """The honest challenger's move: the first node that is not the true trace's."""
        table = self.world.table(game)
        if table.kind is Kind.OPERATORS:
            tree = self.operator_tree(game)
            shown, index = tree.children(tree.rounds - table.rounds, table.index), 0
        else:
            place = job.tree.rounds - table.rounds, table.index
            shown, true = job.tree.children(*place), job.honest_tree.children(*place)
            found = wrong_child(shown, true)
            assert found is not None, "an honest challenger lost the thread"
            index = found
        assert self.world.act(self.validator, "pick", game, shown, index)

    def draw(self, game: int) -> None:
        """Wait for the beacon's round, and draw; when it was missed, again."""
        world = self.world
        round = int.from_bytes(world.table(game).node, "big")
        world.set_block(max(world.machine.number, round + 1))
        assert world.act(world.stranger, "draw", game)

    def appeal(self, game: int, party: Party) -> None:
        """Whom the jury wronged asks everybody."""
        assert self.world.act(party, "appeal", game)

    def vote(self, game: int, seat: int, verdict: int) -> None:
        """A referee's move: commit or reveal."""
        table, referee = self.world.table(game), self.world.referee_of(seat)
        if table.phase in (Phase.VOTE, Phase.POOL_VOTE):
            vote = vote_hash(game, table.voting, referee.address, verdict, SALT)
            assert self.world.act(referee, "commit_vote", game, seat, vote)
        else:
            assert self.world.act(referee, "reveal_vote", game, seat, verdict, SALT)

    # --------------------------------------------------------------------------------------------------- everybody else

    def mischief(self) -> None:
        """Somebody who is not honest does something, or somebody ends what can be ended."""
        dice, world, live = self.dice, self.world, self.live()
        if world.freezing and rarely(dice, 6):
            self._freeze()
        elif world.jobs and rarely(dice, 12):
            self._lease_ends(dice.choice(world.jobs))
        elif not live or rarely(dice, 10):
            self._referees_come_and_go()
        elif rarely(dice, 4):
            self._noise(dice.choice(live))
        elif rarely(dice, 3):
            name = dice.choice(["timeout", "finish", "finish"])
            world.act(dice.choice(world.people), name, dice.choice(live))
        else:
            self._cheat(dice.choice(live))

    def _freeze(self) -> None:
        """The token freezes somebody whose payment nobody honest depends on, or thaws."""
        world, dice = self.world, self.dice
        whom = dice.choice([FUND, *(party.address for party in (*self.shams, *world.referees))])
        frozen = whom not in world.ledger.frozen and dice.integer(0, 1) == 0
        world.send(world.stranger, world.token, "freeze", (whom, int(frozen)))
        (world.ledger.frozen.add if frozen else world.ledger.frozen.discard)(whom)

    def _referees_come_and_go(self) -> None:
        world, dice = self.world, self.dice
        party = dice.choice(world.referees)
        number = world.rules.pool.number_of(party.address)
        active = [world.rules.pool.seats[seat].referee for seat in seats_in(world.rules.pool.active)]
        colluding = sum(owner in self.colluders for owner in active)
        if number is None:
            if party.address not in self.colluders or self._room_for_colluder():
                world.act(party, "join", world.preset.referee_stake)
        elif dice.integer(0, 2) == 0 and len(active) > world.preset.jury:
            if party.address in self.colluders or 3 * colluding <= len(active) - 1:
                world.act(party, "leave")
        else:
            world.act(party, "withdraw", dice.choice([party.address, REFUGE]))
            self.world.may_receive.add(REFUGE)

    def _cheat(self, game: int) -> None:
        """Whoever of the cheats is due in this game: plays, well or not, or does nothing."""
        dice, table, job = self.dice, self.world.table(game), self.world.job_of(game)
        if table.channel in self.world.rules.condemned or rarely(dice, 4):
            return
        cheats = not self.is_honest(job.provider)
        sham = next((party for party in self.shams if party.address == table.challenger), None)
        if table.phase in (Phase.EXPAND, Phase.BEFORE, Phase.OPERATORS) and cheats:
            late = self.world.now > table.since + table.provider_left
            if table.phase is Phase.EXPAND and rarely(dice, 8):
                other = trace("another", 16).leaves
                assert not self.world.act(job.provider, "expand", game, job.commitment, other)
            elif not rarely(dice, 12):
                assert self.answer(game, job) is not late
        elif table.phase is Phase.PICK and sham:
            self._sham_pick(game, job, sham)
        elif table.phase is Phase.JUDGED and rarely(dice, 3):
            loser = sham if table.votings[0].provider_right else job.provider
            if loser is not None:
                self.world.act(loser, "appeal", game)
        elif table.phase in VOTINGS:
            self._collude(game, table)

    def _sham_pick(self, game: int, job: Job, sham: Party) -> None:
        table = self.world.table(game)
        tree = self.operator_tree(game) if table.kind is Kind.OPERATORS else job.tree
        shown = tree.children(tree.rounds - table.rounds, table.index)
        if rarely(self.dice, 6):
            self.world.act(sham, "deepen", game)
        else:
            self.world.act(sham, "pick", game, shown, self.dice.integer(0, 16 if rarely(self.dice) else 15))

    def _collude(self, game: int, table: Table) -> None:
        for seat in seats_in(table.votings[table.voting].voters):
            referee = self.world.referee_of(seat)
            style = self.colluders.get(referee.address, "")
            revealing = table.phase in (Phase.REVEAL, Phase.POOL_REVEAL)
            if not style or style == "silent" or (style == "never reveals" and revealing):
                continue
            verdict = 3 - self.truth[game] if style != "random" else self.dice.integer(1, 2)
            salt = SALT if not rarely(self.dice, 10) else keccak(SALT)
            voting = table.voting
            if revealing:
                self.world.act(referee, "reveal_vote", game, seat, verdict, salt)
            else:
                vote = vote_hash(game, voting, referee.address, verdict, salt)
                self.world.act(referee, "commit_vote", game, seat, vote)
            table = self.world.table(game)
            if table.voting != voting or table.phase not in VOTINGS:
                return

    def _noise(self, game: int) -> None:
        """A call that should not be made, by somebody whose call it is not."""
        dice, world = self.dice, self.world
        job, shown = world.job_of(game), tuple(keccak(bytes([i])) for i in range(16))
        calls: dict[str, tuple[Any, ...]] = {
            "expand": (game, job.commitment, shown),
            "pick": (game, shown, dice.integer(0, 16)),
            "operators": (game, shown[0], dice.choice([0, 1, 2**20, 2**20 + 1])),
            "deepen": (game,),
            "draw": (game,),
            "commit_vote": (game, dice.integer(0, 70), Hash32(to_hex(shown[1]))),
            "reveal_vote": (game, dice.integer(0, 70), dice.integer(0, 3), shown[2]),
            "appeal": (game,),
            "apply": (job.lease,),
            "withdraw": (REFUGE,),
        }
        name = dice.choice(sorted(calls))
        party = dice.choice([party for party in self.shams if party.address != world.table(game).challenger])
        world.may_receive.add(REFUGE)
        world.act(party, name, *calls[name])

    # --------------------------------------------------------------------------------------------------------- the end

    def settle_all(self) -> None:
        """Every lease ends and is applied; every referee leaves; everybody takes what is theirs."""
        world = self.world
        world.may_receive.add(REFUGE)
        for job in world.jobs:
            self._end(job)
        for seat in seats_in(world.rules.pool.active):
            assert world.act(world.referee_of(seat), "leave")
        world.machine.set_time(world.now + world.preset.game_seconds_max)
        fund = Party("fund", FUND, self.validator.key, self.validator.agent)
        for party in (*world.people, *world.referees, fund):
            if world.rules.owed.get(party.address, 0) + world.rules.pool.free_stake(party.address, world.now):
                receiver = REFUGE if party.address in world.ledger.frozen else party.address
                assert world.act(party, "withdraw", receiver), "somebody's money is stuck"

    def _lease_ends(self, job: Job) -> None:
        """A lease is closed, or its hold is over and ended, or what there is to apply is applied."""
        world, lease = self.world, job.lease
        account = world.spec.accounts[lease.id]
        if account.phase in (LeasePhase.OPEN, LeasePhase.CLOSING):
            record = world.by_id[int(lease.id, 16)]
            record.best = self.dice.integer(0, record.deposit)
            cumulative, signature = world.best_voucher(record)
            args = (lease.as_tuple(), cumulative, signature, 1)
            assert world.call(
                job.provider, world.market, "close", args,
                lambda: world.spec.close(job.provider.address, world.now, lease, cumulative, signature),
            )  # fmt: skip
        elif account.phase is LeasePhase.HELD and self.dice.integer(0, 1):
            args = (lease.as_tuple(),)
            world.call(
                world.stranger, world.market, "finish_hold", args, lambda: world.spec.finish_hold(world.now, lease)
            )
        else:
            world.act(world.stranger, "apply", lease)

    def _end(self, job: Job) -> None:
        if self.world.spec.accounts[job.lease.id].phase is not LeasePhase.HELD:
            self._lease_ends(job)
        self.world.act(self.world.stranger, "apply", job.lease)
        channel = job.commitment.channel
        assert self.world.rules.reserves.get(channel, ("", 0))[1] == 0, "a tenant's share is stuck"
        for seen in self.world.applied[int(channel, 16)]:
            if seen["for_challenger"]:
                assert seen["for_tenant"] + seen["held"] == seen["paid"], (
                    "a tenant was not made whole, or more than that"
                )

    def judge(self) -> None:
        """Nobody honest was harmed, every game ended, and not a unit is left behind."""
        world = self.world
        invariants.check_all(world)
        for game, table in world.rules.tables.items():
            job = world.job_of(game)
            assert table.phase is Phase.DONE, f"game {game} did not end"
            if self.is_honest(job.provider):
                assert table.outcome is not Outcome.CONVICTED, f"game {game}: an honest provider was condemned"
            if table.challenger == self.validator.address:
                assert table.outcome is not Outcome.ACQUITTED, f"game {game}: an honest challenger lost its bond"
                assert table.channel in world.rules.condemned, f"game {game}: a false commitment stands"
        for number, party in enumerate(world.providers):
            stake = world.spec.registry.stake_of(party.address, world.rules.address)
            if number in self.honest_providers:
                assert stake.staked == 2**90, "an honest provider was slashed"
        for party in self.honest_people():
            gained = self._wealth(party) + world.ledger.balance(REFUGE) - self.purse[party.address]
            assert gained >= 0 or party is self.validator, f"{party.name}, an honest referee, lost {-gained}"
        assert world.rules.liabilities() == 0 == world.token.view("balanceOf", world.court.address)[0]


def _preset(dice: Dice) -> Preset:
    jury = dice.choice([1, 3, 3, 5, 7])
    base = replace(dice.choice([SHORT, PRODUCTION]), jury=jury, factor=dice.choice([1, 20, 1000]))
    return replace(base, seat_fee=0) if rarely(dice, 10) else base


def season(seed: int, games: int = GAMES, code: dict[str, Any] | None = None) -> Season:
    """A season by its seed, played to its end."""
    made = Season(RandomDice(seed), games, code)
    made.play()
    return made
