"""A bucket that is slow, refuses or breaks off; and keys that stay where they are."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from buckets import ENVIRON, KEY, SECRET, faulty
from minga.core.crypto import blake3_hex
from minga.core.errors import InvalidInput, MingaError
from minga.store import buckets
from minga.store.buckets import Bucket, BucketChunks, BucketUnavailable, Credentials, credentials
from minga.transport.errors import error_body, error_of

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

DATA = b"x" * (4 << 20)
NAME = blake3_hex(DATA)


def chunks_at(url: str, name: str, own: Credentials | None = None) -> BucketChunks:
    return BucketChunks(Bucket.parse(f"s3://faults/{name}", url), "0xjob", own or credentials(ENVIRON))


@pytest.mark.parametrize("trouble", [{"refuse": 3}, {"cut": 2}, {"slow_s": 0.01}])
async def test_a_store_in_trouble_is_tried_again(bucket_server: str, trouble: dict[str, Any], tmp_path: Path):
    async with faulty(bucket_server) as faults:
        place = chunks_at(faults.url, f"t-{next(iter(trouble)).replace('_', '-')}")
        for name, value in trouble.items():
            setattr(faults, name, value)
        await place.put(NAME, DATA)
        for name, value in trouble.items():
            setattr(faults, name, value)
        assert await place.held() == {NAME: len(DATA)}
        assert await place.get(NAME) == DATA
        assert faults.refuse == faults.cut == 0
        assert faults.connections > (0 if "slow_s" in trouble else 1)


async def test_the_secret_never_leaves(bucket_server: str):
    async with faulty(bucket_server) as faults:
        place = chunks_at(faults.url, "secret")
        await place.put(NAME, DATA)
        await place.seal("0-1-" + NAME, b"{}")
        await place.remove(["0-1-" + NAME], [NAME])
        assert KEY.encode() in faults.seen  # it names who signed
        assert SECRET.encode() not in faults.seen


async def test_a_refusal_says_why_and_names_no_key(bucket_server: str):
    place = chunks_at(bucket_server, "refused", Credentials(KEY, "wrong"))
    with pytest.raises(BucketUnavailable, match="SignatureDoesNotMatch") as caught:
        await place.put(NAME, DATA)
    shown = f"{caught.value.as_dict()} {''.join(traceback.format_exception(caught.value))}"
    assert KEY not in shown
    assert "wrong" not in shown.replace("wrong')", "")


async def test_a_store_that_is_away_is_our_own_trouble(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(buckets, "RETRIES", 1)
    monkeypatch.setattr(buckets, "RETRY_S", 1)
    with pytest.raises(BucketUnavailable):
        await chunks_at("http://127.0.0.1:9", "away").held()


def test_no_answer_of_a_peer_is_a_failing_bucket():
    status, body = error_body(BucketUnavailable("it is away", "try again"))
    again = error_of(status, body)
    assert again.code == "storage-unavailable"
    assert not isinstance(again, BucketUnavailable)


@pytest.mark.parametrize(
    ("to", "endpoint"),
    [
        ("", ""), ("bucket", ""), ("s3://", ""), ("s3://A", ""), ("s3://b", ""), ("gs://bucket/x", ""),
        ("s3://bucket/../x", ""), ("s3://bucket//x", ""), ("s3://bucket/x y", ""), ("s3://bucket/x?y", ""),
        ("s3://bucket", "http://example.org"), ("s3://bucket", "ftp://127.0.0.1"), ("s3://bucket", "127.0.0.1"),
        ("s3://bucket", "https://k:s@example.org"), ("s3://bucket\n", ""),
    ],
)  # fmt: skip
def test_what_names_no_bucket_is_refused(to: str, endpoint: str):
    with pytest.raises(InvalidInput):
        Bucket.parse(to, endpoint)


def test_buckets_with_and_without_prefix():
    assert Bucket.parse("s3://my.bucket/a/b/", "https://example.org/") == Bucket(
        "my.bucket", "a/b", "https://example.org"
    )
    assert Bucket.parse("s3://bucket") == Bucket("bucket", "", "")


def test_credentials_come_from_the_environment_or_a_profile_and_from_nowhere_else(tmp_path: Path):
    file = tmp_path / ".aws" / "credentials"
    file.parent.mkdir()
    file.write_text(
        "[default]\naws_access_key_id = d\naws_secret_access_key = ds%%\n"
        "[work]\naws_access_key_id = w\naws_secret_access_key = ws\naws_session_token = wt\n[empty]\n"
    )
    home = {"HOME": str(tmp_path)}
    assert credentials(home) == Credentials("d", "ds%%")
    assert credentials(home | {"AWS_PROFILE": "work"}) == Credentials("w", "ws", "wt")
    assert credentials(home | ENVIRON | {"AWS_SESSION_TOKEN": "t"}) == Credentials(KEY, SECRET, "t")
    other = {"AWS_SHARED_CREDENTIALS_FILE": str(file), "HOME": "/nowhere"}
    assert credentials(other) == Credentials("d", "ds%%")
    for environ in (home | {"AWS_PROFILE": "empty"}, home | {"AWS_PROFILE": "none"}, {"HOME": "/nowhere"}):
        with pytest.raises(InvalidInput, match="no credentials"):
            credentials(environ)
    file.write_bytes(b"\xff\xfe rubbish")
    with pytest.raises(MingaError):
        credentials(home)


def test_credentials_are_not_shown():
    assert SECRET not in repr(credentials(ENVIRON))
    assert KEY not in str(credentials(ENVIRON))
