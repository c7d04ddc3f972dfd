"""A verified job from its order to its bill: real chain, real providers, a trace as any job may leave one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from markets import Stage, ended, spec_of

from fixtures import LocalNetwork, SeededDice, SystemClock
from minga.chain.contracts import Token
from minga.chain.disputes import Disputes
from minga.chain.local import start_local, stop_local
from minga.client.jobspec import JobSpec, Verify
from minga.client.reader import JobReader
from minga.client.tenant import AsyncClient
from minga.client.verdicts import AWAY_S
from minga.core.crypto import PrivateKey, keccak, to_hex
from minga.core.errors import NoMatch
from minga.protocol.dispute import SHORT, Commitment
from minga.protocol.lease import Why
from minga.protocol.merkle import Tree
from traces import facts_text, tracing

pytestmark = [pytest.mark.anyio, pytest.mark.root]

STAKE = 10**12
AUDIT = Verify(mode="audit")
LEAF = b"a" * 32
TRACED = f"""
test -r $PYTHONPATH/minga/__init__.py && echo "library here, $MINGA_TRACE_DETERMINISM every $MINGA_TRACE_EVERY"
{tracing([LEAF] * 10)}
sleep 1.2
echo result > $MINGA_OUTPUT_DIR/x
"""
ROOT = to_hex(Tree([LEAF] * 10).root)


def audited(run: str = TRACED, **changes: Any) -> JobSpec:
    return spec_of(run, **({"verify": AUDIT} | changes))


def commitments(client: AsyncClient, handle: Any) -> list[Commitment]:
    """What the chain has of this job's leases, as the client's own view tells."""
    channels = [lease.channel for lease in state_of(client, handle).leases]
    return [made for channel, made in client._chain.view.commitments.items() if channel in channels]


def state_of(client: AsyncClient, handle: Any) -> Any:
    return JobReader(client.home, client.journal, handle.id).state


async def see(client: AsyncClient) -> None:
    """Have the client's view be as of now."""
    client._chain.acknowledge(await client._chain.poll())


async def test_a_verified_job_is_committed_to_paid_and_in_part_held(stage: Stage) -> None:
    async with stage.providers(stake=STAKE) as providers, stage.client(providers) as client:
        handle = await client.submit(audited())
        status = await ended(handle)
        log = b"".join([chunk async for chunk in handle.logs()])
        assert (status.phase, log) == ("done", b"library here, D0 every 1\n"), status
        await see(client)
        (made,) = commitments(client, handle)
        assert (made.root, made.leaves) == (ROOT, 10)
        bill = await handle.bill()
        (lease,) = bill.leases
        net = status.spent - bill.fee
        assert bill.conserved
        assert (bill.held, bill.paid, bill.locked) == (net // 10, net - net // 10, 0)
        assert lease.state == "held"
        assert lease.held_until >= made.committed_at + 2 * SHORT.window
        assert (status.settled, status.held) == (True, bill.held)
        cost = bill.verification
        assert cost is not None
        assert (cost.mode, cost.determinism, cost.held) == ("audit", "D0", bill.held)
        assert cost.trace_bytes == 320 + len("state\n") + len(facts_text(10))
        assert cost.sent_bytes > 10_000
        wallet = client._chain.balance(handle._reader.folder.wallet().address)
        assert await wallet > 0, "gas is kept for a verdict"


async def test_only_offers_with_the_arbiter_are_taken_and_the_quote_says_which_lack_it(stage: Stage) -> None:
    async with stage.providers() as plain, stage.client(plain) as client:
        quote = await client.quote(audited())
        assert quote.exclusion.excluded == {"arbiter": 1, "hold": 1, "hold_time": 1}
        assert set(quote.remedies) == {"arbiter", "hold", "hold_time"}
        with pytest.raises(NoMatch, match="none of 1 offers matches"):
            await client.submit(audited())
    async with stage.providers(stake=STAKE) as providers, stage.client(providers) as client:
        greedy = await client.quote(audited(verify=Verify(mode="audit", hold_bps=1001)))
        assert greedy.exclusion.excluded == {"hold": 2, "arbiter": 1, "hold_time": 1}
        assert greedy.exclusion.only == {"hold": 1}
        verified, usual = await client.quote(audited()), await client.quote(spec_of("true"))
        assert [len(verified.matches), len(usual.matches)] == [1, 1]
        assert verified.matches[0].bundle.offer.arbiter != usual.matches[0].bundle.offer.arbiter


class Liar:
    """Stands in for a provider's own view of its trace, for the first lease only."""

    def __init__(self, real: Any) -> None:
        self.real, self.lied = real, False

    def __call__(self, *values: Any) -> Any:
        root, count = self.real(*values)
        if self.lied:
            return root, count
        self.lied = True
        return keccak(root), count


async def left(client: AsyncClient, handle: Any, says: str) -> None:
    """The first provider was left for `says`, and what the job's second run made is here."""
    status = await ended(handle)
    assert (status.phase, status.attempts) == ("done", 2), status
    first, second = state_of(client, handle).leases
    assert first.left.startswith(says), first.left
    assert (first.why, first.status) == (Why.BAD_RESULT, "closing")
    assert first.worked_s >= 1
    assert first.signed == 0, "what was not paid before is not paid"
    assert second.signed == second.cost(second.worked_s)
    bill = await handle.bill()
    assert bill.conserved
    assert bill.leases[0].paid + bill.leases[0].fee == 0


async def test_a_commitment_to_other_leaves_is_a_bad_result(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from minga.provider import commitments as of_provider

    monkeypatch.setattr(of_provider, "root_of", Liar(of_provider.root_of))
    async with stage.providers(2, stake=STAKE, quantum=10) as providers, stage.client(providers) as client:
        handle = await client.submit(audited())
        await left(client, handle, "bad-result: it committed to 10 leaves under 0x")
        providers[0].vanish()


async def test_no_commitment_in_time_is_a_bad_result(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from minga.provider import lease as of_provider

    real, asked = of_provider.commit, []

    async def silent(run: Any) -> Any:
        asked.append(run.channel)
        if asked[0] == run.channel:
            await anyio.sleep_forever()
        return await real(run)

    monkeypatch.setattr(of_provider, "commit", silent)
    monkeypatch.setattr("minga.client.commitments.COMMIT_S", 1.0)
    async with stage.providers(2, stake=STAKE, quantum=10) as providers, stage.client(providers) as client:
        handle = await client.submit(audited())
        await left(client, handle, "bad-result: it committed to no trace within 1 s")
        providers[0].vanish()


async def test_a_job_that_leaves_no_trace_at_two_providers_fails_by_itself(stage: Stage) -> None:
    async with stage.providers(2, stake=STAKE) as providers, stage.client(providers) as client:
        handle = await client.submit(audited("echo nothing to see"))
        status = await ended(handle)
        assert (status.phase, status.attempts) == ("failed", 2), status
        assert status.reason == "no-trace: the job left no trace"
        assert handle.artifacts() == [], "results that do not count are not kept"


async def test_a_job_that_fails_before_it_traces_is_paid_and_fails_as_ever(stage: Stage) -> None:
    async with stage.providers(stake=STAKE) as providers, stage.client(providers) as client:
        handle = await client.submit(audited("sleep 1.2; exit 3"))
        status = await ended(handle)
        assert (status.phase, status.exit_code, status.attempts) == ("failed", 3, 1), status
        bill = await handle.bill()
        assert bill.paid > 0
        assert bill.conserved


# ----------------------------------------------------------------------------------------------- the end of the hold


@asynccontextmanager
async def alone(stage: Stage, folder: Path) -> AsyncIterator[Stage]:
    """A stage on a chain of its own, whose clock can be moved."""
    chain = await start_local(folder, SystemClock(), SeededDice(stage.name))
    await chain.faucet.aclose()
    try:
        found = Stage(LocalNetwork(folder, chain.spec), stage.folder, stage.name, stage.tenant)
        found.tenant = await found.network.funded_key("tenant", tokens=10**9)
        yield found
    finally:
        await stop_local(folder)


async def later(client: AsyncClient, seconds: int) -> None:
    """Move the chain's clock."""
    await client._chain.rpc.request("evm_increaseTime", seconds)
    await client._chain.rpc.request("evm_mine")


async def served(client: AsyncClient, handle: Any) -> None:
    """As `minga runner` does, until nothing is left to do."""
    with anyio.fail_after(40):
        await client.serve(lambda: state_of(client, handle).over)


async def tokens(client: AsyncClient, address: str) -> int:
    return await client._chain.read(Token(client.network.chain.deployment.token).balance_of(address))  # type: ignore[arg-type]


async def test_a_hold_that_nobody_disputes_is_released_and_the_gas_comes_home(stage: Stage, tmp_path: Path) -> None:
    async with (
        alone(stage, tmp_path / "chain") as own,
        own.providers(stake=STAKE) as providers,
        own.client(providers) as client,
    ):
        handle = await client.submit(audited())
        assert (await ended(handle)).phase == "done"
        before = await handle.bill()
        await later(client, 2 * SHORT.window + 5)
        await served(client, handle)
        bill = await handle.bill()
        (lease,) = bill.leases
        assert bill.conserved
        assert (lease.held, lease.released, lease.returned, lease.state) == (0, before.held, 0, "closed")
        assert bill.paid == before.paid + before.held
        assert await tokens(client, own.tenant.address) == 10**9 - bill.paid - bill.fee
        wallet = handle._reader.folder.wallet().address
        assert await client._chain.balance(wallet) < await client._chain.gas_cost(60_000)


async def test_a_hold_whose_provider_vanished_ends_all_the_same(stage: Stage, tmp_path: Path) -> None:
    async with (
        alone(stage, tmp_path / "chain") as own,
        own.providers(stake=STAKE) as providers,
        own.client(providers) as client,
    ):
        handle = await client.submit(audited())
        assert (await ended(handle)).phase == "done"
        held = (await handle.bill()).held
        providers[0].vanish()
        await later(client, 2 * SHORT.window + AWAY_S + 5)
        await served(client, handle)
        bill = await handle.bill()
        assert (bill.leases[0].released, bill.conserved) == (held, True)
        assert await tokens(client, own.tenant.address) == 10**9 - bill.paid - bill.fee


async def convict(own: Stage, client: AsyncClient, made: Commitment) -> None:
    """Three referees take seats, somebody challenges, the provider is silent, and the verdict is carried into force."""
    place, chain = client.network.chain.deployment, client._chain
    contract, token = Disputes(place.disputes), Token(place.token)

    async def rich(name: str, amount: int) -> PrivateKey:
        key = await own.network.funded_key(name, tokens=amount)
        await chain.send(f"allow {name}", token.approve(contract.address, amount), key)
        return key

    for number in range(SHORT.jury):
        referee = await rich(f"referee {number}", SHORT.referee_stake)
        await chain.send(f"join {number}", contract.join(SHORT.referee_stake), referee)
    challenger = await rich("challenger", SHORT.bond)
    await chain.send("challenge", contract.challenge(made), challenger)
    await later(client, SHORT.clock + 5)
    await chain.send("timeout", contract.timeout(1), challenger)
    if not await chain.read(contract.condemned(made.channel)):
        await chain.send("finish", contract.finish(1), challenger)


async def test_a_verdict_returns_what_was_held_and_more_and_it_goes_home(stage: Stage, tmp_path: Path) -> None:
    async with (
        alone(stage, tmp_path / "chain") as own,
        own.providers(stake=STAKE) as providers,
        own.client(providers) as client,
    ):
        handle = await client.submit(audited())
        assert (await ended(handle)).phase == "done"
        before = await handle.bill()
        await see(client)
        (made,) = commitments(client, handle)
        await convict(own, client, made)
        await served(client, handle)
        bill = await handle.bill()
        (lease,) = bill.leases
        assert bill.conserved
        assert (lease.held, lease.returned, lease.released) == (0, before.held, 0)
        assert bill.refunded == before.refunded + before.held
        assert lease.awarded == before.paid + before.fee, "made whole, to the unit"
        assert await tokens(client, own.tenant.address) == 10**9


async def test_a_runner_that_is_killed_in_a_verdict_carries_it_out_once(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies after each step of a verdict, as an error that no effect expects, and is started again."""
    from minga.core import faults

    class Died(BaseException):
        pass

    def die(point: str) -> None:
        if point in left_to_die:
            left_to_die.discard(point)
            raise Died

    left_to_die = {"client.verdict.carried-out", "client.hold.seen", "client.return.tokens"}
    async with alone(stage, tmp_path / "chain") as own, own.providers(stake=STAKE) as providers:
        async with own.client(providers) as client:
            handle = await client.submit(audited())
            assert (await ended(handle)).phase == "done"
            await see(client)
            before = await handle.bill()
            await convict(own, client, commitments(client, handle)[0])
        faults.install(die)
        try:
            deaths = 0
            while left_to_die:
                with pytest.raises(BaseExceptionGroup) as caught:
                    async with own.client(providers) as client:
                        await served(client, client.attach(handle.id))
                deaths += caught.value.subgroup(Died) is not None
            assert deaths == 3
        finally:
            faults.remove(die)
        async with own.client(providers) as client:
            handle = client.attach(handle.id)
            await served(client, handle)
            bill = await handle.bill()
            assert bill.conserved
            assert bill.leases[0].awarded == before.paid + before.fee, "however often it died"
            assert await tokens(client, own.tenant.address) == 10**9
