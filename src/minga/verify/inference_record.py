"""What a tenant asks of a language model, what a provider answers and shows for it, and the commitment over it.

| leaf | bytes that are hashed (BLAKE3), all numbers little-endian                                                  |
|------|------------------------------------------------------------------------------------------------------------|
| 0    | `minga.inference.request` ‖ the request's hash (keccak of its canonical JSON)                               |
| i    | `minga.inference.chunk` ‖ leaf i−1 ‖ how many tokens ‖ the tokens, 4 bytes each ‖ their evidence             |

A chunk is 32 tokens, the last one may be shorter. Its evidence is a fingerprint of activations (see
`inference_fingerprint`) or, where an engine shows no activations, the log-probability of each token. The leaves go
into `protocol.merkle.Tree`; its root is committed before the beacon of the audit is known.

The sampling seed is a hash of job, beacon and index, so neither side chooses it. Knows: forms and hashes. Does not
know: models. Rule: a stranger's reply is parsed here, wholly and strictly, before any model runs.
"""

from __future__ import annotations

import struct
from typing import Annotated, Any, Literal, Self

from blake3 import blake3
from pydantic import Field

from minga.core.errors import BadEvidence, InvalidInput, TooLarge
from minga.core.spec import Model
from minga.protocol.merkle import Tree

CHUNK = 32
"""Tokens a leaf, as in TOPLOC (arXiv 2501.16007)."""
TOP = 128
"""Activations that a fingerprint holds, as in TOPLOC: 258 bytes with the modulus."""
TOKENS_MAX = 16_384
"""Longest reply: its JSON stays under a mebibyte."""
PROMPT_MAX = 131_072
LOGPROB_SCALE = 1024
"""A log-probability is shown as round(−1024 · ln p), at most 65,535: steps of 0.001 nats down to e⁻⁶⁴."""

Token = Annotated[int, Field(ge=0, lt=2**32)]
Digest = Annotated[str, Field(pattern=r"^0x[0-9a-f]{64}$")]
Numerics = Literal["fp32", "bf16"]
Evidence = Literal["activations", "logprobs"]


class Sampling(Model):
    """How a token is drawn: temperature and nucleus in thousandths, so that they have one canonical form.

    Temperature 0 takes the likeliest token. `top_p_milli` 1000 switches the nucleus off.
    """

    temperature_milli: Annotated[int, Field(ge=0, le=5000)] = 1000
    top_p_milli: Annotated[int, Field(ge=1, le=1000)] = 1000


class Request(Model):
    """Everything that decides a reply. `numerics` is what the job declares that the model computes in."""

    version: Literal[1] = 1
    model: Digest
    prompt: Annotated[list[Token], Field(min_length=1, max_length=PROMPT_MAX)]
    sampling: Sampling
    tokens_max: Annotated[int, Field(ge=1, le=TOKENS_MAX)]
    stop: Annotated[list[Token], Field(max_length=16)] = []
    numerics: Numerics = "fp32"
    evidence: Evidence = "activations"
    job: Digest
    beacon: Digest
    index: Annotated[int, Field(ge=0, lt=2**32)] = 0

    @property
    def seed(self) -> bytes:
        """The sampling seed, 32 bytes: known to nobody before the beacon's round, and to everybody after it."""
        context = blake3(derive_key_context="minga inference sampling seed 1")
        context.update(bytes.fromhex(self.job[2:]) + bytes.fromhex(self.beacon[2:]) + struct.pack("<I", self.index))
        return context.digest()


class Reply(Model):
    """What the provider answers: tokens, why they end, and the evidence of each chunk in hex."""

    tokens: Annotated[list[Token], Field(min_length=1, max_length=TOKENS_MAX)]
    finish: Literal["stop", "length"]
    chunks: Annotated[list[str], Field(min_length=1, max_length=TOKENS_MAX // CHUNK)]

    @classmethod
    def read(cls, value: Any) -> Self:
        """From a stranger's JSON.

        Raises:
            BadEvidence: it has not the form of a reply.
        """
        try:
            return cls.parse(value)
        except (InvalidInput, TooLarge) as error:
            raise BadEvidence(
                f"not a reply: {error.fact}", "ask the provider for the reply that it committed to"
            ) from None

    def rows(self, chunk: int) -> int:
        """How many tokens `chunk` has."""
        return min(CHUNK, len(self.tokens) - CHUNK * chunk)


def evidence_bytes(request: Request, rows: int, width: int) -> int:
    """The exact length of a chunk's evidence: `rows` tokens, activations of `width` numbers."""
    return 2 * rows if request.evidence == "logprobs" else 2 + 2 * min(TOP, rows * width)


def opened(request: Request, reply: Reply, vocabulary: int, width: int) -> list[bytes]:
    """The evidence of every chunk, after everything was checked that needs no model.

    Raises:
        BadEvidence: a token that the model has not, an end that the request does not allow, a number of chunks or a
            length of one that does not fit the tokens.
    """
    tokens, stop = reply.tokens, set(request.stop)
    _need(max(tokens) < vocabulary, f"a token is not below {vocabulary}")
    _need(len(tokens) <= request.tokens_max, f"{len(tokens)} tokens, at most {request.tokens_max} were asked for")
    _need(not stop.intersection(tokens[:-1]), "the reply goes on after a stop token")
    if reply.finish == "stop":
        _need(tokens[-1] in stop, "the reply says that it stopped, without a stop token")
    else:
        _need(len(tokens) == request.tokens_max, f"the reply ends early, after {len(tokens)} tokens")
    expected = -(-len(tokens) // CHUNK)
    _need(len(reply.chunks) == expected, f"{len(reply.chunks)} chunks of evidence for {expected} chunks of tokens")
    return [_raw(text, evidence_bytes(request, reply.rows(at), width), at) for at, text in enumerate(reply.chunks)]


def leaves(request: Request, reply: Reply) -> list[bytes]:
    """The leaves of the commitment, leaf 0 included.

    Raises:
        BadEvidence: a chunk is not hex.
    """
    found = [first_leaf(request)]
    for at, text in enumerate(reply.chunks):
        found.append(next_leaf(found[-1], reply.tokens[CHUNK * at : CHUNK * (at + 1)], _raw(text, None, at)))
    return found


def first_leaf(request: Request) -> bytes:
    """Leaf 0: the request."""
    return blake3(b"minga.inference.request" + bytes.fromhex(request.hash32()[2:])).digest()


def next_leaf(before: bytes, tokens: list[int], evidence: bytes) -> bytes:
    """The leaf of a chunk; it binds all that came before."""
    counted = struct.pack(f"<{len(tokens) + 1}I", len(tokens), *tokens)
    return blake3(b"minga.inference.chunk" + before + counted + evidence).digest()


def root(request: Request, reply: Reply) -> bytes:
    """What is committed."""
    return Tree(leaves(request, reply)).root


def _raw(text: str, length: int | None, at: int) -> bytes:
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    _need(raw.hex() == text and raw != b"", f"the evidence of chunk {at} is not lower-case hex")
    _need(length in (None, len(raw)), f"the evidence of chunk {at} has {len(raw)} bytes, not {length}")
    return raw


def _need(holds: bool, fact: str) -> None:
    if not holds:
        raise BadEvidence(fact, "ask the provider for the reply that it committed to")
