"""A provider that does what its test tells it, honest by default, and an attempt at it whose clock is the test's.

The provider is an ASGI app that is reached in memory; there is no chain. What the attempt tells is kept in lists.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from fixtures import SeededDice
from minga.client.attempt import Attempt, Means
from minga.client.checkpoints import Accept, make_keeper
from minga.client.folder import JobFolder
from minga.client.jobfile import JobSpec
from minga.client.order import Order, needs_of, plan_of, task_of
from minga.client.wallet import session_signer
from minga.core.checkpoint import Checkpoint, CheckpointManifest, ChunkedFile
from minga.core.crypto import Hash32, blake3_hex, keccak, new_key, parse_signature
from minga.core.eip712 import Domain
from minga.core.errors import MingaError, Unauthorized
from minga.core.spec import FileEntry, Machine, Terms, UnitSize
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_state import Lease
from minga.protocol.messages import Voucher, channel_id, lease_id, verify
from minga.protocol.wire import OfferBundle
from minga.provider.bidding import Ask, bundle_of, make_offer
from minga.store.blobs import BlobStore
from minga.transport.errors import error_body
from minga.transport.memory import connect_memory

GIB = 1 << 30
JOB = Hash32("0x" + "12" * 32)
DOMAIN = Domain(1, "0x" + "44" * 20)
WALLET = new_key(keccak(b"job wallet"))
AGENT = new_key(keccak(b"agent"))
NOW = 1_700_000_000


class TestClock:
    """Time that passes only when somebody waits: a wait is over at once, and as long as it was asked to be."""

    __test__ = False

    def __init__(self) -> None:
        self.passed = 0.0
        self.jumped = 0

    def now(self) -> int:
        """Unix seconds; `jumped` is what went by while this machine slept."""
        return NOW + int(self.passed) + self.jumped

    def monotonic(self) -> float:
        """Seconds waited."""
        return self.passed

    async def sleep(self, seconds: float) -> None:
        """Let time pass, and others run."""
        self.passed += seconds
        await anyio.lowlevel.checkpoint()


def offer_bundle() -> OfferBundle:
    """A signed offer at a dollar a second."""
    size = UnitSize(cpu_milli=1000, memory_bytes=GIB, disk_bytes=GIB)
    machine = Machine(node=JOB, arch="x", cpu="c", cpus=4, memory_bytes=16 * GIB, disk_bytes=100 * GIB, os="linux")
    terms = Terms(transport_key="09" + "00" * 31, unit=size, sandbox="bubblewrap")
    ask = Ask(3_600_000_000, 2, 5, 60, 60, 86400, 3600, 600)
    offer = make_offer(ask, AGENT.address, machine.hash32(), terms.hash32(), 0, NOW, bytes(32))
    return bundle_of(offer, machine, terms, "http://127.0.0.1:1", NOW, DOMAIN, AGENT)


BUNDLE = offer_bundle()
CHANNEL = channel_id(lease_id(WALLET.address, JOB, 0), BUNDLE.offer_hash(), session_signer(WALLET, 0).address)


def lease_of(**changes: Any) -> Lease:
    """The job's first lease, open, with a deposit of 25 dollars."""
    deal = ev.Deal(
        AGENT.address, BUNDLE.offer.machine, BUNDLE.offer_hash(), Amount(3_600_000_000), 1, 5, Amount(60), 60, 86400,
        3600,
    )  # fmt: skip
    return Lease(0, deal, BUNDLE.plain(), Amount(25_000_000), channel=CHANNEL, **changes)


Told = tuple[str, dict[str, Any]]
Answer = Callable[[Request], Any]


def event(number: int, kind: str, /, **data: Any) -> bytes:
    """One event of a lease as it travels."""
    return sse({"number": number, "at": NOW, "kind": kind, "data": data})


def sse(value: Any) -> bytes:
    """Anything as the data of a server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def entry_of(path: str, data: bytes) -> FileEntry:
    """An honest entry for `data`."""
    return FileEntry(path=path, bytes=len(data), blake3=blake3_hex(data))


def checkpoint_of(stranger: Stranger, number: int, files: dict[str, bytes], step: int | None = None) -> dict[str, Any]:
    """The data of an honest event about a checkpoint of small files, whose blobs `stranger` then has."""
    chunked = [
        ChunkedFile(path=name, bytes=len(data), chunks=[blake3_hex(data)] if data else [])
        for name, data in files.items()
    ]
    manifest = CheckpointManifest(step=step, files=chunked)
    data = manifest.canonical()
    stranger.blobs |= {blake3_hex(data): data} | {blake3_hex(body): body for body in files.values()}
    size = sum(len(body) for body in files.values())
    said = Checkpoint(
        number=number, step=step, manifest=blake3_hex(data), manifest_bytes=len(data), bytes=size, files=len(files)
    )
    return said.plain()


@dataclass
class Stranger:
    """The provider. A test replaces an answer in `answers` (route → function of the request), or fills the rest.

    `events`: what each connection to the event stream gets, in turn; None ends the connection by an error, and after
    the last one it is held open in silence. `blobs`: what can be fetched.
    """

    events: list[list[bytes | None]] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)
    files: list[FileEntry] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    log: bytes = b""
    phase: str = "running"
    paid: int = 0
    asked: list[str] = field(default_factory=list)
    vouchers: list[int] = field(default_factory=list)
    received: dict[str, bytes] = field(default_factory=dict)
    tokens: int = 0

    def __post_init__(self) -> None:
        """Make the app."""
        path = f"/v1/leases/{CHANNEL}"
        routes = [
            Route(path, self._route("status", self._status)),
            Route(path + "/login", self._route("login", self._login), methods=["POST"]),
            Route(path + "/manifest", self._route("manifest", self._status), methods=["PUT"]),
            Route(path + "/start", self._route("start", self._status), methods=["POST"]),
            Route(path + "/stop", self._route("stop", self._status), methods=["POST"]),
            Route(path + "/close", self._route("close", self._status), methods=["POST"]),
            Route(path + "/vouchers", self._route("vouchers", self._voucher), methods=["POST"]),
            Route(path + "/events", self._route("events", self._events)),
            Route(path + "/logs", self._route("logs", self._logs)),
            Route(path + "/artifacts", self._route("artifacts", self._artifacts)),
            Route(path + "/chunks", self._route("chunks", self._chunks)),
            Route(path + "/blobs/{name}", self._route("blobs", self._blob), methods=["GET", "HEAD", "PUT"]),
        ]
        self.app = Starlette(routes=routes)

    def _route(self, name: str, honest: Answer) -> Any:
        async def answer(request: Request) -> Response:
            self.asked.append(name)
            try:
                if name != "login" and request.headers.get("authorization") != f"Bearer {self.tokens}":
                    raise Unauthorized("no valid token", "log in")
                made = self.answers.get(name, honest)(request)
                made = await made if hasattr(made, "__await__") else made
            except MingaError as error:
                status, body = error_body(error)
                return Response(body, status)
            return made if isinstance(made, Response) else JSONResponse(made)

        return answer

    def _login(self, request: Request) -> Any:
        self.tokens += 1
        return {"token": str(self.tokens), "expires_at": NOW}

    def _status(self, request: Request) -> Any:
        return {"lease": CHANNEL, "phase": self.phase, "paid": str(self.paid), "missing": self.missing}

    async def _voucher(self, request: Request) -> Any:
        said = json.loads(await request.body())
        amount = int(said["cumulative"])
        verify(Voucher(CHANNEL, Amount(amount)), DOMAIN, parse_signature(said["signature"]), signer().address)
        self.vouchers.append(amount)
        self.paid = amount
        return {"accepted": str(amount)}

    def _events(self, request: Request) -> Any:
        chunks = self.events.pop(0) if self.events else None

        async def body() -> AsyncIterator[bytes]:
            for chunk in chunks or [b":\n\n"]:
                if chunk is None:
                    return
                yield chunk
            if chunks is None:
                await anyio.sleep_forever()

        return StreamingResponse(body())

    def _logs(self, request: Request) -> Any:
        return Response(self.log[int(request.query_params["offset"]) :])

    def _artifacts(self, request: Request) -> Any:
        return {"files": [entry.plain() for entry in self.files]}

    async def _blob(self, request: Request) -> Any:
        name = request.path_params["name"]
        if request.method == "HEAD":
            return Response(headers={"upload-offset": "0"})
        if request.method == "PUT":
            self.received[name] = await request.body()
            return {"offset": len(self.received[name]), "complete": True}
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        return Response(self.blobs[name][start:])

    def _chunks(self, request: Request) -> Any:
        data = b"".join(self.blobs[name] for name in request.query_params["names"].split(","))
        start = int(request.headers.get("range", "bytes=0-")[6:-1])
        return Response(data[start:], 206 if start else 200)


def signer() -> Any:
    """The key of the lease's vouchers."""
    return session_signer(WALLET, 0)


@dataclass
class Watched:
    """An attempt, and what it told."""

    attempt: Attempt
    clock: TestClock
    folder: JobFolder
    events: list[ev.Event] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    heard: anyio.Event = field(default_factory=anyio.Event)

    def kinds(self, kind: str) -> list[dict[str, Any]]:
        """What was told of one kind."""
        return [data for told, data in self.told if told == kind]

    def all(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [item for item in self.events if isinstance(item, kind)]

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until something told makes `happened()` true."""
        with anyio.fail_after(10):
            while not happened():
                await self.heard.wait()

    def note(self) -> None:
        """Wake those who wait."""
        self.heard.set()
        self.heard = anyio.Event()


@asynccontextmanager
async def attempt_at(
    stranger: Stranger, path: Path, lease: Lease | None = None, accept: Accept | None = None, **spec: Any
) -> AsyncIterator[Watched]:
    """An attempt of a job at `stranger`; its files are in `path`, `accept` checks its checkpoints."""
    ordered = JobSpec(**({"run": "true", "budget": "100"} | spec))
    plan, task = plan_of(ordered, JOB, 6, NOW), task_of(ordered)
    order = Order("job", "net", WALLET.address, NOW, 0, plan, needs_of(ordered, 6, False), task, ())
    folder, clock = JobFolder(path / "job"), TestClock()
    folder.create()
    async with connect_memory(stranger.app) as http:
        watched: Watched

        async def emit(told: ev.Event) -> None:
            watched.events.append(told)
            watched.note()

        def tell(kind: str, data: dict[str, Any]) -> None:
            watched.told.append((kind, data))
            watched.note()

        means = Means(
            order, folder, BlobStore(path / "blobs"), WALLET, DOMAIN, lambda url, tls: http, clock,
            SeededDice(str(path.name)), emit, tell, make_keeper(folder, JOB, GIB), accept,
        )  # fmt: skip
        watched = Watched(Attempt(means, lease or lease_of()), clock, folder)
        yield watched
        await watched.attempt.aclose()
