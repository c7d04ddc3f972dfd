"""What the owner of a machine wants: to sell it, or to have it back. The wish is a stream of the provider's journal.

`minga reclaim` writes it from a process of its own, the provider reads it; so a wish is durable before anything is
done about it, and a provider that was killed meanwhile knows it when it comes back.

| record      | body             | written by                                                          |
|-------------|------------------|---------------------------------------------------------------------|
| TakenBack   | reason, revoke   | `minga reclaim`; `revoke`: kill the offers of this epoch on chain too |
| Offered     |                  | `minga reclaim --end`; the provider, when it ends in an orderly way |

Rule: the last record counts; nothing here knows leases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minga.core.errors import Conflict, InternalError, InvalidInput
from minga.store.journal import Journal, Record

STREAM = "owner"
WORKING = "provider"
"""The stream that a working provider holds."""

REASON_CHARS_MAX = 200
DEFAULT_REASON = "the owner wants the machine back"


@dataclass(frozen=True, slots=True)
class Wish:
    """The owner's last word: whether the machine was taken back, why, and since when (Unix seconds).

    `revoke` is the number of the last record that asked for it on chain too (0: none did); `seen` that of the last one.
    """

    taken_back: bool = False
    reason: str = ""
    since: int = 0
    revoke: int = 0
    seen: int = 0


def fold(wish: Wish, records: Sequence[Record]) -> Wish:
    """The wish after more records.

    Raises:
        InternalError: a record that this version does not know.
    """
    for record in records:
        if record.kind == "TakenBack":
            since = wish.since if wish.taken_back else record.at
            revoke = record.number if record.body["revoke"] else wish.revoke
            wish = Wish(True, str(record.body["reason"]), since, revoke, record.number)
        elif record.kind == "Offered":
            wish = replace(wish, taken_back=False, reason="", since=record.at, seen=record.number)
        else:
            raise InternalError(f"the journal holds an owner's wish {record.kind!r}", "use the version that wrote it")
    return wish


def read_wish(journal: Journal, known: Wish | None = None) -> Wish:
    """The wish now, from what is `known` on. Blocks for a file."""
    known = known or Wish()
    return fold(known, journal.read(STREAM, known.seen))


def take_back(journal: Journal, reason: str, revoke: bool, now: int) -> Wish:
    """Write down that the owner wants the machine back; again, it changes the reason. Blocks for a file.

    Raises:
        InvalidInput: a reason that is empty, or longer than 200 characters.
    """
    if not reason.strip() or len(reason) > REASON_CHARS_MAX or not reason.isprintable():
        raise InvalidInput("the reason is not one plain line", f"write 1 … {REASON_CHARS_MAX} characters")
    journal.append(STREAM, "TakenBack", {"reason": reason.strip(), "revoke": revoke}, now)
    return read_wish(journal)


def offer_again(journal: Journal, now: int) -> bool:
    """Write down that the machine is for sale again; returns whether it was not. Blocks for a file."""
    if not read_wish(journal).taken_back:
        return False
    journal.append(STREAM, "Offered", {}, now)
    return True


def is_working(journal: Journal) -> bool:
    """Whether a provider works on this journal now."""
    try:
        with journal.exclusive(WORKING):
            return False
    except Conflict:
        return True
