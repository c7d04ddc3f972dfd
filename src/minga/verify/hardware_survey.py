"""Poses challenges, times them by the verifier's clock, and has the answers checked.

Knows the wire messages and the checks; not how they travel: `ask` carries one request (over HTTP from a tenant, over
a socket from an owner who measures). Rule: seeds are drawn when they are needed, a clock runs from request to
commitment and stops before openings travel, and only rounds whose answer was checked may speak for a machine.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import anyio.to_thread

from minga.core.effects import Clock, Dice
from minga.core.errors import BadAnswer, ProviderUnreachable
from minga.core.spec import Speed, UnitSize
from minga.protocol.wire import ProbeAnswer, ProbeRequest
from minga.verify import hardware as hw
from minga.verify import hardware_checks as checks
from minga.verify import hardware_math as hm

Ask = Callable[[ProbeRequest], Awaitable[ProbeAnswer]]
Kind = Literal["start", "duty"]
PINGS = 3
TRIES = 40
LINK_BYTES = 1 << 20
OPENING_BYTES_MAX = 64 << 20


def no_idle() -> float:
    """For verifiers that cannot see CPUs stand idle."""
    return 0.0


@dataclass(frozen=True)
class Proof:
    """A round and how to check its answer."""

    timed: hw.Round
    digest: str
    size: int
    check: Callable[[bytes], bool]
    wrong: str


@dataclass
class Survey:
    """One session with one prover.

    `idle` gives CPU seconds that this machine stood idle so far; `cpus` how many it has, if the prover is on it too:
    a unit that claims more than that cannot have them. `facts` are the prover's own words when it began.
    """

    ask: Ask
    clock: Clock
    dice: Dice
    kind: Kind
    size: UnitSize
    units: int
    setting: hw.Setting = field(default_factory=hw.Setting)
    idle: Callable[[], float] = no_idle
    cpus: int = 0
    rounds: list[hw.Round] = field(default_factory=list)
    wrong: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numpy = checks.numpy_or_none()
        self._proofs: list[Proof] = []
        self._filled: tuple[bytes, int] = (b"", 0)
        self.rtt_s = 0.0
        threads = hw.threads_of(self.size, self.units)
        self.threads = min(threads, self.cpus or threads)
        self._opened = self.clock.monotonic()

    async def open(self) -> None:
        """Begin the session (not timed), then find the shortest round trip.

        Raises:
            ProviderUnreachable: it is longer than `hardware.TRIP_SECONDS_MAX`: a machine that far away, or one to which
                challenges are passed on, cannot be judged. That is no verdict.
        """
        self.facts = (await self._request("ready")).facts
        self._opened = self.clock.monotonic()
        trips = []
        for _ in range(PINGS):
            began = self.clock.monotonic()
            await self._request("ready")
            trips.append(self.clock.monotonic() - began)
        self.rtt_s = min(trips)
        if self.rtt_s > hw.TRIP_SECONDS_MAX:
            fact = f"the way to the machine and back takes {self.rtt_s:.2f} s, at most {hw.TRIP_SECONDS_MAX:.1f} s"
            raise ProviderUnreachable(fact, "another provider is tried")

    async def close(self) -> None:
        """End the session; after a failure the prover ends it by itself."""
        await self._request("end")

    # ------------------------------------------------------------------------------------------------------- quantities

    async def gemm(self, mops: int, seconds: float, tries: int = TRIES) -> int:
        """Rounds of compute until one shows enough of `mops`; returns the promise that can be judged from here.

        That is `mops`, or less where what this verifier can check would be done in under three times the way there and
        back: a promise too large to be checked is held to the largest that can be.
        """
        n, links = self.shape(mops, seconds)
        mops = self.judgeable(mops, n, links)
        for _ in range(tries):
            await self.gemm_round(n, links)
            if self._is_enough("gemm_mops", mops) or self._late():
                break
        return mops

    def shape(self, mops: int, seconds: float) -> tuple[int, int]:
        """(n, links) of a chain that takes `seconds` at `mops`, or four times the way there and back."""
        return hw.gemm_shape(mops, max(seconds, 4 * self.rtt_s), self._numpy is not None)

    def judgeable(self, mops: int, n: int, links: int) -> int:
        """As much of a promise as such a chain can show from here; see `gemm`."""
        return min(mops, max(1, int(hw.gemm_amount(n, links) / max(3 * self.rtt_s, 1e-9))))

    async def gemm_round(self, n: int, links: int) -> hw.Round:
        """One chain of an n × n matrix."""
        seed, m = self.dice.bytes(32), hw.columns_of(n)

        def check(opening: bytes) -> bool:
            return checks.gemm_is_right(seed, n, m, links, opening, self.dice, self._numpy)

        request = self._made("gemm", seed, n, m, links)
        what = "an answer to the compute challenge is wrong"
        return await self._timed("gemm_mops", hw.gemm_amount(n, links), request, check, (n * m + 1) // 2, what)

    async def memory(self, chunks: int, mbps: int, tries: int = 3) -> None:
        """Fill so many chunks until it was fast enough for `mbps`, then walk through them until a walk was in time."""
        for _ in range(tries):
            await self.fill_round(chunks)
            if self._is_enough("memory_mbps", mbps) or self._late():
                break
        await self.walks(tries)

    async def fill_round(self, chunks: int) -> hw.Round:
        """Fill so many chunks with another seed; what was filled before is gone."""
        seed = self.dice.bytes(32)
        self._filled = (seed, chunks)
        return await self._timed("memory_mbps", chunks * hm.CHUNK_BYTES / 1e6, self._made("fill", seed, chunks))

    async def walks(self, tries: int = 3) -> None:
        """Walk through what is filled until a walk was in time; if none is, the memory is not all there."""
        fastest, limit = float("inf"), hw.walk_limit(self.setting, self.size)
        for _ in range(tries):
            fastest = min(fastest, await self._walk())
            if fastest <= limit + self.rtt_s:
                return
        self.wrong = (
            f"a walk through {self._filled[1] * hm.CHUNK_BYTES >> 20} MiB took {fastest:.2f} s, at most "
            f"{limit:.2f} s are allowed: the memory is not all there"
        )

    async def _walk(self) -> float:
        walk_seed, (fill_seed, chunks) = self.dice.bytes(32), self._filled
        steps = hw.WALK_STEPS

        def check(opening: bytes) -> bool:
            return checks.walk_is_right((fill_seed, walk_seed), chunks, steps, opening, self.dice, numpy=self._numpy)

        self._proofs = [proof for proof in self._proofs if "memory" not in proof.wrong]
        began = self.clock.monotonic()
        answer = await self.ask(self._made("walk", walk_seed, steps))
        wall = self.clock.monotonic() - began
        kept = hw.Round("memory_mbps", 0.0, max(wall, 1e-9))
        self._proofs.append(
            Proof(kept, answer.digest, steps * hm.WALK_BYTES, check, "an answer to the memory challenge is wrong")
        )
        return wall

    async def disk(self, chunks: int, mbps: int, tries: int = 2) -> None:
        """Write, sync and read so many chunks until it was fast enough."""
        for _ in range(tries if chunks else 0):
            # The filled memory's own chunks, so that making them costs the prover no time.
            seed, nonce = self._filled[0] or self.dice.bytes(32), checks.below(self.dice, 1 << 16)

            def check(opening: bytes, seed: bytes = seed, nonce: int = nonce) -> bool:
                return checks.disk_is_right(seed, nonce, chunks, opening, self.dice, numpy=self._numpy)

            amount = 2 * chunks * hm.CHUNK_BYTES / 1e6
            what = "an answer to the disk challenge is wrong"
            request = self._made("disk", seed, chunks, 0, nonce)
            await self._timed("disk_mbps", amount, request, check, hm.DISK_ANSWER_BYTES * chunks, what)
            if self._is_enough("disk_mbps", mbps) or self._late():
                return

    async def link(self, mbps: int, tries: int = 3) -> None:
        """Fetch bytes over the same connection until it was fast enough."""
        for _ in range(tries):
            seed = self.dice.bytes(32)
            began = self.clock.monotonic()
            answer = await self.ask(self._made("link", seed, LINK_BYTES))
            wall = self.clock.monotonic() - began
            if _decoded(answer.data) != hm.stream(seed, "link", LINK_BYTES):
                self.wrong = "an answer to the link challenge is wrong"
                return
            self.rounds.append(hw.Round("link_mbps", LINK_BYTES / 1e6, max(wall, 1e-9), self.rtt_s))
            if self._is_enough("link_mbps", mbps) or self._late():
                return

    # ----------------------------------------------------------------------------------------------------------- proofs

    async def check(self, promises: Speed) -> None:
        """Fetch and check the answers of the best round of each quantity, and of the walk."""
        best: dict[str, Proof] = {}
        for proof in self._proofs:
            name = proof.timed.quantity
            promise = getattr(promises, name)
            value = hw.rate(proof.timed, promise, self.setting) if proof.timed.amount else 1.0
            held = best.get(name)
            if held is None or value > hw.rate(held.timed, promise, self.setting):
                best[name] = proof
        for proof in best.values():
            opening = await self._opening(proof)
            if hm.digest(opening) != proof.digest or not await anyio.to_thread.run_sync(proof.check, opening):
                self.wrong = proof.wrong
                return

    def speak_for(self, rounds: Iterable[hw.Round]) -> None:
        """Let no timed round but these be checked and counted; walks stay."""
        kept = [id(found) for found in rounds]
        self._proofs = [proof for proof in self._proofs if not proof.timed.amount or id(proof.timed) in kept]
        self.rounds = [found for found in self.rounds if id(found) in kept]

    async def _opening(self, proof: Proof) -> bytes:
        opening = b""
        while len(opening) < proof.size:
            answer = await self.ask(self._made("open", bytes.fromhex(proof.digest), len(opening)))
            piece = _decoded(answer.data)
            if not piece or len(opening) + len(piece) > min(proof.size, OPENING_BYTES_MAX):
                break
            opening += piece
        return opening

    async def _timed(
        self,
        quantity: hw.Quantity,
        amount: float,
        request: ProbeRequest,
        check: Callable[[bytes], bool] | None = None,
        size: int = 0,
        wrong: str = "",
    ) -> hw.Round:
        idle, began = self.idle(), self.clock.monotonic()
        answer = await self.ask(request)
        wall = max(self.clock.monotonic() - began, 1e-9)
        idle_cpus = max(0.0, self.idle() - idle) / wall
        cpu_us = answer.facts.get("cpu_us")
        cpu_s = cpu_us / 1e6 if isinstance(cpu_us, int) and 0 < cpu_us < 2**40 else 0.0
        timed = hw.Round(quantity, amount, wall, self.rtt_s, cpu_s, self.threads, idle_cpus)
        self.rounds.append(timed)
        if check is not None:
            self._proofs.append(Proof(timed, answer.digest, size, check, wrong))
        return timed

    def _is_enough(self, quantity: str, promise: int) -> bool:
        return hw.is_enough(self.rounds, quantity, promise, self.setting)

    def _late(self) -> bool:
        return self.clock.monotonic() - self._opened > hw.RETRY_UNTIL_SECONDS

    def _made(self, what: Any, seed: bytes, size: int = 0, columns: int = 0, links: int = 0) -> ProbeRequest:
        return ProbeRequest(kind=self.kind, what=what, seed="0x" + seed.hex(), size=size, columns=columns, links=links)

    async def _request(self, what: str) -> ProbeAnswer:
        return await self.ask(self._made(what, self.dice.bytes(32)))


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise BadAnswer("an answer to a probe is not base64", "choose another provider") from None
