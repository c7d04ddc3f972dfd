"""Whole probes against provers, honest and hostile, on a clock that a model of a machine moves."""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from provers import UNIT, Machine, ManualClock, Prover, survey_of, verdict_on

from minga.client.probing import PROBE_SECONDS
from minga.core.errors import BadAnswer, ProviderUnreachable
from minga.core.spec import Speed
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.verify import hardware as hw
from minga.verify import hardware_engines as he
from minga.verify import hardware_math as hm
from minga.verify import hardware_survey as hs

PROMISED = hw.promise(Speed(gemm_mops=40, memory_mbps=900, disk_mbps=300, link_mbps=50))
pytestmark = pytest.mark.anyio


def prover(folder: Path, machine: Machine | None = None) -> Prover:
    """An honest prover."""
    return Prover(machine or Machine(), ManualClock(), folder)


async def test_an_honest_machine_passes_with_everything_measured(tmp_path: Path) -> None:
    verdict = await verdict_on(prover(tmp_path), PROMISED)
    assert verdict.ok, verdict.fact
    assert verdict.measured.gemm_mops == pytest.approx(40, rel=0.1)
    assert verdict.measured.memory_mbps == pytest.approx(900, rel=0.15)
    assert verdict.measured.disk_mbps == pytest.approx(300, rel=0.1)
    assert verdict.measured.link_mbps == pytest.approx(50, rel=0.1)
    assert set(verdict.shares) == set(Speed.model_fields)


async def test_an_honest_machine_passes_under_noise_of_many_seeds(tmp_path: Path) -> None:
    for seed in range(12):
        throw = random.Random(seed)
        machine = Machine(noise=lambda throw=throw: 1 + throw.expovariate(2))
        verdict = await verdict_on(prover(tmp_path, machine), Speed(gemm_mops=PROMISED.gemm_mops))
        assert verdict.ok, (seed, verdict.fact)


async def test_seeds_are_never_used_twice_and_openings_come_after_all_rounds(tmp_path: Path) -> None:
    honest = prover(tmp_path)
    await verdict_on(honest, PROMISED)
    timed = [request for request in honest.asked if request.what in ("gemm", "fill", "walk", "link")]
    assert len({request.seed for request in timed}) == len(timed)
    kinds = [request.what for request in honest.asked]
    assert kinds[:4] == ["ready"] * 4
    assert kinds[-1] == "end"
    assert max(i for i, what in enumerate(kinds) if what in ("gemm", "walk", "disk")) < kinds.index("open")


async def test_a_machine_that_is_fast_enough_at_once_is_asked_once(tmp_path: Path) -> None:
    honest = prover(tmp_path)
    await verdict_on(honest, PROMISED)
    assert [request.what for request in honest.asked].count("gemm") == 1


async def test_a_power_capped_machine_is_refused(tmp_path: Path) -> None:
    capped = prover(tmp_path, Machine(mops=40 * 0.3))
    verdict = await verdict_on(capped, PROMISED)
    assert not verdict.ok
    assert verdict.code == "under-spec"
    assert verdict.fact.startswith("gemm_mops")
    # Each round takes a third of a second there, and retrying ends after five.
    assert 10 < [request.what for request in capped.asked].count("gemm") <= hs.TRIES


@pytest.mark.parametrize("quantity", ["fill_mbps", "disk_mbps", "link_mbps"])
async def test_every_quantity_can_fail_alone(tmp_path: Path, quantity: str) -> None:
    machine = Machine()
    setattr(machine, quantity, getattr(machine, quantity) * 0.1)
    verdict = await verdict_on(prover(tmp_path, machine), PROMISED)
    assert not verdict.ok
    assert verdict.fact.startswith(quantity.replace("fill", "memory"))


async def test_one_machine_posing_as_two_units_is_refused_at_the_same_moment(tmp_path: Path) -> None:
    verdict = await verdict_on(prover(tmp_path), Speed(gemm_mops=2 * PROMISED.gemm_mops), units=2)
    assert not verdict.ok
    assert verdict.shares["gemm_mops"] == pytest.approx(714, abs=20)


async def test_two_true_units_pass(tmp_path: Path) -> None:
    two = prover(tmp_path, Machine(mops=80))
    assert (await verdict_on(two, Speed(gemm_mops=2 * PROMISED.gemm_mops), units=2)).ok


class Relay(Prover):
    """Passes challenges on to a machine that is as fast as promised and `away_s` further."""

    away_s = 1.0
    only: tuple[str, ...] = ()
    """What is passed on; nothing named: everything."""

    async def ask(self, request: ProbeRequest) -> ProbeAnswer:
        """Answer when the other machine has."""
        if not self.only or request.what in self.only:
            self.clock.seconds += self.away_s
        return await super().ask(request)


@pytest.mark.parametrize(("away_s", "passes"), [(0.0, True), (0.03, True), (0.1, False), (0.3, False), (1.0, False)])
async def test_compute_that_is_passed_on_is_refused_beyond_the_deadline(
    tmp_path: Path, away_s: float, passes: bool
) -> None:
    """It answers pings itself. A round is expected to take 0.08 s / 0.7 of the machine's speed and must be done at 75 %
    of that: 0.11 s, of which 0.056 s are the work. What a relay may cost is the rest.
    """
    relay = Relay(Machine(), ManualClock(), tmp_path)
    relay.away_s, relay.only = away_s, ("gemm",)
    verdict = await verdict_on(relay, Speed(gemm_mops=PROMISED.gemm_mops))
    assert verdict.ok is passes, verdict
    assert relay.asked[0].what == "ready"


@pytest.mark.parametrize("what", ["gemm", "fill", "walk", "disk", "link"])
async def test_whatever_is_passed_on_a_second_away_is_refused(tmp_path: Path, what: str) -> None:
    relay = Relay(Machine(), ManualClock(), tmp_path)
    relay.only = (what,)
    verdict = await verdict_on(relay, PROMISED)
    assert not verdict.ok
    named = {"gemm": "gemm_mops", "fill": "memory_mbps", "walk": "a walk", "disk": "disk_mbps", "link": "link_mbps"}
    assert verdict.fact.startswith(named[what])


async def test_one_that_passes_everything_on_over_a_second_is_no_machine_to_judge(tmp_path: Path) -> None:
    relay = Relay(Machine(), ManualClock(), tmp_path)
    with pytest.raises(ProviderUnreachable, match=r"takes 1\.00 s, at most 1\.0 s"):
        await verdict_on(relay, PROMISED)
    assert {request.what for request in relay.asked} == {"ready"}


@pytest.mark.parametrize("slow", [1.0, 0.53, 0.3, 0.1])
@pytest.mark.parametrize("trip_s", [0.002, 0.2])
async def test_a_probe_ends_within_ten_seconds(tmp_path: Path, slow: float, trip_s: float) -> None:
    """Also of a machine that fails in everything, so that everything is tried again, and one that is far away."""
    machine = Machine(40 * slow, 900 * slow, 300 * slow, 50 * slow, 0.03 / slow, trip_s)
    found = prover(tmp_path, machine)
    await verdict_on(found, PROMISED)
    assert found.clock.seconds < PROBE_SECONDS


async def test_the_answers_of_an_old_probe_are_refused(tmp_path: Path) -> None:
    class Replayer(Prover):
        old: dict[str, ProbeAnswer] = {}

        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what in ("gemm", "walk", "disk"):
                if request.what not in self.old:
                    self.old[request.what] = super().answered(request)
                return self.old[request.what]
            return super().answered(request)

    replayer = Replayer(Machine(), ManualClock(), tmp_path)
    assert (await verdict_on(replayer, PROMISED)).ok
    again = await verdict_on_again(replayer)
    assert not again.ok
    assert "wrong" in again.fact


async def verdict_on_again(replayer: Prover) -> hw.Verdict:
    """A second probe with other dice."""
    survey = survey_of(replayer, seed="second")
    await survey.open()
    await survey.gemm(PROMISED.gemm_mops, hw.ROUND_SECONDS)
    await survey.check(PROMISED)
    return hw.judge(PROMISED, survey.rounds, survey.setting, survey.wrong)


@pytest.mark.parametrize("what", ["gemm", "walk", "disk", "link"])
async def test_a_wrong_answer_is_refused(tmp_path: Path, what: str) -> None:
    class Liar(Prover):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what != what:
                return super().answered(request)
            lie = request.model_copy(update={"seed": "0x" + "77" * 32})
            if what == "disk":
                lie = request.model_copy(update={"links": request.links ^ 1})
            return super().answered(lie)

    verdict = await verdict_on(Liar(Machine(), ManualClock(), tmp_path), PROMISED)
    assert not verdict.ok
    assert verdict.fact.endswith("challenge is wrong")


async def test_a_commitment_to_something_else_is_refused(tmp_path: Path) -> None:
    """It commits at once and computes afterwards: the opening is right and does not fit the commitment."""

    class Early(Prover):
        late: dict[str, str] = {}

        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what == "open":
                return super().answered(request.model_copy(update={"seed": "0x" + self.late[request.seed[2:]]}))
            found = super().answered(request)
            if request.what == "gemm":
                self.late["ab" * 32] = found.digest
                return found.model_copy(update={"digest": "ab" * 32})
            return found

    early = Early(Machine(), ManualClock(), tmp_path)
    verdict = await verdict_on(early, Speed(gemm_mops=PROMISED.gemm_mops))
    assert not verdict.ok
    assert "compute" in verdict.fact


async def test_half_the_memory_is_found_by_wrong_words_or_by_a_slow_walk(tmp_path: Path) -> None:
    class Half(Prover):
        """Holds the first half. A miss costs `miss_s`: what the fastest way to a missing word takes, or nothing."""

        miss_s = 0.0
        is_made_up = False

        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            if request.what != "walk":
                return super().answered(request)
            memory, half = bytearray(self.worker._memory), len(self.worker._memory) // 2
            words, seed, misses = len(memory) // 8, bytes.fromhex(request.seed[2:]), 0
            if self.is_made_up:
                memory[half:] = bytes(len(memory) - half)
            opening = hm.walk(memoryview(memory), seed, request.size)
            key = hm.walk_key(seed)
            index = hm.walk_next(0, -1, key, words)
            for step in range(request.size):
                misses += index * 8 >= half
                index = hm.walk_next(int.from_bytes(opening[4 * step : 4 * step + 4], "little"), step, key, words)
            self.clock.seconds += misses * self.miss_s
            return ProbeAnswer(**self.worker._commit(opening, {}))

    memory = Speed(memory_mbps=PROMISED.memory_mbps)
    honest = Half(Machine(), ManualClock(), tmp_path)
    assert (await verdict_on(honest, memory)).ok
    lying = Half(Machine(), ManualClock(), tmp_path)
    lying.is_made_up = True
    assert "memory challenge is wrong" in (await verdict_on(lying, memory)).fact
    computing = Half(Machine(), ManualClock(), tmp_path)
    computing.miss_s = 2e6 / 20e9  # two megabytes at twenty gigabytes a second: better than anybody's code
    assert "not all there" in (await verdict_on(computing, memory)).fact


async def test_a_slow_machine_far_away_is_measured_longer(tmp_path: Path) -> None:
    far = prover(tmp_path, Machine(trip_s=0.1))
    survey = survey_of(far)
    await survey.open()
    await survey.gemm(PROMISED.gemm_mops, hw.ROUND_SECONDS)
    assert survey.rounds[0].wall_s > 3 * survey.rtt_s
    assert hw.judge(Speed(gemm_mops=PROMISED.gemm_mops), survey.rounds, survey.setting).ok


@pytest.mark.parametrize(("mops", "passes"), [(10_000, True), (10, False)])
async def test_a_promise_too_large_to_be_checked_is_held_to_what_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mops: int, passes: bool
) -> None:
    """The verifier is a second away and may check one link: an accelerator passes, a slow machine as one fails."""
    monkeypatch.setattr(hw, "LINK_AREA", 1)
    monkeypatch.setattr(hw, "LINK_AREA_NUMPY", 1)
    far = prover(tmp_path, Machine(trip_s=1.0, mops=mops))
    survey = survey_of(far)
    await survey.open()
    judged = await survey.gemm(40_000, hw.ROUND_SECONDS)
    assert 40 < judged < 10_000
    assert hw.judge(Speed(gemm_mops=judged), survey.rounds, survey.setting).ok is passes


async def test_an_answer_that_is_not_base64_is_a_bad_answer(tmp_path: Path) -> None:
    class Garbled(Prover):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            found = super().answered(request)
            return found.model_copy(update={"data": "%%%"}) if request.what == "link" else found

    with pytest.raises(BadAnswer):
        await verdict_on(Garbled(Machine(), ManualClock(), tmp_path), PROMISED)


async def test_an_opening_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    class Endless(Prover):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            found = super().answered(request)
            if request.what != "open":
                return found
            longer = base64.b64decode(found.data) * 3
            return found.model_copy(update={"data": base64.b64encode(longer).decode()})

    verdict = await verdict_on(Endless(Machine(), ManualClock(), tmp_path), PROMISED)
    assert not verdict.ok


async def test_idle_time_of_this_machine_is_recorded_with_each_round(tmp_path: Path) -> None:
    honest = prover(tmp_path)
    survey = hs.Survey(
        honest.ask, honest.clock, survey_of(honest).dice, "start", UNIT, 1, hw.Setting(near=True),
        idle=lambda: honest.clock.seconds * 1.5,
    )  # fmt: skip
    await survey.open()
    await survey.gemm(PROMISED.gemm_mops, hw.ROUND_SECONDS)
    assert survey.rounds[0].idle_cpus == pytest.approx(1.5)
    assert survey.rounds[0].threads == 2


async def test_cpu_time_that_is_nonsense_is_not_taken(tmp_path: Path) -> None:
    class Odd(Prover):
        def answered(self, request: ProbeRequest) -> ProbeAnswer:
            return super().answered(request).model_copy(update={"facts": {"cpu_us": "much"}})

    survey = survey_of(Odd(Machine(), ManualClock(), tmp_path))
    await survey.open()
    await survey.gemm_round(64, 2)
    assert survey.rounds[0].cpu_s == 0.0


@pytest.mark.parametrize(("cpus", "passes"), [(2, False), (4, True)])
async def test_a_unit_cannot_have_more_cpus_than_the_machine_that_both_are_on(
    tmp_path: Path, cpus: int, passes: bool
) -> None:
    """One machine posing as two, next to its tenant: it waits for CPUs that it never had."""
    posing = prover(tmp_path)
    promised = Speed(gemm_mops=2 * PROMISED.gemm_mops)
    survey = hs.Survey(
        posing.ask, posing.clock, survey_of(posing).dice, "start", UNIT, 2, hw.Setting(near=True), cpus=cpus
    )
    await survey.open()
    n, links = hw.gemm_shape(promised.gemm_mops, hw.ROUND_SECONDS, False)
    posing.cpu_s = 2 * n**3 * links / 1e6 / posing.machine.mops  # both of its CPUs, all the time
    await survey.gemm(promised.gemm_mops, hw.ROUND_SECONDS)
    assert hw.judge(promised, survey.rounds, survey.setting).ok is passes


def test_the_engine_of_these_tests_is_the_plain_one() -> None:
    assert he.Plain().devices() == ["python"]
