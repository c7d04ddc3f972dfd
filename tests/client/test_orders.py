"""Orders, quotes and refusals before any money moves."""

from __future__ import annotations

import json

import pytest
from markets import Stage, spec_of

from minga.client.bill import make_bill
from minga.client.home import Network
from minga.client.jobfile import JobSpec
from minga.client.order import Order, manifest_of, needs_of, plan_of, task_of
from minga.client.wallet import job_wallet, session_signer
from minga.core.codec import canonical_json, parse_json
from minga.core.crypto import new_key
from minga.core.errors import (
    BoardUnavailable,
    BudgetTooSmall,
    InsufficientFunds,
    InternalError,
    InvalidInput,
    KeyLocked,
    NoMatch,
    NotFound,
)
from minga.core.spec import Terms, UnitSize
from minga.protocol.accelerators import parse_accelerators
from minga.protocol.job_state import begin
from minga.protocol.matching import Requirements

JOB = "0x" + "12" * 32


def order_of(spec: JobSpec) -> Order:
    plan = plan_of(spec, JOB, 6, 1000)
    return Order("n", "net", "0x" + "01" * 20, 1000, 5, plan, needs_of(spec, 6, False), task_of(spec), ())


def test_an_order_is_the_same_after_its_journal() -> None:
    needs = Requirements(gpus=parse_accelerators("H100:2"), vram_bytes=5, excluded=frozenset(["a"]), region="eu")
    spec = JobSpec(
        run="x", requirements=needs, budget="2.5", per_hour="1", deadline_s=60, egress=("a.org",), envs={"A": "b"},
        secrets={"TOKEN": "hunter2"}, outputs=("x",), ports=(1,), checkpoint=True,
    )  # fmt: skip
    order = order_of(spec)
    data = canonical_json(order.to_json())
    assert Order.from_json(parse_json(data)) == order
    assert b"hunter2" not in data
    assert order.plan.deadline == 1060
    assert order.needs.price_per_hour_max == 1_000_000
    with pytest.raises(InternalError):
        Order.from_json({"name": 1})


@pytest.mark.parametrize(
    ("wanted", "allowed", "sent"),
    [
        (None, [], []), (None, ["*"], ["*"]), (None, ["a.org"], ["a.org"]), (("a.org",), ["*"], ["a.org"]),
        (("x.hf.co", "y.hf.co", "a.org"), ["*.hf.co", "a.org"], ["*.hf.co", "a.org"]), ((), ["*"], []),
    ],
)  # fmt: skip
def test_a_manifest_asks_for_what_the_terms_have(wanted, allowed, sent) -> None:
    unit = UnitSize(cpu_milli=1000, memory_bytes=1 << 30, disk_bytes=1 << 30, gpus=1)
    terms = Terms(transport_key="aa" * 32, unit=unit, sandbox="bubblewrap", egress=allowed)
    manifest = manifest_of(order_of(spec_of("x", egress=wanted)), 3, 2, terms, "", None)
    assert manifest.egress == sent
    assert (manifest.size.cpu_milli, manifest.size.gpus, manifest.attempt) == (2000, 2, 3)


def test_keys_of_jobs_and_leases_are_apart_and_the_same_again() -> None:
    main = new_key(b"\x01" * 32)
    market = "0x" + "22" * 20
    wallets = {job_wallet(main, chain, market, job).address for chain in (1, 2) for job in (JOB, "0x" + "13" * 32)}
    assert len(wallets) == 4
    wallet = job_wallet(main, 1, market, JOB)
    assert wallet.address in wallets
    assert session_signer(wallet, 0).address != session_signer(wallet, 1).address
    assert session_signer(wallet, 0).address == session_signer(wallet, 0).address


def test_a_bill_of_a_job_that_opened_nothing_is_empty() -> None:
    from minga.chain.view import View

    bill = make_bill(begin(plan_of(spec_of("x"), JOB, 6, 0)), View(), 6, {}, {})
    assert bill.conserved
    assert bill.as_dict()["leases"] == []
    assert json.dumps(bill.as_dict())


@pytest.mark.root
@pytest.mark.anyio
class TestBeforeMoney:
    """Each of these leaves no job behind."""

    async def test_refusals(self, stage: Stage) -> None:
        async with stage.providers() as providers, stage.client(providers) as client:
            with pytest.raises(NoMatch) as caught:
                await client.submit(spec_of("x", requirements=Requirements(gpus=parse_accelerators("H100"))))
            assert caught.value.details["excluded"] == {"gpu": 1}
            for budget in (None, "0", "0.000001"):
                with pytest.raises(BudgetTooSmall):
                    await client.submit(spec_of("x", budget=budget))
            with pytest.raises(InvalidInput):
                await client.submit(spec_of("x", budget="0.0000001"))
            with pytest.raises(InsufficientFunds, match="holds"):
                await client.submit(spec_of("x", budget="5000"))
            with pytest.raises(NotFound):
                await client.submit(spec_of("x", workdir=stage.folder / "nowhere"))
            assert client.jobs() == []
            for name in ("0x" + "00" * 32, "abcdef", "job"):
                with pytest.raises(NotFound):
                    client.attach(name)

    async def test_a_locked_key_orders_nothing(self, stage: Stage) -> None:
        def locked():
            raise KeyLocked("no passphrase", "set it")

        async with stage.providers() as providers, stage.client(providers, key=locked) as client:
            with pytest.raises(KeyLocked):
                await client.submit(spec_of("x"))
            assert client.jobs() == []

    async def test_quotes(self, stage: Stage) -> None:
        async with stage.providers(2) as providers, stage.client(providers) as client:
            quote = await client.quote(spec_of("x"))
            assert [item.price_per_hour for item in quote.matches] == [3_600_000_000, 3_600_000_001]
            assert 95 <= (quote.seconds_at_budget or 0) < 100, "rework is expected"
            none = await client.quote(spec_of("x", per_hour="1"))
            assert none.best is None
            assert none.exclusion.excluded == {"price": 2}
            assert len(await client.offers("cpus>=0.5 price<3601")) == 2
            assert await client.offers("gpu=H100") == []
            with pytest.raises(InvalidInput):
                await client.offers("nonsense")
            strict = await client.quote(spec_of("x", requirements=Requirements(region="moon")))
            assert strict.exclusion.only == {"region": 2}

    async def test_without_a_sandbox_only_on_demand(self, stage: Stage) -> None:
        async with stage.providers() as providers, stage.client(providers, allow_process=False) as client:
            assert (await client.quote(spec_of("x"))).exclusion.excluded == {"sandbox": 1}

    async def test_boards_that_are_down_or_lie(self, stage: Stage) -> None:
        async with stage.providers() as providers:
            dead = Network("stage", stage.network.spec, ("http://127.0.0.1:9",))
            from fixtures import SeededDice, SystemClock
            from minga.client.home import Home
            from minga.client.tenant import AsyncClient

            values = {"clock": SystemClock(), "dice": SeededDice("x"), "allow_process": True}
            async with AsyncClient(Home(stage.folder / "h"), dead, **values) as client:
                with pytest.raises(BoardUnavailable):
                    await client.quote(spec_of("x"))
            half = Network("stage", stage.network.spec, ("http://127.0.0.1:9", providers[0].url))
            async with AsyncClient(Home(stage.folder / "h"), half, **values) as client:
                assert (await client.quote(spec_of("x"))).best is not None
            named = Network("stage", stage.network.spec, ())
            async with AsyncClient(Home(stage.folder / "h"), named, **values) as client:
                found = await client.quote(spec_of("x"))
                assert providers[0].url in [item.bundle.url for item in found.matches]
