"""What a provider served about one commitment, checked: the work, its leaves, its kept states. A claim until replayed.

| checked here                                            | against                                             |
|---------------------------------------------------------|-----------------------------------------------------|
| the work's hash                                         | the commitment                                      |
| the signature over `Ordered(channel, work)`             | the lease's session signer, on chain                |
| the number of leaves, and the root over them            | the commitment                                      |
| `trace.json`: class, `every`, `keep`, steps             | the work, the leaves                                |
| each kept state, each input: its bytes                  | its leaf, its name in the work                      |

So whatever passes is what the provider committed to and the tenant ordered, or the provider did not serve. Does not
know: how it was fetched, or whether any leaf is right. Pure but for reading files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minga.core.codec import parse_json
from minga.core.crypto import Address, Hash32, from_hex, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import MingaError, NotServed
from minga.core.spec import Bundle, FileEntry
from minga.core.work import Work
from minga.protocol.merkle import LEAVES_MAX, Tree
from minga.protocol.messages import Ordered, verify
from minga.store.blobs import BlobStore

FACTS, LEAVES, CLASS = "trace/trace.json", "trace/leaves.bin", "trace/class.json"
FACTS_BYTES_MAX = 4096
LEAF_BYTES = 32
STATE_BYTES_MAX = 1 << 37
REMEDY = "nothing can be checked without it"


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands on chain of a commitment: its channel, the hash of its work, its root, its leaves, and the lease's
    session signer.
    """

    channel: Hash32
    work: Hash32
    root: Hash32
    leaves: int
    signer: Address


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is needed to do a commitment's work again. `steps` is how many the whole trace has; `place` what
    the provider says of the machine that did it (`verify.leaves.computing_class`; nobody's claim).
    """

    claim: Claim
    work: Work
    leaves: tuple[bytes, ...]
    steps: int
    files: dict[str, FileEntry]
    blobs: BlobStore
    place: dict[str, Any] = field(default_factory=dict)

    @property
    def keep(self) -> int:
        """Leaves between two kept states."""
        return self.work.trace.keep

    def start_for(self, leaf: int) -> int:
        """The kept leaf at or before `leaf` from which a replay begins."""
        return leaf // self.keep * self.keep

    def state(self, leaf: int, own: bool = True) -> FileEntry | None:
        """The kept state of a leaf; None at leaf 0, which follows from the work (with `own` false: also that one).

        Raises:
            NotServed: it is not among the files, or is not the state of that leaf.
        """
        if leaf == 0 and own:
            return None
        entry = self.files.get(f"trace/states/{leaf:08d}.state")
        if entry is None or entry.bytes > STATE_BYTES_MAX:
            raise NotServed(f"the state of leaf {leaf} is not served", REMEDY)
        if from_hex("0x" + entry.blake3) != self.leaves[leaf]:
            raise NotServed(f"what is served as the state of leaf {leaf} is another one", REMEDY)
        return entry

    def inputs(self) -> list[Bundle]:
        """The work's inputs, each named by its hash."""
        return list(self.work.inputs)


def check_order(claim: Claim, work: Work, signature: bytes, domain: Domain) -> None:
    """Return if this is the work that was committed to and that the tenant ordered.

    Raises:
        NotServed: it is other work, or the tenant did not sign it for this lease.
    """
    if work.hash32() != claim.work:
        raise NotServed(f"the work served has the hash {work.hash32()}, not the committed one", REMEDY)
    try:
        verify(Ordered(claim.channel, claim.work), domain, signature, claim.signer)
    except MingaError as error:
        raise NotServed(f"the order is not the tenant's: {error.fact}"[:300], REMEDY) from None


def check_leaves(claim: Claim, data: bytes) -> tuple[bytes, ...]:
    """The leaves in a file's bytes, if they are those that were committed to.

    Raises:
        NotServed: too few, too many, torn, or under another root.
    """
    if len(data) != LEAF_BYTES * claim.leaves or not 1 <= claim.leaves <= LEAVES_MAX:
        raise NotServed(f"{len(data)} bytes of leaves were served for {claim.leaves} leaves", REMEDY)
    leaves = tuple(data[at : at + LEAF_BYTES] for at in range(0, len(data), LEAF_BYTES))
    if to_hex(Tree(leaves).root) != claim.root:
        raise NotServed("the leaves served are not those under the committed root", REMEDY)
    return leaves


def check_facts(work: Work, leaves: int, data: bytes) -> int:
    """The number of steps that `trace.json` says, if it fits the work and the leaves.

    Raises:
        NotServed: it does not.
    """
    try:
        found = parse_json(data, FACTS_BYTES_MAX)
    except MingaError:
        found = None
    if not isinstance(found, dict):
        raise NotServed("trace.json is not a JSON object", REMEDY)
    trace = work.trace
    asked: dict[str, Any] = {"determinism": trace.determinism, "every": trace.every, "keep": trace.keep}
    if {name: found.get(name) for name in asked} != asked or found.get("leaves") != leaves:
        raise NotServed("trace.json tells of another trace than the one that was ordered", REMEDY)
    steps = found.get("steps")
    if type(steps) is not int or -(-steps // trace.every) != leaves - 1:
        raise NotServed("trace.json counts other steps than its leaves", REMEDY)
    return steps


def read_place(data: bytes) -> dict[str, Any]:
    """What `class.json` says; empty when it says nothing that can be read."""
    try:
        found = parse_json(data, FACTS_BYTES_MAX)
    except MingaError:
        return {}
    return found if isinstance(found, dict) else {}
