"""`python -m minga`: the command line without an installed script."""

from __future__ import annotations

from minga.cli.main import entry

entry()
