"""The network's paid leases, with the class of card that they paid for: from a view, and from a real chain."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from markets import PRICE, Stage, ended, spec_of

from fixtures import SystemClock
from minga.chain.chain import Position
from minga.chain.view import LeaseRecord, View
from minga.client.executed import ANSWER_S, NO_GPU, Class, classes_of, executed_of, read_executed
from minga.client.home import Network
from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import NetworkError
from minga.core.spec import Gpu
from minga.core.units import DAY, Amount
from minga.protocol.lease import Lease, Phase
from minga.protocol.price_claims import Take
from minga.protocol.price_quotes import card_class

sys.path.insert(0, str(Path(__file__).parents[1] / "explorer"))

from board_offers import bundle_of, key_of

DECIMALS = 6
OPENED = 100 * DAY + 5


def name(what: str) -> Hash32:
    return Hash32(to_hex(keccak(what.encode())))


def address(number: int) -> Address:
    return key_of(number).address


def record(number: int, paid: int = 990, fee: int = 10, price: int = 500_000, machine: str = "one") -> LeaseRecord:
    lease = Lease(
        address(number), name("job"), 0, address(90), address(80), name(machine), name("offer"), Amount(price), 1, 3600,
        address(70), 0, 0, OPENED,
    )  # fmt: skip
    at = Position(1, name("block"), name("transaction"), 0, OPENED)
    zero, money = Amount(0), Amount(paid + fee)
    return LeaseRecord(lease, Phase.CLOSED, Amount(10_000), money, Amount(paid), Amount(fee), OPENED, at, zero)


def view_of(*records: LeaseRecord) -> View:
    return View(leases={item.lease.id: item for item in records})


CLASSES = {name("one"): Class(card_class("RTX4090"), 1), name("four"): Class(card_class("H100"), 4)}


def test_a_paid_lease_has_card_price_and_parties():
    found = executed_of(view_of(replace(record(1), closed_at=102 * DAY + 7)), CLASSES, DECIMALS)
    (item,) = found.leases
    assert (str(item.gpu), item.usd_micro, item.paid, item.day) == ("RTX4090", 500_000, 1000, 102)
    assert (item.tenant, item.provider) == (address(1), address(80))
    assert found.take == Take(990, 10, 1)
    assert found.unknown == 0


def test_a_lease_that_lives_counts_from_its_opening():
    (item,) = executed_of(view_of(record(1)), CLASSES, DECIMALS).leases
    assert item.day == 100


def test_the_price_is_per_gpu_and_in_micro_dollars():
    (item,) = executed_of(view_of(record(1, price=10_000_000, machine="four")), CLASSES, DECIMALS).leases
    assert item.usd_micro == 2_500_000
    (item,) = executed_of(view_of(record(1, price=5 * 10**17)), CLASSES, 18).leases
    assert item.usd_micro == 500_000


def test_what_was_not_paid_is_no_lease_and_an_unknown_machine_is_counted():
    found = executed_of(view_of(record(1, 0, 0), record(2, machine="gone"), record(3)), CLASSES, DECIMALS)
    assert [item.tenant for item in found.leases] == [address(3)]
    assert found.unknown == 1
    assert found.take == Take(1980, 20, 2), "what was taken is known without the card"


def test_offers_describe_their_machines():
    card, plain = bundle_of(key_of(1), gpu="NVIDIA GeForce RTX 4090"), bundle_of(key_of(2))
    found = classes_of([card, plain])
    assert found == {card.offer.machine: Class(card_class("RTX4090"), 1), plain.offer.machine: Class(NO_GPU, 1)}


def test_a_machine_of_two_kinds_of_card_has_no_class():
    bundle = bundle_of(key_of(1), gpu="NVIDIA L4")
    other = Gpu(vendor="nvidia", model="Tesla T4", memory_bytes=16 << 30)
    machine = bundle.machine.model_copy(update={"gpus": [*bundle.machine.gpus, other]})
    assert classes_of([bundle.model_copy(update={"machine": machine})]) == {}


# ------------------------------------------------------------------------------------------------------------- for real


def plain_connect(url: str, tls_sha256: str | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False)


@pytest.mark.anyio
@pytest.mark.root
async def test_a_job_that_was_paid_is_a_price_that_anyone_can_read(stage: Stage, tmp_path: Path):
    async with stage.providers() as providers:
        async with stage.client(providers) as client:
            status = await ended(await client.submit(spec_of("sleep 1")))
            assert status.phase == "done"
            bill = await client.attach(status.job).bill()
        network = Network("stage", stage.network.spec, tuple(provider.url for provider in providers))
        found = await read_executed(network, tmp_path, SystemClock(), plain_connect)
        again = await read_executed(network, tmp_path, SystemClock(), plain_connect)
    assert again == found, "what was read before is kept"
    mine = [item for item in found.leases if item.tenant and item.paid == bill.paid + bill.fee]
    assert mine
    assert (mine[0].gpu, mine[0].usd_micro) == (NO_GPU, PRICE)
    assert found.take.paid >= bill.paid > 0
    assert found.take.fee * 100 == pytest.approx(found.take.paid + found.take.fee, rel=0.02), "the fee is one per cent"


@pytest.mark.anyio
async def test_a_network_that_does_not_answer_is_an_error_in_time(local_network, tmp_path: Path):
    network = Network("gone", local_network.spec, ("http://127.0.0.1:9",))
    clock = SystemClock()
    began = clock.monotonic()
    with pytest.raises(NetworkError):
        await read_executed(network, tmp_path, clock, plain_connect)
    assert clock.monotonic() - began < ANSWER_S + 1
