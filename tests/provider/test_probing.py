"""Probes at the provider: the session and its sandbox, the phases, the bounds, the owner's own measurement."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from tenants import SIZE, Market0, Tenant, needs_sandbox, running

from fixtures import SeededDice, SystemClock
from minga.client.probing import Prober, Target
from minga.client.provider_api import ProviderApi
from minga.core.errors import Conflict, InvalidInput, LimitNotEnforceable, OutOfCapacity, SandboxFailed
from minga.core.spec import Speed, UnitSize
from minga.protocol.wire import ProbeRequest
from minga.provider import probing
from minga.provider.measuring import measure
from minga.provider.probe_session import PREFIX, SOURCES, Session, sweep, write_sources
from minga.provider.probing import REQUESTS_PER_SESSION, SESSIONS_PER_MINUTE, Station, best_environment
from minga.runtimes.bubblewrap import BubblewrapRuntime
from minga.runtimes.fake import FakeRuntime, Script
from minga.runtimes.process import ProcessRuntime
from minga.runtimes.runtime import Runtime
from minga.transport.http import connect
from minga.verify import hardware_math as hm
from minga.verify.hardware_survey import Survey

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]
SEED = "0x" + "5a" * 32
UNIT = UnitSize(cpu_milli=1000, memory_bytes=256 << 20, disk_bytes=256 << 20)


def request(what: str, kind: str = "start", **sizes: Any) -> ProbeRequest:
    """A challenge."""
    return ProbeRequest(kind=kind, what=what, seed=sizes.pop("seed", SEED), **sizes)  # type: ignore[arg-type]


@pytest.fixture(params=["bubblewrap", "process"])
def runtime(request: pytest.FixtureRequest, folder: Path) -> Runtime:
    """Each driver that can run here."""
    if request.param == "process":
        return ProcessRuntime(folder / "t")
    needs_sandbox()
    return BubblewrapRuntime(folder / "t")


DICE = f"session of {os.getpid()}"
"""Plain processes share the machine's ports: tests that run beside these must not draw the same ones."""


def session_of(runtime: Runtime, folder: Path, **changes: Any) -> Session:
    """A session that is not open yet, on this machine's own Python."""
    fields: dict[str, Any] = {"units": 1, "environment": Path("/"), "folder": folder / "probe"} | changes
    return Session(runtime, UNIT, clock=SystemClock(), dice=SeededDice(DICE), **fields)


@pytest.fixture
async def session(runtime: Runtime, folder: Path) -> AsyncIterator[Session]:
    """An open session."""
    found = session_of(runtime, folder)
    await found.open()
    yield found
    await found.close()


# ------------------------------------------------------------------------------------------------------------- session


async def test_a_session_answers_in_its_sandbox_and_leaves_nothing(
    session: Session, runtime: Runtime, folder: Path
) -> None:
    assert [name.startswith(PREFIX) for name in await runtime.known()] == [True]
    facts = (await session.ask(request("ready"))).facts
    assert facts["engine"] in ("python", "numpy")
    answer = await session.ask(request("gemm", size=16, columns=16, links=2))
    opening = base64.b64decode((await session.ask(request("open", seed="0x" + answer.digest))).data)
    assert hm.digest(opening) == answer.digest
    await session.close()
    await session.close()
    assert await runtime.known() == ()
    with pytest.raises(SandboxFailed, match="ended"):
        await session.ask(request("ready"))


async def test_a_survey_through_a_real_sandbox_is_right(session: Session) -> None:
    survey = Survey(session.ask, SystemClock(), SeededDice("survey"), "start", UNIT, 1)
    await survey.open()
    await survey.gemm_round(64, 4)
    await survey.memory(1, 0, tries=1)
    await survey.disk(1, 0, tries=1)
    await survey.check(Speed())
    assert survey.wrong == ""
    assert {found.quantity for found in survey.rounds} == {"gemm_mops", "memory_mbps", "disk_mbps"}


async def test_a_challenge_that_cannot_be_done_is_refused_and_the_next_one_answered(session: Session) -> None:
    with pytest.raises(SandboxFailed, match="nothing is filled"):
        await session.ask(request("walk", size=5))
    assert (await session.ask(request("ready"))).facts


async def test_a_worker_that_dies_is_told_and_its_sandbox_removed(session: Session, runtime: Runtime) -> None:
    assert session._handle is not None
    await session._handle.kill()
    await session._handle.wait()
    with pytest.raises(SandboxFailed, match="did not answer"):
        await session.ask(request("ready"))
    assert session.is_over
    assert await runtime.known() == ()


async def test_a_worker_that_cannot_start_says_why(runtime: Runtime, folder: Path, monkeypatch) -> None:
    monkeypatch.setattr("minga.provider.probe_session.write_sources", broken_sources)
    session = session_of(runtime, folder)
    with pytest.raises(SandboxFailed, match="no such engine here"):
        await session.open()
    assert await runtime.known() == ()


def broken_sources(folder: Path) -> None:
    """A worker that ends at once."""
    folder.mkdir(parents=True)
    (folder / SOURCES[-1]).write_text("raise SystemExit('no such engine here')\n")


async def test_a_port_that_is_taken_is_left_for_another(folder: Path) -> None:
    """Plain processes share the machine's ports; the first one that the dice give is held by somebody else."""
    import socket

    from minga.provider.probe_session import PORT_FIRST, PORTS

    first = PORT_FIRST + int.from_bytes(SeededDice(DICE).bytes(4), "little") % PORTS
    with socket.create_server(("127.0.0.1", first)):
        session = session_of(ProcessRuntime(folder / "t"), folder)
        await session.open()
        assert session._port != first
        assert (await session.ask(request("ready"))).facts
        await session.close()


async def test_closing_while_it_opens_leaves_nothing(runtime: Runtime, folder: Path) -> None:
    session = session_of(runtime, folder)
    failed: list[SandboxFailed] = []

    async def opens() -> None:
        try:
            await session.open()
        except SandboxFailed as error:
            failed.append(error)

    async with anyio.create_task_group() as group:
        group.start_soon(opens)
        await anyio.lowlevel.checkpoint()  # it has begun; a quick worker could end it by any later moment
        await session.close()
    assert len(failed) == 1
    assert await runtime.known() == ()


def test_many_probes_may_write_the_workers_files_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from minga.provider.probe_session import SOURCES, write_sources

    with ThreadPoolExecutor(8) as threads:
        for round_ in range(20):
            list(threads.map(write_sources, [tmp_path / str(round_)] * 8))
            assert {path.name for path in (tmp_path / str(round_)).iterdir()} == set(SOURCES)


async def test_opening_that_is_cut_off_leaves_nothing(runtime: Runtime, folder: Path) -> None:
    session = session_of(runtime, folder)
    with anyio.move_on_after(0.05):
        await session.open()
    await session.close()
    assert await runtime.known() == ()


async def test_workers_that_a_dead_agent_left_are_swept(session: Session, runtime: Runtime) -> None:
    session.is_over = True
    await sweep(runtime)
    assert await runtime.known() == ()


def test_the_workers_source_is_written_once_and_anew_when_it_differs(tmp_path: Path) -> None:
    write_sources(tmp_path)
    first = {name: os.stat(tmp_path / name).st_mtime_ns for name in SOURCES}
    (tmp_path / SOURCES[0]).write_text("old")
    write_sources(tmp_path)
    assert os.stat(tmp_path / SOURCES[1]).st_mtime_ns == first[SOURCES[1]]
    assert "stream" in (tmp_path / SOURCES[0]).read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SOURCES)


# ------------------------------------------------------------------------------------------------------------- station


class Place:
    """A station on a real runtime, and a lease of it whose phase the test sets."""

    def __init__(self, runtime: Runtime, folder: Path, tasks: anyio.abc.TaskGroup) -> None:
        self.clock, self.runtime = SystemClock(), runtime
        self.world: Any = SimpleNamespace(
            runtime=runtime, clock=self.clock, dice=SeededDice(f"station {DICE}"), home=folder, tasks=tasks, leases={}
        )
        self.station = Station(self.world, Path("/"), ("nvidia.com/gpu=0", "nvidia.com/gpu=1"))
        self.run = self.lease("0x" + "11" * 32)

    def lease(self, channel: str, unit: UnitSize = UNIT, gpus: tuple[str, ...] = ()) -> Any:
        """One more lease."""
        state = SimpleNamespace(phase="ready", gpus=list(gpus), collected=False, facts=SimpleNamespace(units=1))
        run = SimpleNamespace(channel=channel, state=state, terms=SimpleNamespace(unit=unit))
        self.world.leases[channel] = run
        return run

    async def ask(self, what: str, kind: str = "start", run: Any = None, **sizes: Any) -> Any:
        """One challenge for the lease."""
        return await self.station.answer(run or self.run, request(what, kind, **sizes))


@pytest.fixture
async def place(folder: Path) -> AsyncIterator[Place]:
    """A station; its sessions end with the test."""
    async with anyio.create_task_group() as tasks:
        found = Place(ProcessRuntime(folder / "t"), folder, tasks)
        yield found
        await found.station.close()
        assert await found.runtime.known() == ()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("phase", "kind"),
    [("running", "start"), ("exited", "start"), ("closed", "duty"), ("ready", "duty"), ("closing", "start")],
)
async def test_each_kind_has_its_phases(place: Place, phase: str, kind: str) -> None:
    place.run.state.phase = phase
    with pytest.raises(Conflict, match=phase):
        await place.ask("ready", kind)


async def test_a_probe_begins_with_ready_and_ends_with_end(place: Place) -> None:
    with pytest.raises(Conflict, match="no probe"):
        await place.ask("gemm", size=8, columns=8, links=1)
    await place.ask("ready")
    assert (await place.ask("gemm", size=8, columns=8, links=1)).digest
    await place.ask("end")
    await place.ask("end")
    assert await place.runtime.known() == ()


async def test_two_leases_are_probed_at_the_same_moment(place: Place) -> None:
    """One machine posing as two units must answer both at once."""
    other = place.lease("0x" + "22" * 32)
    async with anyio.create_task_group() as group:
        group.start_soon(place.ask, "ready")
        group.start_soon(lambda: place.ask("ready", run=other))
    assert len(await place.runtime.known()) == 2


async def test_probes_are_bounded_in_number(place: Place) -> None:
    for _ in range(SESSIONS_PER_MINUTE):
        place.station._opened.setdefault(place.run.channel, []).append(place.clock.monotonic())
    with pytest.raises(OutOfCapacity) as refused:
        await place.ask("ready")
    assert refused.value.details["retry"] is True


async def test_requests_of_a_probe_are_bounded(place: Place) -> None:
    await place.ask("ready")
    place.station._sessions[place.run.channel].requests = REQUESTS_PER_SESSION
    with pytest.raises(OutOfCapacity):
        await place.ask("ready")


@pytest.mark.parametrize(
    ("what", "kind", "sizes"),
    [
        ("gemm", "start", {"size": 20_000, "columns": 8, "links": 1}),
        ("gemm", "start", {"size": 8, "columns": 20_000, "links": 1}),
        ("fill", "start", {"size": 33}),
        ("disk", "start", {"size": 17}),
        ("walk", "start", {"size": 1 << 21}),
        ("link", "start", {"size": 4 << 20}),
        ("fill", "duty", {"size": 1}),
        ("disk", "duty", {"size": 1}),
    ],
)
async def test_more_than_was_sold_is_refused(place: Place, what: str, kind: str, sizes: dict[str, int]) -> None:
    place.run.state.phase = "ready" if kind == "start" else "running"
    await place.ask("ready", kind)
    with pytest.raises(InvalidInput):
        await place.ask(what, kind, **sizes)


async def test_a_link_answers_without_a_sandbox(place: Place) -> None:
    answer = await place.ask("link", size=1000)
    assert base64.b64decode(answer.data) == hm.stream(bytes.fromhex(SEED[2:]), "link", 1000)
    assert await place.runtime.known() == ()


async def test_a_forgotten_probe_ends_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minga.provider.probing.SESSION_SECONDS", 0.2)
    await place.ask("ready")
    session = place.station._sessions[place.run.channel]
    assert session._handle is not None
    with anyio.fail_after(10):
        await session._handle.wait()
    await session.close()
    assert not place.station._sessions


async def test_a_lease_of_another_home_is_refused(place: Place) -> None:
    place.run.terms = None
    with pytest.raises(Conflict, match="not signed"):
        await place.ask("ready")


async def test_devices_are_those_of_the_lease_or_free_ones(place: Place) -> None:
    gpu = UNIT.model_copy(update={"gpus": 1})
    place.lease("0x" + "33" * 32, gpu, ("nvidia.com/gpu=0",))
    mine = place.lease("0x" + "44" * 32, gpu)
    assert place.station._free_gpus(mine, 1) == ("nvidia.com/gpu=1",)
    mine.state.gpus = ["nvidia.com/gpu=0"]
    assert place.station._free_gpus(mine, 1) == ("nvidia.com/gpu=0",)
    with pytest.raises(OutOfCapacity):
        place.station._free_gpus(place.lease("0x" + "55" * 32, gpu), 2)


@pytest.mark.parametrize(("gpus", "most"), [(0, 1 << 30), (1, 5 << 30)])
async def test_a_probe_beside_a_job_gets_memory_for_the_libraries_of_its_devices(
    place: Place, gpus: int, most: int
) -> None:
    """torch with its contexts does not fit into what numpy needs."""
    unit = UNIT.model_copy(update={"memory_bytes": 64 << 30, "gpus": gpus})
    assert probing._duty_memory(unit) == most
    place.run.state.phase = "running"
    await place.ask("ready", "duty")
    session = place.station._sessions[place.run.channel]
    assert session._limits.memory_bytes in (None, UNIT.memory_bytes), "never more than was sold"


def test_probes_run_where_the_libraries_are() -> None:
    places = {"zeta": Path("/z"), "python": Path("/p"), "ai": Path("/a")}
    assert best_environment(places) == Path("/a")
    assert best_environment({"zeta": Path("/z"), "python": Path("/p")}) == Path("/p")
    assert best_environment({"zeta": Path("/z"), "beta": Path("/b")}) == Path("/b")


# ------------------------------------------------------------------------------------------------------------ measuring


async def test_an_owner_measures_all_units_at_once_and_promises_less(runtime: Runtime, folder: Path) -> None:
    speed = await measure(
        runtime,
        UNIT,
        Path("/"),
        units=2,
        folder=folder / "probe",
        clock=SystemClock(),
        dice=SeededDice(f"measure {DICE}"),
    )
    assert speed.gemm_mops > 0
    assert speed.memory_mbps > 0
    assert speed.disk_mbps > 0
    assert speed.link_mbps == 0
    assert await runtime.known() == ()


async def test_a_runtime_of_scripts_promises_nothing_and_one_that_cannot_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeRuntime(SystemClock(), lambda task: Script(()))
    rest: dict[str, Any] = {"units": 1, "folder": folder / "probe", "clock": SystemClock(), "dice": SeededDice("fake")}
    assert await measure(fake, UNIT, Path("/"), **rest) == Speed()
    monkeypatch.setattr(fake, "name", "real")
    with pytest.raises(LimitNotEnforceable):
        await measure(fake, UNIT, Path("/"), **rest)


async def test_a_machine_that_computes_wrongly_promises_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minga.verify.hardware_checks.gemm_is_right", lambda *arguments: False)
    with pytest.raises(SandboxFailed, match="computes wrongly"):
        await measure(
            ProcessRuntime(folder / "t"), UNIT, Path("/"),
            units=1, folder=folder / "probe", clock=SystemClock(), dice=SeededDice("wrong"),
        )  # fmt: skip


async def test_cpus_do_not_stand_in_for_accelerators_that_are_sold(folder: Path) -> None:
    """The worker of a unit with a GPU falls back to the CPUs when it sees none; then its owner is told."""
    with_gpu = UNIT.model_copy(update={"gpus": 1})
    with pytest.raises(SandboxFailed, match="no accelerator"):
        await measure(
            ProcessRuntime(folder / "t"), with_gpu, Path("/"),
            units=1, folder=folder / "probe", clock=SystemClock(), dice=SeededDice("gpu"),
        )  # fmt: skip


# ------------------------------------------------------------------------------------------- over HTTP, on a real lease


async def test_a_tenant_probes_a_lease_before_and_beside_its_job(market: Market0, folder: Path) -> None:
    promised = Speed(gemm_mops=20, memory_mbps=5, disk_mbps=5, link_mbps=1)
    async with (
        running(market.config(folder / "home", units=1)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await tenant.open()
        await tenant.login()
        api = ProviderApi(connect(provider.url), tenant.channel)
        api.token = tenant.http.headers["authorization"].split()[1]
        terms = tenant.bundle.terms.model_copy(update={"speed": promised, "unit": SIZE})
        prober = Prober(SystemClock(), SeededDice("prober"))
        verdict = await prober.start_probe(api, terms, 1)
        assert verdict.ok, verdict.fact
        assert verdict.measured.gemm_mops >= 20
        assert set(verdict.shares) == set(Speed.model_fields)
        await tenant.send("sleep 60")
        await tenant.ask("POST", "/start")
        await tenant.until("phase", phase="running")
        with pytest.raises(Conflict):
            await prober.start_probe(api, terms, 1)
        from minga.client.probing import Window

        window = Window()
        assert (await prober.duty_probe(api, terms, 1, window)).ok
        assert len(window.probes) == 1
        await api.aclose()
        await tenant.ask("POST", "/stop", json={"reason": "done", "grace_s": 0})
        await tenant.until("artifacts")
        await tenant.ask("POST", "/close")
        await tenant.closed()


async def test_all_units_of_a_provider_are_probed_at_the_same_moment(market: Market0, folder: Path) -> None:
    """Two leases of one provider, over HTTP, each in a sandbox of its own: both sessions are there at once."""
    promised = Speed(gemm_mops=10, memory_mbps=5)
    async with running(market.config(folder / "home", units=2)) as provider, AsyncExitStack() as stack:
        targets = []
        for _ in range(2):
            tenant = await stack.enter_async_context(Tenant(market, provider.url))
            await tenant.open()
            await tenant.login()
            api = ProviderApi(connect(provider.url), tenant.channel)
            stack.push_async_callback(api.aclose)
            api.token = tenant.http.headers["authorization"].split()[1]
            terms = tenant.bundle.terms.model_copy(update={"speed": promised, "unit": SIZE})
            targets.append(Target(api, terms, 1))
        verdict = await Prober(SystemClock(), SeededDice("joint")).joint_probe(targets)
        assert verdict.ok, verdict.fact
        assert verdict.measured.gemm_mops >= 20
        assert set(verdict.shares) == {"gemm_mops", "memory_mbps"}


async def test_a_stranger_may_not_probe(market: Market0, folder: Path) -> None:
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        answer = await tenant.http.post(f"/v1/leases/0x{'11' * 32}/probe", json=request("ready").plain())
        assert answer.status_code == 401
