"""`verify` in a job file: what it means, what it adds to the order, and what it is refused with."""

from __future__ import annotations

from pathlib import Path

import pytest

from minga.client.bundle import pack_files
from minga.client.jobfile import parse_job
from minga.client.jobspec import NO_VERIFY, JobSpec, Verify
from minga.client.order import Court, Order, manifest_of, needs_of, order_of, plan_of, task_of
from minga.client.verified import LIBRARY, PINS, check_verified, library, verified_of
from minga.core.codec import canonical_json, parse_json
from minga.core.errors import InvalidInput, InvalidJobFile
from minga.core.spec import Terms, UnitSize
from minga.core.work import Trace, Work
from minga.protocol.matching import SANDBOXED
from minga.store.blobs import BlobStore

JOB = "0x" + "12" * 32
COURT = Court("0x" + "c0" * 20, 259_200)
TERMS = Terms(
    transport_key="aa" * 32, unit=UnitSize(cpu_milli=1000, memory_bytes=1 << 30, disk_bytes=1 << 30),
    sandbox="bubblewrap", egress=["*"],
)  # fmt: skip


def spec_of(text: str = "verify: audit", folder: Path = Path("/"), **given: dict[str, str]) -> JobSpec:
    return parse_job(f"run: python train.py\nbudget: 1\n{text}", folder, **given).spec


def order(spec: JobSpec) -> Order:
    needs = needs_of(spec, 6, False, COURT)
    inputs = ({"kind": "mount", "target": LIBRARY, "blake3": "ab" * 32, "bytes": 7},)
    return order_of(spec, "net", "0x" + "01" * 20, plan_of(spec, JOB, 6, 1000), needs, inputs, 1000, 5)


def test_left_out_it_changes_nothing() -> None:
    spec = spec_of("name: x")
    assert spec.verify == NO_VERIFY == spec_of("verify: none").verify == spec_of("verify: {}").verify
    assert needs_of(spec, 6, False, COURT) == needs_of(spec, 6, False)
    assert (needs_of(spec, 6, False).arbiter, needs_of(spec, 6, False).hold_bps_min) == ("", 0)
    assert order(spec).verify is None
    assert task_of(spec)["envs"] == {}
    assert task_of(spec)["egress"] is None


def test_every_part_has_a_default_and_a_place() -> None:
    assert spec_of().verify == Verify("audit", "D0", 1000, 1, 50)
    full = spec_of("verify: {class: D1, mode: audit, hold: 12.5%, every: 4, keep: 100000}")
    assert full.verify == Verify("audit", "D1", 1250, 4, 100_000)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("verify: maybe", "line 3: verify.mode: 'maybe' is none of none, audit, replicate"),
        ("verify: true", "line 3: verify.mode: 'True' is none of"),
        ("verify: {class: D3}", "line 3: verify.class: 'D3' is none of D0, D1, D2"),
        ("verify:\n  mode: audit\n  hold: 10", "line 5: verify.hold: '10' is not a part between"),
        ("verify: {hold: 0%}", "verify.hold"),
        ("verify: {hold: 101%}", "verify.hold"),
        ("verify: {hold: 1.234%}", "verify.hold"),
        ("verify: {hold: -1%}", "verify.hold"),
        ("verify: {every: 0}", "line 3: verify.every: 0 is not a whole number, 1 … 1000000"),
        ("verify: {every: true}", "verify.every"),
        ("verify: {keep: 1000001}", "verify.keep"),
        ("verify: {keep: 1.5}", "verify.keep"),
        ("verify: {modus: audit}", "line 3: verify.modus: unknown field"),
        ("verify: [audit]", "verify.mode"),
        ("verify: replicate", "line 3: verify: mode replicate is not built yet"),
        ("secrets: {A: b}\nverify: audit", "line 4: verify: a verified job has secrets"),
        ("egress: [a.org]\nverify: audit", "line 4: verify: a verified job reaches hosts (a.org)"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, says: str) -> None:
    with pytest.raises(InvalidJobFile) as caught:
        spec_of(text)
    assert says in caught.value.fact


def test_secrets_from_flags_are_refused_as_well() -> None:
    with pytest.raises(InvalidJobFile, match="has secrets"):
        spec_of("verify: audit", secrets={"TOKEN": "t"})
    with pytest.raises(InvalidInput, match="has secrets"):
        check_verified(JobSpec("x", secrets={"A": "b"}, verify=Verify("audit")))


def test_a_verified_job_needs_an_arbiter_that_holds_enough_for_long_enough() -> None:
    needs = needs_of(spec_of("verify: {mode: audit, hold: 5%}"), 6, False, COURT)
    assert (needs.arbiter, needs.hold_bps_min, needs.hold_seconds_min) == (COURT.arbiter, 500, 259_200)
    assert needs.sandboxes == SANDBOXED
    with pytest.raises(InvalidInput, match="nobody decides about work on this network"):
        needs_of(spec_of(), 6, False)


def test_the_order_is_the_same_after_its_journal_and_one_without_it_can_still_be_read() -> None:
    made = order(spec_of("verify: {mode: audit, class: D2, every: 3}"))
    body = parse_json(canonical_json(made.to_json()))
    assert Order.from_json(body) == made
    assert made.verify == {"mode": "audit", "trace": {"determinism": "D2", "every": 3, "keep": 50}}
    for name in ("arbiter", "hold_bps_min", "hold_seconds_min"):
        del body["needs"][name]
    del body["verify"]
    old = Order.from_json(body)
    assert (old.verify, old.needs.arbiter) == (None, "")


def test_the_trace_is_switched_on_and_d0_pins_what_decides_the_bits() -> None:
    envs = task_of(spec_of("verify: {mode: audit, every: 3, keep: 7}"))["envs"]
    assert envs.items() >= PINS.items()
    assert envs["OMP_NUM_THREADS"] == "1"
    assert {name: envs[name] for name in envs if name.startswith("MINGA_")} == {
        "MINGA_TRACE_DIR": "/job/out/trace", "MINGA_TRACE_EVERY": "3", "MINGA_TRACE_KEEP": "7",
        "MINGA_TRACE_DETERMINISM": "D0",
    }  # fmt: skip
    assert envs["PYTHONPATH"] == LIBRARY
    assert not PINS.keys() & task_of(spec_of("verify: {mode: audit, class: D1}"))["envs"].keys()


def test_the_job_file_may_say_otherwise_but_not_where_the_trace_goes() -> None:
    said = "envs: {OMP_NUM_THREADS: 4, PYTHONPATH: /job/work/lib, MINGA_TRACE_DIR: /tmp}\nverify: audit"
    envs = task_of(spec_of(said))["envs"]
    assert envs["OMP_NUM_THREADS"] == "4"
    assert envs["PYTHONPATH"] == f"{LIBRARY}:/job/work/lib"
    assert envs["MINGA_TRACE_DIR"] == "/job/out/trace"


def test_whatever_decides_the_result_is_in_the_work() -> None:
    made = order(spec_of())
    manifest = manifest_of(made, 3, 1, TERMS, "", None)
    assert manifest.egress == [], "others could be served other bytes"
    assert made.verify is not None
    work = Work.of(manifest, Trace.parse(made.verify["trace"]))
    assert [bundle.target for bundle in work.inputs] == [LIBRARY]
    assert work.envs == made.task["envs"]
    again = Work.of(manifest_of(made, 4, 1, TERMS, "", None), Trace.parse(made.verify["trace"]))
    assert again.hash32() == work.hash32(), "another attempt is the same work"


def test_the_library_can_be_packed_and_loads_alone(tmp_path: Path) -> None:
    files = library()
    assert "minga/__init__.py" in files
    assert pack_files(files, BlobStore(tmp_path)).files == len(files)


def test_what_verification_cost_in_bytes_is_known() -> None:
    class File:
        def __init__(self, path: str, size: int) -> None:
            self.path, self.bytes = path, size

    made = order(spec_of())
    files = [File("trace/leaves.bin", 64), File("trace/states/00000000.state", 1000), File("traces", 9), File("x", 5)]
    assert verified_of(made, files) == ("audit", "D0", 7, 1064)  # type: ignore[arg-type]
    assert verified_of(order(spec_of("name: x")), files) is None  # type: ignore[arg-type]
