"""Messages of the provider's HTTP API and of boards: what is in each body, and nothing about how it travels.

| route (all under the provider's base url)       | request → response                                            |
|--------------------------------------------------|---------------------------------------------------------------|
| GET  /v1/health                                  | → `{"ok": true, "version", "provider", "time"}`               |
| GET  /v1/offers                                  | → `{"offers": [OfferBundle]}`                                 |
| POST /v1/leases/{lease}/login                    | LoginRequest → `{"token", "expires_at"}`                      |
| GET  /v1/leases/{lease}                          | → LeaseStatus                                                 |
| PUT  /v1/leases/{lease}/manifest                 | Manifest → LeaseStatus (the same manifest again: no change)   |
| HEAD /v1/leases/{lease}/blobs/{blake3}           | → `Upload-Offset` header: bytes held                          |
| PUT  /v1/leases/{lease}/blobs/{blake3}           | bytes from `Upload-Offset` on → `{"offset", "complete"}`      |
| GET  /v1/leases/{lease}/blobs/{blake3}           | → bytes (Range allowed): files of artifacts and checkpoints   |
| GET  /v1/leases/{lease}/chunks?names=A,B…        | → bytes of up to 16 blobs in a row (Range allowed)            |
| POST /v1/leases/{lease}/probe                    | ProbeRequest → ProbeAnswer: measure what was sold             |
| PUT  /v1/leases/{lease}/order                    | WorkOrder → LeaseStatus: the manifest's work is to be verified |
| POST /v1/leases/{lease}/start                    | → LeaseStatus                                                 |
| POST /v1/leases/{lease}/vouchers                 | VoucherRequest → VoucherReceipt, after it is on disk          |
| GET  /v1/leases/{lease}/events?after=N           | → SSE of Event (`id:` is the number; follows until `closed`)  |
| GET  /v1/leases/{lease}/logs?offset=N&follow=1   | → raw log bytes from offset N                                 |
| GET  /v1/leases/{lease}/artifacts                | → `{"files": [FileEntry]}`                                    |
| POST /v1/leases/{lease}/stop                     | StopRequest → LeaseStatus                                     |
| POST /v1/leases/{lease}/close                    | → LeaseStatus: the provider closes on chain with the best voucher |
| ANY  /v1/leases/{lease}/ports/{port}/{path}      | proxied to the job                                            |
| POST /v1/audits/{lease}/login                    | AuditLogin → `{"token", "expires_at"}`                        |
| GET  /v1/audits/{lease}                          | → AuditedLease: what was ordered, and what was committed to   |
| GET  /v1/audits/{lease}/blobs/{blake3}           | → bytes (Range allowed): inputs of the work, files of its trace |

`{lease}` is the channel id. Every route under it but the logins needs `Authorization: Bearer TOKEN`. A refusal is
`MingaError.as_dict()` with its status. Boards: `POST /v1/offers` OfferBundle → 204; `GET /v1/offers?q=QUERY`.
Amounts travel as decimal strings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field

from minga.core.crypto import Address, Hash32, parse_signature, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import Expired, InvalidInput, InvalidSignature, MingaError
from minga.core.spec import AddressText, Count, FileEntry, Hash32Text, Machine, Model, Terms
from minga.core.units import AMOUNT_MAX, Amount
from minga.core.work import Trace, Work
from minga.protocol.messages import Offer, Posting, offer_hash, verify


def _amount(text: str) -> str:
    if not text.isascii() or not text.isdigit() or len(text) > 39 or str(int(text)) != text or int(text) > AMOUNT_MAX:
        raise ValueError("not a decimal amount below 2**128")
    return text


def _signature(text: str) -> str:
    try:
        return to_hex(parse_signature(text))
    except MingaError as error:
        raise ValueError(error.fact) from None


AmountText = Annotated[str, AfterValidator(_amount)]
SignatureText = Annotated[str, AfterValidator(_signature)]
U32 = Annotated[int, Field(ge=0, le=2**32 - 1)]


class OfferFields(Model):
    """`messages.Offer` as JSON."""

    provider: AddressText
    machine: Hash32Text
    terms: Hash32Text
    price_per_hour: AmountText
    units: U32
    deposit_min: AmountText
    seconds_min: U32
    seconds_max: U32
    quantum: Annotated[int, Field(ge=1, le=2**32 - 1)]
    close_window: U32
    arbiter: AddressText
    hold_bps: Annotated[int, Field(ge=0, le=10_000)]
    hold_seconds: U32
    valid_until: Count
    epoch: Count
    salt: Hash32Text

    def offer(self) -> Offer:
        """The typed message."""
        values = self.model_dump()
        for name in ("price_per_hour", "deposit_min"):
            values[name] = int(values[name])
        return Offer(**values)

    @classmethod
    def of(cls, offer: Offer) -> Self:
        """JSON fields of a typed message."""
        values = {name: getattr(offer, name) for name in cls.model_fields}
        for name in ("price_per_hour", "deposit_min"):
            values[name] = str(values[name])
        return cls(**values)


class OfferBundle(Model):
    """An offer with everything that its hashes name, and where its provider is reached. Believe it after `check`.

    `agent` is the key that signed: Market checks that it is the provider's registered agent key, and so must a
    client before it opens a lease; a board cannot.
    """

    offer: OfferFields
    signature: SignatureText
    agent: AddressText
    machine: Machine
    terms: Terms
    url: Annotated[str, Field(pattern=r"^https?://[^\s\"'<>]{1,512}$")]
    posted_at: Count
    url_signature: SignatureText

    def check(self, domain: Domain, now: int) -> Offer:
        """The offer, once hashes, both signatures and its time were checked.

        Args:
            domain: the chain and Market that it must be signed for.
            now: Unix seconds.

        Raises:
            InvalidInput: machine or terms do not have the hash in the offer.
            InvalidSignature: signed by another key or for another domain.
            Expired: `valid_until` has passed.
        """
        offer = self.offer.offer()
        if self.machine.hash32() != offer.machine or self.terms.hash32() != offer.terms:
            raise InvalidInput("the machine or the terms are not those of the offer", "ask the provider for its offers")
        agent = Address(self.agent)
        verify(offer, domain, parse_signature(self.signature), agent)
        posting = Posting(offer_hash(offer), self.url, self.posted_at)
        verify(posting, domain, parse_signature(self.url_signature), agent)
        if offer.valid_until <= now:
            raise Expired(f"the offer was valid until {offer.valid_until}, it is {now}", "ask for newer offers")
        return offer

    def offer_hash(self) -> Hash32:
        """EIP-712 hashStruct of the offer."""
        return offer_hash(self.offer.offer())


class WorkOrder(Model):
    """The tenant says which work the lease pays for, how it is traced, and who may check it.

    `work` is the hash of `core.work.Work.of(manifest, trace)`; `signature` is the session signer's over
    `messages.Ordered`; with the mode `audit` referees and challengers may fetch inputs and trace.
    """

    work: Hash32Text
    trace: Trace
    mode: Literal["audit", "replicate"]
    signature: SignatureText


class LoginRequest(Model):
    """What opens the API for one lease: facts that the provider checks on chain, and the signer's proof.

    `lease_id`, `offer_hash`, `signer`, `tenant`, `job`, `attempt` name the lease; `issued_at` is Unix seconds and may
    differ from the provider's clock by 15 minutes; `signature` is of `messages.Login`.
    """

    lease_id: Hash32Text
    offer_hash: Hash32Text
    tenant: AddressText
    job: Hash32Text
    attempt: U32
    signer: AddressText
    issued_at: Count
    nonce: Hash32Text
    signature: SignatureText


class VoucherRequest(Model):
    """A cumulative voucher for this channel."""

    cumulative: AmountText
    signature: SignatureText


class VoucherReceipt(Model):
    """Sent only after the voucher is durably stored: the best cumulative amount held."""

    accepted: AmountText


class StopRequest(Model):
    """Ask for SIGTERM, `grace_s` seconds to checkpoint, then SIGKILL. `reason` reaches the journal."""

    reason: Annotated[str, Field(max_length=200)] = "asked by the tenant"
    grace_s: Annotated[int, Field(ge=0, le=3600)] | None = None


Phase = Literal[
    "opened",
    "ready",
    "starting",
    "running",
    "paused",
    "stopping",
    "collecting",
    "exited",
    "closing",
    "closed",
    "failed",
]


class LeaseStatus(Model):
    """Where a lease stands at its provider.

    `working_s` counts seconds in which the job really ran (paused, starting and collecting are free); `paid` is the
    best voucher held; `missing` are blobs still to upload; `reason` says why it stopped, whenever the provider can.
    """

    lease: Hash32Text
    phase: Phase
    reason: str = ""
    exit_code: int | None = None
    working_s: Count = 0
    paid: AmountText = "0"
    missing: list[str] = []
    last_event: Count = 0
    log_bytes: Count = 0
    close_tx: str | None = None


class Event(Model):
    """One durable event of a lease. `at` is the provider's Unix time; `data` depends on `kind`:

    phase `{phase, reason}` · meter `{working_s}` and, where known, `cpu_ms` (CPU time of the job so far) and `gpu_busy`
    (percent since the last one) · progress `{step, total, text}` ·
    checkpoint `Checkpoint` · exit `{exit_code, reason, working_s}` · artifacts `{count, bytes}` ·
    notice `{seconds, reason}` · warning `{code, fact, remedy}` · closed `{tx}` · commitment `{work, root, leaves, tx}`:
    the root over the trace's state hashes stands on the chain.
    """

    number: Annotated[int, Field(ge=1)]
    at: Count
    kind: Literal[
        "phase", "meter", "progress", "checkpoint", "exit", "artifacts", "notice", "warning", "closed", "commitment"
    ]
    data: dict[str, Any]


class ProbeRequest(Model):
    """One challenge of a probe (`minga.verify.hardware_math` says what each means).

    `kind` is `start` before the job runs, `duty` beside it. `what`: `ready` begins a session or measures the round
    trip; `gemm` (n = `size`, m = `columns`, `links`), `fill` (`size` chunks), `walk` (`size` steps) and `disk` (`size`
    chunks) are answered with a commitment; `open` gives the opening of the commitment in `seed` from byte `size` on;
    `link` gives `size` bytes; `end` ends the session.
    """

    kind: Literal["start", "duty"]
    what: Literal["ready", "gemm", "fill", "walk", "disk", "link", "open", "end"]
    seed: Hash32Text
    size: Annotated[int, Field(ge=0, le=2**31)] = 0
    columns: Annotated[int, Field(ge=0, le=1 << 16)] = 0
    links: Annotated[int, Field(ge=0, le=1 << 16)] = 0


class ProbeAnswer(Model):
    """`digest` commits to an opening of `minga.verify.hardware_math.digest`; `data` base64, `bytes` its whole length.

    `facts` are the provider's own word: `engine`, `threads`, `devices`, `cpu_us`.
    """

    digest: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    data: Annotated[str, Field(max_length=5 << 20)] = ""
    bytes: Count = 0
    facts: dict[str, Any] = {}


class AuditLogin(Model):
    """Somebody who may check the work of a lease asks for a token: `signature` is of `messages.Auditor`.

    A staked referee, or the challenger of an open game on this channel; `issued_at` is Unix seconds and may differ from
    the provider's clock by 15 minutes.
    """

    validator: AddressText
    issued_at: Count
    nonce: Hash32Text
    signature: SignatureText


class AuditedLease(Model):
    """Everything that is needed to do a lease's work again, but the bytes.

    `signature` is the tenant's over `messages.Ordered`; `root` and `leaves` are as committed (empty and 0: not yet);
    `files` are those of the trace; they, and the inputs that `work` names, may be fetched.
    """

    lease: Hash32Text
    work: Work
    signature: SignatureText
    root: Annotated[str, Field(pattern=r"^(0x[0-9a-f]{64})?$")] = ""
    leaves: Count = 0
    files: list[FileEntry] = []


class ArtifactList(Model):
    """What the job left, complete: files of `/job/out` and of the manifest's `outputs`."""

    files: list[FileEntry]


def amount_of(text: str) -> Amount:
    """The integer of a validated `AmountText`."""
    return Amount(int(text))


__all__ = [
    "ArtifactList", "AuditLogin", "AuditedLease", "Event", "InvalidSignature", "LeaseStatus", "LoginRequest",
    "OfferBundle", "OfferFields", "Phase", "ProbeAnswer", "ProbeRequest", "StopRequest", "VoucherReceipt",
    "VoucherRequest", "WorkOrder", "amount_of",
]  # fmt: skip
