"""How a simulated tenant talks to one provider: logged in, tried again while it is silent, and what it keeps.

Rule: silence of the heartbeat window is `ProviderUnreachable`; a wrong answer is `BadAnswer`; a refusal is what it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minga.client.work_clock import WorkClock
from minga.core.crypto import Address, Hash32, keccak, to_hex
from minga.core.errors import (
    BadAnswer,
    Conflict,
    OutOfCapacity,
    ProviderUnreachable,
    RpcUnavailable,
    Unauthorized,
)
from minga.protocol.job_state import Lease
from minga.protocol.messages import Login, sign

if TYPE_CHECKING:
    from minga.sim.tenant import Runner

HEARTBEAT_S = 15.0
RETRY_S = 0.5
COUNT_MAX = 2**53


class Talk:
    """The requests of one lease."""

    def __init__(self, runner: Runner, lease: Lease) -> None:
        """Nothing is sent yet. `lease` is as the journal had it when this process took it up."""
        self.runner = runner
        self.node = runner.node
        self.number = lease.attempt
        self.deal = lease.deal
        self.channel = lease.channel
        self.signer = runner.signer(lease.attempt)
        posted = runner.market[lease.deal.offer]
        self.server, self.speed = posted.provider, posted.terms.speed
        self.unit = posted.terms.unit
        self.token: str | None = None
        self.clock = WorkClock(self.node, lease.elapsed_s, lease.base_s, lease.idle_s)
        self.heard_at = self.node.monotonic()

    # ------------------------------------------------------------------------------------------------- talking at all

    async def call(self, what: str, *args: Any, wait_s: float = 10.0) -> Any:
        """One request of the lease, with its token."""
        method = getattr(self.server, what)
        return await self.runner.wires.call(
            self.node, self.server.node, method, self.channel, self.token, *args, wait_s=wait_s
        )

    async def ask(self, what: str, *args: Any, patience_s: float = HEARTBEAT_S) -> Any:
        """The result of a request: logged in first, tried again while the provider is silent."""
        until = self.node.monotonic() + patience_s
        while True:
            token = None
            try:
                if self.token is None:
                    await self._log_in()
                token = self.token
                return await self.call(what, *args, wait_s=max(0.5, min(10.0, until - self.node.monotonic())))
            except Unauthorized:
                if token is None or self.node.monotonic() > until:
                    raise
                if self.token == token:
                    self.token = None
            except (ProviderUnreachable, RpcUnavailable, OutOfCapacity, BadAnswer):
                if self.node.monotonic() > until:
                    raise
            except Conflict as error:
                if not error.details.get("retry") or self.node.monotonic() > until:
                    raise
            await self.node.kernel.sleep(RETRY_S)

    async def _log_in(self) -> None:
        runner, now = self.runner, self.node.now()
        nonce = Hash32(to_hex(keccak(f"{self.node.name}/{self.node.kernel.dice.getrandbits(64)}".encode())))
        message = Login(Hash32(self.channel), Address(self.deal.provider), now, nonce)
        signature = sign(message, runner.chain.domain, self.signer)  # type: ignore[arg-type]
        token = await runner.wires.call(
            self.node, self.server.node, self.server.login, self.channel, message, signature,
            runner.wallet.address, self.signer.address,
        )  # fmt: skip
        if not isinstance(token, str):
            raise BadAnswer("the token is no text", "choose another provider")
        self.token = token


class Keeper:
    """The tenant's disk: the last two checkpoints by (attempt, number), and the results."""

    def __init__(self) -> None:
        """Empty."""
        self.checkpoints: dict[tuple[int, int], bytes] = {}
        self.results: dict[int, bytes] = {}

    def keep(self, attempt: int, number: int, content: bytes) -> None:
        """Make a checkpoint durable; older ones than the last two go."""
        self.checkpoints[attempt, number] = content
        for old in sorted(self.checkpoints)[:-2]:
            del self.checkpoints[old]

    def newest(self) -> bytes | None:
        """The content of the newest."""
        return self.checkpoints[max(self.checkpoints)] if self.checkpoints else None


def count(value: Any) -> int:
    """A whole number that a provider told. Raises BadAnswer."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= COUNT_MAX:
        raise BadAnswer(f"{str(value)[:40]!r} is not a count", "choose another provider")
    return value


__all__ = ["HEARTBEAT_S", "RETRY_S", "Keeper", "Talk", "count"]
