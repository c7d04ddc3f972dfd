"""From evidence to a finding: which leaf, if any, comes out otherwise here.

A replay begins at the kept state before the piece in question. Where that state is not served, or cannot be put back
by the job, the replay begins at the kept state before it, and at last at the work itself, which needs no state. So a
provider that commits to states which it withholds, or which crash whoever restores them, only makes the check longer:
whoever has the work finds the first leaf that does not follow from it.

A leaf that came out otherwise is done twice before it counts. Work that differs from itself (its author forgot to seed
a generator, or it asks the clock) is `Undetermined`: a tenant must not be able to order what convicts whoever does it.
Where only its beginning is undetermined, the steps after it are checked from the provider's own state of leaf 0.

Knows: how far to go back, what a difference is. Does not know: money, games. Rule: a difference is a leaf that two
replays wrote alike and that is not the committed one; trouble of any other kind accuses nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from minga.core.errors import NotServed, ReplayFailed, Undetermined
from minga.core.spec import FileEntry
from minga.validator.events import DOES_NOT_FOLLOW, FOLLOWS
from minga.validator.evidence import Evidence
from minga.validator.moves import first_wrong
from minga.validator.replays import Replayer


class FetchState(Protocol):
    """Have the kept state of a leaf among the evidence's blobs; raises NotServed. See `Evidence.state`."""

    async def __call__(self, evidence: Evidence, leaf: int, own: bool = True) -> FileEntry | None:
        """The file, or None where none is needed."""
        ...


BACK_MAX = 64
"""How many kept states are tried before the work itself is."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What doing leaves `start` + 1 … `last` again gave. `differs`: the first wrong leaf, 0 for none; `own`: hex of
    what came out there ("" when the job ended before it); `back`: why the replay began earlier than it needed to.
    """

    start: int
    last: int
    differs: int = 0
    own: str = ""
    back: tuple[str, ...] = ()


async def check(replayer: Replayer, fetch: FetchState, name: str, evidence: Evidence, first: int, last: int) -> Finding:
    """Do leaves `first` + 1 … `last` again, from an earlier leaf if need be; see the module.

    Args:
        name: a task id that no other replay has now.
        first: a kept leaf, below `last`.

    Raises:
        ReplayFailed: not even the work itself can be done here.
        Undetermined: it does not come out the same twice.
        DiskFull: no room on our own disk.
    """
    start, own, back = await _own(replayer, fetch, name, evidence, first, last)
    differs = first_wrong(evidence.leaves[: last + 1], own, start)
    if differs:
        own = await _sure(replayer, fetch, name, evidence, start, last, own)
        differs = first_wrong(evidence.leaves[: last + 1], own, start)
    mine = own[differs - start - 1] if differs and differs - start - 1 < len(own) else b""
    return Finding(start, last, differs, "0x" + mine.hex() if mine else "", back)


async def goes_on(replayer: Replayer, fetch: FetchState, name: str, evidence: Evidence) -> bool:
    """Whether the work makes another leaf after the last one that was committed to; raises as `check`."""
    count = len(evidence.leaves)
    first = evidence.start_for(count - 2) if count > 1 else 0
    start, own, _ = await _own(replayer, fetch, name, evidence, first, count)
    if len(own) < count - start:
        return False
    return len(await replayer.again(name, evidence, start, count)) == count - start


async def _sure(
    replayer: Replayer, fetch: FetchState, name: str, evidence: Evidence, start: int, last: int, once: list[bytes]
) -> list[bytes]:
    """The leaves that come out twice the same; `once` is how they came out. Raises Undetermined when none do."""
    if await replayer.again(name, evidence, start, last) == once:
        return once
    if start == 0:
        try:
            await fetch(evidence, 0, own=False)
            first = await replayer.again(name, evidence, 0, last, own=False)
            if await replayer.again(name, evidence, 0, last, own=False) == first:
                return first
        except NotServed:
            pass
    raise Undetermined("the work does not come out the same twice", "seed every generator, and ask no clock")


async def _own(
    replayer: Replayer, fetch: FetchState, name: str, evidence: Evidence, first: int, last: int
) -> tuple[int, list[bytes], tuple[str, ...]]:
    """From where the replay began, the leaves after it up to `last`, and why it did not begin at `first`."""
    back: list[str] = []
    start = first
    while True:
        try:
            await fetch(evidence, start)
            return start, await replayer.again(name, evidence, start, last), tuple(back)
        except (NotServed, ReplayFailed) as error:
            back.append(error.fact)
            if start == 0:
                raise ReplayFailed(error.fact, error.remedy) from error
            start = max(0, start - evidence.keep) if len(back) < BACK_MAX else 0


def verdict(finding: Finding, leaf: int) -> tuple[int, str]:
    """What a referee says of `leaf`, which `finding` reached, and why.

    A leaf before it that came out otherwise means that the state from which `leaf` is said to follow is none that the
    work reaches, and was not served either: there is nothing from which it could follow.
    """
    if not finding.differs:
        return FOLLOWS, f"leaves {finding.start + 1} to {leaf} came out as committed"
    if finding.differs < leaf:
        return DOES_NOT_FOLLOW, f"leaf {finding.differs}, before it, came out otherwise: there is no such state"
    return DOES_NOT_FOLLOW, f"leaf {leaf} came out as {finding.own[:18] or 'nothing: the job had ended'}"
