"""What every place for checkpoints promises; each test runs on this disk and on a real S3 server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from buckets import ENVIRON
from minga.core.crypto import blake3_hex
from minga.core.errors import NotFound
from minga.store.buckets import Bucket, BucketChunks, credentials
from minga.store.chunks import Destination, DiskChunks

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

A, B = b"a" * 5000, b"b" * 7
NAME_A, NAME_B = blake3_hex(A), blake3_hex(B)
KEY = f"0-1-{NAME_A}"


def opened(kind: str, tmp_path: Path, request: pytest.FixtureRequest, job: str = "0xjob") -> Destination:
    """A destination of its own for each test; again the same one for the same job."""
    if kind == "disk":
        return DiskChunks(tmp_path / job)
    url = request.getfixturevalue("bucket_server")
    bucket = Bucket.parse(f"s3://conformance/{tmp_path.name.replace('_', '-')}/deep", url)
    return BucketChunks(bucket, job, credentials(ENVIRON))


@pytest.fixture(params=["disk", "bucket"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Destination]:
    made = opened(request.param, tmp_path, request)
    await made.put(NAME_A, A)
    await made.seal("9-9-" + "0" * 64, b"{}")  # a real store has its bucket before anybody uses it
    await made.remove(["9-9-" + "0" * 64], [NAME_A])
    yield made
    await made.aclose()


async def test_chunks_are_held_once_they_are_sealed(place: Destination):
    assert await place.held() == {}
    await place.put(NAME_A, A)
    await place.put(NAME_A, A)
    await place.put(NAME_B, memoryview(bytearray(B)))
    await place.seal(KEY, b'{"x":1}')
    assert await place.held() == {NAME_A: len(A), NAME_B: len(B)}
    assert [await place.get(name) for name in (NAME_A, NAME_B)] == [A, B]
    assert await place.keys() == [KEY]
    assert await place.manifest(KEY) == b'{"x":1}'


async def test_what_is_not_there_is_said_to_be_so(place: Destination):
    with pytest.raises(NotFound):
        await place.get(NAME_A)
    with pytest.raises(NotFound):
        await place.manifest(KEY)
    await place.remove([KEY], [NAME_A, NAME_B])
    assert (await place.keys(), await place.held()) == ([], {})


async def test_removing_takes_what_is_named_and_no_more(place: Destination):
    for name, data in ((NAME_A, A), (NAME_B, B)):
        await place.put(name, data)
    other = f"1-1-{NAME_B}"
    await place.seal(KEY, b"{}")
    await place.seal(other, b"{}")
    await place.remove([KEY], [NAME_A])
    assert await place.keys() == [other]
    assert await place.held() == {NAME_B: len(B)}
    await place.remove([], [])
    assert await place.keys() == [other]


async def test_many_put_at_once(place: Destination):
    chunks = {blake3_hex(data): data for data in (bytes([index]) * (1000 + index) for index in range(40))}
    async with anyio.create_task_group() as tasks:
        for name, data in chunks.items():
            tasks.start_soon(place.put, name, data)
    await place.seal(KEY, b"{}")
    assert await place.held() == {name: len(data) for name, data in chunks.items()}


@pytest.mark.parametrize("kind", ["disk", "bucket"])
async def test_another_process_finds_what_was_put_and_another_job_does_not(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    await opened(kind, tmp_path, request).put(NAME_A, A)  # and is killed here
    again = opened(kind, tmp_path, request)
    assert await again.held() == {NAME_A: len(A)}
    await again.seal(KEY, b"{}")
    assert await opened(kind, tmp_path, request).keys() == [KEY]
    other = opened(kind, tmp_path, request, "0xother")
    assert (await other.keys(), await other.held()) == ([], {})


@pytest.mark.parametrize("kind", ["disk", "bucket"])
async def test_an_empty_place_is_empty(kind: str, tmp_path: Path, request: pytest.FixtureRequest):
    if kind == "bucket":
        await opened(kind, tmp_path, request, "0xneighbour").put(NAME_A, A)
    made = opened(kind, tmp_path, request)
    assert (await made.keys(), await made.held()) == ([], {})
    await made.remove([KEY], [NAME_A])
