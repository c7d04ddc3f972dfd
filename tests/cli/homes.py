"""A tenant's home with jobs in it, written as their runners write it; its chain does not answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import blake3

from minga.chain.chain import ChainSpec, Deployment
from minga.client.folder import JobFolder
from minga.client.home import Home, Network
from minga.client.order import Order
from minga.core.crypto import Address
from minga.core.spec import FileEntry
from minga.core.units import Amount
from minga.protocol import job_events as ev
from minga.protocol.job_events import Deal, Plan
from minga.protocol.matching import Requirements
from minga.store.journal import Journal

NOW = 1_700_000_000
FIRST, SECOND = "0x" + "a1" * 32, "0x" + "a2" * 32
HOUR_PRICE = Amount(3_600_000)

Moments = list[tuple[int, ev.Event]]


def deal(number: int) -> Deal:
    """Machine `number`, a thousand token units a second."""
    return Deal(f"0x{number:040x}", f"0x{number:064x}", "0x" + "33" * 32, HOUR_PRICE, 1, 5, Amount(1), 60, 86400, 3600)


def works(attempt: int, at: int, seconds: int) -> Moments:
    """From the offer found to so much work, all of it paid."""
    lease = ev.Opened(attempt, f"0x{attempt + 1:064x}", f"0x{attempt + 9:064x}", 3600, at)
    return [
        (at, ev.Found(deal(attempt + 1), {"terms": {}})), (at + 1, lease), (at + 2, ev.Sent(attempt)),
        (at + 3, ev.Started(attempt)), (at + 4, ev.PhaseSeen(attempt, 1, "running")),
        (at + 4 + seconds, ev.Metered(attempt, 2, seconds, seconds)),
        (at + 4 + seconds, ev.Paid(attempt, Amount(1000 * seconds))),
    ]  # fmt: skip


def closed(attempt: int, at: int, worth: int, deposit: int) -> Moments:
    """The close on the chain of a lease of which `worth` was paid."""
    fee = worth // 100
    return [(at, ev.LeaseClosed(attempt, Amount(worth - fee), Amount(fee), Amount(0), Amount(deposit - worth)))]


def finished(attempt: int, at: int, seconds: int, code: int = 0) -> Moments:
    """The job's own end, its results, the close and what is returned; a quarter of the budget was deposited."""
    return [
        (at, ev.Exited(attempt, 3, code, "", seconds, seconds)), (at + 1, ev.Gathered(attempt)),
        *closed(attempt, at + 2, 1000 * seconds, 250_000), (at + 3, ev.Returned(Amount(1_000_000 - 1000 * seconds))),
    ]  # fmt: skip


UNDER_WAY: Moments = [(NOW + 1, ev.Funded()), *works(0, NOW + 2, 40)]
DONE: Moments = [*UNDER_WAY, *finished(0, NOW + 50, 40)]
BROKE: Moments = [*UNDER_WAY, *finished(0, NOW + 50, 40, 7)]


class TenantHome:
    """A home folder that knows one network."""

    def __init__(self, path: Path, network: str = "net") -> None:
        self.home = Home(path)
        one, two, three = (Address(f"0x{number:040x}") for number in (1, 2, 3))
        spec = ChainSpec(("http://127.0.0.1:9",), 31337, 0, Deployment(one, two, three, 0, 6))
        self.network = Network(network, spec, ())
        self.network.save(self.home)

    def job(self, job: str, events: Moments, name: str = "train", at: int = NOW, network: str = "net") -> JobFolder:
        """Journal a job of a dollar."""
        plan = Plan(job, Amount(1_000_000))
        order = Order(name, network, "0x" + "01" * 20, at, 5, plan, Requirements(), {"run": "x"}, ())
        journal = Journal(self.home.journal)
        try:
            journal.append(job, "order", order.to_json(), at, effect="order")
            for moment, event in events:
                kind, body = ev.encode(event)
                journal.append(job, kind, body, moment)
        finally:
            journal.close()
        folder = JobFolder(self.home.job(job))
        folder.create()
        return folder

    def records(self, job: str) -> int:
        """How many records a job's journal has."""
        journal = Journal(self.home.journal)
        try:
            return len(journal.read(job))
        finally:
            journal.close()


def leave(folder: JobFolder, files: dict[str, bytes], executable: Sequence[str] = ()) -> None:
    """Files that the job left, as the runner keeps them."""
    scratch = folder.scratch("results")
    entries = []
    for name, data in files.items():
        path = scratch / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        digest = blake3.blake3(data).hexdigest()
        entries.append(FileEntry(path=name, bytes=len(data), blake3=digest, executable=name in executable))
    folder.keep_artifacts(scratch, entries)
