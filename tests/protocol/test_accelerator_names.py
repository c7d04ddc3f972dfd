"""Names of accelerators: one form, whatever a driver or a person adds to it, and nothing lost of what was asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minga.core.errors import InvalidInput
from minga.protocol.accelerators import COUNT_MAX, Accelerator, GpuWish, normalise_gpu, parse_accelerators

MODELS = st.sampled_from(["H100", "A100", "L40S", "T4", "MI300X", "RTX4090", "RTX3060TI", "GB200", "V100"])
NAMES = st.builds(
    Accelerator, MODELS, st.none() | st.integers(1, 9999), st.sampled_from(["", "SXM", "PCIE", "NVL", "OAM"])
)


@given(st.text(alphabet="ABHRTXNVIDasxmpcienvl0123456789 -_./()GB", min_size=1, max_size=40))
@example("NVIDIA A100-SXM4-80GB (rev. a2)")
@example("4090 24GB")
def test_normalising_twice_is_normalising_once(text: str) -> None:
    try:
        found = normalise_gpu(text)
    except InvalidInput:
        return
    assert found.model
    assert normalise_gpu(str(found)) == found


@given(NAMES, st.sampled_from(["NVIDIA ", "nvidia geforce ", "AMD Instinct ", "Tesla-", ""]), st.booleans())
def test_vendors_case_and_spaces_do_not_matter(name: Accelerator, vendor: str, lower: bool) -> None:
    text = vendor + str(name).replace("-", " ")
    assert normalise_gpu(text.lower() if lower else text) == name


@given(NAMES, st.integers(1, 10**13))
def test_what_asks_for_less_is_met_by_what_meets_more(name: Accelerator, memory: int) -> None:
    """A form factor and a memory only ever narrow."""
    card = Accelerator(name.model, None, name.form)
    assert card.meets(Accelerator(""), memory)
    assert card.meets(Accelerator(name.model), memory)
    assert card.meets(Accelerator(name.model, None, name.form), memory)
    if card.meets(name, memory):
        assert card.meets(name, memory + 1)
        assert card.meets(Accelerator(name.model, name.memory_gb), memory)


@pytest.mark.parametrize(
    ("memory", "meets"), [(80 * 10**9, True), (85 * 2**30, True), (744 * 10**8, True), (744 * 10**8 - 1, False)]
)
def test_a_card_may_report_seven_per_cent_less_than_its_name_says(memory: int, meets: bool) -> None:
    assert Accelerator("H100", 80).meets(Accelerator("H100", 80), memory) == meets


@pytest.mark.parametrize(
    ("held", "wanted"),
    [("H100-PCIe", "H100-SXM"), ("H100", "H100-SXM"), ("H200", "H100"), ("RTX 3060", "RTX 3060 Ti"), ("A10", "A100")],
)
def test_a_near_name_is_another_card(held: str, wanted: str) -> None:
    assert not normalise_gpu(held).meets(normalise_gpu(wanted), 10**12)


@given(st.lists(st.builds(GpuWish, NAMES, st.integers(1, COUNT_MAX)), min_size=1, max_size=4))
def test_wishes_come_back_from_every_form_of_writing(wishes: list[GpuWish]) -> None:
    assert parse_accelerators(",".join(str(wish) for wish in wishes)) == tuple(wishes)
    assert parse_accelerators([str(wish) for wish in wishes]) == tuple(wishes)
    named = {str(wish.name): wish.count for wish in wishes}
    assert {str(wish.name): wish.count for wish in parse_accelerators(named)} == named


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1, ["any:1"]), (64, ["any:64"]), ("2,H100", ["any:2", "H100:1"]), ("gpu:3", ["any:3"]),
        ("H100: 8", ["H100:8"]), ("100", ["100:1"]),
        ({"any": 2}, ["any:2"]), ([2, {"T4": 1}], ["any:2", "T4:1"]), ((), []), ([], []), ("", []), (" T4 ", ["T4:1"]),
    ],
)  # fmt: skip
def test_counts_alone_mean_any_card(value: Any, shown: list[str]) -> None:
    assert [str(wish) for wish in parse_accelerators(value)] == shown


@pytest.mark.parametrize(
    "value",
    [
        0, 65, -1, 100, "0", "any:0", "H100:٣", "H100:²", "H100:1e3", "H100:" + "1" * 5000, "H100:8:8", "H100,", ",",
        ":",
        ":8", {"H100": "x"}, {"H100": 0}, {"H100": True}, [None, "?"], False, 2.0, b"H100", object(), ["H100", 2.5],
        "H100\n\n;", "H100\x00",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_what_names_no_accelerators_is_one_error(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_accelerators(value)
    assert caught.value.remedy
    assert len(caught.value.fact) < 300
