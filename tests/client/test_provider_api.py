"""A provider that answers nonsense, too much, too little or nothing: one clear error, and nothing of it is believed."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from minga.client.provider_api import ProviderApi, parse_offers
from minga.core.crypto import blake3_hex
from minga.core.errors import BadAnswer, BadArtifact, MingaError, NotFound, ProviderUnreachable, StaleVoucher, TooLarge
from minga.core.spec import FileEntry

pytestmark = pytest.mark.anyio

CHANNEL = "0x" + "ab" * 32


def api_of(answer) -> ProviderApi:
    """A provider that answers every request with `answer(request)`."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://provider")
    api = ProviderApi(http, CHANNEL)
    api.token = "t"
    return api


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"lease": 1}', b'{"a": 1.5}', b'{"a": 1, "a": 2}', b"[" * 10_000, b"\xff", b'{"extra": 1}'],
)
async def test_nonsense_is_our_error(body: bytes) -> None:
    api = api_of(lambda request: httpx.Response(200, content=body))
    for call in (api.status, api.artifacts, api.start, api.close, lambda: api.pay(1, "0x" + "00" * 65)):
        with pytest.raises(MingaError):
            await call()


async def test_an_endless_answer_is_cut() -> None:
    async def endless():
        while True:
            yield b"x" * (1 << 20)

    api = api_of(lambda request: httpx.Response(200, content=endless()))
    with pytest.raises(TooLarge):
        await api.status()
    with pytest.raises(TooLarge):
        async for _ in api.events(0):
            pass


async def test_refusals_keep_their_class_and_words() -> None:
    error = StaleVoucher("the voucher says 1, 2 is held already", "sign more", best="2")
    api = api_of(lambda request: httpx.Response(409, json=error.as_dict()))
    with pytest.raises(StaleVoucher, match="2 is held") as caught:
        await api.pay(1, "0x" + "00" * 65)
    assert caught.value.details == {"best": "2"}
    gone = api_of(lambda request: httpx.Response(404, json=NotFound("no such file").as_dict()))
    with pytest.raises(NotFound):
        await gone.upload("ab" * 32, Path("/dev/null"))


@pytest.mark.parametrize("error", [httpx.ConnectError("no"), httpx.ReadTimeout("slow"), httpx.RemoteProtocolError("x")])
async def test_silence_is_unreachable(error: Exception) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error

    api = api_of(fail)
    with pytest.raises(ProviderUnreachable):
        await api.status()
    with pytest.raises(ProviderUnreachable):
        async for _ in api.logs(0, follow=True):
            pass


async def test_events_of_a_stream() -> None:
    body = (
        b': hello\n\nid: 1\nevent: phase\ndata: {"number": 1, "at": 5, "kind": "phase", "data": {}}\n\n'
        b':\n\nid: 2\r\ndata: {"number": 2, "at": 5,\r\ndata:  "kind": "meter", "data": {"working_s": 3}}\r\n\r\n'
    )

    async def dribble():
        for i in range(0, len(body), 7):
            yield body[i : i + 7]

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["after"] == "7"
        assert request.headers["authorization"] == "Bearer t"
        return httpx.Response(200, content=dribble())

    found = [event async for event in api_of(answer).events(7)]
    assert [event and event.kind for event in found] == [None, "phase", None, "meter"]
    bad = api_of(lambda request: httpx.Response(200, content=b'data: {"number": 0}\n\n'))
    with pytest.raises(MingaError):
        [event async for event in bad.events(0)]


DATA = bytes(range(256)) * 5000


async def test_a_download_goes_on_where_it_ended_and_is_verified(tmp_path: Path) -> None:
    entry = FileEntry(path="x", bytes=len(DATA), blake3=blake3_hex(DATA), executable=True)
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range"))
        start = int(asked[-1][6:-1]) if asked[-1] else 0
        end = len(DATA) if asked[1:] else 1000
        return httpx.Response(206 if start else 200, content=DATA[start:end])

    api, parts, target = api_of(answer), tmp_path / "parts", tmp_path / "x"
    parts.mkdir()
    with pytest.raises(ProviderUnreachable):
        await api.download(entry, target, parts)
    assert not target.exists()
    await api.download(entry, target, parts)
    assert asked == [None, "bytes=1000-"]
    assert target.read_bytes() == DATA
    assert target.stat().st_mode & 0o100
    assert not list(parts.iterdir())


@pytest.mark.parametrize("sent", [DATA[:-1] + b"!", DATA + b"!"])
async def test_other_bytes_than_announced_are_never_kept(sent: bytes, tmp_path: Path) -> None:
    entry = FileEntry(path="x", bytes=len(DATA), blake3=blake3_hex(DATA))
    api = api_of(lambda request: httpx.Response(200, content=sent))
    with pytest.raises(BadArtifact):
        await api.download(entry, tmp_path / "x", tmp_path)
    assert not (tmp_path / "x").exists()


async def test_an_upload_goes_on_where_the_providers_copy_ends(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("minga.client.provider_api.PIECE_BYTES", 100_000)
    (tmp_path / "blob").write_bytes(DATA)
    held = bytearray(DATA[:5000])

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "HEAD":
            return httpx.Response(200, headers={"upload-offset": str(len(held))})
        assert int(request.headers["upload-offset"]) == len(held)
        held.extend(request.content)
        return httpx.Response(200, json={"offset": len(held), "complete": len(held) == len(DATA)})

    await api_of(answer).upload("ab" * 32, tmp_path / "blob")
    assert bytes(held) == DATA


@pytest.mark.parametrize(
    ("head", "put"),
    [({}, {}), ({"upload-offset": "-1"}, {}), ({"upload-offset": "0"}, {"offset": "x"}), ({"upload-offset": "0"}, [1]),
     ({"upload-offset": "0"}, {"offset": 0, "complete": False})],
)  # fmt: skip
async def test_an_upload_that_does_not_go_on_ends(head, put, tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(b"data")
    api = api_of(
        lambda request: httpx.Response(200, headers=head) if request.method == "HEAD" else httpx.Response(200, json=put)
    )
    with pytest.raises(BadAnswer):
        await api.upload("ab" * 32, tmp_path / "blob")


@pytest.mark.parametrize("answer", [None, [], {}, {"offers": 1}, {"offers": {}}])
def test_a_list_of_offers_is_a_list(answer) -> None:
    with pytest.raises(BadAnswer):
        parse_offers(answer)


def test_malformed_offers_are_left_out() -> None:
    assert parse_offers({"offers": [1, {}, {"offer": {}}, None]}) == []
