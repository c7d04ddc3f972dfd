"""`minga forward`: a port of a running job on this machine's loopback.

Through the provider's API alone: the provider need not open anything, and the job may move meanwhile.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from minga.cli.jobs import JobArgument
from minga.cli.options import port_option, settings_of
from minga.cli.output import say, tell


def forward(
    ctx: typer.Context,
    job: JobArgument,
    port: Annotated[int, typer.Argument(metavar="PORT", help="A port that the job names.")],
    listen: Annotated[int, typer.Option(help="Port here, on loopback; 0 takes a free one.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="An error as JSON.")] = False,
) -> None:
    """Reach an HTTP server in a running job at a local address until stopped, also when the job moves."""
    import signal
    import threading

    port_option(listen)
    stopping = threading.Event()
    with settings_of(ctx).connect() as client, client.attach(job).forward(port, listen) as url:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        say(url)
        sys.stdout.flush()
        tell(f"port {port} of the job is there; Ctrl-C stops it")
        stopping.wait()
