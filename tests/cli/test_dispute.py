"""The commands about disputes: what they refuse, what they say, and the double that cheats in the demo."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Minga

from minga.cli.demo_cheat import FROZEN_FROM, freeze
from minga.cli.demo_court import Told
from minga.cli.demo_money import changes
from minga.cli.validate import Announcer, earnings_facts
from minga.core.errors import InternalError

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "verified" / "train.py"
CHANNEL = "0x" + "c1" * 32


@pytest.mark.parametrize("words", [("dispute", "show"), ("dispute", "watch"), ("validate", "--once")])
def test_without_a_network_there_is_nothing_to_dispute(minga: Minga, words):
    ended = minga(*words)
    assert ended.code == 2
    assert "no network is known" in ended.err


def test_wrong_words_are_refused(minga: Minga):
    assert minga("dispute", "show", "0").code == 2
    assert minga("dispute", "play", "1").code == 2
    assert minga("validate", "--leaves", "0").code == 2


def test_the_double_freezes_the_first_layer_and_nothing_else(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(EXAMPLE.read_text())
    freeze(script)
    changed = script.read_text()
    added = [line for line in changed.splitlines() if line not in EXAMPLE.read_text().splitlines()]
    assert len(added) == 2
    assert f"if step >= {FROZEN_FROM}:" in added[0]
    assert "model[0].weight.grad" in added[1]
    freeze(script)
    assert script.read_text() == changed


def test_the_double_knows_no_other_script(tmp_path):
    (tmp_path / "train.py").write_text("print('hello')\n")
    with pytest.raises(InternalError, match="does not know this script"):
        freeze(tmp_path / "train.py")
    with pytest.raises(InternalError):
        freeze(tmp_path / "missing.py")


def test_money_that_moved_adds_up():
    moved = changes({"tenant": 10, "provider": 5}, {"tenant": 7, "provider": 5, "wallet": 3})
    assert moved == {"tenant": -3, "provider": 0, "wallet": 3}
    assert sum(moved.values()) == 0


def test_a_log_is_read_from_where_it_was_left(tmp_path):
    log = tmp_path / "v1.log"
    log.write_text('{"event": "ready"}\nnoise\n{"event": "case", "phase": "wai')
    told = Told(log)
    assert [event["event"] for event in told.news()] == ["ready"]
    with log.open("a") as file:
        file.write('ting"}\n[1]\n')
    assert [event.get("phase") for event in told.news()] == ["waiting"]
    assert list(told.news()) == []


def test_what_a_validator_tells_is_one_line(capsys):
    announce = Announcer(None, as_json=False)
    announce("ready", {"validator": CHANNEL})
    announce("joined", {"referee": CHANNEL})
    announce("case", {"channel": CHANNEL, "phase": "proven", "differs": 61, "noted": []})
    announce("case", {"channel": CHANNEL, "phase": "unserved", "differs": 0, "noted": ["silence\x1b[2J"]})
    announce("seat", {"game": 3, "phase": "judged", "verdict": 2, "why": "leaf 61 came out otherwise"})
    announce("sent", {"effect": "challenge/0/0"})
    announce("warning", {"code": "x", "fact": "y", "remedy": "z"})
    announce("unknown", {})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 7
    assert "leaf 61 came out otherwise" in lines[2]
    assert lines[3].endswith("unserved (silence)")
    assert "as referee: judged: does not follow" in lines[4]


def test_what_a_validator_earned():
    earned = {"validator": CHANNEL, "seat": 2, "stake": "10000000", "owed": "10000", "withdrawn": "20000",
              "cases": {"cleared": 2, "over": 1}, "seats": {}}  # fmt: skip
    facts = dict(earnings_facts(earned, 6))
    assert facts["seat"] == "2, $10.00 at stake"
    assert facts["earned"] == "$0.02 taken, $0.01 owed"
    assert facts["audits"] == "2 cleared, 1 over"
    assert facts["judged"] == "none"
