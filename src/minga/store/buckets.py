"""An S3-compatible bucket as a place for checkpoints.

Trusted: nobody but the tenant. Every byte passes through the tenant's machine, which checks its BLAKE3 on the way in
and on the way out; the bucket may lose what it holds, and cannot forge it. Providers get no key and no url: a presigned
upload would let a provider store bytes under a name that no store can check (none enforces BLAKE3), so that they would
have to be read back before they count. The keys stay in this process: they come from the environment or a profile file
and appear in no manifest, journal, log or error.

`put` and `seal` return when the store has answered, which S3 gives only for what is durable and whole. A store that is
slow, cuts connections or answers 5xx is tried again for minutes. Does not know: checkpoints, hashes.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from minga.core.errors import InvalidInput, MissingPrerequisite, NotFound, StorageUnavailable

REQUEST_S = 60
RETRIES, RETRY_S = 12, 180
READS = 4
REGION = "us-east-1"

T = TypeVar("T")


class BucketUnavailable(StorageUnavailable):
    """The tenant's own bucket, not a provider's. It has no code of its own: no answer of a peer becomes it."""


@dataclass(frozen=True)
class Credentials:
    """What signs requests; never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(repr=False, default=None)


@dataclass(frozen=True)
class Bucket:
    """Where: bucket, prefix below it (may be empty), and the store's url (empty: AWS)."""

    name: str
    prefix: str
    endpoint: str = ""

    @classmethod
    def parse(cls, to: str, endpoint: str = "") -> Bucket:
        """From `s3://bucket/prefix` and the store's url.

        Raises:
            InvalidInput: not of that form, or plain http off loopback.
        """
        found = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9!_.*'()/-]*))?", to)
        if found is None or ".." in to or "//" in to.removeprefix("s3://"):
            raise InvalidInput(f"{to[:80]!r} names no bucket", "write s3://bucket/prefix")
        parts = urlsplit(endpoint)
        if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username):
            raise InvalidInput(f"{endpoint[:80]!r} is no url of a store", "write https://host")
        if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
            raise InvalidInput(f"{endpoint[:80]} is plain http off loopback", "write https://host")
        return cls(found[1], (found[2] or "").strip("/"), endpoint.rstrip("/"))


def credentials(environ: Mapping[str, str]) -> Credentials:
    """The tenant's own, from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, if set), else from the
    profile AWS_PROFILE of AWS_SHARED_CREDENTIALS_FILE, which is `default` of ~/.aws/credentials.

    Raises:
        InvalidInput: there are none. No other source, such as a machine's metadata, is asked.
    """
    found: Mapping[str, str] = environ
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    if not environ.get(names[0]):
        home = environ.get("HOME") or str(Path.home())
        path = environ.get("AWS_SHARED_CREDENTIALS_FILE") or f"{home}/.aws/credentials"
        parser = configparser.ConfigParser(interpolation=None)
        profile = environ.get("AWS_PROFILE") or "default"
        try:
            parser.read(path)
            found = {name.upper(): value for name, value in parser.items(profile)}
        except (configparser.Error, UnicodeDecodeError, OSError):
            found = {}
    key, secret, token = (found.get(name) or "" for name in names)
    if not key or not secret:
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        raise InvalidInput("there are no credentials for the bucket", remedy)
    return Credentials(key, secret, token or None)


class BucketChunks:
    """Objects below a prefix. Raises `BucketUnavailable` when the store refuses, or fails for `RETRY_S` seconds."""

    def __init__(self, bucket: Bucket, prefix: str, own: Credentials, region: str = REGION) -> None:
        """Use `prefix` below that of `bucket`. No request is sent yet.

        Raises:
            MissingPrerequisite: the library that speaks S3 is not installed.
        """
        self._where = f"s3://{bucket.name}/{bucket.prefix}"
        self._obstore, self._store = _open(bucket, own, region)
        self._prefix = "/".join(part for part in (bucket.prefix, prefix) if part)

    async def held(self) -> dict[str, int]:
        """As `Destination.held`."""
        listed = await self._list(f"{self._prefix}/chunks")
        return {name: size for name, size in listed.items() if re.fullmatch(r"[0-9a-f]{64}", name)}

    async def put(self, name: str, data: bytes | memoryview) -> None:
        """As `Destination.put`."""
        await self._write(f"chunks/{name}", data)

    async def get(self, name: str) -> bytes:
        """As `Destination.get`."""
        return await self._read(f"chunks/{name}")

    async def seal(self, key: str, manifest: bytes) -> None:
        """As `Destination.seal`."""
        await self._write(f"checkpoints/{key}.json", manifest)

    async def keys(self) -> list[str]:
        """As `Destination.keys`."""
        listed = await self._list(f"{self._prefix}/checkpoints")
        return [name.removesuffix(".json") for name in listed if name.endswith(".json")]

    async def manifest(self, key: str) -> bytes:
        """As `Destination.manifest`."""
        return await self._read(f"checkpoints/{key}.json")

    async def remove(self, keys: Iterable[str], chunks: Iterable[str]) -> None:
        """As `Destination.remove`."""
        for names in ([f"checkpoints/{key}.json" for key in keys], [f"chunks/{name}" for name in chunks]):
            if names:
                with self._translated(), _absent_is_removed():
                    paths = [f"{self._prefix}/{name}" for name in names]
                    await self._obstore.delete_async(self._store, paths)

    async def aclose(self) -> None:
        """As `Destination.aclose`."""

    async def _write(self, path: str, data: bytes | memoryview) -> None:
        with self._translated():
            await self._obstore.put_async(self._store, f"{self._prefix}/{path}", data, use_multipart=False)

    async def _read(self, path: str) -> bytes:
        async def read() -> bytes:
            found = await self._obstore.get_async(self._store, f"{self._prefix}/{path}")
            return bytes(await found.bytes_async())

        return await self._persist(read)

    async def _list(self, prefix: str) -> dict[str, int]:
        async def read() -> dict[str, int]:
            found: dict[str, int] = {}
            async for batch in self._obstore.list(self._store, prefix=prefix, chunk_size=1000):
                found |= {item["path"].rpartition("/")[2]: int(item["size"]) for item in batch}
            return found

        return await self._persist(read)

    async def _persist(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read again when an answer breaks off, which the library leaves to its caller."""
        for left in range(READS - 1, -1, -1):
            try:
                with self._translated():
                    return await read()
            except BucketUnavailable:
                if not left:
                    raise
        raise AssertionError

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (exceptions.NotFoundError, FileNotFoundError):
            raise NotFound(f"{self._where} does not hold it", "is it the right bucket?") from None
        except (exceptions.BaseError, OSError) as error:
            raise BucketUnavailable(f"{self._where}: {_reason(error)}", "it is tried again") from None


def _open(bucket: Bucket, own: Credentials, region: str) -> tuple[Any, Any]:
    try:
        import obstore
        from obstore.store import S3Store
    except ImportError:
        raise MissingPrerequisite("obstore is not installed", "pip install 'minga[s3]'") from None
    optional: dict[str, Any] = {"endpoint": bucket.endpoint} if bucket.endpoint else {}
    if own.token:
        optional["session_token"] = own.token
    backoff: Any = {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=10), "base": 2}
    store = S3Store(
        bucket.name,
        access_key_id=own.key,
        secret_access_key=own.secret,
        region=region,
        virtual_hosted_style_request=False,
        client_options={
            "timeout": timedelta(seconds=REQUEST_S),
            "connect_timeout": timedelta(seconds=10),
            "allow_http": bucket.endpoint.startswith("http://"),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S), "backoff": backoff},
        **optional,
    )
    return obstore, store


def _reason(error: Exception) -> str:
    """The store's own code and the HTTP status; the whole text may quote the request, with the key's name in it."""
    text = str(error)
    code = re.search(r"<Code>(\w{1,64})</Code>", text)
    status = re.search(r"\b([45]\d\d) [A-Z][A-Za-z ]{1,40}", text)
    known = [found[index] for found, index in ((code, 1), (status, 0)) if found]
    return ", ".join(known) or type(error).__name__


@contextmanager
def _absent_is_removed() -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except (exceptions.NotFoundError, FileNotFoundError):
        pass


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
