"""docs/audits.md says what the rules compute and what the kept campaign found, figure by figure."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from minga.cli import economics_view
from minga.protocol import audit, audit_pay
from minga.sim.economics_breaks import lines
from minga.sim.economics_cheats import CHEATS
from minga.sim.economics_world import RULES, Terms

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "audits.md").read_text(encoding="utf-8")
KEPT = ROOT / "benches" / "results" / "economics.json"
DEFAULT = (Terms().rate, Terms().collusion)


def table(heading: str) -> list[list[str]]:
    """The rows of the first table whose head begins with `heading`, cell by cell."""
    found = re.search(rf"^\| {re.escape(heading)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    assert found is not None, heading
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in found[1].splitlines()]


def number(text: str) -> float:
    found = re.search(r"[-+−]?\d[\d,]*\.?\d*", text.replace("−", "-"))
    assert found is not None, text
    return float(found[0].replace(",", ""))


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """The result of the campaign."""
    body: dict[str, Any] = json.loads(KEPT.read_text())
    return body


def test_the_stakes_are_those_of_the_formula():
    for rate, half, all_of_it in table("audit rate | stake per price"):
        bps = round(100 * number(rate))
        assert number(half) == pytest.approx(audit.stake_for(10**6, bps) / 10**6, abs=0.06)
        assert number(all_of_it) == pytest.approx(audit.stake_for(10**6, bps, recoverable=0) / 10**6, abs=0.06)


def test_the_counts_of_leaves_are_those_of_the_formula():
    faked = {"all": 10_000, "one in ten": 1_000, "one in a hundred": 100}
    for what, *counts in table("faked | leaves"):
        wanted = [audit.leaves_for(faked[what], detection) for detection in (9_000, 9_900, 9_990)]
        assert [int(count) for count in counts] == wanted


def test_the_constants_in_the_text_are_those_of_the_code():
    floor = audit.floor_bps(audit.FACTOR) / 100
    assert f"= {floor:g} % for a factor of {audit.FACTOR}" in PAGE
    assert f"needs a factor of {-(-audit.stake_for(10**6, 500) // 10**6)}" in PAGE
    assert audit.floor_bps(40) <= 500
    assert f"({audit_pay.CANARY_BPS / 100:g} % of\nthe audited)" in PAGE
    assert f"{audit_pay.AUDIT_SHARE_BPS // 100} % of *that job's* fee" in PAGE
    assert (
        f"{audit_pay.leaves_min(1, 10_000)} leaves if every state is kept, {audit_pay.leaves_min(50, 10_000):,}" in PAGE
    )
    times = [round(number(row[0])) for row in table("after the beacon's round")]
    assert times[:3] == [
        seconds // 3600 for seconds in (audit_pay.VOTE_SECONDS, audit_pay.REVEAL_SECONDS, audit_pay.OPENING_SECONDS)
    ]


def test_every_way_of_cheating_is_tabulated_as_it_was_played(kept):
    rows = {row[0]: row[1:] for row in table("way | what it does")}
    assert list(rows) == [cheat.name for cheat in CHEATS]
    for cheat in CHEATS:
        story, usual, best = rows[cheat.name]
        cells = [each for each in kept["cells"] if each["cheat"] == cheat.name]
        at_default = next(each for each in cells if (each["rate_bps"], each["collusion_bps"]) == DEFAULT)
        assert story == cheat.story
        assert number(usual) == pytest.approx(at_default["share"], abs=0.001)
        assert number(best) == pytest.approx(max(each["share"] + each["share_half"] for each in cells), abs=0.001)
        assert number(best) < 0


def test_what_checking_earns_is_tabulated_as_it_was_played(kept):
    played = {("auditing", row["name"]): row["usd"] for row in kept["validators"]}
    played |= {("judging", row["name"]): row["usd"] for row in kept["referees"]}
    played |= {("judging, same fee for all", row["name"]): row["usd"] for row in kept["referees_without_coherent"]}
    rows = table("what | who")
    assert {(what, who) for what, who, _ in rows} == set(played)
    for what, who, usd in rows:
        assert number(usd.replace("$", "")) == pytest.approx(
            played[what, who], abs=0.0051 if what != "auditing" else 0.00051
        )


def test_every_rule_is_tabulated_with_what_pays_without_it(kept):
    rows = {row[0]: row[1:] for row in table("rule | kept by")}
    assert list(rows) == list(RULES)
    for rule, (who, _, pays) in rows.items():
        assert RULES[rule].startswith(f"{who}: ")
        for name, share in kept["without_rule"][rule].items():
            assert f"{name} {share:+.3f}".replace("+", "") in pays.replace("+", "")
        assert len(pays.split(", ")) == max(1, len(kept["without_rule"][rule]))


def test_the_page_says_which_rules_are_kept_today():
    """The command and the page agree, and what the page calls built is called by something."""
    assert set(economics_view.KEPT) <= set(RULES)
    assert f"**Of these rules `{economics_view.KEPT[0]}` alone is kept today**" in PAGE
    calls = [
        path for path in (ROOT / "src" / "minga" / "validator").rglob("*.py") if "audit.rate_bps(" in path.read_text()
    ]
    assert calls or not (ROOT / "src" / "minga" / "validator").exists()


def test_every_border_is_tabulated():
    rows = table("what holds | as long as")
    wanted = lines(Terms())
    assert len(rows) == len(wanted)
    for (what, quantity, at, moved_by), line in zip(rows, wanted, strict=True):
        assert (what, quantity, moved_by) == (line.what, line.quantity, line.moved_by)
        assert number(at.replace("$", "")) == pytest.approx(line.at, rel=0.01, abs=0.005)


def test_the_text_about_the_campaign_is_about_the_kept_one(kept):
    text = PAGE.split("## How it was simulated", 1)[1]
    assert f"{len(kept['cells'])} cells" in text
    assert f"{kept['jobs']:,} jobs" in text
    for row in kept["sweep_collusion"][:1] + kept["sweep_collusion"][-1:]:
        assert f"{row['share']:+.3f}" in text.replace("−", "-")
