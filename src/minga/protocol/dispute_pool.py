"""The referees of Disputes: who has which of the 63 seats, with what stake. Part of the specification.

What it is: seats that are taken, given up and freed, and what silence costs. What it does not know: tokens (amounts are
told), games beyond their number. Rule: a stake is free only when every game that its seat could judge must have ended.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from minga.core.crypto import Address
from minga.protocol.dispute import AMOUNT_MAX, FINE_PART, SEATS, Preset
from minga.protocol.stake import require


@dataclass(frozen=True, slots=True)
class Seat:
    """`stake` is token units; `joined` the number of games there were; `free_at` chain time, zero while active."""

    referee: Address
    stake: int
    joined: int
    free_at: int = 0


@dataclass
class Pool:
    """All seats, by number."""

    preset: Preset
    seats: dict[int, Seat] = field(default_factory=dict)

    @property
    def active(self) -> int:
        """The set of seats that judge games which begin now."""
        return sum(1 << number for number, seat in self.seats.items() if not seat.free_at)

    @property
    def stakes(self) -> int:
        """All stakes, token units."""
        return sum(seat.stake for seat in self.seats.values())

    def number_of(self, referee: Address) -> int | None:
        """The referee's seat."""
        return next((number for number, seat in self.seats.items() if seat.referee == referee), None)

    def is_free(self, number: int, now: int) -> bool:
        """Whether the seat's owner has left for good, or nobody has it."""
        return number not in self.seats or 0 < self.seats[number].free_at <= now

    def check_join(self, referee: Address, amount: int, now: int) -> tuple[int, int]:
        """The seat that the referee would have, and its stake in all.

        Raises:
            ContractError: it is leaving, the pool is full, or the stake is out of range.
        """
        number = self.number_of(referee)
        known = 0
        if number is not None and not self.is_free(number, now):
            require(not self.seats[number].free_at, "disputes: leaving")
            known = self.seats[number].stake
        else:
            number = next((seat for seat in range(SEATS) if self.is_free(seat, now)), SEATS)
            require(number < SEATS, "disputes: pool is full")
        require(known + amount >= self.preset.referee_stake, "disputes: stake too small")
        require(known + amount <= AMOUNT_MAX, "disputes: stake too large")
        return number, known + amount

    def join(self, referee: Address, amount: int, games: int, now: int) -> list[Seat]:
        """Take a seat, or add to its stake; `games` is how many there were. The seats that this freed."""
        number, stake = self.check_join(referee, amount, now)
        if number in self.seats and not self.is_free(number, now):
            self.seats[number] = replace(self.seats[number], stake=stake)
            return []
        freed = [self.seats.pop(seat) for seat in {number, self.number_of(referee)} if seat in self.seats]
        self.seats[number] = Seat(referee, stake, games)
        return freed

    def leave(self, referee: Address, now: int) -> None:
        """Judge no new games."""
        number = self.number_of(referee)
        require(number is not None and not self.seats[number].free_at, "disputes: not a referee")
        self._retire(number or 0, now)

    def free_stake(self, referee: Address, now: int) -> int:
        """What the referee could take now, token units."""
        number = self.number_of(referee)
        return self.seats[number].stake if number is not None and self.is_free(number, now) else 0

    def free(self, referee: Address, now: int) -> None:
        """Give up the seat of a referee whose stake is free."""
        number = self.number_of(referee)
        if number is not None and self.is_free(number, now):
            del self.seats[number]

    def was_in(self, number: int, game: int) -> bool:
        """Whether the seat's present owner had it when the game began."""
        return number in self.seats and self.seats[number].joined < game

    def fine(self, number: int, times: int, now: int) -> int:
        """Take what silence in `times` votings costs a referee, token units; below half a stake it has to leave."""
        seat = self.seats[number]
        taken = min(seat.stake, times * self.preset.referee_stake // FINE_PART)
        self.seats[number] = replace(seat, stake=seat.stake - taken)
        if seat.stake - taken < self.preset.referee_stake // 2 and not seat.free_at:
            self._retire(number, now)
        return taken

    def _retire(self, number: int, now: int) -> None:
        self.seats[number] = replace(self.seats[number], free_at=now + self.preset.game_seconds_max)
