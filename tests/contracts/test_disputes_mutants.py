"""The net has no hole that we know of: remove a safety line from Disputes, and the seasons notice.

Each mutant is one edit of the sources. Rule: it must be caught by the lockstep, by an invariant, or because somebody
honest was harmed, within a few seeds; one that lives is a hole in the tests (or a line that nobody needs).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import dispute_invariants as invariants
import pytest
from dispute_players import Season
from dispute_scene import Scene
from dispute_world import trace
from evm import ROOT, Reverted, Revm, build_script
from forgeries import RandomDice

from minga.protocol.dispute import SHORT, Verdict, seats_in

SEEDS, GAMES = 10, 20
TURNS = 3
"""One mutant in so many is compiled and played in an ordinary run: which ones, the sources' hash says."""
VOID_GUARD = 'assert not self.condemned[self._tables[game].channel], "disputes: condemned"\n    return state'

MUTANTS: dict[str, tuple[str, str, str]] = {
    "anybody answers for the provider": (
        "Disputes.vy", "return msg.sender == provider or", "return True or msg.sender == provider or",
    ),
    "anybody picks": (
        "Disputes.vy",
        'assert msg.sender == self._low(self._tables[game].accuser), "disputes: not the challenger"', "pass",
    ),
    "other nodes are shown": (
        "Disputes.vy", 'assert tree._fold(children) == self._tables[game].node, "disputes: other node"', "pass",
    ),
    "a leaf beyond the trace is disputed": ("Disputes.vy", "(at < state.leaves and (at > 0", "(True and (at > 0"),
    "leaf zero is disputed": ("Disputes.vy", "(at > 0 or over_operators)", "(at >= 0 or over_operators)"),
    "an answer comes after the clock ran out": (
        "Disputes.vy", 'assert used <= state.provider_left, "disputes: out of time"',
        'assert used <= max_value(uint256), "disputes: out of time"',
    ),
    "the clock is given back at each move": ("Disputes.vy", "moved.provider_left -= used", "pass"),
    "silence is punished a second early": (
        "Disputes.vy", "assert used > state.provider_left", "assert used >= state.provider_left",
    ),
    "a draw is made too late": (
        "Disputes.vy", 'assert block.timestamp < state.since + VOTE_SECONDS, "disputes: out of time"', "pass",
    ),
    "a missed round is never replaced": (
        "Disputes.vy", "if staticcall IBeacon(BEACON).missed(round):", "if False:",
    ),
    "a seat votes twice": (
        "Disputes.vy", 'assert ballots.committed & bit == 0, "disputes: voted before"', "pass",
    ),
    "another reveals a seat's vote": (
        "Disputes.vy", "        and self._low(self._seat_owner[seat]) == msg.sender\n", "",
    ),
    "a vote is not bound to its referee": (
        "Disputes.vy", "keccak256(abi_encode(game, voting, msg.sender, verdict, salt))",
        "keccak256(abi_encode(game, voting, self, verdict, salt))",
    ),
    "a tie convicts": ("modules/play.vy", "2 * self._count(ballots.follows) >=", "2 * self._count(ballots.follows) >"),
    "the winner appeals": (
        "Disputes.vy", "if play._provider_right(self._tables[game].votes[0]):",
        "if not play._provider_right(self._tables[game].votes[0]):",
    ),
    "a verdict is final while it can be appealed": (
        "Disputes.vy", "state.phase == JUDGED and block.timestamp >= state.since + VOTE_SECONDS",
        "state.phase == JUDGED",
    ),
    "an appeal is not counted": ("Disputes.vy", "voting: uint256 = 0 if state.phase == JUDGED else 1\n        outcome",
                                 "voting: uint256 = 0\n        outcome"),
    "games on a condemned commitment go on": ("Disputes.vy", VOID_GUARD, "return state"),
    "a commitment is slashed twice": (
        "Disputes.vy", "    if self.condemned[self._tables[game].channel]:\n        outcome = VOID\n    elif",
        "    if",
    ),
    "a game ends twice": ("Disputes.vy", "assert outcome != 0 and state.phase != DONE", "assert outcome != 0"),
    "sybils get a whole slash back": ("Disputes.vy", "min(slashed // 2, rest)", "min(slashed, rest)"),
    "a reserve is paid twice": ("Disputes.vy", "            self._reserves[channel] = 0\n", ""),
    "a withdrawal can be repeated": ("Disputes.vy", "    self.owed[msg.sender] = 0\n", ""),
    "a stake leaves while games need it": (
        "Disputes.vy", "return free_at > 0 and block.timestamp >= free_at", "return free_at > 0",
    ),
    "silence costs nothing": ("Disputes.vy", "if fines and duties > done:", "if False and fines:"),
    "who leaves is drawn for new games": (
        "Disputes.vy", "    self.pool = self.pool ^ (1 << seat)\n", "",
    ),
}  # fmt: skip


class Roomy(Revm):
    """Without the limit on code: an unoptimised Disputes is larger, and no deployment."""

    LIMIT = 2**20


def late_calls(played: Season) -> None:
    """After the season: games that are over stay over, and what was paid stays paid."""
    world = played.world
    for game in world.rules.tables:
        for name in ("finish", "timeout"):
            assert not world.act(world.stranger, name, game)
    for job in world.jobs:
        assert not world.act(world.stranger, "apply", job.lease)
    for party in world.people:
        assert not world.act(party, "withdraw", party.address)


def corners(instead: dict[str, Any]) -> None:
    """What seasons come to rarely: silence to the second, a silent jury, a hasty end, a jury that the pool corrects."""
    late, silent, hasty, wrong = (Scene(Roomy(), code={"instead": instead}) for _ in range(4))
    game, other = late.challenge(), trace("another", 16).leaves
    assert late.refused(late.provider, "expand", game, late.world.jobs[0].commitment, other) == "disputes: other node"
    late.wait(SHORT.clock)
    assert late.refused(late.stranger, "timeout", game) == "disputes: too early"
    late.wait(1)
    args = (game, late.world.jobs[0].commitment, late.world.children(game))
    assert late.refused(late.provider, "expand", *args) == "disputes: out of time"
    game = silent.to_draw()
    silent.draw(game)
    seat, *_ = seats_in(silent.world.table(game).votings[0].voters)
    vote = silent.world.vote(game, seat, Verdict.FOLLOWS)
    assert silent.refused(silent.stranger, "commit_vote", game, seat, vote) == "disputes: not a voter"
    silent.wait(3 * SHORT.vote_seconds)
    silent.must(silent.stranger, "finish", game)
    invariants.check_all(silent.world)
    game = hasty.judged()
    hasty.wait(SHORT.vote_seconds - 1)
    assert hasty.refused(hasty.stranger, "finish", game) == "disputes: not decided"
    game = wrong.judged(Verdict.FOLLOWS)
    wrong.must(wrong.challenger, "appeal", game)
    wrong.votes(game, Verdict.DOES_NOT)
    wrong.must(wrong.stranger, "finish", game)
    invariants.check_all(wrong.world)


def caught(instead: dict[str, Any]) -> str:
    """What notices the mutant first; empty when nothing does."""
    try:
        corners(instead)
    except (AssertionError, Reverted) as error:
        return f"corners: {error}"
    for seed in range(SEEDS):
        try:
            played = Season(RandomDice(8_000_000 + seed), GAMES, {"instead": instead}, Roomy())
            played.play()
            late_calls(played)
        except (AssertionError, Reverted) as error:
            return f"seed {seed}: {error}"
    return ""


def test_nothing_is_noticed_where_nothing_is_wrong() -> None:
    """The contract as it is lives."""
    assert caught({}) == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_mutant_is_caught(name: str, tmp_path: Path) -> None:
    """One line less, or wrong, and the seasons notice."""
    turn = int(build_script().source_hash(), 16) % TURNS
    if sorted(MUTANTS).index(name) % TURNS != turn and os.environ.get("MINGA_MUTANTS") != "all":
        pytest.skip("a third has its turn by the hash of the contracts; MINGA_MUTANTS=all runs every one")
    file, sound, broken = MUTANTS[name]
    sources = tmp_path / "contracts"
    shutil.copytree(ROOT / "contracts", sources)
    text = (sources / file).read_text()
    assert text.count(sound) == 1, f"the line to change is there {text.count(sound)} times"
    (sources / file).write_text(text.replace(sound, broken))
    build = build_script()
    # Without optimisation: half the time to compile, and the same contract (see the differential test).
    instead = {"Disputes": build.compile_contract(sources / "Disputes.vy", build.settings("none"), sources)}
    assert caught(instead), f"nothing noticed that {name}"
