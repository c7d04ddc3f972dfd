"""The client for ordinary programs: the same as `minga.client.tenant`, without `async`.

One thread runs the asynchronous client and the jobs that it runs; methods here call into it and wait. Closing the
client leaves its jobs where the journal has them: nothing is lost, and `attach(...).resume()` goes on.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from minga.client.bill import Bill
from minga.client.folder import Artifact, JobEvent
from minga.client.handle import AsyncHandle
from minga.client.home import Home, Network
from minga.client.jobfile import JobSpec
from minga.client.provider_api import Connect
from minga.client.quotes import Quote
from minga.client.reader import JobStatus
from minga.client.records import Standing
from minga.client.tenant import AsyncClient
from minga.core.crypto import PrivateKey
from minga.core.effects import Clock, Dice
from minga.core.errors import Conflict
from minga.protocol.matching import Ranked

T = TypeVar("T")


class Client:
    """A tenant on one network. Use it as `with Client(...) as client`, or call `close()`."""

    def __init__(
        self,
        home: Home,
        network: Network,
        *,
        clock: Clock,
        dice: Dice,
        key: Callable[[], PrivateKey] | None = None,
        allow_process: bool = False,
        connect: Connect | None = None,
    ) -> None:
        """Arguments as `AsyncClient`; nothing is opened before the first call."""
        self.home = home
        self.network = network
        more: dict[str, Any] = {} if connect is None else {"connect": connect}
        self._make = partial(
            AsyncClient, home, network, clock=clock, dice=dice, key=key, allow_process=allow_process, **more
        )
        self._opening = threading.Lock()
        self._portal: BlockingPortal | None = None
        self._portal_context: AbstractContextManager[BlockingPortal] | None = None
        self._client_context: AbstractContextManager[AsyncClient] | None = None
        self._client: AsyncClient | None = None
        self._closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop running jobs here and close everything; idempotent."""
        with self._opening:
            self._closed = True
            if self._client_context is not None:
                self._client_context.__exit__(None, None, None)
            if self._portal_context is not None:
                self._portal_context.__exit__(None, None, None)
            self._client_context = self._portal_context = self._client = self._portal = None

    def _open(self) -> tuple[BlockingPortal, AsyncClient]:
        with self._opening:
            if self._closed:
                raise Conflict("this client was closed", "make another one")
            if self._portal is None or self._client is None:
                self._portal_context = start_blocking_portal("asyncio")
                self._portal = self._portal_context.__enter__()
                self._client_context = self._portal.wrap_async_context_manager(self._make())
                self._client = self._client_context.__enter__()
            return self._portal, self._client

    def _call(self, method: Callable[..., Any], *values: Any) -> Any:
        portal, _ = self._open()
        return portal.call(method, *values)

    def quote(self, spec: JobSpec) -> Quote:
        """See `AsyncClient.quote`."""
        _, client = self._open()
        found: Quote = self._call(client.quote, spec)
        return found

    def offers(self, query: str = "", limit: int = 20) -> list[Ranked]:
        """See `AsyncClient.offers`."""
        _, client = self._open()
        found: list[Ranked] = self._call(client.offers, query, limit)
        return found

    def reliability(self, provider: str) -> Standing:
        """See `AsyncClient.reliability`."""
        _, client = self._open()
        found: Standing = self._call(client.reliability, provider)
        return found

    def submit(
        self,
        spec: JobSpec,
        key: str | None = None,
        detach: bool = False,
        quoted: Callable[[Quote], None] | None = None,
    ) -> JobHandle:
        """See `AsyncClient.submit`."""
        _, client = self._open()
        return JobHandle(self, self._call(client.submit, spec, key, detach, quoted))

    def jobs(self) -> list[JobStatus]:
        """See `AsyncClient.jobs`."""
        _, client = self._open()
        return client.jobs()

    def attach(self, job: str) -> JobHandle:
        """See `AsyncClient.attach`."""
        _, client = self._open()
        return JobHandle(self, client.attach(job))

    def serve(self, stopping: threading.Event) -> None:
        """See `AsyncClient.serve`; returns once `stopping` is set."""
        _, client = self._open()
        self._call(client.serve, stopping.is_set)

    def _iterate(self, source: AsyncIterator[T]) -> Iterator[T]:
        async def next_one() -> tuple[bool, Any]:
            async for item in source:
                return True, item
            return False, None

        while True:
            more, item = self._call(next_one)
            if not more:
                return
            yield item


class JobHandle:
    """One job. Methods as `AsyncHandle`'s."""

    def __init__(self, client: Client, handle: AsyncHandle) -> None:
        """Made by `Client.submit` and `Client.attach`."""
        self._client = client
        self._handle = handle
        self.id = handle.id

    def __repr__(self) -> str:
        return f"JobHandle({self.id})"

    def status(self) -> JobStatus:
        """Where it stands."""
        return self._handle.status()

    def wait(self, timeout: float | None = None) -> JobStatus:
        """Wait for its end; TimeoutError after `timeout` seconds. A job that failed is no error here."""
        status: JobStatus = self._client._call(self._handle.wait, timeout)
        return status

    def events(self, follow: bool = True, after: int = 0) -> Iterator[JobEvent]:
        """What happened and, with `follow`, what happens, up to the kind "end"."""
        return self._client._iterate(self._handle.events(follow, after))

    def logs(self, follow: bool = False) -> Iterator[bytes]:
        """The job's output, attempt after attempt."""
        return self._client._iterate(self._handle.logs(follow))

    def stop(self, reason: str = "asked by the tenant") -> None:
        """Ask whoever runs it to stop it; `wait` for the end."""
        self._handle.stop(reason)

    def forward(self, port: int, listen: int = 0) -> AbstractContextManager[str]:
        """The url on loopback at which a port of the running job answers while the context is open."""
        portal, _ = self._client._open()
        return portal.wrap_async_context_manager(self._handle.forward(port, listen))

    def resume(self) -> None:
        """Run it in this process; Conflict if another does."""

        async def resume() -> None:
            self._handle.resume()

        self._client._call(resume)

    def artifacts(self) -> list[Artifact]:
        """What it left, verified, on this disk."""
        return self._handle.artifacts()

    def pull(self, folder: Path) -> list[Artifact]:
        """Copy what it left to a folder."""
        return self._handle.pull(folder)

    def bill(self) -> Bill:
        """What it cost, from the chain's events."""
        found: Bill = self._client._call(self._handle.bill)
        return found

    def report(self) -> dict[str, Any]:
        """Job, timing, bill, chain and artifacts as JSON values."""
        found: dict[str, Any] = self._client._call(self._handle.report)
        return found


__all__ = ["Client", "JobHandle", "JobSpec", "JobStatus", "Quote"]
