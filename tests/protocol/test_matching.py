"""Who matches, who does not and why, and how cheapest-first is found among many."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minga.core.crypto import ZERO_ADDRESS, new_key, to_hex
from minga.core.eip712 import Domain
from minga.core.errors import InvalidInput
from minga.core.spec import Gpu, Machine, Terms, UnitSize
from minga.core.units import Amount
from minga.protocol.accelerators import Accelerator, normalise_gpu, parse_accelerators
from minga.protocol.matching import Requirements, explain, fit, rank, unmet
from minga.protocol.messages import Offer, Posting, offer_hash, sign
from minga.protocol.search import OfferIndex, Query, Row, parse_query, row_of
from minga.protocol.wire import OfferBundle, OfferFields

GB = 10**9
AGENT = new_key(b"\x07" * 32)
DOMAIN = Domain(1, "0x" + "11" * 20)
CARD = Gpu(vendor="nvidia", model="NVIDIA GeForce RTX 4090", memory_bytes=25_757_220_864)


def bundle_of(number: int = 1, price: int = 400_000, gpus: int = 1, card: Gpu = CARD, **more) -> OfferBundle:
    """A signed bundle; `more` are fields of the offer, the unit or the terms."""
    unit = {"cpu_milli": 8000, "memory_bytes": 32 * GB, "disk_bytes": 200 * GB, "gpus": min(gpus, 1)}
    terms = {
        "prepaid_quanta": 0,
        "transport_key": "aa" * 32,
        "sandbox": "bubblewrap",
        "region": "eu-de",
        "ports": 2,
        "egress": ["index.test", "*.hf.co"],
    }
    fields = {"close_window": 3600, "arbiter": ZERO_ADDRESS, "quantum": 60, "valid_until": 2000, "units": max(gpus, 1)}
    for name, value in more.items():
        next(group for group in (unit, terms, fields) if name in group or group is fields)[name] = value
    machine = Machine(
        node=f"0x{number:064x}", arch="x86_64", cpu="cpu", cpus=16, memory_bytes=64 * GB, disk_bytes=500 * GB,
        gpus=[card] * gpus, os="linux",
    )  # fmt: skip
    made = Terms(unit=UnitSize(**unit), **terms)
    offer = Offer(
        provider=AGENT.address, machine=machine.hash32(), terms=made.hash32(), price_per_hour=Amount(price),
        deposit_min=Amount(1), seconds_min=60, seconds_max=86400, hold_bps=0, hold_seconds=0, epoch=0,
        salt="0x" + "00" * 32, **fields,
    )  # fmt: skip
    posting = Posting(offer_hash(offer), "http://127.0.0.1:1", 1000)
    return OfferBundle(
        offer=OfferFields.of(offer), signature=to_hex(sign(offer, DOMAIN, AGENT)), agent=AGENT.address, machine=machine,
        terms=made, url=posting.url, posted_at=1000, url_signature=to_hex(sign(posting, DOMAIN, AGENT)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("NVIDIA GeForce RTX 4090", "RTX4090"), ("RTX4090", "RTX4090"), ("rtx 4090", "RTX4090"), ("4090", "RTX4090"),
        ("NVIDIA H100 80GB HBM3", "H100-80GB"), ("NVIDIA A100-SXM4-80GB", "A100-SXM-80GB"), ("Tesla T4", "T4"),
        ("A100-80GB", "A100-80GB"), ("NVIDIA RTX 6000 Ada Generation", "RTX6000ADA"), ("RTX6000-Ada", "RTX6000ADA"),
        ("RTX 3060 Ti", "RTX3060TI"), ("AMD Instinct MI300X", "MI300X"), ("H100-PCIe", "H100-PCIE"),
    ],
)  # fmt: skip
def test_names_of_accelerators_are_one(text: str, name: str) -> None:
    found = normalise_gpu(text)
    assert str(found) == name
    assert normalise_gpu(str(found)) == found


@pytest.mark.parametrize("text", ["", "NVIDIA", "H100;rm", "x" * 200, "80GB", "\n"])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        normalise_gpu(text)


@pytest.mark.parametrize(
    ("value", "shown"),
    [("H100:8", ["H100:8"]), ("H100", ["H100:1"]), ({"H100": 8}, ["H100:8"]), (2, ["any:2"]), (None, []), ({}, []),
     (["A100:1", "L4"], ["A100:1", "L4:1"]), ("T4, L4:2", ["T4:1", "L4:2"]), ({"T4": None}, ["T4:1"])],
)  # fmt: skip
def test_accelerators_as_skypilot_writes_them(value, shown) -> None:
    assert [str(wish) for wish in parse_accelerators(value)] == shown


@pytest.mark.parametrize("value", ["H100:0", "H100:x", "H100:-1", "H100:65", "H100:1.5", 1.5, [[["?"]]], True])
def test_bad_accelerators_are_refused(value) -> None:
    with pytest.raises(InvalidInput):
        parse_accelerators(value)


NEEDS = {
    "gpu": Requirements(gpus=parse_accelerators("H100")),
    "gpu_count": Requirements(gpus=parse_accelerators("RTX4090:2")),
    "vram": Requirements(vram_bytes=48 * GB),
    "cpus": Requirements(cpu_milli=9000),
    "memory": Requirements(memory_bytes=64 * GB),
    "disk": Requirements(disk_bytes=900 * GB),
    "price": Requirements(price_per_hour_max=399_999),
    "region": Requirements(region="us"),
    "egress": Requirements(egress=("example.org",)),
    "ports": Requirements(ports=3),
    "environment": Requirements(environment="cuda"),
    "sandbox": Requirements(sandboxes=("podman",)),
    "close_window": Requirements(close_window_max=3599),
    "quantum": Requirements(quantum_min=61),
    "reliability": Requirements(reliability_ppm_min=1),
}


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_each_requirement_excludes_by_its_name(name: str) -> None:
    bundle = bundle_of()
    assert unmet(Requirements(), bundle) == ()
    assert unmet(NEEDS[name], bundle) == (name,)
    exclusion = explain(NEEDS[name], [bundle, bundle_of(2)])
    assert exclusion.excluded == exclusion.only == {name: 2}
    assert (exclusion.total, exclusion.matching) == (2, 0)


def test_more_that_excludes() -> None:
    assert unmet(Requirements(prepaid_max=0), bundle_of(prepaid_quanta=1, egress=["*"])) == ("prepaid",)
    assert unmet(Requirements(), bundle_of(arbiter="0x" + "01" * 20)) == ("arbiter",)
    assert unmet(replace(Requirements(), excluded=frozenset([bundle_of().offer.machine])), bundle_of()) == ("excluded",)
    assert unmet(Requirements(region="eu", egress=("cdn.hf.co", "index.test")), bundle_of()) == ()


def test_a_lease_takes_as_many_units_as_the_job_needs() -> None:
    bundle = bundle_of(gpus=8)
    assert fit(Requirements(gpus=parse_accelerators("RTX4090:4")), bundle).units == 4
    assert fit(Requirements(gpus=parse_accelerators("RTX4090"), memory_bytes=100 * GB), bundle).units == 4
    (found,) = rank(Requirements(gpus=parse_accelerators("RTX4090:4")), [bundle])
    assert found.price_per_hour == 1_600_000
    assert fit(Requirements(price_per_hour_max=1_599_999, gpus=parse_accelerators("any:4")), bundle).unmet == ("price",)


def test_ranking_is_by_expected_cost_and_everywhere_the_same() -> None:
    cheap, dear = bundle_of(1, 400_000), bundle_of(2, 430_000)
    assert [item.bundle for item in rank(Requirements(), [dear, cheap, cheap])] == [cheap, dear]
    found = rank(Requirements(), [cheap, dear], lambda provider: 1_000_000)
    assert found[0].expected_per_hour == found[0].price_per_hour
    assert rank(Requirements(gpus=parse_accelerators("H100")), [cheap]) == []


def test_a_better_record_may_cost_more() -> None:
    cheap, dear = bundle_of(1, 400_000), bundle_of(2, 430_000)
    listed = [*rank(Requirements(), [cheap], lambda _: 800_000), *rank(Requirements(), [dear], lambda _: 990_000)]
    assert listed[0].expected_per_hour == 500_000 > listed[1].expected_per_hour
    assert [item.reliability_ppm for item in listed] == [800_000, 990_000]
    unread = rank(Requirements(), [cheap])[0]
    assert unread.expected_per_hour == listed[0].expected_per_hour  # who cannot be judged counts as new
    assert unread.reliability_ppm is None
    assert unmet(Requirements(reliability_ppm_min=800_000), cheap, 800_000) == ()
    assert unmet(Requirements(reliability_ppm_min=800_001), cheap, 800_000) == ("reliability",)


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True), ("gpu=RTX4090", True), ("gpu=4090 vram>=24 price<0.5", True), ("price<0.4", False),
        ("price<=0.4", True), ("price>0.4", False), ("vram=24", True), ("vram=16", False), ("gpu=none", False),
        ("gpu=any", True), ("gpu!=H100", True), ("region=eu", True), ("region!=eu", False), ("egress=x.hf.co", True),
        ("egress=example.org", False), ("cpus>=8 memory>=32 disk>=200GB", True), ("cpus>8", False), ("units>=1", True),
        ("reliability>0.5", False), ("reliability<=1", False), ("sandbox=bubblewrap arch=x86_64", True),
        ("environment=python ports>=2 quantum=60", True), ("price < 0.5   gpu = RTX4090", True),
        (f"provider={AGENT.address.upper().replace('0X', '0x')}", True),
    ],
)  # fmt: skip
def test_queries(text: str, matches: bool) -> None:
    bundle = bundle_of()
    query = parse_query(text)
    assert query.matches(bundle) is matches
    index = OfferIndex()
    index.add("one", row_of(bundle))
    assert index.search(query) == (["one"] if matches else [])


@pytest.mark.parametrize(
    "text",
    ["gpu", "gpu<H100", "price<cheap", "prize<2", "price!=2", "vram>=x", "price<-1", "reliability>0.12345678", "=3",
     "region>eu", "cpus>=1e99", "x" * 2000, "price<0.0000001", "until>5"],
)  # fmt: skip
def test_a_bad_query_names_its_word(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_query(text)


@given(st.text(max_size=80))
def test_no_query_ends_in_anything_but_our_error(text: str) -> None:
    try:
        assert isinstance(parse_query(text), Query)
    except InvalidInput:
        return


card_names = st.sampled_from(["H100-80GB", "RTX4090", "T4"])
rows = st.builds(
    lambda name, price, vram, gpus, cpus, rel, region, until: Row(
        None if name is None else normalise_gpu(name),
        (price, vram * GB, gpus, cpus * 1000, GB, GB, 1, 60, 0, rel, until),
        ((region,), ("bubblewrap",), ("python",), (), ("0x1",), ("0x2",), ("x86_64",)),
    ),
    st.none() | card_names, st.integers(0, 50), st.sampled_from([0, 24, 80]), st.integers(0, 2), st.integers(1, 3),
    st.sampled_from([-1, 900_000, 990_000]), st.sampled_from(["eu-de", "us"]), st.integers(0, 3),
)  # fmt: skip
words = st.lists(
    st.sampled_from(
        ["gpu=H100", "gpu!=T4", "gpu=none", "vram>=24", "gpus>=1", "cpus<3", "price<0.00003", "price>=0.00001",
         "reliability>0.95", "region=eu", "region!=eu", "environment=python", "provider=0x1", "provider=0x9"]
    ),
    max_size=4,
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(rows, max_size=40), words, st.integers(1, 6), st.sets(st.integers(0, 39)), st.booleans())
def test_the_index_finds_what_a_scan_finds(made, asked, limit, removed, bulk) -> None:
    query = parse_query(" ".join(asked))
    index, held = OfferIndex(), dict(enumerate(made))
    if bulk:
        index.add_many((str(number), row) for number, row in held.items())
    for number, row in held.items():
        if not bulk:
            index.add(str(number), row)
    for number in removed:
        index.remove(str(number))
        held.pop(number, None)
    assert len(index) == len(held)
    scan = sorted(row.numbers[0] for row in held.values() if query.matches_row(row) and row.numbers[-1] > 1)[:limit]
    found = index.search(query, limit, now=1)
    assert [held[int(ref)].numbers[0] for ref in found] == scan
    assert all(query.matches_row(held[int(ref)]) for ref in found)


def test_replacing_an_offer_replaces_it() -> None:
    index = OfferIndex()
    index.add("a", row_of(bundle_of(price=5)))
    index.add("a", row_of(bundle_of(price=7)))
    assert len(index) == 1
    assert index.search(parse_query("price<0.000006")) == []
    index.remove("a")
    index.remove("a")
    assert index.search(Query()) == []


def test_a_card_that_is_called_nonsense_is_found_by_its_memory_alone() -> None:
    odd = bundle_of(card=Gpu(vendor="nvidia", model="☃", memory_bytes=80 * GB))
    assert unmet(Requirements(gpus=parse_accelerators("any"), vram_bytes=40 * GB), odd) == ()
    assert unmet(Requirements(gpus=parse_accelerators("H100")), odd) == ("gpu",)
    assert parse_query("vram>=40").matches(odd)
    assert Accelerator("").model == ""
