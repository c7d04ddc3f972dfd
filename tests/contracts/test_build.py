"""The artifacts are what the sources give, small enough to deploy, and nothing but what the wheel needs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dispute_world import DisputeWorld
from evm import ARTIFACTS, ROOT, Revm, build_script


def test_rebuilding_gives_the_same_bytes() -> None:
    """`build.py --check`, as CI runs it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "contracts" / "build.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_check_sees_a_changed_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One flipped digit of bytecode is a difference, and the line says what to do."""
    build = build_script()
    shutil.copytree(ARTIFACTS, tmp_path / "artifacts")
    path = tmp_path / "artifacts" / "Market.json"
    body = json.loads(path.read_text())
    body["bytecode"] = body["bytecode"][:-1] + ("0" if body["bytecode"][-1] != "0" else "1")
    path.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")
    monkeypatch.setattr(build, "TARGET", tmp_path / "artifacts")
    assert build.main(["--check"]) == 1
    assert "Market.json" in capsys.readouterr().out
    assert build.main(["--nonsense"]) == 2


NAMES = ["BlockBeacon", "Disputes", "Market", "Registry", "Token"]


@pytest.mark.parametrize("name", NAMES)
def test_artifact(name: str) -> None:
    """Compiler and settings are recorded; the creating code fits the limit of EIP-3860."""
    body = json.loads((ARTIFACTS / f"{name}.json").read_text())
    assert body["compiler"] == {
        "name": "vyper", "version": "0.4.3", "evm_version": "cancun", "optimize": "gas", "experimental_codegen": False,
    }  # fmt: skip
    assert body["source_sha256"] == build_script().source_hash()
    assert len(body["bytecode"]) // 2 < 49_152
    assert sorted(path.stem for path in ARTIFACTS.glob("*.json")) == NAMES


def test_what_is_deployed_fits_the_limit_of_eip_170() -> None:
    """24,576 bytes, constants that the constructor wrote included."""
    world = DisputeWorld(Revm(), freezing=False, staked=False)
    deployed = (world.court, world.market, world.registry, world.token, world.beacon)
    sizes = [world.machine.code_size(each.address) for each in deployed]
    assert all(500 < size <= 24_576 for size in sizes), sizes
