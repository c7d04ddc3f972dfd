"""Three savings or the reason why not; a dearer offer is shown as dearer."""

from __future__ import annotations

import pytest

from minga.client.catalogs import shipped_quotes
from minga.protocol.references import Reference, references, saving_ppm
from minga.protocol.savings import LABELS, savings

TODAY = 20_700
"""Early September 2026."""


def test_three_references_each_with_date_and_source() -> None:
    found = savings(["NVIDIA H100 80GB HBM3"], 1, 2_000_000, shipped_quotes(), TODAY)
    assert tuple(item.label for item in found) == LABELS
    truth = dict(references("H100", shipped_quotes(), TODAY).named())
    for item in found:
        reference = truth[item.label]
        if isinstance(reference, Reference):
            assert item.saving_ppm == saving_ppm(2_000_000, reference.usd_micro)
            assert (item.vendor, item.dated, item.source) == (reference.vendor, reference.dated, reference.source)
            assert item.source
            assert not item.withheld
        else:
            assert (item.saving_ppm, item.usd_micro, item.withheld) == (None, None, reference.fact)
    assert any(item.saving_ppm is not None for item in found)


def test_a_dearer_offer_saves_less_than_nothing() -> None:
    known = [item for item in savings(["H100"], 1, 500_000_000, shipped_quotes(), TODAY) if item.saving_ppm is not None]
    assert known
    assert all(item.saving_ppm < 0 for item in known)


def test_prices_are_compared_per_card() -> None:
    one = savings(["H100"], 1, 2_000_000, shipped_quotes(), TODAY)
    eight = savings(["H100"], 8, 16_000_000, shipped_quotes(), TODAY)
    assert one == eight


@pytest.mark.parametrize(
    ("cards", "count", "word"),
    [
        ([], 0, "no GPU"),
        (["H100"], 0, "no GPU"),
        (["H100", "T4"], 2, "mixes"),
        (["\n"], 1, "no card"),
    ],
)
def test_what_has_no_cloud_twin_is_withheld_with_the_reason(cards: list[str], count: int, word: str) -> None:
    found = savings(cards, count, 400_000, shipped_quotes(), TODAY)
    assert tuple(item.label for item in found) == LABELS
    assert all(item.saving_ppm is None and word in item.withheld for item in found)


def test_old_prices_are_no_reference() -> None:
    found = savings(["H100"], 1, 2_000_000, shipped_quotes(), TODAY + 3650)
    assert all(item.saving_ppm is None and item.withheld for item in found)


def test_without_quotes_all_three_are_withheld() -> None:
    assert [item.withheld != "" for item in savings(["H100"], 1, 2_000_000, (), TODAY)] == [True] * 3
