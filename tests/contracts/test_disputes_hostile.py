"""Tokens, providers, challengers and referees that misbehave: nobody else loses money to them, and no game is stuck."""

from __future__ import annotations

from dataclasses import replace

import dispute_invariants as invariants
import pytest
from dispute_scene import DEPOSIT, Scene
from dispute_world import FUND, STAKE_UNLIMITED
from evm import Reverted

from minga.protocol.dispute import SHORT, Outcome, Verdict
from minga.protocol.stake import UNBONDING_SECONDS

FALSE, NOTHING, REVERTS, BURNS, LONG, TWO = 1, 2, 3, 4, 5, 6
FOLLOWS, DOES_NOT = Verdict.FOLLOWS, Verdict.DOES_NOT


@pytest.fixture
def scene() -> Scene:
    """A deployment on the hostile token, which behaves until it is told not to."""
    return Scene(freezing=True)


def tell(scene: Scene, name: str, *args: object) -> None:
    """Tell the token how to behave."""
    scene.world.send(scene.stranger, scene.world.token, name, args)


# ---------------------------------------------------------------------------------------------------------- the token


@pytest.mark.parametrize("mode", [FALSE, REVERTS, BURNS, TWO])
def test_a_bond_that_does_not_come_begins_no_game(scene: Scene, mode: int) -> None:
    """No bond, no game."""
    commitment = scene.job().commitment
    tell(scene, "set_mode", mode)
    with pytest.raises(Reverted, match="disputes: transfer failed"):
        scene.raw(scene.challenger, "challenge", commitment)
    tell(scene, "set_mode", 0)
    assert scene.court.view("games") == (0,)
    scene.challenge()


@pytest.mark.parametrize("mode", [NOTHING, LONG])
def test_a_token_with_another_return_value_is_served(scene: Scene, mode: int) -> None:
    """Some real tokens return nothing."""
    tell(scene, "set_mode", mode)
    scene.finished()
    scene.must(scene.challenger, "withdraw", scene.challenger.address)
    invariants.check_all(scene.world)


def test_a_frozen_winner_stops_nobody_and_is_paid_elsewhere(scene: Scene) -> None:
    """Everything is owed, nothing is pushed: the game ends, the others are paid, the winner names another address."""
    game = scene.judged()
    for whom in (scene.challenger.address, FUND, scene.provider.address):
        tell(scene, "freeze", whom, 1)
        scene.world.ledger.frozen.add(whom)
    scene.wait(SHORT.vote_seconds)
    scene.must(scene.stranger, "finish", game)
    assert scene.refused(scene.challenger, "withdraw", scene.challenger.address) == "disputes: transfer failed"
    scene.must(scene.challenger, "withdraw", scene.stranger.address)
    invariants.check_all(scene.world)


def test_a_fee_that_the_token_starts_to_take_makes_nobody_insolvent(scene: Scene) -> None:
    """Of a slash counts what arrived: what is owed never exceeds what is there."""
    game = scene.judged()
    scene.wait(SHORT.vote_seconds)
    tell(scene, "set_fee", 5_000)
    scene.raw(scene.stranger, "finish", game)
    events = dict(scene.court.decode(log) for log in scene.machine.logs() if log.address == scene.court.address)
    assert events["Finished"]["slashed"] == SHORT.factor * DEPOSIT // 2
    people = [party.address for party in (*scene.world.people, *scene.world.referees)]
    owed = sum(scene.court.view("owed", owner)[0] for owner in {*people, FUND})
    there = scene.world.token.view("balanceOf", scene.court.address)[0]
    assert there == owed + 5 * SHORT.referee_stake + events["Finished"]["for_tenant"]


def reentries(scene: Scene) -> dict[str, bytes]:
    """Calls that a token could make back into Disputes in the middle of a payout."""
    game, court, job = scene.challenge(), scene.court, scene.world.jobs[0]
    made = job.commitment.as_tuple()
    return {
        "challenge": court.data("challenge", made),
        "expand": court.data("expand", game, made, scene.world.children(game)),
        "timeout": court.data("timeout", game),
        "finish": court.data("finish", game),
        "apply": court.data("apply", scene.lease.as_tuple()),
        "join": court.data("join", 0),
        "withdraw": court.data("withdraw", scene.world.token.address),
        "owed": court.data("owed", scene.challenger.address),
        "game_of": court.data("game_of", game),
        "pool": court.data("pool"),
    }


@pytest.mark.parametrize("name", sorted(reentries(Scene(freezing=True))))
def test_no_call_enters_in_the_middle_of_another(scene: Scene, name: str) -> None:
    """Not even a view: what it would say is neither before nor after."""
    scene.finished(FOLLOWS)
    payload = reentries(scene)[name]
    scene.wait(SHORT.clock + 1)
    tell(scene, "set_callback", scene.court.address, payload)
    scene.must(scene.provider, "withdraw", scene.provider.address)
    assert scene.world.token.view("reentered") == (0,)


# --------------------------------------------------------------------------------------------- providers, challengers


def test_a_sham_that_loses_clears_nothing() -> None:
    """While a sham plays, and after it has lost, others challenge the same commitment and win."""
    scene = Scene()
    sham, real = scene.judged(FOLLOWS), scene.to_draw()
    scene.wait(SHORT.vote_seconds - 1)
    scene.draw(real)
    scene.wait(1)
    scene.must(scene.stranger, "finish", sham)
    assert scene.world.table(sham).outcome is Outcome.ACQUITTED
    scene.votes(real, DOES_NOT)
    scene.wait(SHORT.vote_seconds)
    scene.must(scene.stranger, "finish", real)
    assert scene.world.table(real).outcome is Outcome.CONVICTED


def test_whoever_convicts_itself_gets_back_at_most_half_of_the_slash() -> None:
    """Provider, tenant and challenger are one person: half of the stake is gone, whatever it does."""
    scene = Scene()
    game = scene.challenge()
    scene.wait(SHORT.clock + 1)
    scene.must(scene.stranger, "timeout", game)
    scene.end_lease(DEPOSIT)
    scene.must(scene.stranger, "apply", scene.lease)
    slashed = scene.world.finished[game]["slashed"]
    gained = scene.owed(scene.challenger) + scene.owed(scene.tenant) + scene.owed(scene.provider) - SHORT.bond
    assert slashed == SHORT.factor * DEPOSIT
    assert gained == slashed // 2


def test_a_provider_without_stake_is_condemned_and_the_bond_comes_back() -> None:
    """Two leases in turn under one stake: the second conviction finds nothing, and costs its challenger nothing."""
    scene = Scene()
    world, stakes = scene.world, scene.world.spec.registry
    rest = STAKE_UNLIMITED - SHORT.factor * DEPOSIT
    court, me = scene.court.address, scene.provider.address
    assert world.call(
        scene.provider, world.registry, "start_unstake", (court, rest),
        lambda: stakes.start_unstake(me, world.rules.address, rest, world.now),
    )  # fmt: skip
    scene.wait(UNBONDING_SECONDS)
    assert world.call(
        scene.provider, world.registry, "finish_unstake", (court, me),
        lambda: stakes.finish_unstake(me, world.rules.address, me, world.now),
    )  # fmt: skip
    first = scene.job()
    scene.end_lease(0)  # nothing was paid: the stake is free for the next lease
    scene.lease = world.lease(scene.tenant, scene.provider, DEPOSIT)
    second = scene.job()
    games = [scene.challenge(first), scene.challenge(second)]
    scene.wait(SHORT.clock + 1)
    for game in games:
        scene.must(scene.stranger, "timeout", game)
    assert [world.finished[game]["slashed"] for game in games] == [SHORT.factor * DEPOSIT, 0]
    assert world.finished[games[1]]["to_challenger"] == SHORT.bond
    assert world.rules.condemned == {first.commitment.channel, second.commitment.channel}
    invariants.check_all(world)


def test_a_stolen_agent_key_is_replaced_in_the_middle_of_a_game() -> None:
    """The old key's answers stop counting at once; the new one plays on."""
    scene = Scene()
    game, world = scene.challenge(), scene.world
    old = replace(scene.provider, address=scene.provider.agent.address)
    new = replace(scene.provider, address=scene.stranger.agent.address)
    assert world.call(
        scene.provider, world.registry, "update", ("uri", new.address),
        lambda: world.spec.registry.update(scene.provider.address, new.address),
    )  # fmt: skip
    shown, commitment = world.children(game), world.jobs[0].commitment
    assert scene.refused(old, "expand", game, commitment, shown) == "disputes: not the provider"
    scene.must(new, "expand", game, commitment, shown)


def test_a_challenger_that_never_picks_loses_its_bond_to_the_provider() -> None:
    """Silence loses on both sides; the commitment stands."""
    scene = Scene()
    game = scene.challenge()
    scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, scene.world.children(game))
    scene.wait(SHORT.clock + 1)
    scene.must(scene.stranger, "timeout", game)
    assert scene.owed(scene.provider) == SHORT.bond
    assert not scene.world.rules.condemned


def test_games_that_come_to_nothing_take_nothing_from_the_fund() -> None:
    """Many games on one's own false commitment: their seats are paid out of that slash, and no further."""
    scene = Scene(preset=replace(SHORT, factor=1, seat_fee=15_000))
    scene.must(scene.stranger, "join", SHORT.referee_stake)
    scene.job(wrong=None)
    scene.finished(DOES_NOT)  # fills the fund
    before = scene.court.view("owed", FUND)[0]
    scene.lease = scene.world.lease(scene.tenant, scene.provider, 1_000)
    job = scene.job()
    games = []
    for _ in range(3):
        game = scene.challenge(job)
        scene.down(game)
        scene.draw(game)
        scene.votes(game, DOES_NOT)
        games.append(game)
    scene.wait(SHORT.vote_seconds)
    for game in games:
        scene.must(scene.stranger, "finish", game)
    assert [scene.world.table(game).outcome for game in games] == [Outcome.CONVICTED, Outcome.VOID, Outcome.VOID]
    assert scene.court.view("owed", FUND)[0] >= before
    invariants.check_all(scene.world)
