"""`minga run`: from a command or a job file to results.

This process is the job's runner: it holds the job's wallet and pays while it watches. With `--detach` the job is only
journaled and `minga runner` runs it. Ctrl-C asks the job to stop and settles; a second one leaves at once, with
nothing lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minga.cli.options import Json, parse_assignments, settings_of
from minga.cli.output import print_json, say, tell

if TYPE_CHECKING:
    from minga.client.jobfile import JobSpec


def run(
    ctx: typer.Context,
    target: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB.yaml | -- COMMAND…]", help="A job file, or a command after `--`."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The job's name.")] = None,
    gpu: Annotated[str | None, typer.Option(help="Accelerators, such as RTX4090 or H100:8.")] = None,
    cpus: Annotated[str | None, typer.Option(help="Cores, such as 4.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory, such as 16GiB.")] = None,
    disk: Annotated[str | None, typer.Option(help="Disk, such as 50GiB.")] = None,
    region: Annotated[str | None, typer.Option(help="Region wanted.")] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", "--max", help="Dollars for the whole job; it can never cost more.")
    ] = None,
    max_price: Annotated[str | None, typer.Option(help="Most dollars an hour.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Give up after, such as 8h.")] = None,
    max_idle: Annotated[str | None, typer.Option(help="Stop after so long without progress, such as 20m.")] = None,
    duration: Annotated[str | None, typer.Option(help="What the work takes, for the quote, such as 4h.")] = None,
    verify: Annotated[
        str | None, typer.Option(help="audit: the provider stakes on its work, and others may check it.")
    ] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Take machines at their word.")] = False,
    workdir: Annotated[
        Path | None, typer.Option(help="Folder sent along (a command without a file: this one).")
    ] = None,
    no_workdir: Annotated[bool, typer.Option("--no-workdir", help="Send no folder.")] = False,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the job; NAME alone copies it.")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="As --env, sealed: only the provider can read it.")] = None,
    output: Annotated[list[str] | None, typer.Option(help="Glob of files to bring back, besides /job/out.")] = None,
    checkpoint: Annotated[bool, typer.Option("--checkpoint", help="The job writes checkpoints and resumes.")] = False,
    out: Annotated[Path | None, typer.Option(help="Copy what the job left to this folder.")] = None,
    key: Annotated[str | None, typer.Option(help="Submitting twice with the same key is one job.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it to `minga runner`.")] = False,
    as_json: Json = False,
) -> None:
    """Run a job: `minga run job.yaml`, or `minga run --gpu RTX4090 --budget 2 -- python train.py`."""
    from minga.cli.spec import Wishes, build_spec

    wishes = Wishes(
        name=name,
        gpu=gpu,
        cpus=cpus,
        memory=memory,
        disk=disk,
        region=region,
        budget=budget,
        max_price=max_price,
        deadline=deadline,
        max_idle=max_idle,
        duration=duration,
        probe=not no_probe,
        verify=verify,
        workdir=None if workdir is None else str(workdir),
        send_folder=not no_workdir,
        envs=parse_assignments(env, "--env"),
        secrets=parse_assignments(secret, "--secret"),
        outputs=tuple(output or ()),
        checkpoint=checkpoint,
    )
    _run(ctx, build_spec(target or [], wishes, Path.cwd()), key, detach, as_json, out)


def _run(ctx: typer.Context, spec: JobSpec, key: str | None, detach: bool, as_json: bool, out: Path | None) -> None:
    from minga.cli.jobs import finish, short_id, status_dict, watch
    from minga.client.quotes import Quote, line

    def quoted(quote: Quote) -> None:
        if not as_json:
            tell(line(quote))

    with settings_of(ctx).connect() as client:
        handle = client.submit(spec, key=key, detach=detach, quoted=quoted)
        if not as_json:
            tell(f"job {handle.id}")
        if detach:
            if as_json:
                print_json(status_dict(handle.status()))
            else:
                say(f"submitted; `minga runner` runs it, `minga attach {short_id(handle.id)}` shows it")
            return
        watch(client, handle, as_json, ours=True)
        finish(client, handle, as_json, out)
