"""The pure agent: what it wants in each phase, and what it never does whatever happens in whatever order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
from cases import CHANNEL, CHOSEN, KEEP, LEAVES, NOTICED, SALT, SEATED, UNTIL, found
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.errors import Conflict, InternalError, MingaError
from minga.validator import events as ev
from minga.validator.agent import begin, replay, step
from minga.validator.events import DOES_NOT_FOLLOW, EVENTS, FOLLOWS, GameSeen, Send, Stage, decode, encode
from minga.validator.state import FETCH_TRIES, Case, Seat, ballot_salt, wanted

NOW = 10


def after(*events: ev.Event) -> Any:
    """The state after these events."""
    return replay([(event, NOW) for event in events])


def wants(*events: ev.Event) -> list[ev.Effect]:
    """What is wanted after these events."""
    return wanted(after(*events), NOW)


# ------------------------------------------------------------------------------------------------------------- a case


def test_a_case_waits_for_the_beacon():
    assert after(NOTICED).phase == "waiting"
    assert wants(NOTICED) == []


def test_what_the_beacon_does_not_choose_is_passed_over():
    assert after(NOTICED, replace(CHOSEN, rate_bps=0)).phase == "passed"
    assert after(NOTICED, replace(CHOSEN, drawn=False)).phase == "passed"
    assert wants(NOTICED, replace(CHOSEN, drawn=False)) == []
    assert wants(NOTICED, CHOSEN) == [ev.Fetch(1)]


def test_the_beacon_chooses_at_its_rate():
    chosen = 0
    for number in range(2000):
        value = "0x" + number.to_bytes(32, "big").hex()
        chosen += after(NOTICED, replace(CHOSEN, value=value, rate_bps=2000)).phase == "fetching"
    assert 330 < chosen < 470  # 400 ± 4 standard deviations


def test_the_pieces_cover_what_the_beacon_samples():
    case = after(NOTICED, CHOSEN, ev.Served(KEEP))
    assert case.phase == "replaying"
    assert all(first % KEEP == 0 and first < last <= first + KEEP and last < LEAVES for first, last in case.segments)
    assert len(set(case.segments)) == len(case.segments) in (1, 2, 3)
    every = after(NOTICED, replace(CHOSEN, count=LEAVES), ev.Served(KEEP))
    assert every.segments == tuple((first, first + KEEP) for first in range(0, LEAVES - 1, KEEP))


def test_a_provider_that_does_not_serve_is_asked_again_and_then_noted():
    events: list[ev.Event] = [NOTICED, CHOSEN]
    for number in range(1, FETCH_TRIES + 1):
        assert wants(*events) == [ev.Fetch(number)]
        events.append(ev.Unserved(f"no answer {number}"))
    case = after(*events)
    assert case.phase == "unserved"
    assert case.noted[-1] == f"no answer {FETCH_TRIES}"
    assert wanted(case, NOW) == []


def test_pieces_are_done_one_after_the_other_until_the_case_is_clear():
    events: list[ev.Event] = [NOTICED, CHOSEN, ev.Served(KEEP)]
    pieces = after(*events).segments
    for first, last in pieces:
        assert wants(*events) == [ev.Replay(first, last)]
        events.append(ev.Replayed(first, last))
    assert after(*events).phase == "cleared"
    assert wants(*events) == []


def test_a_piece_that_cannot_be_done_here_accuses_nobody():
    events: list[ev.Event] = [NOTICED, CHOSEN, ev.Served(KEEP)]
    for first, last in after(*events).segments:
        events.append(ev.Unreplayed(first, last, "no such environment here"))
    assert after(*events).phase == "cleared"
    assert after(*events).noted[-1] == "no such environment here"


def test_a_wrong_leaf_is_challenged_in_time_and_not_later():
    case = after(*found())
    assert case.phase == "proven"
    assert wanted(case, UNTIL - 1) == [Send("challenge")]
    assert wanted(case, UNTIL) == []
    assert after(*found(), ev.Lapsed()).phase == "lapsed"


def test_a_refused_challenge_ends_the_case():
    case = after(*found(), ev.Done("challenge/0/0", "disputes: condemned"))
    assert case.phase == "lapsed"
    assert case.noted[-1].endswith("disputes: condemned")


def test_the_challenger_goes_down_to_the_leaf_it_found():
    journal = found()
    leaf = after(*journal).differs
    node = 0
    for done in range(2):
        seen = GameSeen(3, "pick", done=done, node=node, mover="challenger")
        (effect,) = wants(*journal, seen)
        assert isinstance(effect, Send)
        assert (effect.call, effect.game, effect.done) == ("pick", 3, done)
        node = 16 * node + effect.index
    assert node == leaf


def test_silence_is_claimed_and_only_the_providers():
    journal = found()
    assert wants(*journal, GameSeen(3, "expand", mover="provider")) == []
    assert wants(*journal, GameSeen(3, "expand", mover="provider", overdue=True)) == [Send("timeout", 3)]
    late = wants(*journal, GameSeen(3, "pick", mover="challenger", overdue=True))
    assert [effect.id for effect in late] == ["pick/3/0"]


def test_a_jury_that_erred_is_appealed_against_once():
    journal = found()
    erred = GameSeen(3, "appeal", ballot=1, verdict=FOLLOWS)
    assert wants(*journal, erred) == [Send("appeal", 3)]
    assert wants(*journal, erred, ev.Done("appeal/3/0")) == []
    assert wants(*journal, replace(erred, ballot=2)) == []
    assert wants(*journal, replace(erred, verdict=DOES_NOT_FOLLOW)) == []


def test_a_game_is_drawn_finished_applied_and_paid():
    journal = found()
    assert wants(*journal, GameSeen(3, "draw", node=77)) == [Send("draw", 3, 77)]
    assert wants(*journal, GameSeen(3, "draw", node=77, overdue=True)) == [Send("timeout", 3)]
    assert wants(*journal, GameSeen(3, "decided")) == [Send("finish", 3)]
    condemned = GameSeen(3, "over", convicted=True)
    assert wants(*journal, condemned) == [Send("apply", 3)]
    assert wants(*journal, condemned, ev.Done("apply/3/0")) == [Send("withdraw", 3)]
    assert wants(*journal, GameSeen(3, "over")) == [Send("withdraw", 3)]


def test_the_events_of_another_game_are_refused():
    with pytest.raises(Conflict, match="not the one"):
        after(*found(), GameSeen(3, "expand"), GameSeen(4, "expand"))
    with pytest.raises(Conflict, match="not the one"):
        after(SEATED, GameSeen(8, "vote"))


# ------------------------------------------------------------------------------------------------------------- a seat


def judged(verdict: int = FOLLOWS) -> list[ev.Event]:
    return [SEATED, ev.Served(KEEP), ev.Judged(verdict, SALT)]


def test_a_referee_fetches_judges_binds_itself_and_tells():
    assert wants(SEATED) == [ev.Fetch(1)]
    assert wants(SEATED, ev.Served(KEEP)) == [ev.Judge(SEATED.leaf, True)]
    vote = GameSeen(7, "vote", ballot=1, seated=True)
    bound = (7, 1, FOLLOWS, ballot_salt(SALT, 1))
    assert wants(*judged()) == []
    assert wants(*judged(), vote) == [ev.CommitVote(*bound)]
    assert wants(*judged(), replace(vote, voted=True)) == []
    told = replace(vote, stage="reveal", voted=True)
    assert wants(*judged(), told) == [ev.RevealVote(*bound)]
    assert wants(*judged(), replace(told, told=True)) == []
    assert wants(*judged(), replace(told, voted=False)) == []
    assert wants(*judged(), GameSeen(7, "over")) == [Send("withdraw", 7)]


def test_a_ballot_that_we_do_not_sit_on_is_not_ours():
    assert wants(*judged(), GameSeen(7, "vote", ballot=2, seated=False)) == []


def test_what_is_not_served_after_many_tries_does_not_follow():
    events: list[ev.Event] = [SEATED, *[ev.Unserved("silence")] * FETCH_TRIES]
    assert wants(*events) == [ev.Judge(SEATED.leaf, False)]
    with pytest.raises(Conflict, match="cannot be reached"):
        after(*events, ev.Judged(FOLLOWS, SALT))
    assert after(*events, ev.Judged(DOES_NOT_FOLLOW, SALT)).verdict == DOES_NOT_FOLLOW


def test_who_cannot_judge_does_not_vote():
    events = [SEATED, ev.Served(KEEP), ev.Abstained("no such environment")]
    assert wants(*events, GameSeen(7, "vote", ballot=1, seated=True)) == []
    with pytest.raises(Conflict):
        after(*events, ev.Judged(FOLLOWS, SALT))


def test_each_ballot_has_a_salt_of_its_own():
    assert ballot_salt(SALT, 1) != ballot_salt(SALT, 2) != SALT
    second = GameSeen(7, "vote", ballot=2, seated=True)
    (effect,) = wants(*judged(), second)
    assert effect == ev.CommitVote(7, 2, FOLLOWS, ballot_salt(SALT, 2))


# ------------------------------------------------------------------------------------------------------------ journal


@pytest.mark.parametrize("kind", sorted(EVENTS))
def test_events_survive_the_journal(kind):
    samples = [NOTICED, CHOSEN, SEATED, ev.Served(1), ev.Unserved("x"), ev.Replayed(0, 1), ev.Unreplayed(0, 1, "x")]
    samples += [ev.Judged(1, SALT), ev.Abstained("x"), GameSeen(1, "vote"), ev.Done("x"), ev.Lapsed()]
    event = next(event for event in samples if type(event).__name__ == kind)
    assert decode(*encode(event)) == event


def test_a_journal_of_another_version_is_refused():
    with pytest.raises(InternalError, match="another version"):
        decode("Danced", {})
    with pytest.raises(InternalError, match="another version"):
        decode("Served", {"keep": 1, "tempo": 2})
    assert decode("Done", {"effect": "x"}) == ev.Done("x")


def test_a_journal_begins_with_a_case_or_a_seat():
    with pytest.raises(InternalError, match="does not begin"):
        begin(ev.Lapsed())
    with pytest.raises(InternalError, match="empty"):
        replay([])
    with pytest.raises(InternalError, match="no rule"):
        after(NOTICED, ev.Judged(1, SALT))


# ------------------------------------------------------------------------------------------- whatever happens, and when

LEAF = st.integers(0, LEAVES - 1)
SEEN = st.builds(
    GameSeen, game=st.just(7), stage=st.sampled_from(get_args(Stage)), done=st.integers(0, 1), ballot=st.integers(1, 2),
    mover=st.sampled_from(["provider", "challenger", ""]), overdue=st.booleans(), verdict=st.integers(0, 2),
    seated=st.booleans(), voted=st.booleans(), told=st.booleans(), convicted=st.booleans(),
)  # fmt: skip
WORDS = st.sampled_from(["a", "b"])
SALTS = st.sampled_from([SALT, "0x" + "11" * 32])
COMMON = st.one_of(st.builds(ev.Served, st.integers(1, LEAVES)), st.builds(ev.Unserved, WORDS), SEEN)
CASE_EVENTS = st.one_of(
    COMMON, st.builds(replace, st.just(CHOSEN), rate_bps=st.sampled_from([0, 10_000])),
    st.builds(ev.Replayed, LEAF, LEAF, LEAF, WORDS), st.builds(ev.Unreplayed, LEAF, LEAF, WORDS), st.just(ev.Lapsed()),
)  # fmt: skip
SEAT_EVENTS = st.one_of(COMMON, st.builds(ev.Judged, st.integers(0, 3), SALTS), st.builds(ev.Abstained, WORDS))


class Life:
    """A journal that grows; at any moment the process may die and be rebuilt from what is on disk."""

    def __init__(self, first: ev.Event) -> None:
        self.journal = [first]
        self.state = begin(first)
        self.effects: list[ev.Effect] = []

    def meet(self, event: ev.Event, dies: bool) -> None:
        """Take an event as the loop does: step, journal, then the effects; a death comes before them."""
        event = self._to_the_point(event)
        try:
            state, effects = step(self.state, event, NOW)
        except MingaError:
            assert replay([(known, NOW) for known in self.journal]) == self.state
            return
        self.journal.append(event)
        if dies:
            self.state = replay([(decode(*encode(known)), NOW) for known in self.journal])
            assert self.state == state
            effects = wanted(self.state, NOW)
        self.state = state
        self.effects += effects

    def _to_the_point(self, event: ev.Event) -> ev.Event:
        """Most random pieces are none: make every second one that of the moment."""
        if isinstance(event, ev.Replayed) and isinstance(self.state, Case) and self.state.segments and event.first % 2:
            piece = self.state.segments[min(self.state.checked, len(self.state.segments) - 1)]
            return replace(event, first=piece[0], last=piece[1])
        return event


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(CASE_EVENTS, st.booleans()), max_size=30))
def test_nobody_is_challenged_without_a_leaf_that_came_out_otherwise(happenings):
    life = Life(NOTICED)
    for event, dies in [(CHOSEN, False), (ev.Served(KEEP), True), *happenings]:
        life.meet(event, dies)
    proofs = [event for event in life.journal if isinstance(event, ev.Replayed) and event.differs]
    challenges = [effect for effect in life.effects if isinstance(effect, Send) and effect.call == "challenge"]
    assert len(proofs) <= 1
    assert bool(proofs) or not challenges
    assert len({effect.id for effect in challenges}) <= 1
    picks = [effect for effect in life.effects if isinstance(effect, Send) and effect.call in ("pick", "appeal")]
    assert bool(proofs) or not picks
    assert len({(effect.done, effect.index) for effect in picks if effect.call == "pick"}) <= 2
    assert isinstance(life.state, Case)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(SEAT_EVENTS, st.booleans()), max_size=30))
def test_nobody_votes_in_two_ways(happenings):
    life = Life(SEATED)
    for event, dies in happenings:
        life.meet(event, dies)
    votes = [effect for effect in life.effects if isinstance(effect, ev.CommitVote | ev.RevealVote)]
    assert len({vote.verdict for vote in votes}) <= 1
    for ballot in (1, 2):
        assert len({(vote.verdict, vote.salt) for vote in votes if vote.ballot == ballot}) <= 1
    verdicts = [event for event in life.journal if isinstance(event, ev.Judged)]
    assert len(verdicts) <= 1
    assert bool(verdicts) or not votes
    told = [effect for effect in life.effects if isinstance(effect, ev.RevealVote)]
    assert all(effect.salt == ballot_salt(verdicts[0].salt, effect.ballot) for effect in told)
    assert isinstance(life.state, Seat)


@pytest.mark.parametrize("length", range(1, 9))
def test_a_process_killed_at_any_point_wants_the_same_again(length):
    """The journal's prefix is all that a killed process leaves; what it wanted then is wanted again, under its id."""
    lives: list[list[ev.Event]] = [
        [*found(), GameSeen(3, "pick", done=0), ev.Done("pick/3/0"), GameSeen(3, "pick", done=1, node=1),
         GameSeen(3, "over", convicted=True)],
        [SEATED, ev.Unserved("x"), ev.Served(KEEP), ev.Judged(DOES_NOT_FOLLOW, SALT),
         GameSeen(7, "vote", ballot=1, seated=True), ev.Done("commit/7/1"),
         GameSeen(7, "reveal", ballot=1, seated=True, voted=True), GameSeen(7, "over")],
    ]  # fmt: skip
    for journal in lives:
        prefix = journal[:length]
        state = begin(prefix[0])
        effects = wanted(state, NOW)
        for event in prefix[1:]:
            state, effects = step(state, event, NOW)
        again = replay([(decode(*encode(event)), NOW) for event in prefix])
        assert again == state
        assert wanted(again, NOW) == effects
        assert [effect.id for effect in wanted(again, NOW)] == [effect.id for effect in effects]


def test_the_channel_decides_with_the_beacon():
    others = [replace(NOTICED, channel="0x" + f"{number:064x}") for number in range(40)]
    pieces = {after(other, CHOSEN, ev.Served(KEEP)).segments for other in others}
    assert len(pieces) > 10
    assert after(NOTICED, CHOSEN, ev.Served(KEEP)).facts.channel == CHANNEL
