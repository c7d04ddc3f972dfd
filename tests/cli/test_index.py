"""`minga index`: tables that fit, values that say where they are from, reasons where there are none.

Golden figures of the shipped data stand in tests/client/test_catalogs.py; here the day is fixed by `--as-of`.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import Minga, one_error

DAY = ("--as-of", "2026-11-23")


def in_json(minga: Minga, *words: str) -> Any:
    ended = minga("index", *words, "--json")
    assert ended.code == 0, ended
    return json.loads(ended.out)


def fits(text: str) -> None:
    assert max(map(len, (line.rstrip() for line in text.splitlines()))) <= 80, text


def test_all_cards_in_one_table(minga: Minga) -> None:
    ended = minga("index", *DAY)
    assert ended.code == 0
    fits(ended.out)
    assert "on demand" in ended.out
    assert "$4.08 (18)" in ended.out
    assert "withheld altogether: A10G, H100-NVL, MI300X, T4, V100" in ended.out
    assert ended.err == ""


def test_one_card_with_dates_reasons_and_references(minga: Minga) -> None:
    ended = minga("index", "A100-80GB", *DAY)
    assert ended.code == 0
    fits(ended.out)
    for words in (
        "$2.21", "2026 … 2026-11-09", "set aside as outliers: spheron", "interruptible: withheld (thin): 1 vendor",
        "on-demand minimum", "on-demand median", "spot minimum", "thunder-compute", "183 d",
    ):  # fmt: skip
        assert words in ended.out, words


def test_a_driver_s_name_is_a_card(minga: Minga) -> None:
    plain, driver = (minga("index", name, *DAY).out for name in ("H100", "NVIDIA H100 80GB HBM3"))
    assert plain == driver


def test_a_card_without_values_says_why_for_each(minga: Minga) -> None:
    ended = minga("index", "V100", *DAY)
    assert ended.code == 0
    fits(ended.out)
    assert "on demand: withheld (spread)" in ended.out
    assert "exactly half of the vendor's on-demand price" in " ".join(ended.out.split())
    assert ended.err == ""


def test_json_has_the_same_values_as_integers(minga: Minga) -> None:
    value = in_json(minga, "H100", *DAY)
    (card,) = value["cards"]
    assert card["gpu"] == "H100"
    assert card["kinds"]["on_demand"]["usd_micro"] == 4_081_100
    assert card["kinds"]["on_demand"]["vendors"] == 18
    assert sum(card["kinds"]["on_demand"]["shares_ppm"].values()) == pytest.approx(10**6, abs=20)
    assert card["kinds"]["interruptible"]["withheld"] == "thin"
    assert card["references"]["on-demand minimum"] == {
        "usd_micro": 1_380_000, "vendor": "thunder-compute", "dated": "2026-05-24", "age_days": 183, "vendors": 18,
        "source": "github:tardellirs/gpu-pricing src/data/offerings.json <- https://www.thundercompute.com/pricing",
    }  # fmt: skip
    assert value["network"] is None


def test_sources_name_every_quote_used_and_refused(minga: Minga) -> None:
    ended = minga("index", "H100", "--sources", *DAY)
    assert ended.code == 0
    fits(ended.out)
    for words in ("thin-book", "$6.15", "half-price", "spot-above", "hearsay", "skypilot-catalog"):
        assert words in ended.out, words
    (card,) = in_json(minga, "H100", "--sources", *DAY)["cards"]
    assert len(card["quotes"]) == sum(item.get("quotes", 0) for item in card["kinds"].values())
    assert all(item["source"] for item in card["quotes"])
    assert {item["trap"] for item in card["refused"]} == {"thin-book", "half-price", "spot-above", "hearsay"}


def test_a_kind_alone(minga: Minga) -> None:
    value = in_json(minga, "H200", "--kind", "on-demand", *DAY)
    assert list(value["cards"][0]["kinds"]) == ["on_demand"]
    one_error(minga("index", "--kind", "rented"), "invalid-input", 2)


def test_a_region_that_no_quote_names_is_withheld(minga: Minga) -> None:
    value = in_json(minga, "H100", "--region", "us-east", *DAY)
    assert value["cards"][0]["kinds"]["on_demand"] == {"withheld": "thin", "fact": "2 vendors, at least 3 are needed"}
    value = in_json(minga, "H100", "--region", "mars", *DAY)
    assert value["cards"][0]["kinds"]["spot"]["fact"] == "no price of H100 in 'mars' is known"


def test_a_past_day_knows_only_what_was_read_by_then(minga: Minga) -> None:
    before, after = (in_json(minga, "H100", "--as-of", day) for day in ("2026-06-30", "2026-11-23"))
    dates = [item["cards"][0]["kinds"]["on_demand"]["dates"] for item in (before, after)]
    assert dates == ["2026 … 2026-05-24", "2026 … 2026-11-09"]


def test_a_day_to_come_finds_everything_stale(minga: Minga) -> None:
    ended = minga("index", "H100", "--as-of", "2029-01-01")
    assert ended.code == 0
    assert ended.out.count("withheld (stale)") == 7
    everything = minga("index", "--as-of", "2029-01-01")
    assert everything.code == 0
    assert "no card has an index value" in everything.err


def test_a_catalog_of_ones_own_joins(minga: Minga, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = [f"RTX2080,shop{n},on_demand,0.1{n},2026-11-20,my notes,," for n in range(4)]
    rows.append("RTX2080,shop9,spot,0.00,2026-11-20,my notes,,")
    file.write_text("\n".join(["gpu,vendor,kind,usd_per_gpu_hour,date,source,region,note", *rows]) + "\n")
    ended = minga("index", "RTX2080", "--catalog", str(file), *DAY)
    assert ended.code == 0
    assert "$0.11" in ended.out
    assert "left out of the catalogs: 1 × no price (0.00 means missing)" in ended.err
    one_error(minga("index", "RTX2080"), "not-found", 2)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("H101",), "not-found"),
        (("H100!",), "invalid-input"),
        (("--catalog", "/nowhere"), "not-found"),
        (("--as-of", "yesterday"), "invalid-input"),
        (("--plot", "prices.gif"), "invalid-input"),
        (("--plot", "/nowhere/prices.png"), "invalid-input"),
        (("L4", "--history"), "not-found"),
    ],
)
def test_bad_words_are_one_error(minga: Minga, words: tuple[str, ...], code: str) -> None:
    one_error(minga("index", *words), code, 2)


def test_claims_are_measured_and_dated(minga: Minga) -> None:
    ended = minga("index", "--claims", *DAY)
    assert ended.code == 0
    fits(ended.out)
    value = in_json(minga, "--claims", *DAY)
    verdicts = [item["verdict"] for item in value["claims"]]
    assert verdicts[:2] == ["partly", "fails"]
    assert set(verdicts) <= {"holds", "partly", "fails", "not measurable"}
    assert all(item["dates"] for item in value["claims"])
    best = value["savings"][0]
    assert (best["gpu"], best["saving_ppm"] // 1000) == ("V100", 946)
    assert "94.6 %" in ended.out
    assert "-233." in ended.out, "against spot prices it is dearer"


def test_claims_about_one_card(minga: Minga) -> None:
    value = in_json(minga, "H200", "--claims", *DAY)
    assert [item["gpu"] for item in value["savings"]] == ["H200"]
    assert any("H200" in item["text"] for item in value["claims"])


def test_claims_turn_with_the_data(minga: Minga, tmp_path: Path) -> None:
    """A user's catalog in which markets are as cheap as the press says."""
    file = tmp_path / "dream.csv"
    vendors = ("vast", "akash", "lium", "runpod", "spheron")
    rows = [f"H200,{vendor},market,0.50,2026-11-28,dream,," for vendor in vendors]
    file.write_text("\n".join(["gpu,vendor,kind,usd_per_gpu_hour,date,source,region,note", *rows]) + "\n")
    value = in_json(minga, "H200", "--claims", "--catalog", str(file), "--as-of", "2026-11-30")
    assert value["claims"][0]["verdict"] == "holds"


def test_history_is_drawn_here(minga: Minga) -> None:
    ended = minga("index", "H100", "--history", *DAY)
    assert ended.code == 0
    fits(ended.out)
    assert "low $2.73 in 2025-10, high $4.84 in 2024-02, last $3.79 in 2026-09" in ended.out
    assert "█" in ended.out
    value = in_json(minga, "--history", *DAY)
    assert {item["gpu"] for item in value["series"]} == {"A100-80GB", "B200", "H100", "H200"}
    past = in_json(minga, "H100", "--history", "--as-of", "2025-01-15")
    assert max(month for month, _ in past["series"][0]["points"]) == "2025-01"


def test_an_unreachable_network_costs_a_line_and_no_values(minga: Minga, home: Path) -> None:
    (home / "networks").mkdir(parents=True)
    address = "0x" + "11" * 20
    chain = {
        "rpc_urls": ["http://127.0.0.1:9"], "chain_id": 31337, "confirmations": 0,
        "deployment": {"market": address, "registry": address, "token": address, "start_block": 0, "decimals": 6},
    }  # fmt: skip
    (home / "networks" / "gone.json").write_text(json.dumps({"chain": chain, "boards": ["http://127.0.0.1:9"]}))
    ended = minga("index", "H100")
    assert ended.code == 0, ended
    assert "network gone: its leases are not known" in ended.err
    assert "H100, dollars per GPU-hour" in ended.out
    assert minga("index", "H100", "--offline").err == ""


def test_index_takes_less_than_a_second(minga: Minga, record_property: pytest.RecordProperty) -> None:
    minga("index")
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert minga("index", *DAY).code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    record_property("index_s", f"{min(times):.3f}")
    assert min(times) < 1, "seconds of one core, whatever else this machine does"


def test_index_imports_no_drawing_and_no_network(tmp_path: Path) -> None:
    program = (
        "import sys; from minga.cli.main import main; main(['--home', sys.argv[1], 'index', '--json']);"
        "print('LOADED', ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    loaded = done.stderr.partition("LOADED ")[2].split()
    assert [name for name in ("matplotlib", "numpy", "httpx", "anyio", "eth_account") if name in loaded] == []
