"""Asks a provider for what a check needs: a login, the order and the list of files, then bytes by their hashes.

Knows: the audit routes of a provider's API, and limits. Does not know: what the bytes prove (`evidence` checks that).
Rule: nothing is believed before it was bounded and hashed; whatever a provider does instead of serving, silence
included, is `NotServed` with the reason, because the reason is for people and the consequence is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import httpx

from minga.core.checkpoint import MANIFEST_BYTES_MAX
from minga.core.codec import parse_json
from minga.core.crypto import Hash32, PrivateKey, parse_signature, to_hex
from minga.core.effects import Clock, Dice
from minga.core.eip712 import Domain
from minga.core.errors import BadArtifact, DiskFull, MingaError, NotServed, TooLarge
from minga.core.spec import Bundle, FileEntry
from minga.protocol.messages import Auditor, sign
from minga.protocol.wire import AuditedLease, AuditLogin
from minga.store.blobs import BlobStore
from minga.store.checkpoints import read_manifest
from minga.transport.errors import raise_for
from minga.validator.evidence import (
    CLASS,
    FACTS,
    FACTS_BYTES_MAX,
    LEAF_BYTES,
    LEAVES,
    REMEDY,
    Claim,
    Evidence,
    check_facts,
    check_leaves,
    check_order,
    read_place,
)

ANSWER_BYTES_MAX = 8 << 20
PIECE_SECONDS = 60.0
Connect = Callable[[str, str | None], httpx.AsyncClient]
"""(url, certificate fingerprint) → a client with that base url."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the validator's key, the domain of Disputes, and the means."""

    key: PrivateKey
    domain: Domain
    clock: Clock
    dice: Dice


class AuditApi:
    """One provider's audit routes for one channel. `login` comes before `describe`; `fetch` logs in by itself."""

    def __init__(self, http: httpx.AsyncClient, asker: Asker, channel: Hash32) -> None:
        """Talk through `http`, whose base url is the provider's."""
        self._http, self._asker, self._channel = http, asker, channel
        self._token = ""

    async def login(self) -> None:
        """Get a token.

        Raises:
            NotServed: no answer, or a refusal.
        """
        asker, issued = self._asker, self._asker.clock.now()
        nonce = Hash32(to_hex(asker.dice.bytes(32)))
        message = Auditor(self._channel, asker.key.address, issued, nonce)
        signature = to_hex(sign(message, asker.domain, asker.key))
        request = AuditLogin(validator=asker.key.address, issued_at=issued, nonce=nonce, signature=signature)
        answer = await self._json("POST", "/login", request.canonical())
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise NotServed("the provider's answer to a login has no token", REMEDY)
        self._token = answer["token"]

    async def describe(self) -> AuditedLease:
        """What was ordered and committed to, and which files tell of it; not yet checked.

        Raises:
            NotServed: no answer, a refusal, or no such description.
        """
        answer = await self._json("GET", "")
        try:
            return AuditedLease.parse(answer)
        except MingaError as error:
            raise NotServed(f"the provider's description is none: {error.fact}"[:300], REMEDY) from None

    async def fetch(self, name: str, size: int, blobs: BlobStore) -> None:
        """Have the blob `name` of `size` bytes in the store, going on where an earlier try ended.

        Raises:
            NotServed: it did not come whole, or has another hash.
            DiskFull: no room on our own disk.
        """
        if await anyio.to_thread.run_sync(blobs.has, name):
            return
        if not self._token:
            await self.login()
        held = await anyio.to_thread.run_sync(blobs.offset, name)
        headers = {"range": f"bytes={held}-"} if held else {}
        try:
            async with self._http.stream(
                "GET", self._path(f"/blobs/{name}"), headers=headers | self._bearer, timeout=PIECE_SECONDS
            ) as response:
                await raise_for(response)
                async for chunk in response.aiter_bytes(1 << 20):
                    if held + len(chunk) > size:
                        blobs.remove(name)
                        raise NotServed(f"blob {name[:16]} is longer than announced", REMEDY)
                    held = await anyio.to_thread.run_sync(blobs.write_at, name, held, chunk)
            if size == 0:
                await anyio.to_thread.run_sync(blobs.write_at, name, 0, b"")
            await anyio.to_thread.run_sync(blobs.finish, name)
        except BadArtifact as error:
            raise NotServed(error.fact, REMEDY) from None
        except (DiskFull, NotServed):
            raise
        except (MingaError, httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise _not_served(error) from None

    def _path(self, rest: str) -> str:
        return f"/v1/audits/{self._channel}{rest}"

    @property
    def _bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}"} if self._token else {}

    async def _json(self, method: str, rest: str, body: bytes | None = None) -> Any:
        try:
            async with self._http.stream(method, self._path(rest), content=body, headers=self._bearer) as response:
                await raise_for(response)
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > ANSWER_BYTES_MAX:
                        raise TooLarge(f"an answer is over {ANSWER_BYTES_MAX} bytes")
            return parse_json(bytes(data), ANSWER_BYTES_MAX)
        except (MingaError, httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise _not_served(error) from None


def _not_served(error: Exception) -> NotServed:
    fact = error.fact if isinstance(error, MingaError) else str(error) or type(error).__name__
    return NotServed(f"the provider did not serve: {fact}"[:300], REMEDY)


async def gather(api: AuditApi, told: AuditedLease, claim: Claim, domain: Domain, blobs: BlobStore) -> Evidence:
    """Check the order, get leaves and inputs, and check them, too; kept states are fetched by `gather_state`.

    Args:
        api: asked only for blobs that are not here.
        told: what the provider told of the commitment.
        claim, domain: what stands on chain of it, and where the order's signature counts.
        blobs: where everything goes.

    Raises:
        NotServed: anything is missing or does not fit.
        DiskFull: no room on our own disk.
    """
    try:
        signature = parse_signature(told.signature)
    except MingaError as error:
        raise NotServed(f"the order's signature is none: {error.fact}"[:300], REMEDY) from None
    check_order(claim, told.work, signature, domain)
    files = {entry.path: entry for entry in told.files}
    facts = await _small(api, files.get(FACTS), FACTS, FACTS_BYTES_MAX, blobs)
    data = await _small(api, files.get(LEAVES), LEAVES, LEAF_BYTES * claim.leaves, blobs)
    leaves = await anyio.to_thread.run_sync(check_leaves, claim, data)
    steps = check_facts(told.work, claim.leaves, facts)
    for bundle in told.work.inputs:
        await _gather_input(api, bundle, blobs)
    place = read_place(await _small(api, files[CLASS], CLASS, FACTS_BYTES_MAX, blobs)) if CLASS in files else {}
    return Evidence(claim, told.work, leaves, steps, files, blobs, place)


async def _small(api: AuditApi, entry: FileEntry | None, path: str, bytes_max: int, blobs: BlobStore) -> bytes:
    if entry is None or entry.bytes > bytes_max:
        raise NotServed(f"{path} is not served", REMEDY)
    await api.fetch(entry.blake3, entry.bytes, blobs)
    return await anyio.to_thread.run_sync(lambda: b"".join(blobs.read(entry.blake3)))


async def _gather_input(api: AuditApi, bundle: Bundle, blobs: BlobStore) -> None:
    await api.fetch(bundle.blake3, bundle.bytes, blobs)
    if bundle.kind != "checkpoint":
        return
    if bundle.bytes > MANIFEST_BYTES_MAX:
        raise NotServed("the checkpoint's manifest is too large", REMEDY)
    try:
        manifest = await anyio.to_thread.run_sync(read_manifest, blobs, bundle.blake3)
    except MingaError as error:
        raise NotServed(f"the checkpoint that was restored is none: {error.fact}"[:300], REMEDY) from None
    for file in manifest.files:
        for name, size in file.pieces():
            await api.fetch(name, size, blobs)


async def gather_state(api: AuditApi, evidence: Evidence, leaf: int, own: bool = True) -> FileEntry | None:
    """Have the kept state of `leaf` here; None at leaf 0, which needs none (unless `own` is false).

    Raises:
        NotServed: it is not served, or is another state.
        DiskFull: no room on our own disk.
    """
    entry = evidence.state(leaf, own)
    if entry is not None:
        await api.fetch(entry.blake3, entry.bytes, evidence.blobs)
    return entry
