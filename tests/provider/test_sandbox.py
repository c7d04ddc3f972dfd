"""One lease's bad luck at its provider: a disk that fails under it ends nothing else, and no money is lost by it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tenants import PRICE, Market0, Tenant, running

from minga.core.errors import SandboxFailed
from minga.provider import sandbox

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.root]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), SandboxFailed("the supervisor is gone", "")])
async def test_results_that_cannot_be_read_are_told_and_the_other_leases_go_on(
    error: Exception, market: Market0, folder: Path, monkeypatch
) -> None:
    honest, left = sandbox.collect_artifacts, [1]

    async def fails_once(*args, **more):
        if left:
            left.pop()
            raise error
        return await honest(*args, **more)

    monkeypatch.setattr(sandbox, "collect_artifacts", fails_once)
    async with (
        running(market.config(folder / "home")) as provider,
        Tenant(market, provider.url) as unlucky,
        Tenant(market, provider.url) as other,
    ):
        await other.start("sleep 1.5; echo fine > $MINGA_OUTPUT_DIR/x")
        await unlucky.start("echo lost > $MINGA_OUTPUT_DIR/x")
        seen = await unlucky.until("artifacts")
        (warning,) = [event["data"] for event in seen if event["kind"] == "warning"]
        assert warning["code"] == "not-collected"
        assert str(error.args[-1]) in warning["fact"]
        status = await unlucky.status()
        assert (status["phase"], status["exit_code"]) == ("exited", 0)
        assert (await unlucky.ask("GET", "/artifacts"))["files"] == []
        await unlucky.ask("POST", "/close")
        await unlucky.closed()
        seen = await other.until("artifacts")
        assert [event["data"]["count"] for event in seen if event["kind"] == "artifacts"] == [1]
        worked = seen[-1]["data"].get("working_s", (await other.status())["working_s"])
        await other.ask("POST", "/close")
        record = await other.closed()
        assert record.closed is not None
        assert record.closed.paid + record.closed.fee == PRICE * worked // 3600
        assert ("warning", "not-collected") in [(kind, facts.get("code")) for kind, facts in provider.told]


async def test_a_sandbox_that_cannot_start_costs_nothing_and_closes(market: Market0, folder: Path, monkeypatch) -> None:
    def breaks(*args, **more):
        raise RuntimeError("a defect of ours")

    monkeypatch.setattr(sandbox, "prepare", breaks)
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("echo never")
        seen = await tenant.until("phase", phase="failed")
        assert "a defect of ours" in seen[-1]["data"]["reason"]
        await tenant.ask("POST", "/close")
        record = await tenant.closed()
        assert record.closed is not None
        assert (record.closed.paid, record.closed.fee, record.closed.refund) == (0, 0, tenant.deposit)
