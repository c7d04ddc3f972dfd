"""Bad input at every route: one error with code, fact and remedy, a 4xx status, no traceback, nothing changed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from tenants import MIB, SIZE, Market0, Tenant, running, tar

from fixtures import SeededDice, SystemClock
from minga.core.crypto import blake3_hex, keccak, new_key, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, InvalidInput, OutOfCapacity, PortInUse
from minga.protocol.messages import channel_id
from minga.provider import desk, serving_basics
from minga.provider.main import ProviderConfig, run_provider
from minga.provider.serving import ROUTES
from minga.provider.serving_streams import STREAMS_MAX

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]
H = "0x" + "ab" * 32
BLOB = "ab" * 32


@asynccontextmanager
async def at_the_desk(market: Market0, folder: Path, **changes: Any) -> AsyncIterator[Tenant]:
    """A tenant who has opened a lease and logged in."""
    async with running(market.config(folder / "home", **changes)) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        await tenant.login()
        yield tenant


def check(answer: httpx.Response, status: int, code: str | None = None) -> dict[str, Any]:
    """The refusal is one error with words."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) >= {"code", "blame", "fact", "remedy"}
    assert error["fact"]
    assert error["remedy"]
    assert "Traceback" not in answer.text
    if code is not None:
        assert error["code"] == code, answer.text
    return dict(error)


async def refused(
    tenant: Tenant, method: str, route: str, status: int, code: str | None = None, **options: Any
) -> None:
    """A request under the lease is refused, and the lease is as it was."""
    before = await tenant.status()
    check(await tenant.http.request(method, tenant.path + route, **options), status, code)
    assert await tenant.status() == before


# --------------------------------------------------------------------------------------------------- who may ask


async def test_every_route_of_a_lease_wants_its_token(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        token = tenant.http.headers.pop("authorization")
        routes = [d for d, _ in ROUTES if not d.is_public]
        assert len(routes) == 17
        bad = (None, "", "Bearer", "Bearer x", f"Basic {token}", token.replace("Bearer ", ""), "Bearer " + "a" * 5000)
        for route in routes:
            path = route.path.replace("{lease}", tenant.channel).replace("{blake3}", BLOB)
            for header in bad if route.path.endswith("/vouchers") else bad[:4]:
                headers = {} if header is None else {"authorization": header}
                answer = await tenant.http.request(route.method, path, headers=headers, content=b"{}")
                if route.method == "HEAD":
                    assert answer.status_code == 401
                else:
                    check(answer, 401, "unauthorized")
        check(await tenant.http.get(f"{tenant.path}/ports/80/"), 401, "unauthorized")
        tenant.http.headers["authorization"] = token
        check(await tenant.http.get(f"/v1/leases/{H}"), 401, "unauthorized")
        assert (await tenant.status())["phase"] == "opened"


async def test_a_token_is_of_one_lease_and_expires(market: Market0, folder: Path):
    class Later:
        """A clock that can be moved on."""

        def __init__(self) -> None:
            self._clock = SystemClock()
            self.ahead = 0

        def now(self) -> int:
            return self._clock.now() + self.ahead

        def monotonic(self) -> float:
            return self._clock.monotonic()

        async def sleep(self, seconds: float) -> None:
            await self._clock.sleep(seconds)

    clock = Later()
    async with (
        running(market.config(folder / "home"), clock=clock) as provider,
        Tenant(market, provider.url) as one,
        Tenant(market, provider.url) as two,
    ):
        for tenant in (one, two):
            await tenant.open()
            await tenant.login()
        one.http.headers["authorization"], two.http.headers["authorization"] = (
            two.http.headers["authorization"],
            one.http.headers["authorization"],
        )
        check(await one.http.get(one.path), 401, "unauthorized")
        assert (await one.http.get(two.path)).status_code == 200
        clock.ahead = 3601
        check(await one.http.get(two.path), 401, "unauthorized")


async def test_logins_that_prove_nothing(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        other = new_key(keccak(b"somebody else"))
        spec = market.network.spec
        early = tenant.login_body()
        now = early["issued_at"]

        async def attempt(status: int, code: str, body: Any, channel: str | None = None) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            path = f"/v1/leases/{channel or tenant.channel}/login"
            check(await tenant.http.post(path, content=content), status, code)

        signed = tenant.login_body
        await attempt(401, "invalid-signature", signed(sign_with=other))
        await attempt(401, "invalid-signature", signed(domain=Domain(spec.chain_id + 1, spec.deployment.market)))
        await attempt(401, "invalid-signature", signed(domain=Domain(spec.chain_id, spec.deployment.token)))
        await attempt(401, "invalid-signature", signed(provider=other.address))
        await attempt(401, "invalid-signature", signed() | {"nonce": H})
        await attempt(401, "invalid-signature", early | {"issued_at": now + 1})
        await attempt(410, "expired", signed(issued_at=now - 3600))
        await attempt(410, "expired", signed(issued_at=now + 3600))
        await attempt(400, "invalid-input", signed(signer=other.address, sign_with=other))
        await attempt(400, "invalid-input", signed(tenant=other.address))
        await attempt(400, "invalid-input", signed(attempt=1))
        await attempt(400, "invalid-input", signed(job=H))
        await attempt(400, "invalid-input", signed(lease_id=H))
        await attempt(400, "invalid-input", signed(offer_hash=H))
        await attempt(400, "invalid-input", signed(), channel=H)
        await attempt(400, "invalid-input", signed() | {"signature": "0x12"})
        await attempt(400, "invalid-input", signed() | {"signature": 5})
        await attempt(400, "invalid-input", signed() | {"extra": 1})
        await attempt(400, "invalid-input", {})
        await attempt(400, "invalid-input", [])
        await attempt(400, "invalid-input", b"")
        await attempt(400, "invalid-input", b"\xff\xfe{")
        await attempt(400, "invalid-input", b'{"a":1,"a":2}')
        await attempt(400, "invalid-input", b"[" * 5000)
        await attempt(413, "too-large", b" " * (MIB + 1))
        good = signed()
        assert (await tenant.http.post(tenant.path + "/login", json=good)).status_code == 200
        await attempt(409, "conflict", good)


async def test_a_lease_that_is_not_on_chain_yet_is_a_conflict_that_may_be_tried_again(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        tenant.job = type(tenant.job)(to_hex(keccak(b"never opened")))
        tenant.channel = channel_id(tenant.lease_id, tenant.bundle.offer_hash(), tenant.signer.address)
        error = check(await tenant.http.post(tenant.path + "/login", json=tenant.login_body()), 409, "conflict")
        assert error["details"] == {"retry": True}


# ------------------------------------------------------------------------------------------------------ manifests


async def test_manifests_that_cannot_be(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        good = tenant.manifest("true").plain()

        async def attempt(code: str | None = "invalid-input", status: int = 400, **changes: Any) -> None:
            await refused(tenant, "PUT", "/manifest", status, code, json=good | changes)

        await attempt("conflict", 409, job=H)
        await attempt("conflict", 409, attempt=1)
        await attempt(environment="windows")
        await attempt(size=good["size"] | {"cpu_milli": SIZE.cpu_milli + 1})
        await attempt(size=good["size"] | {"memory_bytes": SIZE.memory_bytes + 1})
        await attempt(size=good["size"] | {"disk_bytes": SIZE.disk_bytes + 1})
        await attempt(size=good["size"] | {"gpus": 1})
        await attempt(size=good["size"] | {"memory_bytes": 1})
        await attempt(size=good["size"] | {"cpu_milli": 0})
        await attempt(size=good["size"] | {"cpu_milli": 1.5})
        await attempt("limit-not-enforceable", 422, egress=["example.org"])
        await attempt("limit-not-enforceable", 422, ports=[1, 2, 3, 4, 5])
        await attempt("limit-not-enforceable", 422, ports=[80, 80])
        await attempt(ports=[0])
        await attempt(ports=[65536])
        await attempt(run="")
        await attempt(run="x" * 65537)
        await attempt(envs={"A B": "x"})
        await attempt(envs={"A": 5})
        await attempt(secrets="zz")
        await attempt(secrets="abc")
        await attempt(outputs=["../../x"])
        await attempt(outputs=["/etc/passwd"])
        await attempt(version=2)
        await attempt(unknown="field")
        await attempt(grace_s=-1)
        await attempt(name="")
        for target in ("/etc/x", "/", "/job", "/job/.minga", "/proc/1", "relative", "/job/../etc", "/data\n", "/usr"):
            await attempt(inputs=[{"kind": "mount", "target": target, "blake3": BLOB, "bytes": 1}])
        twice = {"kind": "mount", "target": "/data", "blake3": BLOB, "bytes": 1}
        await attempt(inputs=[twice, twice])
        await attempt(inputs=[twice | {"blake3": "AB" * 32}])
        await attempt(inputs=[twice | {"bytes": -1}])
        await attempt("too-large", 413, inputs=[twice | {"bytes": SIZE.disk_bytes + 1}])
        await refused(tenant, "PUT", "/manifest", 413, "too-large", content=b"x" * (MIB + 1))
        await refused(tenant, "PUT", "/manifest", 400, "invalid-input", content=b"")
        await refused(tenant, "PUT", "/manifest", 400, "invalid-input", content=b"null")
        assert (await tenant.http.put(tenant.path + "/manifest", json=good)).status_code == 200
        before = await tenant.status()
        assert (await tenant.http.put(tenant.path + "/manifest", json=good)).json() == before
        await refused(tenant, "PUT", "/manifest", 409, "conflict", json=good | {"name": "other"})


async def test_a_lease_on_an_offer_that_this_home_did_not_sign_runs_nothing(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        signed = list((folder / "home" / "offers").iterdir())
        assert len(signed) == 1
        signed[0].unlink()
        await tenant.open()
        await tenant.login()
        await refused(tenant, "PUT", "/manifest", 409, "conflict", json=tenant.manifest("true").plain())
        await tenant.ask("POST", "/close")
        assert (await tenant.closed()).settled == 0


async def test_more_disk_than_is_free_is_refused_before_anything_is_accepted(market: Market0, folder: Path):
    size = SIZE.model_copy(update={"disk_bytes": 1 << 50})
    async with running(market.config(folder / "home", units=1)) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        await tenant.login()
        large = tenant.manifest("true", size=SIZE)
        free = desk.Desk._free_disk
        desk.Desk._free_disk = lambda self: SIZE.disk_bytes - 1  # type: ignore[method-assign]
        try:
            await refused(tenant, "PUT", "/manifest", 503, "out-of-capacity", json=large.plain())
        finally:
            desk.Desk._free_disk = free  # type: ignore[method-assign]
        await refused(tenant, "PUT", "/manifest", 400, "invalid-input", json=tenant.manifest("true", size=size).plain())


# ---------------------------------------------------------------------------------------------------------- blobs


async def test_blobs_that_do_not_fit(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        data = tar({"a": b"x" * 5000})
        name = blake3_hex(data)
        await refused(tenant, "PUT", f"/blobs/{name}", 409, "conflict", content=data, headers={"upload-offset": "0"})
        entry = {"kind": "workdir", "target": "/job/work", "blake3": name, "bytes": len(data)}
        manifest = tenant.manifest("true").plain() | {"inputs": [entry]}
        assert (await tenant.ask("PUT", "/manifest", json=manifest))["missing"] == [name]

        async def attempt(status: int, code: str, content: bytes, offset: str | None, blob: str = name) -> None:
            headers = {} if offset is None else {"upload-offset": offset}
            await refused(tenant, "PUT", f"/blobs/{blob}", status, code, content=content, headers=headers)

        await attempt(400, "invalid-input", data, None)
        for offset in ("", "-1", "x", "1.0", "9" * 30):
            await attempt(400, "invalid-input", data, offset)
        await attempt(409, "conflict", data[5:], "5")
        await attempt(413, "too-large", data + b"x", "0")
        await attempt(413, "too-large", b"x" * (8 * MIB + 1), "0")
        await attempt(404, "not-found", b"x", "0", BLOB)
        await attempt(400, "invalid-input", b"x", "0", "AB" * 32)
        await attempt(400, "invalid-input", b"x", "0", "short")
        await attempt(404, "not-found", b"x", "0", "..%2f..%2fjournal.sqlite")
        await attempt(400, "invalid-input", b"y" * len(data), "0")
        await refused(tenant, "POST", "/start", 409, "conflict")
        assert (await tenant.http.head(f"{tenant.path}/blobs/{name}")).headers["upload-offset"] == "0"
        assert await tenant.ask("PUT", f"/blobs/{name}", content=data[:9], headers={"upload-offset": "0"}) == {
            "offset": 9,
            "complete": False,
        }
        assert (await tenant.http.head(f"{tenant.path}/blobs/{name}")).headers["upload-offset"] == "9"
        check(
            await tenant.http.put(f"{tenant.path}/blobs/{name}", content=data, headers={"upload-offset": "0"}),
            409,
            "conflict",
        )
        done = await tenant.ask("PUT", f"/blobs/{name}", content=data[9:], headers={"upload-offset": "9"})
        assert done == {"offset": len(data), "complete": True}
        again = await tenant.ask("PUT", f"/blobs/{name}", content=b"", headers={"upload-offset": str(len(data))})
        assert again == done
        assert (await tenant.status())["phase"] == "ready"
        check(await tenant.http.get(f"{tenant.path}/blobs/{name}"), 404, "not-found")
        check(await tenant.http.get(f"{tenant.path}/blobs/{BLOB}"), 404, "not-found")


async def test_ranges_that_are_none(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        await tenant.send("printf 0123456789 > $MINGA_OUTPUT_DIR/x")
        await tenant.ask("POST", "/start")
        await tenant.until("artifacts")
        path = f"{tenant.path}/blobs/{blake3_hex(b'0123456789')}"
        for header in ("bytes=10-", "bytes=5-4", "bytes=-5", "bytes=a-b", "lines=1-2", "bytes=1-2,4-5"):
            check(await tenant.http.get(path, headers={"range": header}), 400, "invalid-input")
        answer = await tenant.http.get(path, headers={"range": "bytes=2-4"})
        assert (answer.status_code, answer.content) == (206, b"234")
        assert answer.headers["content-range"] == "bytes 2-4/10"
        assert (await tenant.http.get(path, headers={"range": "bytes=8-99"})).content == b"89"


# ------------------------------------------------------------------------------------------------------- vouchers


async def test_vouchers_that_are_worth_nothing(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        spec = market.network.spec
        other = new_key(keccak(b"somebody else"))
        assert await tenant.pay(1000) == "1000"

        async def attempt(status: int, code: str, body: Any) -> None:
            await refused(tenant, "POST", "/vouchers", status, code, json=body)

        await attempt(401, "invalid-signature", tenant.voucher(2000, key=other))
        await attempt(401, "invalid-signature", tenant.voucher(2000, key=market.tenant))
        await attempt(401, "invalid-signature", tenant.voucher(2000, channel=H))
        await attempt(401, "invalid-signature", tenant.voucher(2000, channel=tenant.lease_id))
        await attempt(
            401, "invalid-signature", tenant.voucher(2000, domain=Domain(spec.chain_id + 1, spec.deployment.market))
        )
        await attempt(
            401, "invalid-signature", tenant.voucher(2000, domain=Domain(spec.chain_id, spec.deployment.registry))
        )
        await attempt(401, "invalid-signature", tenant.voucher(2000) | {"cumulative": "2001"})
        await attempt(409, "stale-voucher", tenant.voucher(999))
        await attempt(409, "stale-voucher", tenant.voucher(0))
        await attempt(409, "stale-voucher", tenant.voucher(100_001))
        await attempt(409, "stale-voucher", tenant.voucher(2**128 - 1))
        for text in ("-1", "1.5", "01", "1e3", "", " 1", "٣", str(2**128), "9" * 50):
            await attempt(400, "invalid-input", tenant.voucher(2000) | {"cumulative": text})
        await attempt(400, "invalid-input", tenant.voucher(2000) | {"cumulative": 2000})
        await attempt(400, "invalid-input", tenant.voucher(2000) | {"signature": "0x"})
        await attempt(400, "invalid-input", tenant.voucher(2000) | {"more": 1})
        signature = tenant.voucher(2000)["signature"]
        high_s = signature[:66] + "f" * 64 + signature[130:]
        await attempt(401, "invalid-signature", tenant.voucher(2000) | {"signature": high_s})
        await attempt(401, "invalid-signature", tenant.voucher(2000) | {"signature": signature[:-2] + "00"})
        assert await tenant.pay(1000) == "1000"
        assert await tenant.pay(1001) == "1001"


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 8 MiB at the provider's home."""
    home = folder / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(home)], check=True)
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_voucher_that_cannot_be_stored_is_not_acknowledged(market: Market0, folder: Path, small_disk: Path):
    async with at_the_desk(market, folder, unit=SIZE.model_copy(update={"disk_bytes": MIB}), units=1) as tenant:
        assert await tenant.pay(1000) == "1000"
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as handle, contextlib.suppress(OSError):
            while handle.write(bytes(1024)):
                pass
        amount = 1000
        while (answer := await tenant.http.post(tenant.path + "/vouchers", json=tenant.voucher(amount + 1))).is_success:
            amount += 1  # the journal's log file has some room left of its own
            assert amount < 2000
        check(answer, 507, "disk-full")
        assert (await tenant.status())["paid"] == str(amount)
        filler.unlink()
        assert await tenant.pay(amount + 1) == str(amount + 1)


# ------------------------------------------------------------------------------------------------ everything else


async def test_requests_that_come_at_the_wrong_time(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        await refused(tenant, "POST", "/start", 409, "conflict")
        await refused(tenant, "GET", "/artifacts", 409, "conflict")
        await refused(tenant, "GET", "/ports/80/", 409, "conflict")
        await tenant.send("true")
        await refused(tenant, "GET", "/ports/80/", 404, "not-found")
        await tenant.ask("POST", "/start")
        await tenant.until("artifacts")
        for _ in range(2):
            assert (await tenant.ask("POST", "/stop"))["phase"] == "exited"
        check(await tenant.http.post(tenant.path + "/start"), 409, "conflict")
        for _ in range(2):
            assert (await tenant.ask("POST", "/close"))["phase"] in ("closing", "closed")
        await tenant.closed()
        before = await tenant.status()
        check(await tenant.http.post(tenant.path + "/vouchers", json=tenant.voucher(5000)), 409)
        check(await tenant.http.post(tenant.path + "/start"), 409, "conflict")
        assert (await tenant.ask("POST", "/close")) == before
        assert (await tenant.ask("POST", "/stop")) == before


async def test_numbers_and_bodies_that_are_none(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        for value in ("x", "-1", "1.5", "9" * 20, "%00"):
            await refused(tenant, "GET", f"/events?after={value}", 400, "invalid-input")
            await refused(tenant, "GET", f"/logs?offset={value}", 400, "invalid-input")
        await refused(tenant, "POST", "/stop", 400, "invalid-input", json={"grace_s": -1})
        await refused(tenant, "POST", "/stop", 400, "invalid-input", json={"grace_s": 3601})
        await refused(tenant, "POST", "/stop", 400, "invalid-input", json={"reason": "x" * 201})
        await refused(tenant, "POST", "/stop", 400, "invalid-input", content=b"{")
        await refused(tenant, "POST", "/start", 413, "too-large", content=b"x" * 2000)
        await refused(tenant, "POST", "/close", 413, "too-large", content=b"x" * 2000)
        for port in ("x", "-1", "999999999999999999"):
            await refused(tenant, "GET", f"/ports/{port}/", 400, "invalid-input")


async def test_what_is_not_a_route(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        for path in ("/", "/v1", "/v2/health", f"{tenant.path}/", f"{tenant.path}/nothing", "/v1/../../etc/passwd"):
            check(await tenant.http.get(path), 404, "not-found")
        check(await tenant.http.delete(tenant.path), 405)
        check(await tenant.http.post("/v1/offers", json={}), 405)
        assert (await tenant.http.get("/v1/health")).json()["ok"] is True
        document = (await tenant.http.get("/v1/openapi.json")).json()
        assert len(document["paths"]) == 19
        assert document["openapi"].startswith("3.")


async def test_a_body_that_dawdles_and_one_that_breaks_off(market: Market0, folder: Path, monkeypatch):
    monkeypatch.setattr(serving_basics.body_of, "__defaults__", (MIB, 0.3))
    async with at_the_desk(market, folder) as tenant:
        url = tenant.http.base_url
        token = tenant.http.headers["authorization"]
        head = f"PUT {tenant.path}/manifest HTTP/1.1\r\nhost: x\r\nauthorization: {token}\r\n".encode()
        head += b"content-length: 1000\r\n\r\n{"
        stream = await anyio.connect_tcp(url.host, url.port or 0)
        async with stream:
            await stream.send(head)
            with anyio.fail_after(5):
                assert b"400 Bad Request" in await stream.receive()
        stream = await anyio.connect_tcp(url.host, url.port or 0)
        await stream.send(head)
        await stream.aclose()
        assert (await tenant.status())["phase"] == "opened"


async def test_a_lease_holds_only_so_many_streams(market: Market0, folder: Path):
    async with at_the_desk(market, folder) as tenant:
        held = []
        for _ in range(STREAMS_MAX):
            request = tenant.http.build_request("GET", f"{tenant.path}/events")
            answer = await tenant.http.send(request, stream=True)
            pieces = answer.aiter_raw()
            assert await anext(pieces)
            held.append((answer, pieces))  # an iterator that is let go closes its answer
        with anyio.fail_after(10):
            check(await tenant.http.get(f"{tenant.path}/events"), 503, "out-of-capacity")
        for answer, _ in held:
            await answer.aclose()
        with anyio.fail_after(10):
            while (await tenant.http.get(f"{tenant.path}/logs")).status_code != 200:
                pass


async def test_logins_are_limited(market: Market0, folder: Path, monkeypatch):
    monkeypatch.setattr(desk, "LOGINS_PER_MINUTE", 3)
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        answers = [
            await tenant.http.post(tenant.path + "/login", json=tenant.login_body(turn=turn)) for turn in range(5)
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 503, 503]
        check(answers[-1], 503, "out-of-capacity")


async def never_ready(config: ProviderConfig) -> None:
    """Start a provider that cannot start."""
    with anyio.fail_after(20):
        await run_provider(config, SystemClock(), SeededDice("x"), anyio.Event(), lambda kind, facts: None)


async def test_the_providers_own_configuration_is_checked_before_anything_is_touched(market: Market0, folder: Path):
    home = folder / "home"
    bad: list[dict[str, Any]] = [
        {"units": 0}, {"quantum": 0}, {"close_window": 5}, {"close_window": 86401}, {"price_per_hour": -1},
        {"seconds_min": 10, "seconds_max": 5}, {"environments": {}}, {"host": "0.0.0.0"}, {"offer_seconds": 1},
        {"url": "https://example.org"},
    ]  # fmt: skip
    for changes in bad:
        with pytest.raises(InvalidInput):
            market.config(home, **changes).check()
    assert not home.exists()
    with pytest.raises(InvalidInput, match="more than this machine"):
        await never_ready(market.config(home, units=10_000))
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(PortInUse):
            await never_ready(market.config(home, port=held.getsockname()[1]))
    async with running(market.config(home)):
        with pytest.raises(Conflict, match="another process"):
            await never_ready(market.config(home))


async def test_jobs_together_never_have_more_than_the_machine_whatever_was_offered(
    market: Market0, folder: Path, monkeypatch
):
    """The chain counts units of an offer; an owner who cuts the machine anew has leases on both cuts."""
    monkeypatch.setattr("minga.provider.main.check_fits", lambda machine, unit, units: None)
    cores = len(os.sched_getaffinity(0))
    whole = SIZE.model_copy(update={"cpu_milli": 1000 * cores})
    config = market.config(folder / "home", unit=whole, units=2)
    async with (
        running(config) as provider,
        Tenant(market, provider.url) as one,
        Tenant(market, provider.url) as two,
    ):
        for tenant in (one, two):
            await tenant.open()
            await tenant.login()
        await one.send("sleep 60", size=whole)
        with pytest.raises(OutOfCapacity, match=f"2 jobs would use cpu_milli {1000 * cores + 500}"):
            await two.send("echo never", size=SIZE)
        assert (await two.status())["phase"] == "opened"
        await one.ask("POST", "/stop")
        await two.send("echo now", size=SIZE)
        assert (await two.status())["phase"] == "ready"
