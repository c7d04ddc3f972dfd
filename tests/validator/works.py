"""A small piece of traced work for the tests: a job that needs nothing but Python, and what its provider committed to.

The state is 32 bytes, and a step hashes it with the step's number and the file `data`. The job keeps to the trace
library's rules (`MINGA_TRACE_*`, `MINGA_REPLAY`), so that replays can be tried in a sandbox in a fraction of a second;
the library itself is tried with PyTorch in tests/scenarios.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from blake3 import blake3

from minga.client.bundle import pack_files
from minga.core.crypto import Address, Hash32, PrivateKey, to_hex
from minga.core.eip712 import Domain
from minga.core.spec import Bundle, FileEntry
from minga.core.work import Trace, Work
from minga.protocol.merkle import Tree
from minga.protocol.messages import Ordered, sign
from minga.store.blobs import BlobStore
from minga.validator.evidence import Claim, Evidence

STEPS, KEEP = 25, 10
DATA = b"what is learnt"
DOMAIN = Domain(31337, Address("0x" + "d1" * 20))
CHANNEL = Hash32("0x" + "c4" * 32)

JOB = """\
import hashlib, os, pathlib, sys
steps = int(os.environ.get("STEPS", "25"))
data = pathlib.Path("data").read_bytes()
def step(state, number):
    return hashlib.sha256(state + number.to_bytes(4, "big") + data).digest()
def leaf(state):
    return LEAF(state)
first, last = (int(part) for part in os.environ["MINGA_REPLAY"].split(":")[:2])
folder = pathlib.Path(os.environ["MINGA_REPLAY_DIR"])
state = b"\\0" * 32
if first:
    state = (folder / "states" / f"{first:08d}.state").read_bytes()
    if len(state) != 32:
        sys.exit("this is no state")
folder.mkdir(parents=True, exist_ok=True)
with open(folder / "leaves.bin", "wb") as out:
    for number in range(first, min(last, steps)):
        state = step(state, number)
        out.write(leaf(state))
print("done")
"""


def leaf_of(state: bytes) -> bytes:
    """The hash of a state, as everywhere."""
    return bytes(blake3(state).digest())


def honest(state: bytes, number: int) -> bytes:
    """One step as the work orders it."""
    import hashlib

    return hashlib.sha256(state + number.to_bytes(4, "big") + DATA).digest()


Step = Callable[[bytes, int], bytes]


@dataclass
class Done:
    """A work that a provider did, with `step`: what it can serve, and what it committed to."""

    blobs: BlobStore
    work: Work
    signature: bytes
    claim: Claim
    leaves: list[bytes]
    files: dict[str, FileEntry] = field(default_factory=dict)

    def evidence(self, blobs: BlobStore | None = None) -> Evidence:
        """What an audit makes of it."""
        return Evidence(self.claim, self.work, tuple(self.leaves), STEPS, self.files, blobs or self.blobs)

    def put(self, path: str, data: bytes) -> None:
        """Let a file be served under `path`."""
        name = self.blobs.add_bytes(data)
        self.files[path] = FileEntry(path=path, bytes=len(data), blake3=name)


def facts(**changes: object) -> bytes:
    """The bytes of a `trace.json`."""
    told = {"version": 1, "determinism": "D0", "every": 1, "keep": KEEP, "first_step": 0, "steps": STEPS}
    return json.dumps(told | {"leaves": STEPS + 1} | changes).encode()


def done(folder: Path, signer: PrivateKey, step: Step = honest, job: str = JOB) -> Done:
    """Do the work with `step` and commit to what came of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(job.replace("LEAF(state)", "blake(state)"))
    (folder / "blake.py").write_text(PURE_BLAKE3)
    (folder / "data").write_bytes(DATA)
    blobs = BlobStore(folder / "blobs")
    packed = pack_files({name: folder / name for name in ("train.py", "blake.py", "data")}, blobs)
    inputs = [Bundle(kind="workdir", target="/job/work", blake3=packed.blake3, bytes=packed.bytes)]
    run = "python3 -c 'from blake import blake; exec(open(\"train.py\").read())'"
    work = Work(environment="python", run=run, inputs=inputs, trace=Trace(every=1, keep=KEEP))
    states = [bytes(32)]
    for number in range(STEPS):
        states.append(step(states[-1], number))
    leaves = [leaf_of(state) for state in states]
    work_hash = work.hash32()
    claim = Claim(CHANNEL, work_hash, Hash32(to_hex(Tree(leaves).root)), len(leaves), signer.address)
    made = Done(blobs, work, sign(Ordered(CHANNEL, work_hash), DOMAIN, signer), claim, leaves)
    made.put("trace/trace.json", facts())
    made.put("trace/leaves.bin", b"".join(leaves))
    for kept in range(0, STEPS + 1, KEEP):
        made.put(f"trace/states/{kept:08d}.state", states[kept])
    return made


def committed_to(made: Done, leaves: list[bytes]) -> Done:
    """The same provider, had it committed to other leaves; it serves those, too."""
    claim = replace(made.claim, root=Hash32(to_hex(Tree(leaves).root)), leaves=len(leaves))
    other = replace(made, claim=claim, leaves=leaves, files=dict(made.files))
    other.put("trace/leaves.bin", b"".join(leaves))
    return other


PURE_BLAKE3 = '''\
"""BLAKE3 of at most 64 bytes, for a bare Python."""
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
def mix(v, a, b, c, d, x, y):
    for word, (r1, r2) in ((x, (16, 12)), (y, (8, 7))):
        v[a] = (v[a] + v[b] + word) & 0xFFFFFFFF
        v[d] = turn(v[d] ^ v[a], r1)
        v[c] = (v[c] + v[d]) & 0xFFFFFFFF
        v[b] = turn(v[b] ^ v[c], r2)
def turn(x, n):
    return (x >> n | x << (32 - n)) & 0xFFFFFFFF
def blake(data):
    block = [int.from_bytes(data.ljust(64, b"\\\\0")[at:at + 4], "little") for at in range(0, 64, 4)]
    v = [*IV, *IV[:4], 0, 0, len(data), 1 | 2 | 8]
    for _ in range(7):
        for at in range(4):
            mix(v, at, 4 + at, 8 + at, 12 + at, block[2 * at], block[2 * at + 1])
        for at in range(4):
            mix(v, at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4, block[8 + 2 * at], block[9 + 2 * at])
        block = [block[at] for at in ORDER]
    return b"".join((v[at] ^ v[at + 8]).to_bytes(4, "little") for at in range(8))
'''.replace("\\\\0", "\\0")
