"""Queries at their edges, bounds and words; and an index that agrees with a plain list whatever happens to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from offers_made import bundle_of

from minga.core.errors import InvalidInput
from minga.protocol.accelerators import Accelerator
from minga.protocol.search import INF, NUMBERS, QUERY_MAX, TEXTS, OfferIndex, Query, Row, parse_query, row_of

GB = 10**9
CARDS = (None, Accelerator("H100", 80), Accelerator("H100", 80, "SXM"), Accelerator("RTX4090"), Accelerator("?"))


def row(gpu: Accelerator | None = CARDS[1], texts: dict[str, tuple[str, ...]] | None = None, **numbers: int) -> Row:
    """An offer of one H100 in eu-de for 2 dollars, but for what is named."""
    base = {
        "price": 2_000_000, "vram": 80 * GB, "gpus": 1, "cpus": 8000, "memory": 64 * GB, "disk": 500 * GB, "units": 1,
        "quantum": 60, "ports": 2, "reliability": 990_000, "until": 100,
    }  # fmt: skip
    words: dict[str, tuple[str, ...]] = {
        "region": ("eu-de",), "sandbox": ("bubblewrap",), "environment": ("ai", "rootfs"),
        "egress": ("index.test", "*.hf.co"), "provider": ("0xab",), "machine": ("0x01",), "arch": ("x86_64",),
    }  # fmt: skip
    held = {**words, **(texts or {})}
    return Row(gpu, tuple({**base, **numbers}[name] for name in NUMBERS), tuple(held[name] for name in TEXTS))


@pytest.mark.parametrize(
    ("query", "field", "inside", "outside"),
    [
        ("price<2", "price", 1_999_999, 2_000_000), ("price<=2", "price", 2_000_000, 2_000_001),
        ("price>2", "price", 2_000_001, 2_000_000), ("price>=2", "price", 2_000_000, 1_999_999),
        ("price=2", "price", 2_000_000, 2_000_001), ("price:0.000001", "price", 1, 0),
        ("vram=80", "vram", 86 * GB, 86 * GB + 1), ("vram=80", "vram", 80 * GB, 80 * GB - 1),
        ("memory>=1GiB", "memory", 2**30, 2**30 - 1), ("disk<512MB", "disk", 512 * 10**6 - 1, 512 * 10**6),
        ("cpus>=1.5", "cpus", 1500, 1499), ("cpus>0.001", "cpus", 2, 1), ("gpus == 8", "gpus", 8, 7),
        ("reliability>=0", "reliability", 0, -1), ("reliability<1", "reliability", 999_999, 1_000_000),
        ("reliability<=0.5", "reliability", 0, -1), ("reliability=0", "reliability", 0, -1),
        ("ram>=64", "memory", 64 * GB, 64 * GB - 1), ("units>0", "units", 1, 0), ("ports<=2", "ports", 2, 3),
    ],
)  # fmt: skip
def test_each_bound_is_where_it_says(query: str, field: str, inside: int, outside: int) -> None:
    parsed = parse_query(query)
    assert parsed.matches_row(row(**{field: inside}))
    assert not parsed.matches_row(row(**{field: outside}))


@pytest.mark.parametrize(
    ("query", "matches"),
    [
        ("region=eu", True), ("region=eu-de", True), ("region=e", False), ("region=eu-d", False), ("region!=us", True),
        ("region!=eu", False), ("egress=index.test", True), ("egress=cdn.hf.co", True), ("egress=hf.co", False),
        ("egress=evilhf.co", False), ("egress=a.b.hf.co", True), ("environment=ai", True), ("environment=cuda", False),
        ("environment!=cuda environment!=none", True), ("provider=0xAB", True), ("provider=0xac", False),
        ("arch=X86_64", False), ("gpu=H100", True), ("gpu=h-100", True), ("gpu=none", False), ("gpu=any", True),
        ("gpu!=none", True), ("gpu!=any", False), ("gpu!=A100", True), ("gpu=H100-SXM", False), ("gpu=H100-80GB", True),
        ("gpu_name=H100 region = eu", True), ("gpu=H100 gpu!=H100", False), ("", True), ("  \n ", True),
    ],
)  # fmt: skip
def test_words_of_text(query: str, matches: bool) -> None:
    assert parse_query(query).matches_row(row()) == matches
    index = OfferIndex()
    index.add("one", row())
    assert index.search(parse_query(query)) == (["one"] if matches else [])


def test_a_machine_without_a_card_matches_none_and_no_card() -> None:
    bare = row(None, vram=0, gpus=0)
    assert parse_query("gpu=none").matches_row(bare)
    assert not parse_query("gpu=any").matches_row(bare)
    assert parse_query("gpu!=H100").matches_row(bare)


def test_egress_everywhere_reaches_every_name() -> None:
    assert parse_query("egress=example.org").matches_row(row(texts={"egress": ("*",)}))
    assert not parse_query("egress=example.org").matches_row(row(texts={"egress": ()}))


WRONG = [
    "price", "price<", "<2", "price<two", "price<-1", "price<nan", "price<1e999999", "price!=2", "price<0.0000001",
    "vram>=much", "vram>=1e999999", "units>1.5", "units>1e999999", "units>1e-999999", "cpus>1e999999", "cpus>0.0001",
    "reliability>1e999999", "reliability>snan", "reliability>inf", "reliability>0.0000001", "until>5", "colour=red",
    "region<eu", "region>=eu", "gpu<H100", "gpu=;", "gpu=NVIDIA", "Price<2", "price<2;gpu=H100", "x" * (QUERY_MAX + 1),
]  # fmt: skip


@pytest.mark.parametrize("query", WRONG, ids=lambda query: query[:24])
def test_a_wrong_word_is_named_with_what_to_write(query: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_query(query)
    assert caught.value.remedy
    assert len(caught.value.fact) < 200


@given(st.text(alphabet="gpuricevamlty_=!<>:. 0123456789eE+-infA\n", max_size=60))
@example("reliability>1e999999999999999999")
@example("units>=9007199254740993")
def test_any_text_is_a_query_or_one_error(text: str) -> None:
    try:
        query = parse_query(text)
    except InvalidInput:
        return
    index = OfferIndex()
    index.add("one", row())
    assert bool(index.search(query)) == query.matches_row(row())


def test_the_decimals_of_the_token_count() -> None:
    assert parse_query("price<=2", decimals=18).ranges == ((0, -INF, 2 * 10**18),)
    assert parse_query("price<=2", decimals=0).ranges == ((0, -INF, 2),)


ROWS = st.builds(
    row,
    st.sampled_from(CARDS),
    st.fixed_dictionaries({}, optional={"region": st.sampled_from([("eu-de",), ("us",)]), "egress": st.just(("*",))}),
    price=st.integers(0, 5) | st.just(2**60),
    gpus=st.integers(0, 2),
    reliability=st.sampled_from([-1, 0, 10**6]),
    until=st.integers(0, 3),
)
DEEDS = st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | ROWS), max_size=25)
QUERIES = st.lists(
    st.sampled_from(
        ["gpu=H100", "gpu!=H100", "gpu=none", "gpu=H100-SXM", "price<0.000003", "price>=0.000002", "region=eu",
         "region!=eu", "egress=x.org", "reliability>=0", "reliability>0.5", "gpus=1", "sandbox=podman", "units<5"]
    ),
    max_size=3,
).map(" ".join)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(DEEDS, QUERIES, st.integers(0, 7), st.integers(0, 3), st.booleans())
def test_the_index_finds_what_a_plain_list_holds(
    deeds: list[tuple[str, Row | None]], text: str, limit: int, now: int, at_once: bool
) -> None:
    index, plain = OfferIndex(), dict[str, Row]()
    for ref, made in deeds:
        if made is None:
            index.remove(ref)
            plain.pop(ref, None)
        else:
            index.add(ref, made)
            plain[ref] = made
    if at_once:
        index = OfferIndex()
        index.add_many(plain.items())
    assert len(index) == len(plain)
    query = parse_query(text)
    good = {ref for ref, made in plain.items() if query.matches_row(made) and made.numbers[-1] > now}
    found = index.search(query, limit, now)
    assert len(found) == len(set(found)) == min(limit, len(good))
    assert set(found) <= good
    prices = [plain[ref].numbers[0] for ref in found]
    assert prices == sorted(prices)
    dearest = max(prices, default=0)
    assert all(plain[ref].numbers[0] >= dearest for ref in good - set(found)), "what is left out is no cheaper"


def test_nothing_of_a_removed_offer_is_left() -> None:
    index = OfferIndex()
    index.remove("never there")
    for price in (3, 3, 1, 2, 3):
        index.add(f"{price}", row(price=price))
    index.add("3", row(price=7))
    assert index.search(Query()) == ["1", "2", "3"]
    for ref in ("1", "2", "3", "3"):
        index.remove(ref)
    assert (len(index), index.search(Query())) == (0, [])


@pytest.mark.parametrize("model", ["\u2603", "x" * 500, "NVIDIA", "\x00"])
def test_a_card_with_a_name_that_is_none_is_found_by_its_other_fields(model: str) -> None:
    bundle = bundle_of()
    strange = bundle.machine.gpus[0].model_copy(update={"model": model})
    machine = bundle.machine.model_copy(update={"gpus": [strange]})
    found = row_of(bundle.model_copy(update={"machine": machine}), None)
    assert found.gpu == Accelerator("?")
    assert parse_query("vram>=24 reliability<1").matches_row(found) is False, "without a record there is no reliability"
    assert parse_query("vram>=24").matches_row(found)
    assert not parse_query("gpu=RTX4090").matches_row(found)
    assert replace(found, gpu=None).numbers == row_of(bundle).numbers


FORMS: list[tuple[str, Any]] = [
    ("gpu = H100", "gpu=H100"), ("gpu==H100", "gpu=H100"), ("gpu:H100", "gpu=H100"), ("ram>=64", "memory>=64"),
    ("mem>=64GB", "memory>=64"), ("cpu>=4", "cpus>=4.000"), ("price < $2", "price<2.00"), ("price<2_0", "price<20"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), FORMS)
def test_two_ways_to_write_the_same(one: str, other: str) -> None:
    assert parse_query(one) == parse_query(other)
