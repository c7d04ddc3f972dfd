"""What each external function of Disputes and BlockBeacon does when all is well: one test per function."""

from __future__ import annotations

import sys
from dataclasses import replace

import dispute_invariants as invariants
import pytest
from dispute_scene import DEPOSIT, LEAVES, SALT, WRONG, Scene
from dispute_world import FUND, WORK, padded, trace
from evm import NOBODY, artifact
from lockstep import address

from minga.core.crypto import to_hex
from minga.protocol.dispute import PRODUCTION, SHORT, Kind, Outcome, Phase, Verdict, draw_jury, seats_in
from minga.protocol.merkle import Tree, rounds_for
from minga.protocol.settlement import split

FOLLOWS, DOES_NOT = Verdict.FOLLOWS, Verdict.DOES_NOT


@pytest.fixture
def scene() -> Scene:
    """A fresh deployment with five referees."""
    return Scene()


def test_every_function_has_a_test() -> None:
    """Each function in the ABIs is named by a test here; views are read in them."""
    here = {name.removeprefix("test_").split("__")[0] for name in dir(sys.modules[__name__])}
    for name in ("Disputes", "BlockBeacon"):
        functions = [entry for entry in artifact(name)["abi"] if entry["type"] == "function"]
        missing = {each["name"] for each in functions if each["stateMutability"] == "nonpayable"} - here
        assert not missing, f"{name}: no test for {sorted(missing)}"


def test_views__are_what_was_deployed(scene: Scene) -> None:
    """The constructor's arguments and the derived domain can be read."""
    world, court = scene.world, scene.court
    assert court.view("preset") == SHORT.as_tuple()
    around = [world.market.address, world.token.address, world.registry.address, world.beacon.address, FUND]
    assert [address(each) for each in court.view("places")] == around
    assert court.call(NOBODY, "domain_separator") == world.rules.domain.separator
    assert world.registry.view("factor_of", court.address) == (SHORT.factor,)
    assert address(world.registry.view("market_of", court.address)[0]) == world.market.address
    assert court.view("game_of", 1)[3] == 0
    assert court.view("seat_of", scene.stranger.address) == (0,)
    assert court.view("seat", 63) == (0, 0, 0, 0)


def test_the_presets__keep_their_promises() -> None:
    """A game and its window fit into the 21 days in which stake can leave; production clocks are 24 hours or more."""
    for preset in (PRODUCTION, SHORT):
        assert preset.window + preset.game_seconds_max <= 21 * 86_400
        assert preset.bond >= (preset.jury + 63) * preset.seat_fee
        assert preset.jury % 2 == 1
    assert min(PRODUCTION.clock, PRODUCTION.vote_seconds, PRODUCTION.window) >= 24 * 3600
    assert PRODUCTION.factor >= 2 * 8.5


# ------------------------------------------------------------------------------------------- commitments, challenges


def test_commit(scene: Scene) -> None:
    """The provider's word is stored as a hash; what was said is in the event; the exposure is the deposit."""
    commitment = scene.job().commitment
    assert (commitment.exposure, commitment.leaves, commitment.committed_at) == (DEPOSIT, LEAVES, scene.world.now)
    assert commitment.channel == scene.lease.channel
    events = dict(scene.court.decode(log) for log in scene.machine.logs())
    assert scene.court.view("commitment_hash", scene.lease.channel) == (int(commitment.hash, 16),)
    assert events["Committed"]["root"] == int(commitment.root, 16)


def test_commit__by_the_agent_key_of_a_held_lease(scene: Scene) -> None:
    """After the end, while a part is held, the exposure is what was settled."""
    scene.end_lease(1_000)
    agent = type(scene.provider)("agent", scene.provider.agent.address, scene.provider.agent, scene.provider.agent)
    root = to_hex(trace("held", 3).root)
    scene.must(agent, "commit", scene.lease, WORK, root, 3, scene.world.ordered(scene.lease))
    assert scene.world.rules.commitments[scene.lease.channel].exposure == 1_000


def test_challenge(scene: Scene) -> None:
    """The bond is taken; the game begins with the provider's clock; it remembers who may judge it."""
    before = scene.world.ledger.balance(scene.challenger.address)
    game = scene.challenge()
    table = scene.world.table(game)
    assert before - scene.world.ledger.balance(scene.challenger.address) == SHORT.bond
    assert (table.phase, table.rounds, table.pool) == (Phase.EXPAND, rounds_for(LEAVES), 0b11111)
    invariants.check_all(scene.world)


def test_challenge_end(scene: Scene) -> None:
    """Nothing is played down: the provider opens the last leaf, and referees judge whether the work ends there."""
    job = scene.job(ends_early=True, wrong=None)
    game = scene.challenge(job, end=True)
    assert (scene.phase(game), scene.world.table(game).index) == (Phase.BEFORE, LEAVES)
    scene.before(game)
    events = dict(scene.court.decode(log) for log in scene.machine.logs())
    assert events["LeafOpened"]["before"] == int.from_bytes(job.tree.leaves[-1], "big")
    assert events["LeafOpened"]["after"] == 0
    scene.draw(game)
    scene.votes(game, job.verdict(scene.world.table(game)))
    scene.wait(SHORT.vote_seconds)
    scene.must(scene.stranger, "finish", game)
    assert scene.world.rules.tables[game].outcome is Outcome.CONVICTED


def test_challenge_end__of_a_full_tree(scene: Scene) -> None:
    """The trace's end is disputable even where the tree has no place for one leaf more."""
    scene.job(leaves=16, wrong=None)
    game = scene.challenge(end=True)
    scene.before(game)
    assert scene.phase(game) is Phase.DRAW


# -------------------------------------------------------------------------------------------------- down to one leaf


@pytest.mark.parametrize("leaves", [2, 16, 17, 256, 300])
def test_expand__and_pick_find_the_leaf(scene: Scene, leaves: int) -> None:
    """In two moves a round, whatever the size; every leaf but the first can be disputed."""
    scene.job(leaves=leaves, wrong=leaves - 1)
    for leaf in sorted({1, leaves // 2, leaves - 1} - {0}):
        game = scene.challenge()
        before = scene.world.calls
        scene.down(game, leaf)
        assert scene.world.calls - before == 2 * rounds_for(leaves)
        assert scene.world.table(game).index == leaf
        assert scene.phase(game) is (Phase.BEFORE if leaf % 16 == 0 else Phase.DRAW)
    invariants.check_all(scene.world)


def test_expand(scene: Scene) -> None:
    """The provider's clock stops, the challenger's runs; the children are in the event."""
    game, job = scene.challenge(), scene.world.jobs[0]
    scene.wait(50)
    shown = scene.world.children(game)
    scene.must(scene.provider, "expand", game, job.commitment, shown)
    table = scene.world.table(game)
    assert (table.phase, table.provider_left, table.since) == (Phase.PICK, SHORT.clock - 50, scene.world.now)
    assert shown[0] in scene.machine.logs()[-1].data
    invariants.agreement(scene.world)


def test_pick(scene: Scene) -> None:
    """The leaf before stands beside the disputed one: both are open at once, and the draw is awaited."""
    game = scene.challenge()
    scene.down(game, WRONG)
    events = dict(scene.court.decode(log) for log in scene.machine.logs())
    tree = scene.world.jobs[0].tree
    assert events["LeafOpened"]["leaf"] == WRONG
    assert events["LeafOpened"]["before"] == int.from_bytes(tree.leaves[WRONG - 1], "big")
    assert events["LeafOpened"]["after"] == int.from_bytes(tree.leaves[WRONG], "big")
    assert events["DrawAwaited"]["round"] == scene.world.machine.number


def test_before(scene: Scene) -> None:
    """Leaf 16 is the first of its node: the provider opens leaf 15 with a proof."""
    game = scene.challenge()
    scene.down(game, 16)
    assert scene.phase(game) is Phase.BEFORE
    scene.before(game)
    events = dict(scene.court.decode(log) for log in scene.machine.logs())
    assert events["LeafOpened"]["before"] == int.from_bytes(scene.world.jobs[0].tree.leaves[15], "big")
    assert scene.phase(game) is Phase.DRAW


def test_deepen__and_operators(scene: Scene) -> None:
    """The step is played down to one operator, over another tree and with the same clocks."""
    game = scene.challenge()
    scene.must(scene.challenger, "deepen", game)
    scene.down(game, WRONG)
    assert (scene.phase(game), scene.world.table(game).kind) == (Phase.OPERATORS, Kind.DEEP)
    tree = trace("operators", 436)
    scene.must(scene.provider, "operators", game, tree.root, 436)
    index = 0
    for done, child in enumerate((1, 2, 3)):
        shown = tree.children(done, index)
        scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, shown)
        scene.must(scene.challenger, "pick", game, shown, child)
        index = 16 * index + child
    events = dict(scene.court.decode(log) for log in scene.machine.logs())
    assert events["OperatorOpened"]["operator"] == index == 291
    assert events["OperatorOpened"]["output"] == int.from_bytes(tree.leaves[291], "big")
    assert scene.phase(game) is Phase.DRAW
    invariants.check_all(scene.world)


def test_operators__may_be_disputed_from_the_first(scene: Scene) -> None:
    """Operator 0 can be wrong: there is no operator before it to open."""
    game = scene.challenge()
    scene.must(scene.challenger, "deepen", game)
    scene.down(game, WRONG)
    tree = Tree([b"o" * 32])
    scene.must(scene.provider, "operators", game, tree.root, 1)
    scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, tree.children(0, 0))
    scene.must(scene.challenger, "pick", game, tree.children(0, 0), 0)
    assert scene.phase(game) is Phase.DRAW


# --------------------------------------------------------------------------------------------------------- the votes


def test_draw(scene: Scene) -> None:
    """The jury is what the beacon's value says, of those who had joined before the game."""
    game = scene.to_draw()
    late = scene.world.referees[4]
    scene.draw(game)
    voters = scene.world.table(game).votings[0].voters
    assert voters.bit_count() == SHORT.jury
    value = scene.world.beacon.call(NOBODY, "value", 1)
    assert voters == draw_jury(0b11111, SHORT.jury, value, game)
    assert late.address in {scene.world.referee_of(seat).address for seat in range(5)}


def test_draw__of_a_missed_round_awaits_another(scene: Scene) -> None:
    """A block hash that is out of reach costs a round, and never the game."""
    game = scene.to_draw()
    scene.world.set_block(1 + 257)
    assert scene.world.beacon.view("missed", 1) == (1,)
    scene.must(scene.stranger, "draw", game)
    assert scene.phase(game) is Phase.DRAW
    assert int.from_bytes(scene.world.table(game).node, "big") == 258
    scene.draw(game)
    assert scene.phase(game) is Phase.VOTE


def test_keep(scene: Scene) -> None:
    """A round that somebody kept is never missed."""
    game = scene.to_draw()
    scene.world.set_block(257)
    assert scene.world.keep(scene.stranger, 1)
    scene.world.set_block(10_000)
    assert scene.world.beacon.view("missed", 1) == (0,)
    scene.must(scene.stranger, "draw", game)
    assert scene.phase(game) is Phase.VOTE


def test_every_seat_is_drawn_as_often() -> None:
    """20,000 juries of 7 out of 21: each seat in a third of them, within five standard deviations."""
    pool, count = (1 << 42) - (1 << 21), 20_000
    drawn = [seats_in(draw_jury(pool, 7, beacon.to_bytes(32, "big"), 1)) for beacon in range(count)]
    assert all(len(jury) == 7 for jury in drawn)
    for seat in range(21, 42):
        often = sum(seat in jury for jury in drawn)
        assert abs(often - count / 3) < 5 * (count * 2 / 9) ** 0.5


def test_commit_vote(scene: Scene) -> None:
    """When the last one has committed, revealing begins at once."""
    game = scene.to_draw()
    scene.draw(game)
    seats = seats_in(scene.world.table(game).votings[0].voters)
    for seat in seats:
        assert scene.phase(game) is Phase.VOTE
        scene.must(scene.world.referee_of(seat), "commit_vote", game, seat, scene.world.vote(game, seat, 1))
    assert scene.phase(game) is Phase.REVEAL


def test_commit_vote__that_not_all_made_ends_by_time(scene: Scene) -> None:
    """A silent juror delays by one deadline and no more."""
    game = scene.to_draw()
    scene.draw(game)
    seat, *_ = seats_in(scene.world.table(game).votings[0].voters)
    scene.must(scene.world.referee_of(seat), "commit_vote", game, seat, scene.world.vote(game, seat, 1))
    scene.wait(SHORT.vote_seconds)
    assert scene.phase(game) is Phase.REVEAL
    scene.must(scene.world.referee_of(seat), "reveal_vote", game, seat, 1, SALT)
    assert scene.phase(game) is Phase.JUDGED
    invariants.agreement(scene.world)


def test_reveal_vote(scene: Scene) -> None:
    """Votes are counted by seats."""
    game = scene.judged(DOES_NOT)
    jury = scene.world.table(game).votings[0]
    assert (jury.revealed, jury.follows) == (jury.voters, 0)
    assert not jury.provider_right
    assert scene.court.view("votes_of", game)[:4] == (jury.voters, jury.voters, jury.voters, 0)


def test_reveal_vote__of_another_cannot_be_copied(scene: Scene) -> None:
    """Who commits another's vote can never reveal it."""
    game = scene.to_draw()
    scene.draw(game)
    first, second, _ = seats_in(scene.world.table(game).votings[0].voters)
    copied = scene.world.vote(game, first, 1)
    scene.must(scene.world.referee_of(first), "commit_vote", game, first, copied)
    scene.must(scene.world.referee_of(second), "commit_vote", game, second, copied)
    scene.wait(SHORT.vote_seconds)
    scene.must(scene.world.referee_of(first), "reveal_vote", game, first, 1, SALT)
    for verdict in (1, 2):
        said = scene.refused(scene.world.referee_of(second), "reveal_vote", game, second, verdict, SALT)
        assert said == "disputes: other vote"


@pytest.mark.parametrize(("jury", "loser"), [(FOLLOWS, "challenger"), (DOES_NOT, "provider")])
def test_appeal(scene: Scene, jury: Verdict, loser: str) -> None:
    """Whom the jury found wrong pays all seats; the whole pool votes; a winner of it has its money back."""
    game = scene.judged(jury)
    party = getattr(scene, loser)
    before = scene.world.ledger.balance(party.address)
    scene.must(party, "appeal", game)
    assert before - scene.world.ledger.balance(party.address) == 5 * SHORT.seat_fee
    assert scene.world.table(game).votings[1].voters == 0b11111
    scene.votes(game, 3 - jury)
    scene.must(scene.stranger, "finish", game)
    assert scene.world.table(game).outcome is (Outcome.CONVICTED if jury is FOLLOWS else Outcome.ACQUITTED)
    assert scene.owed(party) >= 5 * SHORT.seat_fee
    invariants.check_all(scene.world)


# ---------------------------------------------------------------------------------------------------------- the ends


@pytest.mark.parametrize("mover", ["provider", "challenger"])
def test_timeout(scene: Scene, mover: str) -> None:
    """Silence loses, one second after the clock ran out and not before."""
    game, job = scene.challenge(), scene.world.jobs[0]
    if mover == "challenger":
        scene.must(scene.provider, "expand", game, job.commitment, scene.world.children(game))
    scene.wait(SHORT.clock)
    assert scene.refused(scene.stranger, "timeout", game) == "disputes: too early"
    scene.wait(1)
    scene.must(scene.stranger, "timeout", game)
    convicted = mover == "provider"
    assert scene.world.table(game).outcome is (Outcome.CONVICTED if convicted else Outcome.ACQUITTED)
    assert (scene.owed(scene.challenger) > 0, scene.owed(scene.provider)) == (convicted, 0 if convicted else SHORT.bond)


def test_timeout__of_a_draw_that_nobody_made_is_void(scene: Scene) -> None:
    """Nobody wins; the bond goes back, and the commitment can be challenged again."""
    game = scene.to_draw()
    scene.wait(SHORT.vote_seconds - 1)
    assert scene.refused(scene.stranger, "timeout", game) == "disputes: too early"
    scene.wait(1)
    scene.must(scene.stranger, "timeout", game)
    assert scene.world.table(game).outcome is Outcome.VOID
    assert scene.owed(scene.challenger) == SHORT.bond
    scene.challenge()


def test_finish__convicts(scene: Scene) -> None:
    """The slash pays the seats first; of it half goes to tenant and challenger, the rest to the audit fund."""
    game = scene.finished(DOES_NOT)
    slashed, fees = SHORT.factor * DEPOSIT, SHORT.jury * SHORT.seat_fee
    assert scene.world.finished[game]["slashed"] == slashed
    assert scene.owed(scene.challenger) == SHORT.bond + slashed // 2 - DEPOSIT
    assert scene.world.rules.reserves[scene.lease.channel] == (scene.challenger.address, DEPOSIT)
    assert scene.court.view("owed", FUND) == (slashed - slashed // 2 - fees,)
    for seat in seats_in(scene.world.table(game).votings[0].voters):
        assert scene.owed(scene.world.referee_of(seat)) == SHORT.seat_fee
    assert scene.court.view("condemned", scene.lease.channel) == (1,)
    invariants.check_all(scene.world)


def test_finish__acquits(scene: Scene) -> None:
    """The bond pays the seats, the rest is the provider's; others may still challenge."""
    game = scene.finished(FOLLOWS)
    assert scene.world.table(game).outcome is Outcome.ACQUITTED
    assert scene.owed(scene.provider) == SHORT.bond - SHORT.jury * SHORT.seat_fee
    assert scene.owed(scene.challenger) == 0
    scene.challenge()
    invariants.check_all(scene.world)


def test_finish__makes_the_other_games_void(scene: Scene) -> None:
    """Their bonds go back; their referees are paid out of what the conviction left for the fund."""
    second = scene.judged(FOLLOWS)
    first = scene.judged(DOES_NOT)
    scene.wait(SHORT.vote_seconds)
    scene.must(scene.stranger, "finish", first)
    assert scene.court.view("owed", FUND) == (0,)  # kept while the other game is not over
    owed = scene.owed(scene.challenger)
    seats = seats_in(scene.world.table(second).votings[0].voters)
    before = [scene.owed(scene.world.referee_of(seat)) for seat in seats]
    scene.must(scene.stranger, "finish", second)
    assert scene.world.table(second).outcome is Outcome.VOID
    assert scene.owed(scene.challenger) == owed + SHORT.bond
    assert [scene.owed(scene.world.referee_of(seat)) for seat in seats] == [each + SHORT.seat_fee for each in before]
    slashed = SHORT.factor * DEPOSIT
    assert scene.court.view("owed", FUND) == (slashed - slashed // 2 - 6 * SHORT.seat_fee,)
    invariants.check_all(scene.world)


def test_apply__gives_back_what_is_held_and_makes_whole(scene: Scene) -> None:
    """Market gives the tenant the held part, the slash what else it paid; what is left is the challenger's."""
    scene.finished(DOES_NOT)
    scene.end_lease(600_000)
    held = split(600_000, scene.world.fee_bps, scene.lease.hold_bps).held
    balance, owed = scene.world.ledger.balance(scene.tenant.address), scene.owed(scene.challenger)
    scene.must(scene.stranger, "apply", scene.lease)
    assert scene.world.ledger.balance(scene.tenant.address) - balance == held > 0
    assert scene.owed(scene.tenant) == 600_000 - held
    assert scene.owed(scene.challenger) == owed + DEPOSIT - (600_000 - held)
    assert scene.refused(scene.stranger, "apply", scene.lease) == "disputes: nothing to apply"


def test_apply__before_the_verdict_remembers_what_was_paid(scene: Scene) -> None:
    """The hold is over when the provider is convicted: the tenant still gets what it paid, out of the slash alone."""
    game = scene.judged(DOES_NOT)
    scene.end_lease(600_000)
    scene.must(scene.tenant, "apply", scene.lease)
    assert scene.owed(scene.tenant) == 0
    scene.wait(scene.lease.hold_seconds)
    lease, world = scene.lease, scene.world
    assert world.call(
        scene.stranger,
        world.market,
        "finish_hold",
        (lease.as_tuple(),),
        lambda: world.spec.finish_hold(world.now, lease),
    )
    scene.must(scene.stranger, "finish", game)
    scene.must(scene.stranger, "apply", scene.lease)
    assert scene.owed(scene.tenant) == 600_000


def test_apply__after_a_hold_that_nobody_took_down(scene: Scene) -> None:
    """What the tenant paid is not known: it gets up to the exposure."""
    game = scene.judged(DOES_NOT)
    scene.end_lease(600_000)
    scene.wait(scene.lease.hold_seconds)
    lease, world = scene.lease, scene.world
    assert world.call(
        scene.stranger,
        world.market,
        "finish_hold",
        (lease.as_tuple(),),
        lambda: world.spec.finish_hold(world.now, lease),
    )
    scene.must(scene.stranger, "finish", game)
    scene.must(scene.stranger, "apply", scene.lease)
    assert scene.owed(scene.tenant) == DEPOSIT


# ---------------------------------------------------------------------------------------------------------- referees


def test_join(scene: Scene) -> None:
    """A seat is taken with a stake; a second call adds to it."""
    scene.must(scene.stranger, "join", SHORT.referee_stake)
    number = scene.world.rules.pool.number_of(scene.stranger.address)
    assert (number, scene.court.view("pool")) == (5, (0b111111,))
    scene.must(scene.stranger, "join", 5)
    seat = (int(scene.stranger.address, 16), SHORT.referee_stake + 5, 1, 0)
    assert scene.court.view("seat", 5) == seat
    invariants.check_all(scene.world)


def test_join__takes_over_a_seat_whose_owner_has_left_for_good() -> None:
    """Sixty-three who leave and never fetch their stake do not shut the pool; their money stays theirs."""
    scene = Scene(pool=63)
    assert scene.refused(scene.stranger, "join", SHORT.referee_stake) == "disputes: pool is full"
    absent = scene.world.referees[11]
    scene.must(absent, "leave")
    assert scene.refused(scene.stranger, "join", SHORT.referee_stake) == "disputes: pool is full"
    scene.wait(SHORT.game_seconds_max)
    scene.must(scene.stranger, "join", SHORT.referee_stake)
    assert scene.world.rules.pool.number_of(scene.stranger.address) == 11
    assert scene.owed(absent) == SHORT.referee_stake
    invariants.check_all(scene.world)


def test_leave(scene: Scene) -> None:
    """A game that began keeps its referees and their stakes until it must have ended; later games are without them."""
    game = scene.to_draw()
    for party in scene.world.referees[:2]:
        scene.must(party, "leave")
    assert scene.court.view("pool") == (0b11100,)
    leaver = scene.world.referees[0]
    assert scene.refused(leaver, "withdraw", leaver.address) == "disputes: nothing owed"
    scene.draw(game)
    assert scene.world.table(game).pool == 0b11111
    assert scene.world.table(scene.challenge()).pool == 0b11100
    scene.wait(SHORT.game_seconds_max)
    scene.must(leaver, "withdraw", leaver.address)
    scene.must(leaver, "join", SHORT.referee_stake)
    assert scene.court.view("pool") == (0b11101,)


def test_leave__for_being_silent() -> None:
    """Each silent vote costs a twentieth of the least stake; below half of it the seat is lost."""
    scene = Scene(preset=replace(SHORT, window=86_400))
    scene.job(wrong=None)
    games = 0
    while scene.world.rules.pool.active.bit_count() >= SHORT.jury:
        games += 1
        game = scene.to_draw()
        scene.draw(game)
        scene.wait(3 * SHORT.vote_seconds)
        scene.must(scene.stranger, "finish", game)
        invariants.check_all(scene.world)
    seats = scene.world.rules.pool.seats
    assert sum(SHORT.referee_stake - seat.stake for seat in seats.values()) == games * SHORT.jury * SHORT.fine
    assert scene.court.view("owed", FUND) == (games * SHORT.jury * SHORT.fine,)
    gone = [seat for seat in seats.values() if seat.stake < SHORT.referee_stake // 2]
    assert len(gone) == 3
    assert all(seat.free_at for seat in gone)
    assert scene.refused(scene.challenger, "challenge", scene.world.jobs[0].commitment) == "disputes: too few referees"


def test_withdraw(scene: Scene) -> None:
    """What is owed goes to any address."""
    scene.finished(DOES_NOT)
    owed = scene.owed(scene.challenger)
    scene.must(scene.challenger, "withdraw", scene.tenant.address)
    assert scene.owed(scene.challenger) == 0
    assert owed > SHORT.bond
    assert scene.refused(scene.challenger, "withdraw", scene.tenant.address) == "disputes: nothing owed"
    invariants.check_all(scene.world)


def test_expand__over_leaves_that_were_not_committed_is_refused(scene: Scene) -> None:
    """Padding and proofs bind: neither other nodes nor another leaf before pass."""
    game, job = scene.challenge(), scene.world.jobs[0]
    other = trace("another", LEAVES)
    assert scene.refused(scene.provider, "expand", game, job.commitment, other.children(0, 0)) == "disputes: other node"
    scene.down(game, 16)
    for leaf, proof in ((other.leaves[15], job.tree.proof(15)), (job.tree.leaves[14], job.tree.proof(14))):
        args = (game, job.commitment, leaf)
        assert (
            scene.refused(scene.provider, "before", *args, padded(proof), spec=(*args, proof)) == "disputes: bad proof"
        )
