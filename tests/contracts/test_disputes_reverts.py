"""Every revert string of Disputes and BlockBeacon has a case here that meets it, and no case is without its string."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from dispute_scene import LEAVES, SALT, Scene, forged
from dispute_world import FUND, PLACES, WORK, padded, trace
from evm import ROOT, Contract, Reverted, Revm, deploy

from minga.core.crypto import ZERO_ADDRESS, ZERO_HASH
from minga.protocol.dispute import SHORT

Case = Callable[[Scene], object]
CASES: dict[str, Case] = {}
HOSTILE = {"disputes: token took a fee"}
ROUND = 1


def case(reason: str) -> Callable[[Case], Case]:
    """Enter a case under the revert string that its last call must meet."""

    def enter(function: Case) -> Case:
        assert reason not in CASES
        CASES[reason] = function
        return function

    return enter


def constructor_case(reason: str, places: dict[int, str] | None = None, **preset: int) -> None:
    """A deployment with one wrong place (by number) or constants."""

    def run(scene: Scene) -> Contract:
        world = scene.world
        given = [each.address for each in (world.market, world.token, world.registry, world.beacon)] + [FUND]
        for number, address in (places or {}).items():
            given[number] = address
        return deploy(scene.machine, "Disputes", PLACES, [*given, replace(SHORT, **preset).as_tuple()])

    CASES[reason] = run


constructor_case("disputes: not a contract", {3: "0x" + "77" * 20})
constructor_case("disputes: other deployment", {1: "0x" + "77" * 20})
constructor_case("disputes: no fund", {4: ZERO_ADDRESS})
constructor_case("disputes: bad jury", jury=2)
constructor_case("disputes: bad times", window=21 * 86_400 - SHORT.game_seconds_max + 1)
constructor_case("disputes: bad amounts", bond=66 * SHORT.seat_fee - 1)


def commit_case(reason: str, who: str = "provider", **changes: Any) -> None:
    """A commitment in which one thing is wrong."""

    def run(scene: Scene) -> None:
        lease, leaves = changes.get("lease", lambda lease: lease)(scene.lease), changes.get("leaves", 3)
        signature = scene.world.ordered(scene.lease, changes.get("work", WORK))
        scene.raw(getattr(scene, who), "commit", lease, WORK, WORK, leaves, signature)

    CASES[reason] = run


commit_case("disputes: unknown lease", lease=lambda lease: replace(lease, hold_bps=1))
commit_case("disputes: not the provider", "tenant")
commit_case("disputes: bad leaves", leaves=2**20 + 1)
commit_case("disputes: bad order", work=ZERO_HASH)


@case("disputes: other arbiter")
def _(scene: Scene) -> None:
    world = scene.world
    lease = world.lease(scene.tenant, scene.provider, 1_000, arbiter=ZERO_ADDRESS, hold_bps=0, hold_seconds=0)
    scene.raw(scene.provider, "commit", lease, WORK, WORK, 3, world.ordered(lease))


@case("disputes: committed before")
def _(scene: Scene) -> None:
    scene.job()
    scene.raw(scene.provider, "commit", scene.lease, WORK, WORK, 3, scene.world.ordered(scene.lease))


@case("disputes: lease closed")
def _(scene: Scene) -> None:
    scene.end_lease(0)
    scene.raw(scene.provider, "commit", scene.lease, WORK, WORK, 3, scene.world.ordered(scene.lease))


@case("disputes: unknown commitment")
def _(scene: Scene) -> None:
    scene.raw(scene.challenger, "challenge", forged(scene.job().commitment))


@case("disputes: condemned")
def _(scene: Scene) -> None:
    scene.finished()
    scene.raw(scene.challenger, "challenge", scene.world.jobs[0].commitment)


@case("disputes: window is over")
def _(scene: Scene) -> None:
    job = scene.job()
    scene.wait(SHORT.window)
    scene.raw(scene.challenger, "challenge", job.commitment)


@case("disputes: too few referees")
def _(scene: Scene) -> None:
    for party in scene.world.referees[:3]:
        scene.must(party, "leave")
    scene.raw(scene.challenger, "challenge", scene.job().commitment)


@case("disputes: transfer failed")
def _(scene: Scene) -> None:
    scene.world.approve(scene.challenger, scene.court, SHORT.bond - 1)
    scene.raw(scene.challenger, "challenge", scene.job().commitment)


@case("disputes: token took a fee")
def _(scene: Scene) -> None:
    scene.world.send(scene.stranger, scene.world.token, "set_fee", (1,))
    scene.raw(scene.challenger, "challenge", scene.job().commitment)


@case("disputes: unknown game")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "timeout", scene.challenge() + 1)


@case("disputes: not now")
def _(scene: Scene) -> None:
    scene.raw(scene.challenger, "draw", scene.challenge())


@case("disputes: out of time")
def _(scene: Scene) -> None:
    game = scene.challenge()
    scene.wait(SHORT.clock + 1)
    scene.raw(scene.provider, "expand", game, scene.world.jobs[0].commitment, scene.world.children(game))


@case("disputes: other node")
def _(scene: Scene) -> None:
    game = scene.challenge()
    scene.raw(scene.provider, "expand", game, scene.world.jobs[0].commitment, trace("x", 16).leaves)


def expanded(scene: Scene) -> tuple[int, tuple[bytes, ...]]:
    """A game in which the challenger is to pick, and what was shown."""
    game = scene.challenge()
    shown = scene.world.children(game)
    scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, shown)
    return game, shown


@case("disputes: not the challenger")
def _(scene: Scene) -> None:
    scene.raw(scene.provider, "pick", *expanded(scene), 0)


@case("disputes: other children")
def _(scene: Scene) -> None:
    scene.raw(scene.challenger, "pick", expanded(scene)[0], trace("x", 16).leaves, 0)


@case("disputes: no such leaf")
def _(scene: Scene) -> None:
    scene.raw(scene.challenger, "pick", *expanded(scene), 16)


@case("disputes: bad proof")
def _(scene: Scene) -> None:
    game = scene.challenge()
    scene.down(game, 16)
    tree = scene.world.jobs[0].tree
    scene.raw(scene.provider, "before", game, scene.world.jobs[0].commitment, tree.leaves[14], padded(tree.proof(14)))


def voting(scene: Scene) -> tuple[int, int, int]:
    """A game whose jury votes, a seat that is in it, and one that is not."""
    game = scene.to_draw()
    scene.draw(game)
    voters = scene.world.table(game).votings[0].voters
    inside, *_ = (seat for seat in range(5) if voters >> seat & 1)
    outside, *_ = (seat for seat in range(5) if not voters >> seat & 1)
    return game, inside, outside


@case("disputes: not a voter")
def _(scene: Scene) -> None:
    game, _, outside = voting(scene)
    scene.raw(scene.world.referee_of(outside), "commit_vote", game, outside, WORK)


@case("disputes: voted before")
def _(scene: Scene) -> None:
    game, seat, _ = voting(scene)
    scene.must(scene.world.referee_of(seat), "commit_vote", game, seat, WORK)
    scene.raw(scene.world.referee_of(seat), "commit_vote", game, seat, WORK)


@case("disputes: no vote")
def _(scene: Scene) -> None:
    game, seat, _ = voting(scene)
    scene.raw(scene.world.referee_of(seat), "commit_vote", game, seat, ZERO_HASH)


def reveal_case(reason: str, verdict: int, salt: bytes) -> None:
    """A vote for 1 with `SALT`, revealed otherwise."""

    def run(scene: Scene) -> None:
        game, seat, _ = voting(scene)
        referee = scene.world.referee_of(seat)
        scene.must(referee, "commit_vote", game, seat, scene.world.vote(game, seat, 1, SALT))
        scene.wait(SHORT.vote_seconds)
        scene.raw(referee, "reveal_vote", game, seat, verdict, salt)

    CASES[reason] = run


reveal_case("disputes: bad verdict", 3, SALT)
reveal_case("disputes: other vote", 2, SALT)


@case("disputes: not the loser")
def _(scene: Scene) -> None:
    scene.raw(scene.challenger, "appeal", scene.judged())


@case("disputes: too early")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "timeout", scene.challenge())


@case("disputes: not decided")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "finish", scene.judged())


@case("disputes: lease running")
def _(scene: Scene) -> None:
    scene.job()
    scene.raw(scene.stranger, "apply", scene.lease)


@case("disputes: nothing to apply")
def _(scene: Scene) -> None:
    scene.job()
    scene.end_lease(1_000)
    scene.must(scene.stranger, "apply", scene.lease)
    scene.raw(scene.stranger, "apply", scene.lease)


@case("disputes: leaving")
def _(scene: Scene) -> None:
    scene.must(scene.world.referees[0], "leave")
    scene.raw(scene.world.referees[0], "join", 1)


@case("disputes: pool is full")
def _(scene: Scene) -> None:
    full = Scene(pool=63)
    full.raw(full.stranger, "join", SHORT.referee_stake)


@case("disputes: stake too small")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "join", SHORT.referee_stake - 1)


@case("disputes: stake too large")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "join", 2**96)


@case("disputes: not a referee")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "leave")


@case("disputes: bad receiver")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "withdraw", scene.court.address)


@case("disputes: nothing owed")
def _(scene: Scene) -> None:
    scene.raw(scene.stranger, "withdraw", scene.stranger.address)


CASES["beacon: bad delay"] = lambda scene: deploy(scene.machine, "BlockBeacon", ["uint256"], [129])
CASES["beacon: not yet"] = lambda scene: scene.raw(scene.stranger, "draw", scene.to_draw())


@case("beacon: missed")
def _(scene: Scene) -> None:
    scene.world.set_block(ROUND + 257)
    scene.world.send(scene.stranger, scene.world.beacon, "keep", (ROUND,))


# ------------------------------------------------------------------------------------------------------------- tests


@pytest.mark.parametrize("reason", sorted(CASES))
def test_revert(reason: str) -> None:
    """The case meets its revert string, with no other before it."""
    scene = Scene(Revm(), freezing=reason in HOSTILE)
    with pytest.raises(Reverted) as caught:
        CASES[reason](scene)
    assert caught.value.reason == reason


def test_every_revert_string_has_a_case() -> None:
    """The sources' revert strings and the cases are the same set; every assertion has one."""
    found = set()
    for name in ("Disputes", "BlockBeacon"):
        text = (ROOT / "contracts" / f"{name}.vy").read_text()
        strings = re.findall(r'"((?:disputes|beacon): [^"]+)"', text)
        assert len(re.findall(r"\bassert\b", text)) == len(strings), name
        found |= set(strings)
    assert found == set(CASES)


def test_every_revert_string_is_in_the_prose() -> None:
    """What the interfaces say about reverts is what the contracts do, constructors aside."""
    constructor = {"not a contract", "other deployment", "no fund", "bad jury", "bad times", "bad amounts", "bad delay"}
    prose = "".join(
        (ROOT / "contracts" / "interfaces" / f"{name}.vyi").read_text() for name in ("IDisputes", "IBeacon")
    )
    named = set(re.findall(r'"((?:disputes|beacon): [^"]+)"', " ".join(prose.split())))
    assert named == {reason for reason in CASES if reason.split(": ")[1] not in constructor}


def test_a_huge_index_is_refused_like_any_other() -> None:
    """No arithmetic fails before the check."""
    scene = Scene()
    game, shown = expanded(scene)
    for index in (16, 2**64, 2**256 - 1):
        assert scene.refused(scene.challenger, "pick", game, shown, index) == "disputes: no such leaf"


def test_neither_leaf_zero_nor_one_beyond_the_trace_can_be_picked() -> None:
    """Leaf 0 is checked against the work when leaf 1 is disputed; beyond the last there is `challenge_end`."""
    scene = Scene()
    scene.job(leaves=LEAVES)
    for path in ((0, 0), (2, 8), (2, 15)):
        game = scene.challenge()
        *way, last = path
        for child in way:
            shown = scene.world.children(game)
            scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, shown)
            scene.must(scene.challenger, "pick", game, shown, child)
        shown = scene.world.children(game)
        scene.must(scene.provider, "expand", game, scene.world.jobs[0].commitment, shown)
        assert scene.refused(scene.challenger, "pick", game, shown, last) == "disputes: no such leaf"
