"""`minga jobs, logs, attach, stop, pull, bill, runner`: what becomes of submitted jobs.

A job is named by its id, the beginning of it, or its name when only one has it. All of these work from any terminal
of this machine that has the same home folder; only one process at a time *runs* a job.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from minga.cli.options import Json, settings_of
from minga.cli.output import print_json, print_table, say, short, tell
from minga.core.errors import Conflict, MingaError, NoMatch
from minga.core.units import format_duration, format_size, format_usd

if TYPE_CHECKING:
    from minga.client.session import Client, JobHandle, JobStatus

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, the beginning of it, or its name.")]

JOB_FAILED = 1
"""Exit code of a command that waited for a job that did not end `done`, when the job has none of its own."""


def jobs(ctx: typer.Context, as_json: Json = False) -> None:
    """List the jobs of this home, newest first."""
    from minga.cli.live import clean
    from minga.cli.world import RealClock

    with settings_of(ctx).connect() as client:
        listed = sorted(client.jobs(), key=lambda job: job.submitted_at, reverse=True)
        decimals = client.network.chain.deployment.decimals
    if as_json:
        print_json([status_dict(job) for job in listed])
        return
    now = RealClock().now()
    rows = [
        (
            short(job.job),
            job.phase,
            _progress(job),
            format_duration(job.working_s),
            f"${format_usd(job.spent, decimals)}",
            f"${format_usd(job.budget, decimals)}",
            format_duration(max(0, now - job.submitted_at)).split(" ")[0],
            clean(job.name),
        )
        for job in listed
    ]
    head = ("job", "state", ">at", ">worked", ">spent", ">budget", ">age", "~name")
    print_table(head, rows, "no jobs yet; start one with `minga run`")


def _progress(job: JobStatus) -> str:
    step, total = ((job.progress or {}).get(key) for key in ("step", "total"))
    return f"{100 * int(step) // int(total)} %" if step is not None and total else "–"


def status_dict(job: JobStatus) -> dict[str, Any]:
    """A job's status as a JSON value."""
    from dataclasses import asdict

    return asdict(job)


def logs(
    ctx: typer.Context,
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """Print a job's output, of all its attempts, as it was written."""
    from minga.cli.live import clean

    with settings_of(ctx).connect() as client:
        handle = client.attach(job)
        for chunk in handle.logs(follow=follow):
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        status = handle.status()
    if status.reason:
        tell(f"[minga] {status.phase}, attempt {status.attempts}: {clean(status.reason)}")


def attach(ctx: typer.Context, job: JobArgument, as_json: Json = False) -> None:
    """Follow a job; if no process runs it, run it here. Ctrl-C leaves a job that another process runs as it is."""
    with settings_of(ctx).connect() as client:
        handle = client.attach(job)
        if handle.status().terminal:
            finish(client, handle, as_json, None)
            return
        try:
            handle.resume()
            ours = True
        except Conflict:
            ours = False
        watch(client, handle, as_json, ours=ours)
        finish(client, handle, as_json, None)


def watch(client: Client, handle: JobHandle, quiet: bool, *, ours: bool) -> None:
    """Show a job until it ends.

    Ctrl-C: a job that this process runs (`ours`) is asked to stop, settled and shown to its end; a second one leaves
    at once, and `minga attach` goes on. Another process's job is left alone.
    """
    from minga.cli.follow import Follower

    asked = False

    def on_interrupt() -> bool:
        nonlocal asked
        if not ours:
            tell(f"left; the job goes on. See it again: minga attach {short_id(handle.id)}")
            return False
        if asked:
            tell(f"left at once; nothing is lost. Go on: minga attach {short_id(handle.id)}")
            return False
        asked = True
        tell("stopping: the job may checkpoint, then its lease is closed and the rest returned. Ctrl-C again leaves.")
        handle.stop()
        return True

    if quiet:
        _wait(handle, on_interrupt)
        return
    Follower(handle, client.network.chain.deployment.decimals, sys.stdout.isatty()).run(on_interrupt)


def _wait(handle: JobHandle, on_interrupt: Any) -> None:
    while True:
        try:
            handle.wait()
            return
        except KeyboardInterrupt:
            if not on_interrupt():
                raise


def short_id(job: str) -> str:
    """The beginning of a job's id, long enough to name it on a command line."""
    return job[:12]


def finish(client: Client, handle: JobHandle, as_json: bool, out: Path | None) -> None:
    """Print how a job ended and what it cost; copy its artifacts to `out`; exit with its code.

    Raises:
        typer.Exit: it did not end `done`: the job's own exit code when it has one, else 1 … 4 by what happened.
    """
    status = handle.status()
    files = handle.pull(out) if out is not None else handle.artifacts()
    decimals = client.network.chain.deployment.decimals
    if as_json:
        print_json(handle.report())
    else:
        bill = handle.bill()
        cost = f"${format_usd(bill.paid + bill.fee, decimals)}"
        say(f"{status.phase}: {format_duration(status.working_s)} of work for {cost}" + _because(status))
        if files:
            where = out if out is not None else client.home.job(handle.id)
            say(f"{len(files)} artifacts, {format_size(sum(file.bytes for file in files))}: {where}")
    code = exit_code(status)
    if code:
        raise typer.Exit(code)


def _because(status: JobStatus) -> str:
    if status.exit_code:
        return f"; exit code {status.exit_code}" + (f", {status.reason}" if status.reason else "")
    return f"; {status.reason}" if status.reason and status.phase != "done" else ""


def exit_code(status: JobStatus) -> int:
    """The exit code of `minga run` for a job that ended so."""
    if status.phase == "done":
        return 0
    if status.exit_code and status.phase == "failed":
        return min(status.exit_code, 255)
    by_reason = _exit_codes().get(status.reason.partition(":")[0])
    return by_reason or {"exhausted": 3, "stopped": 130}.get(status.phase, JOB_FAILED)


def _exit_codes() -> dict[str, int]:
    """Exit code by the word with which a job's reason begins: an error's code, or a deadline that passed."""

    def leaves(kind: type[MingaError]) -> list[type[MingaError]]:
        return [kind, *(leaf for child in kind.__subclasses__() for leaf in leaves(child))]

    codes = {kind.code: kind.exit_code for kind in leaves(MingaError) if kind.code != MingaError.code}
    return {"deadline-passed": NoMatch.exit_code, **codes}


def stop(
    ctx: typer.Context,
    job: JobArgument,
    reason: Annotated[str, typer.Option(help="Told to the provider and kept in the journal.")] = "asked by the tenant",
    wait: Annotated[bool, typer.Option(help="Wait until everything is settled.")] = True,
    as_json: Json = False,
) -> None:
    """Stop a job: it may checkpoint, then its lease is closed and what is left of the budget comes back."""
    with settings_of(ctx).connect() as client:
        handle = client.attach(job)
        if not handle.status().terminal:
            handle.stop(reason)
            if wait:
                _settle(handle)
        status = handle.status()
    if as_json:
        print_json(status_dict(status))
    else:
        say(f"{short(status.job)} {status.phase}")


def _settle(handle: JobHandle) -> None:
    """Wait for the end; when no process runs the job, run it here, since somebody must settle it."""
    try:
        handle.resume()
    except Conflict:
        pass
    handle.wait()


def pull(
    ctx: typer.Context,
    job: JobArgument,
    folder: Annotated[Path, typer.Argument(help="Where to; made if it is not there.")],
    as_json: Json = False,
) -> None:
    """Copy what a job left, every file verified by its hash."""
    with settings_of(ctx).connect() as client:
        files = client.attach(job).pull(folder)
    if as_json:
        print_json([{"path": file.path, "bytes": file.bytes, "blake3": file.blake3} for file in files])
        return
    rows = [(file.path, format_size(file.bytes), file.blake3[:16]) for file in files]
    print_table(("~file", ">size", "blake3"), rows, "the job left no files")


def bill(ctx: typer.Context, job: JobArgument, as_json: Json = False) -> None:
    """What a job cost, lease by lease, read from the chain: deposited = paid + fee + held + refunded + locked."""
    with settings_of(ctx).connect() as client:
        found = client.attach(job).bill()
    if as_json:
        print_json(found.as_dict())
        return
    from minga.cli.bill import print_bill

    print_bill(found)


def runner(ctx: typer.Context) -> None:
    """Run every job of this home that is not settled, detached ones too, until stopped (SIGTERM, Ctrl-C)."""
    import signal
    import threading

    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with settings_of(ctx).connect() as client:
        tell("runner: started")
        try:
            client.serve(stopping)
        except MingaError:
            tell("runner: ended by an error; jobs are in the journal and go on when it is started again")
            raise
    tell("runner: stopped; jobs that are not settled go on when it is started again")
