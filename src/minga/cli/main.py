"""`minga`: the commands, and what happens when one fails.

One file per noun or group of verbs; each keeps its heavy imports inside its commands, so that `minga --help` answers
at once (tests/cli/test_main.py counts the modules). Rule: no traceback reaches a user unless MINGA_DEBUG=1; every
failure is one `code: fact`, a remedy and an exit code.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minga import __version__
from minga.cli import (
    bench,
    board,
    chat,
    demo,
    demo_dispute,
    dispute,
    doctor,
    forward,
    index,
    jobs,
    market,
    network,
    provide,
    quote,
    reclaim,
    reliability,
    run,
    serve,
    sim,
    validate,
    wallet,
    world,
)
from minga.cli.config import Settings, default_home
from minga.cli.output import as_minga_error, debugging, print_error, tell
from minga.core.errors import InvalidInput, MingaError

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the job itself failed, or a defect of ours",
    2: "bad input: a flag, a file, a key, too little money",
    3: "no matching offer, budget exhausted or deadline passed",
    4: "the provider failed",
    5: "a chain, board or port could not be used",
    6: "something that is needed is not installed",
    130: "interrupted",
}
"""Every exit code of `minga`; `minga.core.errors` says which error has which."""

EPILOG = "\b\nExit codes:\n" + "\n".join(f"  {code:>3}  {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    name="minga",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Anyone's GPU does anyone's AI work, and nobody has to be trusted.",
    epilog=EPILOG,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"minga {__version__}")
        raise typer.Exit


@app.callback()
def options(
    ctx: typer.Context,
    home: Annotated[
        Path | None, typer.Option(envvar="MINGA_HOME", help="Folder of keys, networks and jobs (default ~/.minga).")
    ] = None,
    network_name: Annotated[
        str | None,
        typer.Option("--network", envvar="MINGA_NETWORK", help="A network's name (default: the only one there is)."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Anyone's GPU does anyone's AI work, and nobody has to be trusted."""
    ctx.obj = Settings((home or default_home()).expanduser().absolute(), network_name or None)


app.command("demo", short_help="Train a language model for pay, all on this machine.")(demo.demo)
app.command("demo-dispute", short_help="Let a provider cheat, and lose a dispute.")(demo_dispute.demo_dispute)
app.command("up", short_help="Start a network here: chain, board, providers.")(network.up)
app.command("down", short_help="Stop what `up` started.")(network.down)
app.command("status", short_help="Networks known, and what runs here.")(network.status)
app.command("doctor", short_help="What is installed, what is missing, how to get it.")(doctor.doctor)
app.add_typer(wallet.app, name="wallet", short_help="Make, show and fill wallets.")
app.command("provide", short_help="Sell this machine's idle time.")(provide.provide)
app.command("validate", short_help="Audit work and judge disputes, for pay.")(validate.validate)
app.add_typer(dispute.app, name="dispute", short_help="Follow disputes over work, and play them.")
app.command("reclaim", short_help="Have the machine back, or offer it again.")(reclaim.reclaim)
app.command("board", short_help="Run a board, a cache of signed offers.")(board.board)
app.command("offers", short_help="List offers that match a query.")(market.offers)
app.command("reliability", short_help="A provider's record, and the leases behind it.")(reliability.reliability)
app.command("quote", short_help="Who would run a job, and at what cost.")(quote.quote)
app.command("index", short_help="What a GPU-hour costs, and where that is known from.")(index.index)
app.command("bench", short_help="Measure this machine as tenants will.")(bench.bench)
app.command("run", short_help="Run a job: a file, or a command after --.")(run.run)
app.command("jobs", short_help="List the jobs of this home.")(jobs.jobs)
app.command("logs", short_help="Print a job's output.")(jobs.logs)
app.command("attach", short_help="Follow a job; run it here if nobody does.")(jobs.attach)
app.command("stop", short_help="Stop a job and settle.")(jobs.stop)
app.command("serve", short_help="Serve a model on the network by OpenAI's API.")(serve.serve)
app.command("chat", short_help="Talk to a model behind a gateway.")(chat.chat)
app.command("forward", short_help="Reach a server in a running job from here.")(forward.forward)
app.command("pull", short_help="Copy what a job left, verified.")(jobs.pull)
app.command("bill", short_help="What a job cost, read from the chain.")(jobs.bill)
app.add_typer(sim.app, name="sim", short_help="Simulate a market; one seed is one history.")
app.command("runner", short_help="Run detached jobs, as a service.")(jobs.runner)
app.command("chain", hidden=True)(network.chain)
app.command("demo-cheat", hidden=True)(demo_dispute.demo_cheat)


def entry() -> None:
    """What the `minga` script calls; exits with the codes of `EXIT_CODES`."""
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors are printed, never raised."""
    world.install_faults()
    as_json = "--json" in arguments[: arguments.index("--")] if "--" in arguments else "--json" in arguments
    try:
        result = app(args=arguments, prog_name="minga", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away; nothing more can be said to it, and a flush at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + getattr(signal, "SIGPIPE", 13)
    except (Exception, BaseExceptionGroup) as error:
        return _failed(error, as_json)
    return result if isinstance(result, int) else 0


def _failed(error: BaseException, as_json: bool) -> int:
    if isinstance(error, BaseExceptionGroup) and error.subgroup(KeyboardInterrupt) is not None:
        return 130
    if type(error).__name__ == "NoArgsIsHelpError":
        tell(str(error))
        return InvalidInput.exit_code
    if isinstance(error, typer.Abort):
        tell("interrupted")
        return 130
    if debugging():
        import traceback

        traceback.print_exception(error)
    shown = _usage(error) if isinstance(error, typer.TyperException) else as_minga_error(error)
    print_error(shown, as_json)
    return shown.exit_code


def _usage(error: Any) -> MingaError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "minga"
    fact = " ".join(error.format_message().split()).rstrip(".")
    return InvalidInput(fact or "the command line is not understood", f"see `{command} --help`")
