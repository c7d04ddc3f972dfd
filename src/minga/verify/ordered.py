"""Whether a trace is whole, and of the kind that was ordered; and what a killed job left, made whole.

A provider asks before it commits, since it answers for a trace with its stake; its tenant asks before it believes that
there is something to commit to. Knows: the files of a trace (`minga.verify.leaves`). Does not know: what a leaf is the
hash of, nor chains. Rule: what passes here can be served and replayed as far as files can tell.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from minga.core.codec import canonical_json, parse_json
from minga.core.errors import InvalidInput, MingaError
from minga.core.work import Trace
from minga.verify.leaves import FACTS_BYTES_MAX, LEAF_BYTES, TraceFacts, read_trace, state_name

FOLDER = "trace"
"""The folder of the trace among what a job leaves."""

FACTS, LEAVES = f"{FOLDER}/trace.json", f"{FOLDER}/leaves.bin"
REMEDY = "use `minga.trace` in the job, with the settings that it finds in its environment"


def check_ordered(trace: Trace, facts: bytes, leaves: bytes, names: Collection[str]) -> list[bytes]:
    """The leaves of a trace that is whole and traced as ordered.

    Args:
        trace: how it was to be traced.
        facts, leaves: the bytes of `trace.json` and `leaves.bin`.
        names: the paths of all that the job left.

    Raises:
        InvalidInput: the numbers are others than those ordered or do not fit the leaves, or a kept state is missing.
    """
    try:
        found = TraceFacts(**parse_json(facts, FACTS_BYTES_MAX))
        found.check()
    except (MingaError, TypeError) as error:
        why = error.fact if isinstance(error, MingaError) else "other fields"
        raise InvalidInput(f"trace.json is not that of a trace: {why}"[:200], REMEDY) from None
    for name in ("determinism", "every", "keep"):
        told, asked = getattr(found, name), getattr(trace, name)
        if told != asked:
            raise InvalidInput(f"the trace has {name} {told}, ordered was {asked}", REMEDY)
    if len(leaves) != LEAF_BYTES * found.leaves:
        raise InvalidInput(f"{len(leaves)} bytes of leaves for {found.leaves} leaves", REMEDY)
    for leaf in range(0, found.leaves, found.keep):
        if f"{FOLDER}/{state_name(leaf)}" not in names:
            raise InvalidInput(f"the state at leaf {leaf} is not there", "order more disk, or keep fewer states")
    return [leaves[at : at + LEAF_BYTES] for at in range(0, len(leaves), LEAF_BYTES)]


def mended(folder: Path) -> tuple[bytes, bytes]:
    """`trace.json` and `leaves.bin` of the trace in `folder`, as far as its job came before it was killed. Blocking.

    Raises:
        InvalidInput, TooLarge: there is no trace that could be made whole.
    """
    facts, leaves = read_trace(folder)
    return canonical_json(asdict(facts)), b"".join(leaves)
