"""One dispute on one screen: the leaves still in question, who is to move, clocks, votes, and who got what.

`GameView` knows nothing of nodes or terminals: it is made from what events say (`chain.games`), and, for the clocks,
from the contract's own record of the game. `lines` are for logs and pipes, `render` for screens, `facts` for programs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from minga.cli.output import short
from minga.core.units import format_duration, format_usd

if TYPE_CHECKING:
    from rich.console import RenderableType

    from minga.chain.dispute_events import Applied
    from minga.chain.games import GameRecord
    from minga.core.crypto import Address
    from minga.protocol.dispute import Commitment, Game, Preset

BAR = 48
LINES_SHOWN = 12
_VERDICTS = {1: "follows", 2: "does not follow"}
_OUTCOMES = {1: "acquitted", 2: "convicted", 3: "void"}
_PLAYERS = {1: "provider", 2: "challenger"}
_WAITS = {
    1: "the provider shows 16 nodes", 2: "the challenger picks one", 3: "the provider opens the leaf before",
    4: "the provider shows the step's operators", 5: "anyone draws the jury", 6: "the jury binds its votes",
    7: "the jury tells its votes", 8: "the loser may appeal", 9: "the whole pool binds its votes",
    10: "the whole pool tells its votes", 11: "anyone finishes it", 12: "over",
}  # fmt: skip


@dataclass(frozen=True)
class GameView:
    """A game as far as it is known. `now` is chain time; `state` is absent where no node was asked for the clocks."""

    record: GameRecord
    commitment: Commitment
    seats: dict[int, Address]
    decimals: int
    preset: Preset | None = None
    state: Game | None = None
    now: int = 0
    applied: list[Applied] = field(default_factory=list)

    # --------------------------------------------------------------------------------------------------------- numbers

    def spans(self) -> list[tuple[int, int]]:
        """First and last leaf in question: at the beginning, and after each pick."""
        from minga.protocol.merkle import ARITY, rounds_for

        leaves, rounds = self.commitment.leaves, rounds_for(self.commitment.leaves)
        found = [(0, leaves - 1)]
        for done, index in enumerate(self.record.picks[:rounds], 1):
            width = ARITY ** (rounds - done)
            found.append((min(index * width, leaves - 1), min((index + 1) * width, leaves) - 1))
        return found

    def clocks(self) -> dict[str, int]:
        """Seconds left to each player, the time of the present move counted; empty when no node was asked."""
        if self.state is None:
            return {}
        used = max(0, self.now - self.state.since)
        provider, challenger = self.state.provider_left, self.state.challenger_left
        return {
            "provider": max(0, provider - used) if self.state.phase in (1, 3, 4) else provider,
            "challenger": max(0, challenger - used) if self.state.phase == 2 else challenger,
        }

    def waits_for(self) -> str:
        """What the game waits for, in words."""
        if self.record.finished is not None:
            return "over"
        return _WAITS.get(int(self.state.phase), "–") if self.state is not None else "–"

    def outcome(self) -> str:
        """How it ended; empty while it goes on."""
        return _OUTCOMES.get(self.record.finished.outcome, "?") if self.record.finished is not None else ""

    def votes(self, ballot: int) -> list[tuple[int, Address | None, str]]:
        """(seat, referee, vote) of a ballot; the vote is empty while unheard, `bound` while only its hash is known."""
        found = []
        for seat in self.record.voters(ballot):
            vote = self.record.votes.get((ballot, seat))
            text = "" if vote is None else "bound" if vote == 0 else _VERDICTS[vote]
            found.append((seat, self.seats.get(seat), text))
        return found

    def money(self) -> list[tuple[str, int]]:
        """Who got what, token units, once it is over: of the slash, the bonds and the seats."""
        finished = self.record.finished
        if finished is None:
            return []
        told = sum(1 for vote in self.record.votes.values() if vote)
        rows = [
            ("slashed from the provider", int(finished.slashed)),
            ("to the challenger: bond, share", int(finished.to_challenger)),
            ("to the provider", int(finished.to_provider)),
            (f"to referees, for {told} votes", told * int(finished.seat_fee)),
            ("kept for the tenant", int(finished.for_tenant)),
        ]
        for applied in self.applied:
            rows.append(("to the tenant: held pay, by Market", int(applied.held)))
            rows.append(("to the tenant: from the slash", int(applied.for_tenant)))
            rows.append(("to the challenger: not needed by the tenant", int(applied.for_challenger)))
        return [(name, amount) for name, amount in rows if amount]

    def usd(self, amount: int) -> str:
        """An amount in dollars."""
        return f"${format_usd(amount, self.decimals)}"

    def facts(self) -> dict[str, Any]:
        """All of it as a JSON value; amounts are decimal strings of token units, times Unix seconds of chain time."""
        record, made = self.record, self.commitment
        return {
            "game": record.game,
            "channel": record.channel,
            "provider": made.provider,
            "tenant": made.tenant,
            "challenger": record.challenger,
            "about": "the end of the trace" if record.end else "a leaf",
            "leaves": made.leaves,
            "spans": [list(span) for span in self.spans()],
            "leaf": record.leaf or None,
            "waits_for": self.waits_for(),
            "clocks": self.clocks(),
            "bond": str(self.preset.bond) if self.preset else None,
            "moves": [{"at": at, "what": what} for at, what in self.lines()],
            "votes": [
                {"ballot": ballot, "seat": seat, "referee": who, "vote": vote}
                for ballot in (1, 2)
                for seat, who, vote in self.votes(ballot)
            ],
            "appellant": _PLAYERS.get(record.appellant),
            "outcome": self.outcome() or None,
            "money": {name: str(amount) for name, amount in self.money()},
        }

    # ----------------------------------------------------------------------------------------------------------- words

    def lines(self) -> list[tuple[int, str]]:
        """(chain time, one line) for each move."""
        spans, found, picks = self.spans(), [], 0
        for move in self.record.moves:
            kind = type(move.event).__name__
            if kind == "Picked":
                picks += 1
                low, high = spans[min(picks, len(spans) - 1)]
                text = f"challenger picks: leaf {low}" if low == high else f"challenger picks: leaves {low} to {high}"
            else:
                text = self._line(kind, move.event)
            if text:
                found.append((move.at, text))
        return found

    def _line(self, kind: str, event: Any) -> str:
        match kind:
            case "Challenged":
                what = "the end of the trace" if event.end else f"a leaf of {self.commitment.leaves}"
                bond = f", bond {self.usd(self.preset.bond)}" if self.preset else ""
                return f"{short(event.challenger)} challenges {what}{bond}"
            case "Expanded":
                return "provider shows 16 nodes"
            case "LeafOpened":
                return f"leaf {event.leaf} is open: {short(event.before)} → {short(event.after)}"
            case "DrawAwaited":
                return f"a jury is drawn by round {event.round} of the beacon"
            case "Drawn":
                return f"jury: seats {', '.join(str(seat) for seat in self.record.voters(1))}"
            case "VoteCommitted":
                return f"seat {event.seat} binds its vote"
            case "VoteRevealed":
                return f"seat {event.seat} votes: {_VERDICTS.get(event.verdict, '?')}"
            case "Appealed":
                return f"the {_PLAYERS.get(event.appellant, '?')} appeals: the whole pool votes"
            case "Fined":
                return f"{short(event.referee)} was silent: fined {self.usd(event.amount)}"
            case "Finished":
                return f"{_OUTCOMES.get(event.outcome, '?')}: slashed {self.usd(event.slashed)}"
            case _:
                return {"Deepened": "challenger asks for the step's operators"}.get(kind, kind)

    def render(self) -> RenderableType:
        """What to draw now, 80 columns or more."""
        from rich.console import Group
        from rich.panel import Panel
        from rich.rule import Rule
        from rich.text import Text

        told = [text for _, text in self.lines()][-LINES_SHOWN:]
        moves = Text("\n".join([*told, *[""] * (LINES_SHOWN - len(told))]), style="dim", no_wrap=True)
        title = Text.assemble((" dispute ", "bold"), (f" game {self.record.game} ", "bold cyan"))
        parts = [
            self._facts(),
            Rule("leaves in question", style="dim"),
            self._bars(),
            Rule("moves", style="dim"),
            moves,
        ]
        money = self.money()
        if money:
            text = Text("\n".join(f"{self.usd(amount):>14}  {name}" for name, amount in money), style="bold")
            parts += [Rule("who got what", style="dim"), text]
        return Panel(Group(*parts), title=title, title_align="left", border_style="dim")

    def _facts(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold", no_wrap=True, width=10)
        grid.add_column(overflow="fold")
        outcome = self.outcome()
        colour = {"convicted": "bold red", "acquitted": "bold green"}.get(outcome, "cyan")
        grid.add_row("state", Text(outcome or self.waits_for(), style=colour))
        clocks = self.clocks()
        for name, who in (("provider", self.commitment.provider), ("challenger", self.record.challenger)):
            left = f"   {format_duration(clocks[name])} left" if clocks and not outcome else ""
            grid.add_row(name, Text(short(who) + left))
        for ballot, name in ((1, "jury"), (2, "pool")):
            votes = self.votes(ballot)
            if votes:
                grid.add_row(name, self._ballot(votes))
        return grid

    def _ballot(self, votes: list[tuple[int, Address | None, str]]) -> RenderableType:
        from rich.text import Text

        styles = {"": "dim", "bound": "yellow", "follows": "green", "does not follow": "red"}
        text = Text()
        for seat, who, vote in votes:
            text.append(f"{seat} {short(who or '–')} ", style="default").append(
                f"{vote or 'silent yet'}   ", styles[vote]
            )
        return text

    def _bars(self) -> RenderableType:
        from rich.text import Text

        text, last = Text(), max(1, self.commitment.leaves)
        for low, high in self.spans():
            begin = BAR * low // last
            end = max(begin + 1, -(-BAR * (high + 1) // last))
            text.append("━" * begin, style="dim").append("━" * (end - begin), style="bold red")
            text.append("━" * (BAR - end), style="dim")
            text.append(f"  {low}\n" if low == high else f"  {low} – {high}\n")
        text.rstrip()
        return text


def new_lines(before: int, view: GameView) -> tuple[int, list[str]]:
    """How many moves are told now, and the lines of those after the first `before`."""
    lines = view.lines()
    return len(lines), [text for _, text in lines[before:]]
