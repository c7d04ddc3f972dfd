"""Catalogs become quotes: the shipped one to the last value, a user's with every trap that theirs have."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

import pytest

from minga.client.catalog_cells import PRICE_MAX
from minga.client.catalogs import DATA, NO_GPU, NO_PRICE, RESOLD, read_catalog, shipped_history, shipped_quotes
from minga.core.errors import InvalidInput, NotFound
from minga.protocol.price_index import Value, Withheld, price_index
from minga.protocol.price_quotes import KINDS, card_class, screen
from minga.protocol.references import Reference, references
from price_fixtures import TODAY, micro

WRITTEN = TODAY * 86_400
SKYPILOT = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone"
)
GPUHUNT = "instance_name,location,price,cpu,memory,gpu_count,gpu_name,gpu_memory,spot,disk_size"
OURS = "gpu,vendor,kind,usd_per_gpu_hour,date,source,region,note"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    os.utime(path, (WRITTEN, WRITTEN))
    return path


def prices(quotes):
    """(card, kind, dollars) of quotes."""
    return [(str(item.gpu), item.kind, item.usd_micro / 10**6) for item in quotes]


# ---------------------------------------------------------------------------------------------------------- the shipped


def test_every_shipped_row_is_a_quote_with_a_source_a_kind_and_a_price():
    with (DATA / "gpu_prices.csv").open() as text:
        rows = list(csv.DictReader(text))
    quotes = shipped_quotes()
    assert len(quotes) == len(rows)
    for row, item in zip(rows, quotes, strict=True):
        assert item.usd_micro == micro(row["usd_per_gpu_hour"])
        assert item.source == row["source"]
        assert item.kind in KINDS
        assert item.day <= TODAY
        assert card_class(str(item.gpu)) == item.gpu


def test_one_vendor_has_one_name():
    names = {item.vendor for item in shipped_quotes()}
    assert not names & {"vast-ai", "datacrunch", "oci"}
    assert {"vast", "verda", "oracle", "aws"} <= names


def test_a_date_that_is_a_year_is_that_years_first_day():
    years = [item for item in shipped_quotes() if item.dated.startswith("2026 ")]
    assert years
    assert {TODAY - item.day for item in years} == {326}


def test_undated_rows_are_older_than_any_limit():
    undated = [item for item in shipped_quotes() if item.dated == "undated"]
    assert undated
    assert all(item.day == 0 for item in undated)


def test_the_traps_in_the_shipped_data_are_those_that_are_known():
    _, refused = screen(shipped_quotes())
    counted: dict[str, int] = {}
    for item in refused:
        counted[item.trap] = counted.get(item.trap, 0) + 1
    assert counted == {"half-price": 8, "hearsay": 4, "partial": 2, "spot-above": 3, "thin-book": 2}
    assert any(item.quote.usd_micro == micro("6.1489") for item in refused), "the spike of a thin book"


GOLDEN = {
    "A10": ("1.29", None, None), "A100-40GB": ("2.7447", "0.25", None), "A100-80GB": ("2.21", "0.66", "1.7043"),
    "A10G": (None, None, None), "B200": ("6.79", None, "5.31"), "H100": ("4.0811", "1.14", "2.6661"),
    "H100-SXM": ("4.29", "0.995", "2.69"), "H200": ("4.95", None, "4.9544"), "L40S": ("1.37", None, "0.75"),
    "MI300X": (None, None, None), "RTX3090": ("0.20", None, "0.16"), "RTX4090": ("0.68", None, "0.34"),
    "RTX5090": ("0.65", None, "0.67"), "T4": (None, None, None), "V100": (None, None, None),
}  # fmt: skip
"""Card → on demand, spot, market, in dollars on the day `TODAY`; None: withheld."""


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values_of_the_shipped_data(name):
    found = [price_index(shipped_quotes(), card_class(name), kind, TODAY).value for kind in KINDS[:3]]
    for item, wanted in zip(found, GOLDEN[name], strict=True):
        if wanted is None:
            assert isinstance(item, Withheld)
        else:
            assert isinstance(item, Value)
            assert item.usd_micro == micro(wanted)


def test_golden_references_of_the_shipped_data():
    found = references("NVIDIA H100 80GB HBM3", shipped_quotes(), TODAY)
    said = [item for _, item in found.named()]
    assert all(isinstance(item, Reference) for item in said)
    assert [(item.usd_micro, item.vendor, item.age_days) for item in said if isinstance(item, Reference)] == [
        (micro("1.38"), "thunder-compute", 183), (micro("4.0811"), "lambda", 326), (micro("0.79"), "dataoorts", 183),
    ]  # fmt: skip


def test_a_year_later_everything_is_stale_and_says_so():
    for name in GOLDEN:
        for kind in KINDS:
            found = price_index(shipped_quotes(), card_class(name), kind, TODAY + 365).value
            assert isinstance(found, Withheld)
            assert found.why in ("stale", "none")


def test_the_shipped_history_has_exact_months_only():
    points = shipped_history()
    assert len(points) > 250
    assert all(2021 <= point.month // 12 <= 2026 for point in points)
    assert all(point.usd_micro and point.source for point in points)


def test_the_page_of_sources_counts_the_rows_of_each():
    """Every row of its table, quotes and points, and nothing is left over."""
    files = [list(csv.DictReader((DATA / name).open())) for name in ("gpu_prices.csv", "gpu_price_history.csv")]
    page = (DATA / "SOURCES.md").read_text()
    left = [len(rows) for rows in files]
    named = re.findall(r"^\| `([\w./-]+/[\w.-]+)` \| (\d+) \| (\d+) \| ", page, re.MULTILINE)
    assert len(named) == 8
    for name, *counts in named:
        found = [sum(f"github:{name} " in row["source"] for row in rows) for rows in files]
        assert found == [int(count) for count in counts], name
        left = [most - count for most, count in zip(left, found, strict=True)]
    assert re.search(rf"^\| all others \| {left[0]} \| {left[1]} \|", page, re.MULTILINE)
    assert f"| `gpu_prices.csv` | {len(files[0])} |" in page
    assert f"| `gpu_price_history.csv` | {len(files[1])} |" in page


# ----------------------------------------------------------------------------------------------------------------- ours


def test_a_file_of_our_own_form(tmp_path):
    file = write(
        tmp_path / "mine.csv", OURS,
        "H100 PCIe,Acme,on-demand,2.50,2026-11-01,our contract,eu-1,", "H100,Vast-AI,market,$1.90,2026-11,seen,,",
    )  # fmt: skip
    first, second = read_catalog(file).quotes
    assert (str(first.gpu), first.vendor, first.kind, first.usd_micro) == ("H100-PCIE", "acme", "on_demand", 2_500_000)
    assert (TODAY - first.day, first.dated, first.region) == (22, "2026-11-01", "eu-1")
    assert (second.vendor, second.kind, second.dated, TODAY - second.day) == ("vast", "market", "2026-11", 22)


def test_only_the_first_five_columns_are_needed(tmp_path):
    file = write(tmp_path / "mine.csv", "gpu,vendor,kind,usd_per_gpu_hour,date", "L4,acme,spot,0.20,2026-11-20")
    (item,) = read_catalog(file).quotes
    assert item.source == "mine.csv", "the file itself is the source"
    assert screen([item])[1] == []


def test_a_file_saved_by_a_spreadsheet_is_read(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_bytes(b"\xef\xbb\xbf" + (OURS + "\r\nL4,acme,spot,0.20,2026-11-20,seen,,\r\n").encode())
    assert prices(read_catalog(file).quotes) == [("L4", "spot", 0.2)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("L4,acme,rented,0.20,2026-11-20,s,,", "line 2: kind 'rented'"),
        ("L4,acme,spot,cheap,2026-11-20,s,,", "line 2: price 'cheap'"),
        ("L4,acme,spot,-1,2026-11-20,s,,", "line 2: price '-1'"),
        ("L4,acme,spot,inf,2026-11-20,s,,", "line 2: price 'inf'"),
        ("L4,acme,spot,0.20,yesterday,s,,", "line 2: date 'yesterday'"),
        ("L4,acme,spot,0.20,2026-13-01,s,,", "line 2: date '2026-13-01'"),
        ("L4!,acme,spot,0.20,2026-11-20,s,,", "line 2: 'L4!' is not an accelerator's name"),
    ],
)
def test_a_row_that_cannot_be_read_is_an_error_with_its_line(tmp_path, row, said):
    file = write(tmp_path / "mine.csv", OURS, row)
    with pytest.raises(InvalidInput) as error:
        read_catalog(file)
    assert said in error.value.fact
    assert error.value.remedy


def test_what_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(NotFound):
        read_catalog(tmp_path / "nowhere")
    with pytest.raises(InvalidInput, match="no price catalog"):
        read_catalog(tmp_path)
    with pytest.raises(InvalidInput, match="no price catalog"):
        read_catalog(write(tmp_path / "other.csv", "a,b,c", "1,2,3"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InvalidInput, match="no price catalog"):
        read_catalog(tmp_path / "empty.csv")


# ------------------------------------------------------------------------------------------------------------- SkyPilot


def gpu_info(mib: int) -> str:
    return f"\"{{'Gpus': [{{'Name': 'A100'}}], 'TotalGpuMemoryInMiB': {mib}}}\""


def test_a_folder_of_skypilots(tmp_path):
    write(
        tmp_path / "aws" / "vms.csv", SKYPILOT,
        "p5.48xlarge,H100,8,192,2048,,55.04,14.55,us-east-1,us-east-1a", "m5.large,,,2,8,,0.096,0.04,us-east-1,a",
    )  # fmt: skip
    write(tmp_path / "oci" / "vms.csv", SKYPILOT, "VM.GPU3.1,V100,1,12,90,,2.95,1.475,af-1,AD-1")
    write(tmp_path / "aws" / "images.csv", "Tag,Region", "x,y")
    found = read_catalog(tmp_path)
    assert prices(found.quotes) == [
        ("H100", "on_demand", 6.88), ("H100", "spot", 1.81875), ("V100", "on_demand", 2.95), ("V100", "spot", 1.475),
    ]  # fmt: skip
    assert [item.vendor for item in found.quotes] == ["aws", "aws", "oracle", "oracle"]
    assert {item.dated for item in found.quotes} == {"2026-11-23 (file)"}
    assert [path.name for path in found.files] == ["vms.csv", "vms.csv"]
    assert found.left_out == {NO_GPU: 1}
    assert [item.trap for item in screen(found.quotes)[1]] == ["half-price"]


def test_a_spot_price_of_zero_is_missing(tmp_path):
    file = write(
        tmp_path / "lambda" / "vms.csv", SKYPILOT, "gpu_1x_h100,H100,1,26,200,,3.29,0.00,us-1,",
        "gpu_8x_h100,H100,8,208,1800,,0,,us-1,",
    )  # fmt: skip
    found = read_catalog(file)
    assert prices(found.quotes) == [("H100", "on_demand", 3.29)]
    assert found.left_out == {NO_PRICE: 3}


def test_a_placeholder_is_no_price(tmp_path):
    file = write(tmp_path / "gcp" / "vms.csv", SKYPILOT, f"x,H100,1,1,1,,{PRICE_MAX},{PRICE_MAX - 1},us-1,a")
    assert prices(read_catalog(file).quotes) == [("H100", "spot", PRICE_MAX - 1)]


def test_memory_tells_the_a100s_apart(tmp_path):
    file = write(
        tmp_path / "vast" / "vms.csv", SKYPILOT,
        f"1x-A100_SXM4,A100,1,32,64,{gpu_info(40960)},0.76,0.00,US,",
        f"2x-A100_SXM4,A100,2,32,64,{gpu_info(81920)},1.49,0.00,US,",
        f"1x-A100_PCIE,A100,1,32,64,{gpu_info(81920)},0.87,0.00,US,",
        f"8x,A100,8,32,64,{gpu_info(40960)},8.00,0.00,US,",
        "4x-A100-80GB,A100-80GB,4,32,64,,4.00,0.00,US,", "1x-A100,A100,1,32,64,,0.70,0.00,US,",
    )  # fmt: skip
    assert prices(read_catalog(file).quotes) == [
        ("A100-40GB", "market", 0.76), ("A100-40GB", "market", 0.745), ("A100-80GB", "market", 0.87),
        ("A100-40GB", "market", 1.0), ("A100-80GB", "market", 1.0), ("A100-40GB", "market", 0.7),
    ]  # fmt: skip


def test_an_instances_name_tells_the_form_factor(tmp_path):
    rows = [f"1x-H100_{form}-32-65536,H100,1,32,64,,{price},0.00,US," for form, price in (("SXM", 1.87), ("NVL", 2.08))]
    found = read_catalog(write(tmp_path / "vast" / "vms.csv", SKYPILOT, *rows)).quotes
    assert [str(item.gpu) for item in found] == ["H100-SXM", "H100-NVL"]


def test_a_market_with_few_offers_of_a_card_is_a_thin_book(tmp_path):
    rows = [f"1x-L40S-{n},L40S,1,32,64,,0.6{n},0.00,US," for n in range(4)]
    thin = read_catalog(write(tmp_path / "vast" / "vms.csv", SKYPILOT, *rows)).quotes
    assert [item.trap for item in screen(thin)[1]] == ["thin-book"] * 4
    rows.append("2x-L40S,L40S,2,32,64,,1.30,0.00,US,")
    deep = read_catalog(write(tmp_path / "vast" / "vms.csv", SKYPILOT, *rows)).quotes
    assert screen(deep)[1] == []


def test_brokers_do_not_count(tmp_path):
    write(tmp_path / "shadeform" / "vms.csv", SKYPILOT, "a,H100,1,1,1,,1.90,,US,", "b,H100,1,1,1,,1.90,,US,")
    found = read_catalog(tmp_path)
    assert found.quotes == []
    assert found.left_out == {RESOLD: 2}


def test_a_gpu_apart_from_its_host_is_completed_or_left_out(tmp_path):
    """Rows of one cloud price host and GPUs apart; the region that looks three times cheaper is a flex-start row."""
    rows = []
    for region, host, gpu, spot in (
        ("us-central1", "1.09962", "0.74658", "0.30"), ("us-east5", "1.09962", "4.42418", "1.33557"),
        ("us-east4", "1.23833", "4.98", "1.40"), ("europe-west4", "1.2105", "4.87", "0"),
    ):  # fmt: skip
        rows.append(f"a2-ultragpu-1g,,,12,170,,{host},0.31193,{region},{region}-a")
        rows.append(f",A100-80GB,1,,,,{gpu},{spot},{region},{region}-a")
    rows += [",T4,1,,,,0.35,0.11,us-east5,us-east5-a", ",A100-80GB,3,,,,1,1,us-east5,us-east5-a",
             ",H100,8,,,,80,9,mars,mars-a", ",H100,many,,,,80,9,us-east5,us-east5-a"]  # fmt: skip
    found = read_catalog(write(tmp_path / "gcp" / "vms.csv", SKYPILOT, *rows))
    listed = [item for item in found.quotes if item.kind == "on_demand"]
    assert [item.usd_micro for item in listed] == [1_846_200, 5_523_800, 6_218_330, 6_080_500]
    assert [item.usd_micro for item in found.quotes if item.kind == "spot"] == [611_930, 1_647_500, 1_711_930]
    assert found.left_out == {"the GPU alone, without its host": 4, NO_PRICE: 1}
    _, refused = screen(found.quotes)
    assert [(item.trap, item.quote.region) for item in refused] == [("flex-start", "us-central1")]


def test_parts_of_a_gpu_and_other_devices_are_left_out(tmp_path):
    rows = ["g2,L4,0.5,1,1,,0.10,0.05,us,a", ",tpu-v6e-4,1,,,,10.8,5.4,us,a", "t,tpu-v5,1,1,1,,10.8,5.4,us,a"]
    found = read_catalog(write(tmp_path / "gcp" / "vms.csv", SKYPILOT, *rows))
    assert found.quotes == []
    assert found.left_out == {NO_GPU: 2, "the GPU alone, without its host": 1}


def test_a_bad_count_is_an_error(tmp_path):
    with pytest.raises(InvalidInput, match="line 2: count 'many'"):
        read_catalog(write(tmp_path / "aws" / "vms.csv", SKYPILOT, "p5,H100,many,1,1,,1,1,us,a"))


# -------------------------------------------------------------------------------------------------------------- gpuhunt


def test_a_catalog_of_gpuhunts(tmp_path):
    write(
        tmp_path / "aws.csv", GPUHUNT, "p5.48xlarge,us-east-1,55.04,192,2048.0,8,H100,80.0,False,",
        "p5.48xlarge,us-east-1,14.55,192,2048.0,8,H100,80.0,True,", "m5.large,us-east-1,0.096,2,8.0,0,,,False,",
        "p4d.24xlarge,us-east-1,0.0,96,1152.0,8,A100,40.0,True,", "p4de,us-east-1,27.4472,96,1152.0,8,A100,80.0,False,",
    )  # fmt: skip
    write(tmp_path / "datacrunch.csv", GPUHUNT, "1H100.80S,FIN-01,2.29,30,120.0,1,H100,80.0,False,")
    found = read_catalog(tmp_path)
    assert prices(found.quotes) == [
        ("H100", "on_demand", 6.88), ("H100", "spot", 1.81875), ("A100-80GB", "on_demand", 3.4309),
        ("H100", "on_demand", 2.29),
    ]  # fmt: skip
    assert [item.vendor for item in found.quotes] == ["aws", "aws", "aws", "verda"]
    assert found.left_out == {NO_GPU: 1, NO_PRICE: 1}


def test_a_provider_column_names_the_vendor_and_a_market_has_depth(tmp_path):
    rows = [f"host-{n},US,0.3{n},8,32.0,1,RTX4090,24.0,{n % 2 == 1},100,vastai" for n in range(10)]
    found = read_catalog(write(tmp_path / "all.csv", GPUHUNT + ",provider", *rows)).quotes
    assert {(item.vendor, item.offers) for item in found} == {("vast", 5)}
    assert {item.kind for item in found} == {"market", "interruptible"}


def test_a_users_newer_prices_replace_the_shipped_ones(tmp_path):
    write(tmp_path / "aws.csv", GPUHUNT, "p5.48xlarge,us-east-1,40.00,192,2048.0,8,H100,80.0,False,")
    mine = read_catalog(tmp_path).quotes
    before = price_index(shipped_quotes(), card_class("H100"), "on_demand", TODAY).value
    after = price_index([*shipped_quotes(), *mine], card_class("H100"), "on_demand", TODAY).value
    assert isinstance(before, Value)
    assert isinstance(after, Value)

    def aws(value: Value) -> int:
        return next(voice.usd_micro for voice in value.voices if voice.name == "aws")

    assert (aws(before), aws(after)) == (6_880_000, (6_880_000 + 5_000_000) // 2)
