"""Write the lock files: every package that the set-up installs, by version and by hash (`make lock`).

| lock                          | from                                              | installed into              |
|-------------------------------|---------------------------------------------------|-----------------------------|
| requirements/base.txt         | `project.dependencies` and all extras but `ai`    | the checkout's environment  |
| requirements/contracts.txt    | group `contracts`                                 | the checkout's environment  |
| requirements/dev.txt          | group `dev`                                       | the checkout's environment  |
| requirements/ai.txt           | group `jobs`                                      | the checkout's environment  |
| requirements/peers.txt        | group `peers`                                     | an environment for benches  |
| src/minga/runtimes/ai.txt     | group `jobs`; it ships in the wheel               | the jobs' environment       |

The first four are installed together, so they are resolved together first. PyTorch is in no lock: each platform has
its own build, and it is installed before them. Rule: nothing of this machine (paths, index addresses) reaches a lock.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("--extra=fast", "--extra=keyring", "--extra=plot", "--extra=s3")
QUIET = ("--quiet", "--allow-unsafe", "--strip-extras", "--no-emit-options")


def compile_lock(output: Path, *inputs: str, hashes: bool = True) -> None:
    """Resolve `inputs` (pip-compile's arguments) into `output`, from scratch."""
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "piptools", "compile", *QUIET, f"--output-file={output}", *inputs]
    env = os.environ | {"CUSTOM_COMPILE_COMMAND": "make lock"}
    subprocess.run(command + ["--generate-hashes"] * hashes, cwd=ROOT, env=env, check=True)
    output.write_text(output.read_text().replace(f"{tempfile.gettempdir()}/", ""))


def written(source: Path, requirements: list[str]) -> str:
    """The path of `source`, which now holds the requirements."""
    source.write_text("\n".join(requirements) + "\n")
    return str(source)


def main() -> None:
    """Write all six locks."""
    groups: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    requirements = ROOT / "requirements"
    requirements.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch
        sources: dict[str, str] = {}
        for group in ("contracts", "dev", "jobs"):
            sources[group] = written(Path(scratch) / f"{group}.in", groups[group])
        peers = written(Path(scratch) / "peers.in", groups["peers"])
        together = Path(scratch) / "together.txt"
        compile_lock(together, *EXTRAS, "pyproject.toml", *sources.values(), hashes=False)
        pins = f"--constraint={together}"
        compile_lock(requirements / "base.txt", *EXTRAS, pins, "pyproject.toml")
        compile_lock(requirements / "contracts.txt", pins, sources["contracts"])
        compile_lock(requirements / "dev.txt", pins, sources["dev"])
        compile_lock(requirements / "ai.txt", pins, sources["jobs"])
        compile_lock(requirements / "peers.txt", peers)
        compile_lock(ROOT / "src/minga/runtimes/ai.txt", sources["jobs"])


if __name__ == "__main__":
    main()
