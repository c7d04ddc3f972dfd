"""Compile the contracts into the artifacts that the wheel ships, or check that they are what the sources give.

    python contracts/build.py            write src/minga/chain/artifacts/NAME.json for each of `CONTRACTS`
    python contracts/build.py --check    rebuild and compare; exit 1 on a difference

Knows: Vyper and its settings. Does not know: chains, deployments. Rule: an artifact is a pure function of the sources
and of the settings below; it names the hash of every source that went into it.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import vyper
from vyper.cli.vyper_compile import compile_files
from vyper.compiler.settings import OptimizationLevel, Settings

ROOT = Path(__file__).resolve().parent
TARGET = ROOT.parent / "src" / "minga" / "chain" / "artifacts"
CONTRACTS = ("Registry", "Market", "Token", "BlockBeacon", "Disputes")
COMPILER = "0.4.3"
EVM_VERSION = "cancun"
OPTIMIZE = "gas"


def settings(optimize: str = OPTIMIZE, *, experimental_codegen: bool = False) -> Settings:
    """Compiler settings; production's without arguments, the other code generators' for the differential test."""
    level = OptimizationLevel.from_string(optimize)
    return Settings(
        compiler_version=COMPILER,
        optimize=level,
        evm_version=EVM_VERSION,
        experimental_codegen=experimental_codegen,
    )


def source_hash() -> str:
    """SHA-256 over the names and bytes of every source that can go into an artifact (mocks cannot)."""
    digest = sha256()
    for path in sorted(p for p in ROOT.rglob("*.vy*") if "mocks" not in p.parts):
        name = path.relative_to(ROOT).as_posix().encode()
        digest.update(len(name).to_bytes(4, "big") + name)
        data = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(len(data).to_bytes(4, "big") + data)
    return digest.hexdigest()


def compile_contract(path: Path, with_settings: Settings, root: Path = ROOT) -> dict[str, Any]:
    """`{"abi": [...], "bytecode": "0x…"}` of one contract; imports are found under `root`."""
    found = compile_files(
        [str(path)], ["abi", "bytecode"], paths=[str(root)], settings=with_settings, include_sys_path=False
    )
    output = next(iter(found.values()))
    return {"abi": output["abi"], "bytecode": output["bytecode"]}


def artifact(name: str) -> str:
    """The artifact of one contract as JSON text, keys sorted, one trailing newline."""
    body = {
        "contract": name,
        "compiler": {
            "name": "vyper",
            "version": COMPILER,
            "evm_version": EVM_VERSION,
            "optimize": OPTIMIZE,
            "experimental_codegen": False,
        },
        "source_sha256": source_hash(),
        **compile_contract(ROOT / f"{name}.vy", settings()),
    }
    return json.dumps(body, indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Build or check; the exit status."""
    if vyper.__version__.split("+")[0] != COMPILER:
        print(f"vyper {vyper.__version__} is installed, {COMPILER} is needed: pip install vyper=={COMPILER}")
        return 1
    if arguments not in ([], ["--check"]):
        print(__doc__)
        return 2
    stale = []
    for name in CONTRACTS:
        path, text = TARGET / f"{name}.json", artifact(name)
        if arguments and (not path.exists() or path.read_text() != text):
            stale.append(path.name)
        elif not arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if stale:
        print(f"not what the sources give: {', '.join(stale)}; run python contracts/build.py and commit")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
