"""The evidence of one commitment on this disk: what the provider told is kept, so that its later silence costs nothing.

Knows: where the files are, how to ask for what is missing. Does not know: what is done with them. Rule: what was
checked once is checked again when it is read back; the disk is no better a witness than the provider.
"""

from __future__ import annotations

from pathlib import Path

import anyio.to_thread
import httpx

from minga.core.crypto import Address
from minga.core.errors import BadAnswer, MingaError, NotServed
from minga.core.spec import FileEntry
from minga.protocol.wire import AuditedLease
from minga.store.blobs import BlobStore, write_atomic
from minga.validator.audits import AuditApi, gather, gather_state
from minga.validator.evidence import REMEDY, Evidence
from minga.validator.points import reach
from minga.validator.watch import claim_of
from minga.validator.world import World


class Files:
    """See the module; for one channel of one provider."""

    def __init__(self, world: World, channel: str, provider: str) -> None:
        """Nothing is asked for yet."""
        self._world = world
        self._channel = channel
        self._provider = Address(provider)
        self._evidence: Evidence | None = None

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._world.home / "audits" / self._channel[2:34]

    async def gather(self) -> Evidence:
        """The evidence, checked; asks the provider for what is not here.

        Raises:
            NotServed: anything is missing or does not fit.
            DiskFull: no room.
            BadAnswer: the chain's events are not read yet, or a reorg took the commitment back.
        """
        if self._evidence is not None:
            return self._evidence
        claim = claim_of(self._world.chain, self._channel)
        if claim is None:
            raise BadAnswer("the commitment is not among the events that were read", "they are read again")
        blobs = await anyio.to_thread.run_sync(BlobStore, self.folder / "blobs")
        domain, told = self._world.asker.domain, self._told()
        async with await self._client() as http:
            api = AuditApi(http, self._world.asker, claim.channel)
            if told is None:
                await api.login()
                told = await api.describe()
            self._evidence = await gather(api, told, claim, domain, blobs)
        self._keep(told)
        return self._evidence

    async def gather_state(self, evidence: Evidence, leaf: int, own: bool = True) -> FileEntry | None:
        """As `audits.gather_state`, from this provider."""
        entry = evidence.state(leaf, own)
        if entry is None or evidence.blobs.has(entry.blake3):
            return entry
        async with await self._client() as http:
            api = AuditApi(http, self._world.asker, evidence.claim.channel)
            return await gather_state(api, evidence, leaf, own)

    async def _client(self) -> httpx.AsyncClient:
        try:
            return await self._world.reach(self._provider)
        except MingaError as error:
            raise NotServed(f"nobody knows where the provider is: {error.fact}"[:300], REMEDY) from None

    def _told(self) -> AuditedLease | None:
        try:
            return AuditedLease.parse((self.folder / "told.json").read_bytes())
        except (OSError, MingaError):
            return None

    def _keep(self, told: AuditedLease) -> None:
        write_atomic(self.folder / "told.json", told.canonical())
        reach("validator.evidence.kept")
