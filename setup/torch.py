"""Print the requirement of PyTorch, as the `ai` extra in pyproject.toml names it; the set-up installs it first.

Knows: the project file. Does not know: where pip finds which build. Rule: one place names the version.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def requirement() -> str:
    """`torch==VERSION`.

    Raises:
        StopIteration: the extra names no PyTorch.
    """
    extra = tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["ai"]
    return next(name for name in extra if name.startswith("torch=="))


if __name__ == "__main__":
    print(requirement())
