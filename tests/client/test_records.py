"""Records of providers as a client keeps them: from the chain's events, through reorgs, with checked complaints."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest

from fixtures import LocalNetwork, SystemClock
from minga.chain.chain import ChainSpec, ContractEvent, Deployment, Position, Seen
from minga.chain.contract_events import Closed, ClosingStarted, HoldEnded, Opened
from minga.chain.view import View
from minga.client import complaints
from minga.client.home import Network
from minga.client.records import Follower, Records, fact_of
from minga.client.wallet import id_of, session_signer
from minga.core.crypto import ZERO_ADDRESS, Address, Hash32, new_key
from minga.core.errors import NotFound, RpcUnavailable
from minga.core.units import Amount
from minga.explorer.app import board_app
from minga.explorer.board import OfferBook
from minga.explorer.complaints import ComplaintBook
from minga.protocol.complaint import SignedComplaint, complain
from minga.protocol.job_events import Deal
from minga.protocol.job_state import Lease as JobLease
from minga.protocol.lease import How, Lease, Why

NOW = 1_800_000_000
USD = 10**6
PROVIDER, OTHER = Address("0x" + "0a" * 20), Address("0x" + "0b" * 20)
PLACE = Deployment(Address("0x" + "01" * 20), Address("0x" + "ab" * 20), Address("0x" + "03" * 20), 0, 6)
SPEC = ChainSpec(("http://127.0.0.1:1",), 31337, 0, PLACE)


def signer_of(number: int) -> Any:
    return new_key((500 + number).to_bytes(32, "big"))


def lease_of(number: int, provider: Address = PROVIDER) -> Lease:
    return Lease(
        Address(f"0x{number:040x}"), Hash32(f"0x{number:064x}"), 0, signer_of(number).address, provider,
        Hash32("0x" + "0c" * 32), Hash32("0x" + "0d" * 32), Amount(3 * USD), 2, 3600, ZERO_ADDRESS, 0, 0, NOW - 900,
    )  # fmt: skip


def opened(lease: Lease) -> Opened:
    return Opened(lease.id, lease.tenant, lease.provider, lease, NOW + 900, Amount(100 * USD))


def closed(lease: Lease, why: int = Why.DONE, worth: int = 5 * USD, how: int = How.CLOSE, held: int = 0) -> Closed:
    fee = worth // 100
    return Closed(
        lease.id, lease.tenant, lease.provider, lease.provider, how, why, Amount(worth), Amount(worth - fee - held),
        Amount(fee), Amount(held), Amount(100 * USD - worth),
    )  # fmt: skip


def add(view: View, *events: ContractEvent) -> View:
    """The view once these came."""
    start = len(view.leases) * 10
    view.apply(
        Seen(event, Position(start + n, Hash32("0x" + "00" * 32), Hash32("0x" + "00" * 32), n, NOW))
        for n, event in enumerate(events)
    )
    return view


def complaint_of(number: int, reason: int = 5, **changes: Any) -> SignedComplaint:
    lease = lease_of(number)
    fields = {"lease_id": lease.id, "offer": lease.offer, "provider": lease.provider, "domain": SPEC.domain} | changes
    return complain(reason=reason, made_at=NOW, signer=fields.pop("signer", signer_of(number)), **fields)


def test_both_sides_words_come_from_the_events() -> None:
    leases = [lease_of(number) for number in range(6)]
    view = add(View(), *map(opened, leases))
    add(view, closed(leases[0], Why.STOPPED))
    add(view, ClosingStarted(leases[1].id, PROVIDER, NOW, Why.UNREACHABLE), closed(leases[1], Why.DONE))
    add(view, ClosingStarted(leases[2].id, PROVIDER, NOW, Why.BAD_RESULT), closed(leases[2], 0, how=How.WINDOW))
    add(view, closed(leases[3], Why.UNDER_SPEC, how=How.RELEASE))
    add(view, closed(leases[4], 0, how=How.END))
    facts = [fact_of(view.leases[lease.id]) for lease in leases[:5]]
    assert [(fact.provider_said, fact.tenant_said) for fact in facts] == [
        (Why.STOPPED, None), (Why.DONE, Why.UNREACHABLE), (None, Why.BAD_RESULT), (None, Why.UNDER_SPEC), (None, None),
    ]  # fmt: skip
    assert {(fact.worth, fact.fee, fact.price_per_hour, fact.closed_at) for fact in facts} == {
        (5 * USD, USD // 20, 6 * USD, NOW)
    }
    assert view.ended == [lease.id for lease in leases[:5]]


def test_a_held_lease_counts_when_its_arbiter_has_spoken() -> None:
    lease, follower = lease_of(1), Follower(SPEC)
    view = add(View(), opened(lease), closed(lease, held=2 * USD))
    follower.follow(view)
    assert follower.ledger.facts(PROVIDER) == []
    add(view, HoldEnded(lease.id, OTHER, Amount(USD), Amount(USD)))
    follower.follow(view)
    ((fact, _),) = follower.ledger.facts(PROVIDER)
    assert (fact.worth, fact.taken_back) == (5 * USD, USD)


def test_only_news_is_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    follower, taken = Follower(SPEC), []
    end = follower.ledger.end
    monkeypatch.setattr(follower.ledger, "end", lambda fact: (taken.append(fact.lease_id), end(fact)))
    view = View()
    follower._view = view
    for number in range(50):
        add(view, opened(lease_of(number)), closed(lease_of(number)))
        for _ in range(3):
            follower.follow(view)
    assert taken == [lease_of(number).id for number in range(50)]
    assert follower.ledger.record(PROVIDER, NOW).leases == 50


def test_a_reorg_takes_back_what_it_dropped() -> None:
    follower = Follower(SPEC)
    kept, dropped = lease_of(1), lease_of(2)
    events = [opened(kept), closed(kept), opened(dropped)]
    follower.follow(add(View(), *events, closed(dropped, Why.UNDER_SPEC)))
    assert follower.hear([complaint_of(1, 7), complaint_of(2, 5)]) == 2
    before = follower.ledger.record(PROVIDER, NOW)
    assert (before.leases, before.left, before.complaints) == (2, 2, 2)
    follower.follow(add(View(), *events[:2]))
    after = follower.ledger.record(PROVIDER, NOW)
    assert (after.leases, after.left, after.complaints) == (1, 1, 1)
    follower.follow(add(View(), *events, closed(dropped)))  # it came again, and ended otherwise
    again = follower.ledger.record(PROVIDER, NOW)
    assert (again.leases, again.left, again.disputed, again.complaints) == (2, 2, 2, 2)


def test_a_complaint_counts_only_with_its_lease_on_the_chain() -> None:
    follower, view = Follower(SPEC), add(View(), opened(lease_of(1)), closed(lease_of(1)))
    follower.follow(view)
    before = follower.ledger.record(PROVIDER, NOW)
    forged = [
        complaint_of(2),
        complaint_of(1, signer=signer_of(2)),
        complaint_of(1, provider=OTHER),
        complaint_of(1, offer=Hash32("0x" + "0e" * 32)),
        complaint_of(1).model_copy(update={"made_at": NOW + 1}),
        complaint_of(1, domain=replace(SPEC, chain_id=1).domain),
    ]
    assert follower.hear(forged) == 0
    assert follower.ledger.record(PROVIDER, NOW) == before
    good = complaint_of(1)
    assert follower.hear([*forged, good, good]) == 1
    assert follower.hear([good]) == 0
    assert follower.ledger.record(PROVIDER, NOW).ppm == 1_000_000 * 8 // 15
    assert follower.hear([complaint_of(1, 7)]) == 1  # another reason of the same lease weighs nothing more
    assert follower.ledger.record(PROVIDER, NOW).ppm == 1_000_000 * 8 // 15


# -------------------------------------------------------------------------------------- through boards and a real chain


class Boards:
    """Real board apps in this process, whose chain has some leases; `connect` reaches them by url."""

    def __init__(self, **boards: dict[str, Lease]) -> None:
        self.books = {f"http://{name}": ComplaintBook(SPEC.domain) for name in boards}
        self.apps = {
            url: board_app(OfferBook(SPEC.domain), SystemClock(), 6, self.books[url], self._finder(boards[url[7:]]))
            for url in self.books
        }

    @staticmethod
    def _finder(leases: dict[str, Lease]) -> Any:
        async def find(lease_id: Hash32) -> Lease | None:
            return leases.get(lease_id)

        return find

    def connect(self, url: str, tls_sha256: str | None) -> httpx.AsyncClient:
        if url not in self.apps:
            raise httpx.ConnectError(f"nobody listens at {url}")
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.apps[url]), base_url=url)


WALLET = new_key(b"\x09" * 32)
JOB = Hash32("0x" + "77" * 32)
DEAL = Deal(str(PROVIDER), "0x" + "0c" * 32, "0x" + "0d" * 32, Amount(USD), 1, 60, Amount(1), 60, 86400, 3600)


def attempt_of(number: int) -> tuple[JobLease, Lease]:
    """A job's lease as the job knows it and as the chain does."""
    on_chain = replace(
        lease_of(1), tenant=WALLET.address, job=JOB, attempt=number, signer=session_signer(WALLET, number).address
    )
    assert on_chain.id == id_of(WALLET, JOB, number)
    return JobLease(number, DEAL, {}, Amount(1), lease=on_chain.id, channel=on_chain.channel), on_chain


@pytest.mark.anyio
async def test_a_complaint_is_filed_at_every_board_and_fetched_again() -> None:
    mine, on_chain = attempt_of(3)
    boards = Boards(a={on_chain.id: on_chain}, b={on_chain.id: on_chain}, behind={})
    network = Network("test", SPEC, ("http://a", "http://b", "http://behind", "http://nobody"))
    failed: list[str] = []
    now = SystemClock().now()
    filed = await complaints.file(network, boards.connect, JOB, WALLET, mine, Why.UNDER_SPEC, now, failed.append)
    assert filed is not None
    assert filed.is_of(on_chain)
    assert sorted(text.split(": ")[0] for text in failed) == ["http://behind", "http://nobody"]
    again = await complaints.file(network, boards.connect, JOB, WALLET, mine, Why.UNDER_SPEC, now)
    assert again == filed
    for url in ("http://a", "http://b"):
        async with boards.connect(url, None) as http:
            assert await complaints.fetch(http) == [filed]
            assert await complaints.fetch(http, str(PROVIDER)) == [filed]
            assert await complaints.fetch(http, str(OTHER)) == []


@pytest.mark.anyio
async def test_nothing_is_filed_where_there_is_nothing_to_complain_of() -> None:
    mine, on_chain = attempt_of(3)
    boards = Boards(a={on_chain.id: on_chain})
    network = Network("test", SPEC, ("http://a",))
    for why in (Why.DONE, Why.STOPPED, Why.NOT_SAID, Why.JOB_FAILED, Why.UNPAID, Why.REFUSED):
        assert await complaints.file(network, boards.connect, JOB, WALLET, mine, why, NOW) is None
    never = replace(mine, lease="")
    assert await complaints.file(network, boards.connect, JOB, WALLET, never, Why.UNREACHABLE, NOW) is None
    alone = replace(network, boards=())
    assert await complaints.file(alone, boards.connect, JOB, WALLET, mine, Why.UNREACHABLE, NOW) is None
    assert len(boards.books["http://a"]) == 0


@pytest.mark.anyio
async def test_a_board_that_hangs_does_not_hold_up_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complaints, "FILE_S", 0.05)
    mine, _ = attempt_of(3)

    class Hung(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await anyio.Event().wait()
            raise AssertionError

    failed: list[str] = []
    network = Network("test", SPEC, ("http://hung",))
    with anyio.fail_after(5):
        made = await complaints.file(
            network, lambda url, tls: httpx.AsyncClient(transport=Hung(), base_url=url), JOB, WALLET, mine, 5, NOW,
            failed.append,
        )  # fmt: skip
    assert made is not None
    assert failed == ["not every board answered within 0.05 s"]


@pytest.mark.anyio
async def test_a_chain_that_cannot_be_read_costs_no_offers_and_gives_no_record(
    local_network: LocalNetwork, tmp_path: Any
) -> None:
    gone = replace(local_network.spec, rpc_urls=("http://127.0.0.1:9",))
    async with LocalNetwork(local_network.folder, gone).open(tmp_path) as chain:
        records, failures = Records(chain, (), lambda url: httpx.AsyncClient(), SystemClock()), list[str]()
        with anyio.fail_after(20):
            await records.read_on(failures)
        records.take_in()
        assert len(failures) == 1
        assert records.reliability()(str(PROVIDER)) is None
        assert records.records()(str(PROVIDER)).ppm == 800_000
        with pytest.raises(RpcUnavailable):
            await records.standing(str(PROVIDER))


@pytest.mark.anyio
async def test_a_jobs_lease_becomes_a_record_that_every_client_computes_alike(stage: Any) -> None:
    from markets import ended, spec_of

    async with stage.providers() as providers, stage.client(providers) as client:
        address = str(providers[0].config.operator.address)
        (found,) = await client.offers()
        assert found.reliability_ppm == 800_000
        with pytest.raises(NotFound):
            await client.reliability("0x" + "ee" * 20)
        assert (await client.reliability(address)).evidence == []
        done = await ended(await client.submit(spec_of("sleep 2; echo done")))
        assert done.phase == "done"
        standing: Any = None

        async def look() -> None:
            nonlocal standing
            while not standing or not standing.record.leases:
                standing = await client.reliability(address[:12])

        with anyio.fail_after(20):
            await look()
        ((fact, complaint),) = standing.evidence
        assert (fact.provider, fact.provider_said, complaint) == (address, Why.DONE, None)
        assert fact.worth > 0
        assert standing.record.ppm > 800_000
        async with stage.client(providers) as second:
            assert (await second.reliability(address)).record == standing.record
            (shown,) = await second.offers("reliability>0.8")
            assert shown.reliability_ppm == standing.record.ppm
            assert await second.offers("reliability<=0.8") == []
