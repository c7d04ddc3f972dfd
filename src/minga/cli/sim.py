"""`minga sim`: a seeded world with the real agents inside, for people who want to see a rule hold or a seed fail.

Nothing here touches a home, a key or a network. The heavy imports stay inside the commands.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minga.cli.output import print_json, tell

if TYPE_CHECKING:
    from minga.sim.economics_world import Terms
    from minga.sim.shape import Outcome, Shape

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Simulated worlds: one seed is one history.")


@app.command("world")
def world(
    seed: Annotated[int, typer.Option(min=0, help="Everything random comes from it.")],
    agents: Annotated[
        int | None, typer.Option(min=3, max=500, help="Agents in all (default: the seed's, 5–20).")
    ] = None,
    minutes: Annotated[
        int | None, typer.Option(min=1, max=60, help="Minutes with faults (default: the seed's).")
    ] = None,
    actor: Annotated[str, typer.Option(help="Play this hostile actor alone; see `minga sim actors`.")] = "",
    plain: Annotated[bool, typer.Option("--plain", help="No faults, no hostile actors.")] = False,
    trace: Annotated[Path | None, typer.Option(help="Write every event of the history to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The outcome as JSON.")] = False,
) -> None:
    """Run one world and judge it; the exit code is 1 when a rule was broken."""
    from dataclasses import replace

    from minga.core.errors import InvalidInput
    from minga.sim.actors import ACTORS
    from minga.sim.shape import shape_of
    from minga.sim.world import run_world

    if actor and actor not in ACTORS:
        raise InvalidInput(f"there is no actor {actor!r}", "see `minga sim actors`")
    usual = shape_of(seed)
    shape = replace(usual, agents=agents or usual.agents, minutes=minutes or usual.minutes, actor=actor, plain=plain)
    if trace is None:
        outcome = run_world(shape)
    else:
        with trace.open("w", encoding="utf-8") as file:
            outcome = run_world(shape, lambda line: print(line, file=file))
    if as_json:
        print_json({**vars(outcome), "phases": dict(outcome.phases), "actors": list(outcome.actors)})
    else:
        _show(shape, outcome)
    if outcome.violation:
        raise typer.Exit(1)


def _show(shape: Shape, outcome: Outcome) -> None:
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(outcome.phases.items()))
    typer.echo(
        f"seed      {shape.seed}: {shape.agents} agents, {shape.minutes} minutes, settled after {outcome.seconds} s"
    )
    typer.echo(f"jobs      {outcome.jobs}: {phases}; {outcome.attempts} attempts")
    typer.echo(f"hostile   {', '.join(outcome.actors) or 'nobody'}")
    typer.echo(
        f"work      {outcome.steps} agent steps, {outcome.messages} messages, {outcome.transactions} transactions, "
        f"{outcome.crashes} crashes, {outcome.checks} checks"
    )
    typer.echo(f"trace     {outcome.trace}")
    if not outcome.violation:
        typer.echo("verdict   every rule held")
        return
    typer.echo(f"verdict   BROKEN {outcome.violation}")
    tell("the last events before it:")
    for line in outcome.last:
        tell(f"  {line}")
    tell(f"replay: minga sim world{replay(shape)}")


def replay(shape: Shape) -> str:
    """The options that give this world again."""
    from minga.sim.shape import shape_of

    usual = shape_of(shape.seed)
    options = f" --seed {shape.seed}"
    options += f" --agents {shape.agents}" if shape.agents != usual.agents else ""
    options += f" --minutes {shape.minutes}" if shape.minutes != usual.minutes else ""
    options += f" --actor {shape.actor}" if shape.actor else ""
    return options + (" --plain" if shape.plain else "")


@app.command("actors")
def actors() -> None:
    """List the hostile actors: name, side, the bound that their victims' loss keeps, story."""
    from minga.sim.actors import ACTORS

    for actor in ACTORS.values():
        typer.echo(f"{actor.name:22} {actor.side:9} {actor.bound:8} {actor.story}")


@app.command("economics")
def economics(
    seed: Annotated[int, typer.Option(min=0, help="Everything random comes from it.")] = 0,
    jobs: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Jobs for each way of cheating.")] = 100_000,
    rate: Annotated[
        float | None, typer.Option("--p", min=0.01, max=100, help="Audit rate, % (default: the least for the factor).")
    ] = None,
    factor: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Stake per exposure (default: what the formula asks at --p).")
    ] = None,
    collusion: Annotated[float, typer.Option(min=0, max=100, help="Corrupt validators and referees, %.")] = 30.0,
    without: Annotated[list[str] | None, typer.Option(help="Leave a rule out: its name, or all.")] = None,
    breaks: Annotated[bool, typer.Option("--breaks", help="Also say at which values the design breaks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """Simulate what cheating, auditing and judging bring; the exit code is 1 when something pays that should not."""
    from minga.core.errors import MissingPrerequisite

    try:
        from minga.cli.economics_view import show
        from minga.sim.economics import report
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        raise MissingPrerequisite("the simulator needs numpy", "pip install numpy") from None
    terms = terms_of(rate, factor, collusion, without or [])
    found = report(seed, jobs, terms)
    if as_json:
        print_json(found.as_dict())
    else:
        show(found, breaks)
    if found.paying:
        raise typer.Exit(1)


def terms_of(rate: float | None, factor: int | None, collusion: float, without: list[str]) -> Terms:
    """The network that the options describe; rates and shares are percent.

    Raises:
        InvalidInput: there is no such rule, or no rate is enough for the factor.
    """
    from minga.core.errors import InvalidInput
    from minga.protocol import audit
    from minga.sim.economics_world import RULES, Terms

    unknown = [name for name in without if name not in (*RULES, "all")]
    if unknown:
        raise InvalidInput(f"there is no rule {unknown[0][:40]!r}", f"there are: {', '.join(RULES)}, all")
    rules = frozenset() if "all" in without else frozenset(RULES) - frozenset(without)
    share = round(collusion * 100)
    if rate is None:
        factor = factor or audit.FACTOR
        return Terms(rate=audit.floor_bps(factor), factor=factor, collusion=share, rules=rules)
    if factor is None:
        return Terms.at(round(rate * 100), collusion=share, rules=rules)
    return Terms(rate=round(rate * 100), factor=factor, collusion=share, rules=rules)
