"""What is shown of an index: the network's own leases, withheld values, widths; from known facts, without a process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from minga.cli.index import Known
from minga.cli.index_view import claims_dict, dates_of, index_dict, print_claims, print_index, say_wrapped
from minga.client.executed import NO_GPU, Paid
from minga.protocol.accelerators import Accelerator
from minga.protocol.executed_index import Executed
from minga.protocol.price_claims import Take
from minga.protocol.price_quotes import KINDS
from price_fixtures import CARD, TODAY, book, micro, quote

QUOTES = (*book("1.00", "1.10", "1.20"), *book("0.40", "0.45", "0.50", kind="market"))
NOTHING = Known(TODAY, CARD, (), {}, {}, None, None, None)


def leases(count: int, gpu: Accelerator = CARD) -> tuple[Executed, ...]:
    return tuple(
        Executed(f"{gpu} {n:03}", f"tenant {n % 5}", f"provider {n % 4}", gpu, micro("0.50"), 1000, TODAY - 1)
        for n in range(count)
    )


def known(gpu: Accelerator | None = CARD, paid: Paid | None = None, **more: Any) -> Known:
    named = {"quotes": QUOTES, "gpu": gpu, "paid": paid, "network": "home" if paid else None}
    return replace(NOTHING, **(named | more))


def shown(value: dict[str, Any], one: bool, capsys: pytest.CaptureFixture[str]) -> str:
    print_index(value, one)
    out = capsys.readouterr().out
    assert max(map(len, (line.rstrip() for line in out.splitlines()))) <= 80
    return out


def test_the_networks_price_of_the_card_that_was_asked_for(capsys):
    paid = Paid(leases(12), 0, Take(11_880, 120, 12))
    value = index_dict(known(paid=paid), KINDS, "", False)
    assert value["network"] == {
        "name": "home", "unknown_machines": 0,
        "classes": [{"gpu": "L40S", "leases": 12, "tenants": 5, "providers": 4, "usd_micro": 500_000, "low": 500_000,
                     "high": 500_000}],
    }  # fmt: skip
    assert "network home, L40S: $0.50 paid per hour (12 leases, 5 tenants, 4 providers)" in shown(value, True, capsys)


def test_few_leases_are_withheld_with_the_reason(capsys):
    value = index_dict(known(paid=Paid(leases(2), 3, Take(0, 0, 0))), KINDS, "", False)
    out = shown(value, True, capsys)
    assert "network home, L40S: withheld (thin): 2 leases, at least 10 are needed" in out
    assert "3 paid leases are of machines that no board describes any more" in out


def test_without_a_card_every_class_that_was_leased_is_shown(capsys):
    paid = Paid((*leases(12), *leases(11, NO_GPU)), 0, Take(1, 0, 23))
    out = shown(index_dict(known(None, paid), KINDS, "", False), False, capsys)
    assert "network home, CPU: $0.50 paid per hour" in out
    assert "network home, L40S: $0.50 paid per hour" in out


def test_a_network_without_leases_says_so(capsys):
    value = index_dict(known(None, Paid((), 0, Take(0, 0, 0))), KINDS, "", False)
    assert "network home: no lease was paid yet" in shown(value, False, capsys)


def test_a_network_that_did_not_answer_is_told_beside_the_results(capsys):
    value = index_dict(known(network="home", trouble="nobody answers"), KINDS, "", False)
    print_index(value, True)
    said = capsys.readouterr()
    assert "network home: its leases are not known: nobody answers" in said.err
    assert "nobody answers" not in said.out


def test_a_home_without_a_network_says_nothing_of_one():
    assert index_dict(known(), KINDS, "", False)["network"] is None


def test_no_data_at_all_is_shown_honestly(capsys):
    value = index_dict(NOTHING, KINDS, "", True)
    out = shown(value, True, capsys)
    assert out.count("withheld (none): no price of L40S is known") == 7
    print_index(index_dict(replace(NOTHING, gpu=None), KINDS, "", False), False)
    assert "no card has an index value" in capsys.readouterr().err


def test_rows_left_out_of_catalogs_are_counted(capsys):
    print_index(index_dict(known(left_out={"no price": 4}), KINDS, "", False), True)
    assert "left out of the catalogs: 4 × no price" in capsys.readouterr().err


def test_the_whole_card_is_listed_beside_its_variants():
    quotes = (*book("1.00", "1.10", "1.20", gpu="H100-SXM"), quote("a", "0.90", gpu="H100-PCIe"))
    cards = index_dict(known(None, quotes=quotes), KINDS, "", False)["cards"]
    assert [item["gpu"] for item in cards] == ["H100", "H100-PCIE", "H100-SXM"]


def test_dates_are_oldest_to_newest_without_remarks():
    year = replace(quote("a", "1", age=326), dated="2026 (commit date not exposed)")
    assert dates_of((quote("b", "1", age=2), year)) == "2026 … 2026-11-21"
    assert dates_of((quote("b", "1", age=2),)) == "2026-11-21"


def test_claims_fit_and_know_the_networks_take(capsys):
    clouds = [quote(name, "10.00") for name in ("aws", "azure")]
    paid = Paid(leases(12), 0, Take(99_000, 1_000, 12))
    value = claims_dict(known(paid=paid, quotes=(*QUOTES, *clouds)))
    assert [item["gpu"] for item in value["savings"]] == ["L40S"]
    assert value["savings"][0]["saving_ppm"] == 955_000
    assert "1.0 % of what tenants spent in 12 leases" in str(value["claims"])
    print_claims(value)
    out = capsys.readouterr().out
    assert max(map(len, (line.rstrip() for line in out.splitlines()))) <= 80


def test_long_sentences_are_wrapped_between_words(capsys):
    say_wrapped("word " * 60)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[1].startswith("  word")
    assert " ".join(" ".join(lines).split()) == ("word " * 60).strip()
