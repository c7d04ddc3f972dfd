"""What is there and what is missing, by role; nothing is changed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from command_line import Minga

from minga.cli import doctor
from minga.cli.config import Settings


def test_a_client_needs_little_and_nothing_is_made(minga: Minga, home: Path) -> None:
    ended = minga("doctor", "--json")
    value = json.loads(ended.out)
    assert ended.code == 0
    assert value["role"] == "client"
    assert value["ok"] is True
    names = [check["name"] for check in value["checks"]]
    assert {"python", "venv", "home folder", "npm", "anvil", "AI environment"} <= set(names)
    assert len(names) == len(set(names))
    assert not home.exists()


def test_what_a_role_misses_is_code_6_and_named_with_its_remedy(minga: Minga, tmp_path: Path) -> None:
    env = {"XDG_CACHE_HOME": str(tmp_path / "empty"), "PATH": str(tmp_path), "MINGA_CACHE": str(tmp_path / "none")}
    for role in ("provider", "demo"):
        ended = minga("doctor", "--role", role, "--json", env=env)
        missing = [check for check in json.loads(ended.out)["checks"] if not check["ok"] and role in check["needed_by"]]
        assert ended.code == 6
        assert "AI environment" in [check["name"] for check in missing]
        assert all(check["remedy"] for check in missing)
    assert "anvil" in [check["name"] for check in missing]
    text = minga("doctor", "--role", "demo", env=env)
    assert "MISSING" in text.out
    assert "missing" in text.err
    assert max(map(len, text.out.splitlines())) <= 80


def test_a_home_that_cannot_be_written_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    check = doctor._home(file / "home")
    assert not check.ok
    assert check.needed_by == doctor.CLIENT


def test_elsewhere_than_linux_providers_are_told_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    checks = {check.name: check for check in doctor.examine(Settings(tmp_path))}
    assert not checks["linux"].ok
    assert "client" not in checks["linux"].needed_by
