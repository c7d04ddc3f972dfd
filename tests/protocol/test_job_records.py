"""A job's journal: every event comes back as it was written, old journals are read, and damaged ones are one error."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minga.core.codec import canonical_json, parse_json
from minga.core.errors import InternalError
from minga.protocol import job_events as ev
from minga.protocol.job_plan import Deal, Plan

KINDS = sorted(ev.Event.__subclasses__(), key=lambda kind: kind.__name__)
NUMBERS, AMOUNTS = st.integers(0, 2**53 - 1), st.integers(0, 2**128 - 1)
TEXTS = st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=12)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": NUMBERS,
    "int | None": st.none() | NUMBERS,
    "str": TEXTS,
    "bool": st.booleans(),
    "Amount": AMOUNTS,
    "Amount | None": st.none() | AMOUNTS,
    "dict[str, Any]": st.dictionaries(TEXTS, NUMBERS | TEXTS | st.none(), max_size=3),
}
"""What a field of each annotation may hold."""


def made(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any value of a dataclass."""
    fields = {item.name: str(item.type) for item in dataclasses.fields(kind)}
    return st.builds(kind, **{name: made(Deal) if text == "Deal" else VALUES[text] for name, text in fields.items()})


def through_disk(body: dict[str, Any]) -> Any:
    """As a journal writes and reads it: the canonical subset of JSON holds it, so nothing is lost."""
    return parse_json(canonical_json(body), 1 << 20)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_every_event_comes_back_as_it_was_written(kind: type[Any], data: st.DataObject) -> None:
    event = data.draw(made(kind))
    name, body = ev.encode(event)
    assert name == kind.__name__
    assert ev.decode(name, through_disk(body)) == event


@settings(max_examples=50, deadline=None)
@given(made(Plan))
def test_a_plan_comes_back_as_it_was_written(plan: Plan) -> None:
    assert ev.plan_from_json(through_disk(ev.plan_to_json(plan))) == plan


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_record_without_the_fields_that_came_later_is_read(kind: type[Any]) -> None:
    """A field with a default may be missing: the journal is older than the field."""
    fields = dataclasses.fields(kind)
    needed = [item for item in fields if item.default is dataclasses.MISSING]
    plain: dict[str, Any] = {"int": 3, "int | None": 3, "str": "x", "bool": True, "Amount": "3", "dict[str, Any]": {}}
    plain["Deal"] = DEAL
    event = ev.decode(kind.__name__, {item.name: plain[str(item.type)] for item in needed})
    for item in fields:
        if item not in needed:
            assert getattr(event, item.name) == item.default


DEAL: dict[str, Any] = {
    "provider": "0x01", "machine": "0x02", "offer": "0x03", "price_per_hour": "400000", "units": 1, "quantum": 60,
    "deposit_min": "1", "seconds_min": 60, "seconds_max": 600, "close_window": 3600,
}  # fmt: skip
"""A deal as the first journals hold it: of its later fields there are none."""

FIRST_JOURNAL: list[tuple[str, dict[str, Any], str]] = [
    ("Funded", {"transaction": "0xaa"}, "Funded(transaction='0xaa')"),
    ("Opened", {"attempt": 0, "lease": "0x1", "channel": "0x2", "seconds": 600, "opened_at": 9}, "transaction=''"),
    ("OpenFailed", {"attempt": 0, "code": "c", "fact": "f"}, "exclude_s=60"),
    ("PhaseSeen", {"attempt": 0, "number": 1, "phase": "ready"}, "reason='', elapsed_s=0"),
    ("Metered", {"attempt": 0, "number": 2, "working_s": 5, "elapsed_s": 6}, "idle_s=0"),
    ("Paid", {"attempt": 0, "cumulative": str(2**100)}, f"cumulative={2**100}"),
    ("CheckpointKept", {"attempt": 0, "number": 3, "count": 1}, "step=None, bytes=0"),
    ("Lost", {"attempt": 0, "code": "gone", "reason": "r"}, "silent_s=0"),
    ("StopAsked", {}, "reason='asked by the tenant'"),
    ("Returned", {"tokens": "7"}, "tokens=7"),
]


@pytest.mark.parametrize(("kind", "body", "shown"), FIRST_JOURNAL, ids=lambda value: value if value == "x" else None)
def test_a_journal_of_the_first_release_means_what_it_meant(kind: str, body: dict[str, Any], shown: str) -> None:
    assert shown in repr(ev.decode(kind, json.loads(json.dumps(body))))


def test_an_old_deal_promises_no_speed_and_no_notice() -> None:
    found = ev.decode("Found", {"deal": DEAL, "bundle": {}})
    assert isinstance(found, ev.Found)
    assert (found.deal.probe, found.deal.notice_s, found.deal.prepaid_quanta) == (False, 0, 0)
    assert found.deal.price_per_hour == 400_000


def test_an_old_plan_has_the_limits_of_its_time() -> None:
    plan = ev.plan_from_json({"job": "0x1", "budget": "1000000"})
    assert (plan.budget, plan.per_hour, plan.deadline, plan.accept, plan.max_idle_s) == (10**6, None, None, False, None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("", {}), ("Event", {}), ("funded", {}), ("x" * 5000, {}),
        ("Paid", {"attempt": 0, "cumulative": "much"}), ("Paid", {"attempt": 0, "cumulative": []}),
        ("Paid", {"attempt": 0, "cumulative": "1.5"}), ("Found", {"deal": {}, "bundle": {}}),
        ("Found", {"deal": None, "bundle": {}}), ("Found", {"deal": DEAL | {"colour": "red"}, "bundle": {}}),
        ("Found", {"deal": DEAL | {"deposit_min": "x"}, "bundle": {}}), ("Started", {}), ("Ticked", {"at": 5}),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_one_short_error(kind: str, body: dict[str, Any]) -> None:
    with pytest.raises(InternalError) as caught:
        ev.decode(kind, body)
    assert len(caught.value.fact) <= 200
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    "body", [{}, {"job": "0x1"}, {"job": "0x1", "budget": "x"}, {"job": "0x1", "budget": "1", "b": 1}]
)
def test_a_plan_that_cannot_be_read_is_one_error(body: dict[str, Any]) -> None:
    with pytest.raises(InternalError, match="Plan"):
        ev.plan_from_json(body)


def test_no_amount_travels_as_a_number() -> None:
    """A JSON number over 2**53 is another number to some readers."""
    for kind in (*KINDS, Plan, Deal):
        for item in dataclasses.fields(kind):
            assert str(item.type) in {*VALUES, "Deal"}, f"{kind.__name__}.{item.name} has a type without a JSON form"
    closed = ev.LeaseClosed(0, *(2**90 + number for number in range(4)))
    body = ev.encode(closed)[1]
    assert [body[name] for name in ("paid", "fee", "held", "refunded")] == [str(2**90 + n) for n in range(4)]
