"""Verified work at a real provider on a real chain: stake and offers, orders, commitments, holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from auditors import LEAVES, STAKE, TRACED, disputes, mint, order_body, ordered, stake_of, staked, worked
from tenants import Market0, Tenant, folder, market, running

from fixtures import LocalNetwork, SeededDice, SystemClock, eventually
from minga.chain.contracts import Token
from minga.chain.errors import MachineFullyLeased, StakeTooSmall
from minga.chain.local import start_local, stop_local
from minga.core.crypto import ZERO_ADDRESS, keccak, new_key, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import Conflict, InsufficientFunds, InvalidInput, InvalidSignature, RpcUnavailable
from minga.protocol.dispute import SHORT
from minga.protocol.lease import Phase
from minga.protocol.merkle import Tree
from minga.provider import commitments
from minga.provider.main import run_provider
from traces import facts, tracing

__all__ = ["folder", "market"]
pytestmark = [pytest.mark.anyio, pytest.mark.root, pytest.mark.timeout(90)]

ROOT = to_hex(Tree(LEAVES).root)


async def test_a_staked_provider_offers_the_same_units_twice_and_no_unit_is_sold_twice(
    market: Market0, folder: Path
) -> None:
    async with staked(market, folder, units=1) as provider, Tenant(market, provider.url) as tenant:
        plain, held = (item["offer"] for item in await tenant.offers())
        place = market.chain.spec.deployment
        assert (plain["arbiter"], plain["hold_bps"], plain["hold_seconds"]) == (ZERO_ADDRESS, 0, 0)
        assert (held["arbiter"], held["hold_bps"]) == (place.disputes, 1000)
        assert held["hold_seconds"] == 2 * SHORT.window
        same = ("machine", "terms", "units", "price_per_hour", "quantum", "provider")
        assert [plain[name] for name in same] == [held[name] for name in same]
        assert ("staked", {"arbiter": place.disputes, "amount": str(STAKE)}) in provider.told
        await tenant.open(which=1)
        async with Tenant(market, provider.url) as other:
            with pytest.raises(MachineFullyLeased):
                await other.open(which=0)
        assert (await stake_of(market)).locked == tenant.deposit


async def test_without_a_stake_there_is_one_offer_as_ever(market: Market0, folder: Path) -> None:
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        (offer,) = await tenant.offers()
        assert offer["offer"]["arbiter"] == ZERO_ADDRESS


async def test_what_is_wished_for_is_staked_once_and_a_larger_wish_adds_the_rest(market: Market0, folder: Path) -> None:
    for wish, expected in ((STAKE, STAKE), (STAKE, STAKE), (STAKE // 2, STAKE), (2 * STAKE, 2 * STAKE)):
        if wish == 2 * STAKE:
            await mint(market, market.operator.address, STAKE + 1)
        async with staked(market, folder, stake=wish):
            assert (await stake_of(market)).staked == expected


async def test_a_stake_that_cannot_be_paid_ends_the_start_with_a_reason(market: Market0, folder: Path) -> None:
    config = market.config(folder / "home", stake=STAKE)
    with pytest.raises(InsufficientFunds, match=r"holds \$0.00, \$10.00 more are to be staked"):
        await run_provider(config, SystemClock(), SeededDice("poor"), anyio.Event(), lambda kind, facts: None)
    assert (await stake_of(market)).staked == 0


async def test_a_lease_larger_than_the_stake_covers_cannot_be_opened(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        with pytest.raises(StakeTooSmall):
            await tenant.open(deposit=STAKE // SHORT.factor + 1, which=1)
        await tenant.open(deposit=STAKE // SHORT.factor, which=1)


async def test_an_order_is_taken_only_for_this_work_and_by_this_tenant(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open(which=1)
        await tenant.login()
        early = tenant.manifest("true")
        with pytest.raises(Conflict, match="no manifest"):
            await tenant.ask("PUT", "/order", json=order_body(tenant, early))
        manifest = await tenant.send("echo hello")
        other = to_hex(keccak(b"other"))
        good, domain = order_body(tenant, manifest), tenant.chain.spec.domain
        bad = (
            (InvalidInput, order_body(tenant, manifest, work=other)),
            (InvalidInput, order_body(tenant, tenant.manifest("echo bye"))),
            (InvalidInput, good | {"mode": "none"}),
            (InvalidInput, good | {"trace": {"determinism": "D0", "every": 0, "keep": 1}}),
            (InvalidInput, good | {"trace": {"determinism": "D0", "every": 2, "keep": 50}}),
            (InvalidInput, good | {"more": 1}),
            (InvalidInput, {"work": good["work"]}),
            (InvalidInput, good | {"signature": "0x00"}),
            (InvalidSignature, order_body(tenant, manifest, key=new_key(keccak(b"other")))),
            (InvalidSignature, order_body(tenant, manifest, channel=other)),
            (InvalidSignature, order_body(tenant, manifest, domain=domain)),
            (InvalidSignature, order_body(tenant, manifest, domain=Domain(1, tenant.chain.spec.deployment.disputes))),
        )
        for kind, body in bad:
            with pytest.raises(kind):
                await tenant.ask("PUT", "/order", json=body)
        before = await tenant.ask("PUT", "/order", json=good)
        assert await tenant.ask("PUT", "/order", json=good) == before, "the same again changes nothing"
        with pytest.raises(Conflict, match="another order"):
            await tenant.ask("PUT", "/order", json=order_body(tenant, manifest, "replicate"))


async def test_a_lease_without_the_arbiter_takes_no_order(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open(which=0)
        await tenant.login()
        manifest = await tenant.send("echo hello")
        with pytest.raises(Conflict, match="nobody decides"):
            await tenant.ask("PUT", "/order", json=order_body(tenant, manifest))


async def test_the_trace_stands_committed_before_the_close_and_a_part_of_the_pay_is_held(
    market: Market0, folder: Path
) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        manifest = await ordered(tenant)
        await tenant.ask("POST", "/start")
        events = await tenant.until("artifacts")
        await tenant.ask("POST", "/close")
        record = await tenant.closed()
        told = [event async for event in tenant.events()]
        assert len(told) > len(events)
        (made,) = (event["data"] for event in told if event["kind"] == "commitment")
        work = order_body(tenant, manifest)["work"]
        assert (made["root"], made["leaves"], made["work"]) == (ROOT, 20, work)
        kinds = [event["data"].get("phase", event["kind"]) for event in told]
        assert kinds.index("artifacts") < kinds.index("commitment") < kinds.index("closing")
        kept = market.chain.view.commitments[tenant.channel]
        assert (kept.root, kept.leaves, kept.work, kept.exposure) == (ROOT, 20, work, tenant.deposit)
        assert await market.chain.read(disputes(market).commitment_hash(tenant.channel)) == kept.hash
        assert (record.phase, record.closed.held) == (Phase.HELD, (record.settled - record.fee) // 10)
        assert record.deposit == record.closed.paid + record.fee + record.closed.held + record.closed.refund
        assert record.settled > 0


async def test_a_job_that_leaves_no_trace_is_told_so_and_closed(market: Market0, folder: Path) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await ordered(tenant, "echo nothing")
        await tenant.ask("POST", "/start")
        (warning,) = [event["data"] for event in await tenant.until("warning") if event["kind"] == "warning"]
        assert warning["code"] == "no-trace"
        await tenant.ask("POST", "/close")
        await tenant.closed()
        assert tenant.channel not in market.chain.view.commitments


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"determinism": "D1"}, "the trace has determinism D1, ordered was D0"),
        ({"every": 2, "steps": 38}, "the trace has every 2, ordered was 1"),
        ({"keep": 49}, "the trace has keep 49, ordered was 50"),
        ({"version": 2}, "trace.json is not that of a trace: a trace of another version"),
    ],
)
async def test_a_trace_that_was_not_ordered_is_not_committed_to(
    market: Market0, folder: Path, changes: dict[str, Any], says: str
) -> None:
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await ordered(tenant, tracing(LEAVES, "$MINGA_OUTPUT_DIR/trace", **changes))
        await tenant.ask("POST", "/start")
        told = await tenant.until("warning", fact=says)
        assert told[-1]["data"]["code"] == "invalid-input"
        await tenant.ask("POST", "/close")
        await tenant.closed()
        assert tenant.channel not in market.chain.view.commitments


async def test_a_job_that_is_killed_is_committed_to_as_far_as_it_came_and_what_is_served_fits(
    market: Market0, folder: Path
) -> None:
    """Its last numbers are older than its leaves, and its last leaf is torn."""
    run = (
        tracing(LEAVES[:15], "$MINGA_OUTPUT_DIR/trace")
        + f"""
printf '%s' '{"b" * 32 * 5}torn' >> $MINGA_OUTPUT_DIR/trace/leaves.bin
kill -9 $$
"""
    )
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await ordered(tenant, run)
        await tenant.ask("POST", "/start")
        made = (await tenant.until("commitment"))[-1]["data"]
        leaves = [*LEAVES[:15], *[b"b" * 32] * 5]
        assert (made["root"], made["leaves"]) == (to_hex(Tree(leaves).root), 20)
        files = {item["path"]: item for item in (await tenant.ask("GET", "/artifacts"))["files"]}
        told = json.loads(await tenant.ask("GET", f"/blobs/{files['trace/trace.json']['blake3']}"))
        assert told == facts(20)
        assert await tenant.ask("GET", f"/blobs/{files['trace/leaves.bin']['blake3']}") == b"".join(leaves)


async def test_a_contract_that_refuses_ends_the_wait_and_a_chain_that_is_away_does_not(
    market: Market0, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    real = commitments.Court.commit

    def away(court: commitments.Court, *values: object) -> object:
        tried.append("away")
        if len(tried) < 3:
            raise RpcUnavailable("nobody answers", "wait")
        lease, _, root, leaves, signature = values
        return real(court, lease, to_hex(keccak(b"other work")), root, leaves, signature)  # type: ignore[arg-type]

    monkeypatch.setattr(commitments.Court, "commit", away)
    async with staked(market, folder) as provider, Tenant(market, provider.url) as tenant:
        await ordered(tenant)
        await tenant.ask("POST", "/start")
        told = await tenant.until("warning", code="disputes-bad-order")
        assert len(tried) == 3
        assert [facts["code"] for kind, facts in provider.told if kind == "warning"] == ["rpc-unavailable"]
        assert told[-1]["data"]["remedy"]
        await tenant.ask("POST", "/close")
        await tenant.closed()


async def test_what_was_held_is_collected_once_the_hold_is_over(market: Market0, folder: Path, tmp_path: Path) -> None:
    """On a chain of its own, whose clock is moved past the hold."""
    chain = await start_local(tmp_path / "chain", SystemClock(), SeededDice(market.name))
    await chain.faucet.aclose()
    try:
        network = LocalNetwork(tmp_path / "chain", chain.spec)
        tenant_key = await network.funded_key("tenant", tokens=10**9)
        operator = await network.funded_key("operator", tokens=STAKE)
        async with network.open(folder / "alone") as own:
            place = own.spec.deployment
            await own.send("approve", Token(place.token).approve(place.market, 10**9), tenant_key)
            alone = Market0(network, tenant_key, operator, own, market.name)
            async with (
                running(alone.config(folder / "home", stake=STAKE)) as provider,
                Tenant(alone, provider.url) as tenant,
            ):
                await worked(tenant, run=TRACED)
                await tenant.ask("POST", "/close")
                record = await tenant.closed()
                held = record.closed.held
                assert held > 0
                before = await own.read(Token(place.token).balance_of(operator.address))
                await own.rpc.request("evm_increaseTime", record.lease.hold_seconds + 5)
                await own.rpc.request("evm_mine")
                await eventually(lambda: any(kind == "released" for kind, _ in provider.told))
                after = await tenant.record()
                assert (after.phase, after.hold_ended.to_provider) == (Phase.CLOSED, held)
                assert await own.read(Token(place.token).balance_of(operator.address)) == before + held
                stake = await stake_of(alone)
                assert (stake.locked, stake.staked) == (0, STAKE)
    finally:
        await stop_local(tmp_path / "chain")
