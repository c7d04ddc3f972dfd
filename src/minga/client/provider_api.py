"""A provider's HTTP API as typed methods; the routes are those of `minga.protocol.wire`.

Knows bodies, headers, resuming and limits. Does not know retries, money or journals. Rule: nothing that a provider
sends is believed before it was bounded, parsed and, where it has a hash, hashed. Methods raise `ProviderUnreachable`
when there is no (whole) answer in time, else the refusal's own class.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import anyio
import httpx
from blake3 import blake3

from minga.client.folder import NoRoomHere
from minga.core.codec import parse_json
from minga.core.errors import BadAnswer, BadArtifact, MingaError, ProviderUnreachable, TooLarge
from minga.core.spec import FileEntry, Manifest, Model
from minga.protocol.wire import (
    ArtifactList,
    Event,
    LeaseStatus,
    LoginRequest,
    OfferBundle,
    ProbeAnswer,
    ProbeRequest,
    StopRequest,
    VoucherReceipt,
    VoucherRequest,
    WorkOrder,
    amount_of,
)
from minga.transport.bulk import Landing, fetch
from minga.transport.errors import raise_for

ANSWER_BYTES_MAX = 8 << 20
EVENT_BYTES_MAX = 8 << 20
PIECE_BYTES = 4 << 20
SILENCE_S = 15.0
FETCH_S = 120.0

M = TypeVar("M", bound=Model)
Connect = Callable[[str, str | None], httpx.AsyncClient]
"""(url, certificate fingerprint) → a client with that base url."""


class ProviderApi:
    """One provider, one lease. `token` is set by `login`."""

    def __init__(self, http: httpx.AsyncClient, channel: str = "") -> None:
        """Talk through `http`, whose base url is the provider's; `channel` is the lease's channel id."""
        self.http = http
        self.channel = channel
        self.token: str | None = None

    async def aclose(self) -> None:
        """Close the connections; idempotent."""
        await self.http.aclose()

    async def offers(self, query: str = "") -> list[OfferBundle]:
        """What is offered now, also by a board; not yet checked. `query` is the url's."""
        return parse_offers(await self._json("GET", "/v1/offers" + query))

    async def login(self, request: LoginRequest) -> int:
        """Get a token for this lease; returns when it expires (Unix seconds)."""
        answer = await self._json("POST", self._path("login"), request.canonical())
        if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
            raise BadAnswer("the provider's answer to a login has no token", "choose another provider")
        self.token = answer["token"]
        expires = answer.get("expires_at")
        return expires if isinstance(expires, int) else 0

    async def status(self) -> LeaseStatus:
        """Where the lease stands."""
        return await self._model(LeaseStatus, "GET", self._path())

    async def send_manifest(self, manifest: Manifest) -> LeaseStatus:
        """Say what to run; the same manifest again changes nothing."""
        return await self._model(LeaseStatus, "PUT", self._path("manifest"), manifest.canonical())

    async def upload(self, name: str, path: Path, piece_sent: Callable[[], None] = lambda: None) -> None:
        """Send a blob from where the provider's copy ends.

        Args:
            name: its BLAKE3.
            path: the file.
            piece_sent: called after each piece was acknowledged.
        """
        async with await anyio.open_file(path, "rb") as handle:

            async def piece(offset: int) -> bytes:
                await handle.seek(offset)
                return await handle.read(PIECE_BYTES)

            await self.send_blob(name, piece, piece_sent)

    async def send_blob(self, name: str, piece: Callable[[int], Awaitable[bytes]], sent: Callable[[], None]) -> None:
        """As `upload`, from anywhere: `piece` gives the next bytes from an offset on, at most `PIECE_BYTES`."""
        headers, _ = await self._request("HEAD", self._path(f"blobs/{name}"))
        offset = _whole(headers.get("upload-offset"))
        while True:
            data, place = await piece(offset), {"upload-offset": str(offset)}
            body = await self._json("PUT", self._path(f"blobs/{name}"), data, place, timeout=120.0)
            sent()
            if not isinstance(body, dict) or not isinstance(body.get("offset"), int):
                raise BadAnswer("the provider's answer to an upload has no offset", "choose another provider")
            if body.get("complete") is True:
                return
            if body["offset"] <= offset:
                raise BadAnswer(f"an upload does not go on at {offset}", "choose another provider")
            offset = body["offset"]

    async def fetch(self, names: list[str], landing: Landing) -> None:
        """Fetch what `landing` lacks of some blobs, one after the other; at most 16, not yet checked.

        What came before an error stays in `landing`.
        """
        with _translated(self.http), anyio.fail_after(FETCH_S):
            await fetch(self.http, self._path(f"chunks?names={','.join(names)}"), self._headers(), landing)

    async def download(self, entry: FileEntry, path: Path, parts: Path) -> None:
        """Fetch a file to `path`, going on where an earlier try ended; verified before it returns.

        Args:
            entry: its hash, size and mode.
            path: where it goes, once it is whole.
            parts: a folder, on the same disk, for what is not whole yet.

        Raises:
            BadArtifact: the bytes have another hash or size; nothing is left at `path`.
            NoRoomHere: no room on our own disk.
        """
        partial = parts / entry.blake3
        held = partial.stat().st_size if partial.exists() else 0
        hasher = blake3()
        if held and held <= entry.bytes:
            await anyio.to_thread.run_sync(lambda: hasher.update_mmap(partial))
        elif held:
            partial.unlink()
            held = 0
        if held < entry.bytes or entry.bytes == 0:
            await self._fetch(entry, partial, held, hasher)
        if hasher.hexdigest() != entry.blake3:
            partial.unlink(missing_ok=True)
            raise BadArtifact(f"{entry.path[:80]} does not have the hash that was announced", "it is fetched elsewhere")
        partial.chmod(0o700 if entry.executable else 0o600)
        partial.replace(path)

    async def _fetch(self, entry: FileEntry, partial: Path, held: int, hasher: Any) -> None:
        headers = {"range": f"bytes={held}-"} if held else {}
        async with self._stream("GET", self._path(f"blobs/{entry.blake3}"), headers) as response:
            try:
                with partial.open("ab") as handle:
                    async for chunk in response.aiter_bytes(1 << 20):
                        held += len(chunk)
                        if held > entry.bytes:
                            raise BadArtifact(f"{entry.path[:80]} is longer than announced", "it is fetched elsewhere")
                        hasher.update(chunk)
                        handle.write(chunk)
            except OSError as error:
                raise NoRoomHere(f"{entry.path[:80]} cannot be written: {error.strerror}", "free some disk") from error
        if held != entry.bytes:
            raise ProviderUnreachable(f"{entry.path[:80]} ended early", "it is tried again")

    async def send_order(self, order: WorkOrder) -> LeaseStatus:
        """Say which work is to be verified."""
        return await self._model(LeaseStatus, "PUT", self._path("order"), order.canonical())

    async def start(self) -> LeaseStatus:
        """Start the job."""
        return await self._model(LeaseStatus, "POST", self._path("start"))

    async def probe(self, request: ProbeRequest) -> ProbeAnswer:
        """Pose one challenge of a probe."""
        return await self._model(ProbeAnswer, "POST", self._path("probe"), request.canonical())

    async def pay(self, cumulative: int, signature: str) -> int:
        """Hand over a voucher; returns the best amount that the provider now holds on disk."""
        request = VoucherRequest(cumulative=str(cumulative), signature=signature)
        receipt = await self._model(VoucherReceipt, "POST", self._path("vouchers"), request.canonical())
        return amount_of(receipt.accepted)

    async def stop(self, reason: str, grace_s: int) -> LeaseStatus:
        """Ask for a stop with time to checkpoint."""
        request = StopRequest(reason=reason[:200], grace_s=grace_s)
        return await self._model(LeaseStatus, "POST", self._path("stop"), request.canonical())

    async def close(self) -> LeaseStatus:
        """Ask the provider to close the lease on the chain."""
        return await self._model(LeaseStatus, "POST", self._path("close"))

    async def artifacts(self) -> list[FileEntry]:
        """What the job left."""
        listed: ArtifactList = await self._model(ArtifactList, "GET", self._path("artifacts"))
        return listed.files

    async def events(self, after: int) -> AsyncIterator[Event | None]:
        """The lease's events with a number over `after`, as they happen; None for each sign of life between them.

        Raises:
            ProviderUnreachable: nothing at all came for `SILENCE_S` seconds, or the connection broke.
        """
        path = self._path(f"events?after={after}")
        async with self._stream("GET", path, {}, read=SILENCE_S) as response:
            fields: list[str] = []
            async for line in _lines(response):
                if line:
                    fields.append(line)
                    continue
                data = "\n".join(field[5:].lstrip(" ") for field in fields if field.startswith("data:"))
                fields = []
                yield Event.parse(parse_json(data, EVENT_BYTES_MAX)) if data else None

    async def logs(self, offset: int, follow: bool) -> AsyncIterator[bytes]:
        """Output of the job from byte `offset` on; with `follow` until there will be no more."""
        path = self._path(f"logs?offset={offset}" + ("&follow=1" if follow else ""))
        async with self._stream("GET", path, {}, read=None if follow else SILENCE_S) as response:
            async for chunk in response.aiter_bytes():
                yield chunk

    # ------------------------------------------------------------------------------------------------------ plumbing

    def _path(self, rest: str = "") -> str:
        return f"/v1/leases/{self.channel}" + (f"/{rest}" if rest else "")

    def _headers(self, more: dict[str, str] | None = None) -> dict[str, str]:
        return ({"authorization": f"Bearer {self.token}"} if self.token else {}) | (more or {})

    async def _model(self, kind: type[M], method: str, path: str, body: bytes | None = None) -> M:
        return kind.parse(await self._json(method, path, body))

    async def _json(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        _, answer = await self._request(method, path, body, headers, timeout)
        return parse_json(answer, ANSWER_BYTES_MAX)

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> tuple[httpx.Headers, bytes]:
        with _translated(self.http):
            limit = httpx.USE_CLIENT_DEFAULT if timeout is None else httpx.Timeout(timeout)
            request = self.http.build_request(method, path, content=body, headers=self._headers(headers), timeout=limit)
            response = await self.http.send(request, stream=True)
            try:
                await raise_for(response)
                return response.headers, await _read_bounded(response)
            finally:
                await response.aclose()

    @asynccontextmanager
    async def _stream(
        self, method: str, path: str, headers: dict[str, str], read: float | None = 60.0
    ) -> AsyncIterator[httpx.Response]:
        timeout = httpx.Timeout(10.0, read=read)
        with _translated(self.http):
            async with self.http.stream(method, path, headers=self._headers(headers), timeout=timeout) as response:
                await raise_for(response)
                yield response


@contextmanager
def _translated(http: httpx.AsyncClient) -> Iterator[None]:
    """Say an `httpx` failure in our words."""
    remedy = "it is tried again, then left"
    try:
        yield
    except httpx.TimeoutException:
        raise ProviderUnreachable(f"{http.base_url} did not answer in time", remedy) from None
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, OSError, RuntimeError) as error:
        why = str(error) or type(error).__name__
        raise ProviderUnreachable(f"{http.base_url} cannot be reached: {why}"[:300], remedy) from None


async def _read_bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise TooLarge(f"an answer is over {ANSWER_BYTES_MAX} bytes", "choose another provider")
    return bytes(body)


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    rest = b""
    async for chunk in response.aiter_bytes():
        rest += chunk
        if len(rest) > EVENT_BYTES_MAX:
            raise TooLarge(f"an event is over {EVENT_BYTES_MAX} bytes", "choose another provider")
        *lines, rest = rest.split(b"\n")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")


def parse_offers(answer: Any) -> list[OfferBundle]:
    """The well-formed bundles of an answer `{"offers": [...]}`; malformed ones are left out.

    Raises:
        BadAnswer: it is not such an object.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("offers"), list):
        raise BadAnswer('an answer is not {"offers": [...]}', "is this a Minga provider or board?")
    found = []
    for item in answer["offers"]:
        with suppress(MingaError):
            found.append(OfferBundle.parse(item))
    return found


def _whole(text: str | None) -> int:
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 16:
        raise BadAnswer("an answer has no Upload-Offset", "choose another provider")
    return int(text)
