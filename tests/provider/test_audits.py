"""The audit routes: who may see what of a verified lease, and that nobody sees anything else."""

from __future__ import annotations

from pathlib import Path

import pytest
from auditors import LEAVES, STAKE, TRACED, Auditing, disputes, order_body, ordered, referee, staked, worked
from tenants import Market0, Running, Tenant, folder, market, tar

from fixtures import SystemClock
from minga.chain.contracts import Token
from minga.core.crypto import blake3_hex, keccak, new_key, to_hex
from minga.core.errors import Conflict, Expired, InvalidInput, InvalidSignature, NotFound, TooLarge, Unauthorized
from minga.core.work import Work
from minga.protocol.dispute import SHORT
from minga.protocol.wire import AuditedLease
from minga.provider import audits

__all__ = ["folder", "market"]
pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.timeout(90)]

INPUT = tar({"main.sh": b"echo an input"})


async def committed(market: Market0, provider: Running, tenant: Tenant) -> None:
    """A lease whose job has ended and is committed to."""
    del market, provider
    await worked(tenant, inputs={"/job/work": INPUT})


async def test_a_referee_gets_the_work_the_commitment_inputs_and_trace_and_nothing_else(
    market: Market0, folder: Path
) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await committed(market, provider, tenant)
        key = await referee(market, "one")
        async with Auditing(tenant, provider.url, key) as auditor:
            await auditor.login()
            told = AuditedLease.parse(await auditor.ask("GET"))
            made = (await tenant.until("commitment"))[-1]["data"]
            assert (told.lease, told.root, told.leaves) == (tenant.channel, made["root"], 20)
            assert told.work.hash32() == made["work"]
            assert [bundle.blake3 for bundle in told.work.inputs] == [blake3_hex(INPUT)]
            assert [entry.path for entry in told.files] == [
                "trace/leaves.bin",
                "trace/states/00000000.state",
                "trace/trace.json",
            ]
            assert await auditor.ask("GET", f"/blobs/{blake3_hex(INPUT)}") == INPUT
            leaves = b"".join(LEAVES)
            assert await auditor.ask("GET", f"/blobs/{told.files[0].blake3}") == leaves
            part = await auditor.request("GET", f"/blobs/{told.files[0].blake3}", headers={"range": "bytes=32-63"})
            assert (part.status_code, part.content) == (206, LEAVES[1])
            files = (await tenant.ask("GET", "/artifacts"))["files"]
            (private,) = [item["blake3"] for item in files if item["path"] == "result"]
            for name in (private, "ab" * 32):
                with pytest.raises(NotFound, match="not named by this work"):
                    await auditor.ask("GET", f"/blobs/{name}")
            with pytest.raises(InvalidInput):
                await auditor.ask("GET", "/blobs/journal.sqlite")
            with pytest.raises(NotFound):
                await auditor.ask("GET", "/blobs/..%2f..%2fjournal.sqlite")
            for route in ("", "/artifacts", "/logs", f"/blobs/{blake3_hex(INPUT)}"):
                answer = await auditor.http.get(tenant.path + route)
                assert answer.status_code == 401, "a token for an audit is none of the tenant's"
        async with Auditing(tenant, provider.url, key) as other:
            other.http.headers["authorization"] = tenant.http.headers["authorization"]
            with pytest.raises(Unauthorized):
                await other.ask("GET")


async def test_only_referees_and_challengers_of_this_lease_get_in(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await committed(market, provider, tenant)
        stranger = await market.network.funded_key(f"stranger {market.name}", tokens=SHORT.bond)
        async with Auditing(tenant, provider.url, stranger) as auditor:
            with pytest.raises(Unauthorized, match="may not check this work"):
                await auditor.login()
            for number in range(SHORT.jury):
                await referee(market, f"judge {number}")
            await tenant.record()
            contract, made = disputes(market), market.chain.view.commitments[tenant.channel]
            token = Token(market.chain.spec.deployment.token)
            await market.chain.send("bond", token.approve(contract.address, SHORT.bond), stranger)
            await market.chain.send("challenge", contract.challenge(made), stranger)
            await auditor.login(turn=1)
            assert AuditedLease.parse(await auditor.ask("GET")).work.hash32() == made.work
        async with Tenant(market, provider.url) as second:
            await ordered(second)
            async with Auditing(second, provider.url, stranger) as elsewhere:
                with pytest.raises(Unauthorized, match="may not check"):
                    await elsewhere.login()


async def test_a_referee_who_leaves_is_let_in_no_more(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await committed(market, provider, tenant)
        key = await referee(market, "gone")
        await market.chain.send("leave", disputes(market).leave(), key)
        async with Auditing(tenant, provider.url, key) as auditor:
            with pytest.raises(Unauthorized):
                await auditor.login()


async def test_a_login_is_checked_in_every_part(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await committed(market, provider, tenant)
        key, other = await referee(market, "two"), new_key(keccak(b"other"))
        async with Auditing(tenant, provider.url, key) as auditor:
            now = SystemClock().now()
            good = auditor.login_body()
            bad = (
                (InvalidSignature, auditor.login_body(sign_with=other)),
                (InvalidSignature, auditor.login_body(domain=market.chain.spec.domain)),
                (InvalidSignature, auditor.login_body(channel=to_hex(keccak(b"another lease")))),
                (InvalidSignature, good | {"nonce": to_hex(keccak(b"another"))}),
                (Expired, auditor.login_body(issued_at=now - 1000)),
                (Expired, auditor.login_body(issued_at=now + 1000)),
                (InvalidInput, good | {"more": 1}),
                (InvalidInput, good | {"nonce": "0x00"}),
                (InvalidInput, {name: value for name, value in good.items() if name != "nonce"}),
                (InvalidInput, [good]),
            )
            for kind, body in bad:
                with pytest.raises(kind):
                    await auditor.ask("POST", "/login", json=body)
            with pytest.raises(InvalidInput):
                await auditor.ask("POST", "/login", content=b"{not json")
            with pytest.raises(TooLarge):
                await auditor.ask("POST", "/login", content=b" " * 5000)
            await auditor.ask("POST", "/login", json=good)
            with pytest.raises(Conflict, match="used before"):
                await auditor.ask("POST", "/login", json=good)
            for header in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic x"}):
                assert (await auditor.request("GET", headers=header)).status_code == 401


async def test_work_that_is_not_open_to_audits_is_not_there(market: Market0, folder: Path) -> None:
    key = await referee(market, "three")
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open(which=1)
        async with Auditing(tenant, provider.url, key) as auditor:
            for turn in range(2):
                with pytest.raises(NotFound, match="can be audited here"):
                    await auditor.login(turn=turn)
                await tenant.login(turn=turn)
        manifest = await tenant.send(TRACED)
        await tenant.ask("PUT", "/order", json=order_body(tenant, manifest, "replicate"))
        async with Auditing(tenant, provider.url, key) as auditor:
            with pytest.raises(NotFound):
                await auditor.login(turn=5)


async def test_before_the_commitment_the_work_is_known_and_nothing_of_its_trace(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        manifest = await ordered(tenant)
        async with Auditing(tenant, provider.url, await referee(market, "four")) as auditor:
            await auditor.login()
            told = AuditedLease.parse(await auditor.ask("GET"))
            assert told.work == Work.of(manifest, told.work.trace)
            assert (told.root, told.leaves, told.files) == ("", 0, [])


async def test_tokens_and_nonces_are_bounded_and_logins_are_not_free(
    market: Market0, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "TOKENS_MAX", 2)
    monkeypatch.setattr(audits, "NONCES_MAX", 2)
    monkeypatch.setattr(audits, "LOGINS_PER_MINUTE", 4)
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await ordered(tenant)
        async with Auditing(tenant, provider.url, await referee(market, "five")) as auditor:
            await auditor.login()
            first = auditor.http.headers["authorization"]
            for turn in (1, 2):
                await auditor.login(turn=turn)
            await auditor.ask("GET")
            auditor.http.headers["authorization"] = first
            with pytest.raises(Unauthorized):
                await auditor.ask("GET")
            answers = [await auditor.request("POST", "/login", json={}) for _ in range(3)]
            bodies = [auditor.login_body(turn=turn) for turn in range(10, 13)]
            answers += [await auditor.request("POST", "/login", json=body) for body in bodies]
            assert [answer.status_code for answer in answers][:3] == [400, 400, 400]
            assert {answer.json()["error"]["code"] for answer in answers[4:]} == {"out-of-capacity"}


def test_a_stake_covers_the_leases_of_these_tests() -> None:
    assert STAKE // SHORT.factor >= 4 * 100_000
