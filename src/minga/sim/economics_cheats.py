"""Ways of cheating a tenant, each a few choices; `economics_play` plays them.

Knows: what a cheat does. Does not know: what it earns. A strategy is data, and docs/audits.md uses the same words.
Everything is read in the cheat's favour: convicted providers challenge themselves under another name (`launders`)
unless the strategy is about something else, and a settled record is theirs for nothing after each conviction unless
the strategy is about fresh names.

Rule: a new way of cheating is a new entry here, and is judged like all others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from minga.core.units import BPS

When = Literal["always", "lenient", "lucky"]
"""Which jobs are faked: all; those audited at the lowest rate; a half that looks unwatched."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """A way of cheating.

    `fake` is the share of leaves that are faked, `worth` what that saves of the full saving (basis points both).
    """

    name: str
    story: str
    fake: int = BPS
    worth: int = BPS
    when: When = "always"
    launders: bool = True
    fresh_every: int = 0
    """Jobs after which a new name with fresh stake is taken; 0: never."""
    reborn: bool = False
    """Whether a convicted provider begins as a newcomer."""
    bought_value: int = 0
    """Audited value that was bought before by own jobs, in multiples of a job's exposure."""
    cheap_jobs: int = 0
    """Own jobs of a cent each between two that are faked."""
    sham: bool = False
    withholds: bool = False
    serves_late: bool = False
    commits: bool = True
    early: bool = False
    bribes: bool = False
    stalls: bool = False
    floods: bool = False
    small: bool = False
    """Whether it takes nothing but the cheapest jobs."""
    appeals: bool = False
    """Whether it appeals each conviction to a pool in which its referees sit."""
    tests: str = ""
    """The rules of `economics_world.RULES` that are there because of it."""


CHEATS = (
    Cheat("fake-all", "returns made-up states for every step", launders=False),
    Cheat("self-challenge", "the same, and challenges itself to get half of the slash back"),
    Cheat(
        "flood-games", "the same, and opens games until their seats have eaten what the fund should get",
        floods=True, tests="void",
    ),
    Cheat("fake-tenth", "fakes one leaf in ten", fake=1_000, worth=1_000),
    Cheat("fake-hundredth", "fakes one leaf in a hundred", fake=100, worth=100),
    Cheat("cheap-model", "runs a smaller model everywhere, which saves two thirds", worth=6_667),
    Cheat("rich-history", "fakes only where its record makes audits rarest", when="lenient", tests="floor"),
    Cheat("looks-unaudited", "fakes the half of its jobs that look unwatched", when="lucky"),
    Cheat("small-jobs", "fakes only the cheapest jobs, where seat fees weigh most", small=True),
    Cheat("exit-scam", "buys cheap jobs from itself, then fakes dear ones", cheap_jobs=20),
    Cheat("bought-history", "buys audited value from itself at inflated prices, then fakes", bought_value=100),
    Cheat("sybil-names", "takes a new name with fresh stake every five jobs", fresh_every=5),
    Cheat("whitewash", "fakes until convicted, then begins anew under another name", reborn=True),
    Cheat("sham-challenge", "lets a friend challenge each commitment and lose, to clear it", sham=True),
    Cheat("withhold", "commits, and never serves the trace", withholds=True),
    Cheat(
        "withhold-bait", "serves the trace to referees alone, and takes the bonds of those who complained",
        fake=1_000, worth=1_000, withholds=True, serves_late=True, tests="bond, shared",
    ),
    Cheat(
        "bait", "works honestly, serves the trace to referees alone, and farms seat fees",
        fake=0, worth=0, withholds=True, serves_late=True, tests="bond, shared",
    ),
    Cheat("collude-referees", "appeals each conviction to a pool in which its own referees sit", appeals=True),
    Cheat("bribe", "pays corrupt validators their audit pay again to look away", bribes=True),
    Cheat("stall", "drags every game out to use one stake for several jobs", stalls=True, tests="cover"),
    Cheat("never-commit", "is paid, and commits to nothing", commits=False, tests="demand"),
    Cheat("commit-early", "commits to nonsense while a tenth of the deposit is there", early=True, tests="late"),
)  # fmt: skip
"""Every listed way. In all of them the corrupt referees vote for the cheat, and the corrupt validators find nothing."""

BY_NAME = {cheat.name: cheat for cheat in CHEATS}
