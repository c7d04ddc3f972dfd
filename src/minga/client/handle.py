"""One job as its tenant holds it: follow it, stop it, fetch what it left, see what it cost.

Works in any process of the job's home, whoever runs it: everything is read from the journal and the job's folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from minga.client.bill import Bill
from minga.client.folder import Artifact, JobEvent
from minga.client.reader import JobReader, JobStatus

if TYPE_CHECKING:
    from minga.client.door import Door
    from minga.client.tenant import AsyncClient

POLL_S = 0.015


class AsyncHandle:
    """One job."""

    def __init__(self, client: AsyncClient, reader: JobReader) -> None:
        """Made by `submit` and `attach`."""
        self._client = client
        self._reader = reader
        self.id = reader.job

    def status(self) -> JobStatus:
        """Where it stands."""
        return self._reader.status()

    async def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait for its end.

        Raises:
            TimeoutError: it did not end in `timeout` seconds.
            MingaError: this process ran it and cannot go on (a full disk, a damaged journal).
        """
        with anyio.fail_after(timeout):
            while not (status := self.status()).terminal:
                self._raise_failure()
                await self._client.clock.sleep(POLL_S)
        return status

    def _raise_failure(self) -> None:
        failure = self._client.failure(self.id)
        if failure is not None:
            raise failure

    async def events(self, follow: bool = True, after: int = 0) -> AsyncIterator[JobEvent]:
        """What happened and, with `follow`, what happens, up to the kind "end"."""
        offset = 0
        while True:
            events, offset = self._reader.folder.events(offset)
            for event in events:
                if event.number > after:
                    yield event
                if event.kind == "end":
                    return
            if not events:
                if not follow or self.status().terminal:
                    return
                self._raise_failure()
                await self._client.clock.sleep(POLL_S)

    async def logs(self, follow: bool = False) -> AsyncIterator[bytes]:
        """The job's output, attempt after attempt."""
        place = (0, 0)
        while True:
            over = not follow or self.status().terminal
            data, place = self._reader.folder.log_chunks(place)
            if data:
                yield data
            elif over:
                return
            else:
                self._raise_failure()
                await self._client.clock.sleep(POLL_S)

    @asynccontextmanager
    async def forward(self, port: int, listen: int = 0) -> AsyncIterator[str]:
        """The url on this machine's loopback at which a port of the running job answers while the context is open.

        Args:
            port: one that the job names.
            listen: the port here; 0 takes a free one.

        Raises:
            NotFound: the job names no such port.
            PortInUse: `listen` is taken.
        """
        from minga.client.forward import forwarded

        async with forwarded(self.door(port), listen) as url:
            yield url

    def door(self, port: int) -> Door:
        """The way to a port of the running job; close it after use. NotFound: the job names no such port."""
        from minga.client.door import Door

        client = self._client
        domain = client.network.chain.domain
        return Door(self._reader, port, domain, connect=client.connect, clock=client.clock, dice=client.dice)

    def stop(self, reason: str = "asked by the tenant") -> None:
        """Ask whoever runs it to stop it; `wait` for the end."""
        self._reader.folder.ask_stop(reason)

    def resume(self) -> None:
        """Run it in this process; Conflict if another does."""
        self._client.resume(self.id)

    def artifacts(self) -> list[Artifact]:
        """What it left, verified, on this disk."""
        return self._reader.folder.artifacts()

    def pull(self, folder: Path) -> list[Artifact]:
        """Copy what it left to a folder."""
        return self._reader.folder.pull(folder)

    async def bill(self) -> Bill:
        """What it cost, from the chain's events."""
        return await self._client.bill(self._reader)

    async def report(self) -> dict[str, Any]:
        """Job, timing, bill, chain and artifacts as JSON values."""
        bill, status, reader = await self.bill(), self.status(), self._reader
        opens = [int(cost["gas"]) for cost in reader.costs.values() if cost["what"] == "open"]
        gas = {"open": opens[-1] if opens else None, "close": await self._client.close_gas(reader)}
        first_ms = reader.first_log_ms
        return {
            "job": {"id": self.id, "status": status.phase, "attempts": status.attempts, "exit_code": status.exit_code},
            "timing": {
                "order_to_first_log_s": None if first_ms is None else first_ms / 1000,
                "working_s": reader.working_s,
                "unpaid_s": sum(lease.unpaid_s for lease in bill.leases),
            },
            "bill": bill.totals(),
            "chain": {
                "chain_id": self._client.network.chain.chain_id,
                "transactions": bill.transactions + sum(1 for lease in bill.leases if lease.state == "closed"),
                "gas": gas,
            },
            "artifacts": [{"path": item.path, "bytes": item.bytes, "blake3": item.blake3} for item in self.artifacts()],
        }
