"""Who may check a lease's work here, and what of it: referees and challengers, and nothing that the work does not name.

Knows: the order that the tenant signed, the commitment, the lease's blobs. Does not know: how the work is done again,
or how a game about it stands beyond who plays it. Rule: only a lease whose order says `audit` is opened, only for a
staked referee or the challenger of an open game about it, and only inputs and trace.

Tokens live in memory: after a restart a validator logs in again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from minga.core.crypto import Address, Hash32, parse_signature
from minga.core.errors import Conflict, Expired, NotFound, OutOfCapacity, Unauthorized
from minga.core.spec import FileEntry
from minga.core.work import Trace, Work
from minga.protocol.messages import Auditor, verify
from minga.protocol.wire import AuditedLease, AuditLogin
from minga.provider.court import Court
from minga.provider.lease import LeaseRun, World
from minga.provider.tokens import CLOCK_TOLERANCE_S, TOKEN_SECONDS, Bucket, token_hash
from minga.verify.ordered import FOLDER

LOGINS_PER_MINUTE = 60
TOKENS_MAX = 1024
NONCES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Token:
    """What a token opens, and until when (Unix seconds)."""

    channel: str
    expires_at: int


class Audits:
    """The requests of all who check this provider's work."""

    def __init__(self, world: World) -> None:
        """Of `world`'s leases."""
        self._world = world
        self._court = Court(world.chain)
        self._tokens: OrderedDict[str, Token] = OrderedDict()
        self._nonces: OrderedDict[str, None] = OrderedDict()
        self._logins = Bucket(LOGINS_PER_MINUTE, LOGINS_PER_MINUTE / 60, at=world.clock.monotonic())

    async def login(self, channel: str, request: AuditLogin) -> tuple[str, int]:
        """A fresh token for one lease's work, and until when it counts (Unix seconds).

        Raises:
            OutOfCapacity: too many logins; try again in a moment.
            Expired: `issued_at` is more than 15 minutes from this machine's clock.
            InvalidSignature: not signed by the validator for this lease and chain.
            Conflict: the login was used before.
            NotFound: there is no such lease, or its work is not open to audits.
            Unauthorized: neither a staked referee nor the challenger of an open game about it.
        NetworkError: no node answers.
        """
        world = self._world
        if not self._logins.take(world.clock.monotonic()):
            raise OutOfCapacity("too many logins at once", "try again in a second")
        now = world.clock.now()
        if abs(request.issued_at - now) > CLOCK_TOLERANCE_S:
            raise Expired(
                f"the login is dated {request.issued_at}, it is {now} here", "set your clock, and sign again", now=now
            )
        self._audited(channel)
        validator = Address(request.validator)
        message = Auditor(Hash32(channel), validator, request.issued_at, Hash32(request.nonce))
        verify(message, self._court.domain, parse_signature(request.signature), validator)
        if request.nonce in self._nonces:
            raise Conflict("this login was used before", "sign a login with a fresh nonce")
        if not await self._court.may_check(validator, channel):
            raise Unauthorized(f"{validator} may not check this work", "join the referees, or challenge the commitment")
        self._remember(request.nonce)
        token, until = world.dice.bytes(32).hex(), now + TOKEN_SECONDS
        self._tokens[token_hash(token)] = Token(channel, until)
        while len(self._tokens) > TOKENS_MAX:
            self._tokens.popitem(last=False)
        return token, until

    def _remember(self, nonce: str) -> None:
        self._nonces[nonce] = None
        while len(self._nonces) > NONCES_MAX:
            self._nonces.popitem(last=False)

    def authorised(self, channel: str, token: str) -> LeaseRun:
        """The lease, for the holder of a token for its audit.

        Raises:
            Unauthorized: no such token, or it has expired.
            NotFound: its files are gone.
        """
        held = self._tokens.get(token_hash(token))
        if held is None or held.channel != channel or self._world.clock.now() >= held.expires_at:
            raise Unauthorized("no valid token for this audit", "log in as a referee or challenger")
        return self._audited(channel)

    def _audited(self, channel: str) -> LeaseRun:
        run = self._world.leases.get(channel)
        if run is None or run.state.order is None or run.state.order["mode"] != "audit":
            raise NotFound(f"no work of the lease {channel[:18]} can be audited here", "see the Committed events")
        return run

    def describe(self, run: LeaseRun) -> AuditedLease:
        """What was ordered and committed to, and the files of the trace."""
        order, made = run.state.order, run.state.commitment or {}
        assert order is not None
        return AuditedLease(
            lease=run.channel,
            work=Work.of(run.manifest, Trace.parse(order["trace"])),
            signature=order["signature"],
            root=made.get("root", ""),
            leaves=made.get("leaves", 0),
            files=[FileEntry(**item) for item in trace_files(run)],
        )

    def check_blob(self, run: LeaseRun, name: str) -> None:
        """Return if the blob may be fetched.

        Raises:
            NotFound: it is no input of the work and no file of its trace.
        """
        if any(item["blake3"] == name for item in trace_files(run)) or run.inventory.is_input(run.manifest, name):
            return
        raise NotFound(f"blob {name[:16]} is not named by this work", "see what the audit lists")


def trace_files(run: LeaseRun) -> list[dict[str, Any]]:
    """The files of the job's trace, as `spec.FileEntry` values."""
    return [item for item in run.state.files if item["path"].startswith(f"{FOLDER}/")]
