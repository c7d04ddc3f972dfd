"""The chain of the simulated world: the executable specification of Market under blocks, a mempool and reorgs.

Blocks come every `BLOCK_S` seconds; those without transactions are only counted. A reorg takes the newest blocks back:
their transactions are included again later, in another order, or are forgotten until their sender sends them again.
A node sees the chain through its own RPC, which may lag, say nothing, or refuse what the chain would take.

Rule: what anybody decides about money it decides on the state at depth `confirmations`. What it does not know: who is
honest. Every block is judged by `observer` at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minga.core.crypto import Address, Hash32
from minga.core.eip712 import Domain
from minga.core.errors import ContractError, RpcUnavailable
from minga.protocol.lease import Lease
from minga.protocol.market import Market
from minga.protocol.messages import Offer
from minga.protocol.stake import Ledger, Registry
from minga.sim.chain_state import Closing, State
from minga.sim.kernel import EPOCH, SECOND, Kernel, Signal
from minga.sim.nodes import Node

BLOCK_S = 2
KEPT = 40
FEE_BPS = 100
MARKET = Address("0x" + "4d" * 20)
REGISTRY = Address("0x" + "52" * 20)
FEES = Address("0x" + "fe" * 20)
AGAIN_S = 5.0


Call = Callable[["SimChain", int], Any]
"""What a transaction does at chain time: its result, or a ContractError."""


@dataclass(eq=False)
class Transaction:
    """One deed of one sender. `block` is where it stands now, None while it waits or was forgotten."""

    sender: str
    effect: str
    call: Call
    block: int | None = None
    waiting: bool = False
    result: Any = None
    error: ContractError | None = None


@dataclass
class Block:
    """A block that holds something, and the state after it."""

    number: int
    transactions: list[Transaction]
    state: State
    opened: list[tuple[Lease, Offer, int]] = field(default_factory=list)


class SimChain:
    """See the module. `market` is the live specification, at the head."""

    def __init__(self, kernel: Kernel, confirmations: int) -> None:
        """An empty market; money is given out by `mint` before anything happens."""
        self.kernel = kernel
        self.confirmations = confirmations
        self.domain = Domain(1337, MARKET)
        ledger = Ledger()
        self.market = Market(self.domain, Registry(REGISTRY, ledger), FEE_BPS, FEES)
        self.closings: dict[Hash32, Closing] = {}
        self.deposits: dict[Hash32, int] = {}
        self.by_provider: dict[Address, tuple[Hash32, ...]] = {}
        self.gifts: dict[Hash32, int] = {}
        self.checked: dict[tuple[Offer, bytes], Hash32 | None] = {}
        self.minted = 0
        self.changed = Signal(kernel)
        self.mempool: list[Transaction] = []
        self.observer: Callable[[Block], None] = lambda block: None
        self.transactions = 0
        self._mining = False
        self.opened: list[tuple[Lease, Offer, int]] = []
        self.blocks = [Block(-1, [], self.snapshot())]

    # ---------------------------------------------------------------------------------------------------- the ledger

    def mint(self, owner: Address, amount: int) -> None:
        """Money at the beginning."""
        ledger = self.market.ledger
        ledger.balances[owner] = ledger.balance(owner) + amount
        self.minted += amount
        self.blocks[-1].state = self.snapshot()

    def register(self, provider: Address, agent: Address) -> None:
        """A provider at the beginning."""
        self.market.registry.register(provider, agent)
        self.blocks[-1].state = self.snapshot()

    def snapshot(self) -> State:
        """All of it, as it stands."""
        market, ledger = self.market, self.market.ledger
        return State(
            market.leases, market.accounts, market.leased, market.epochs, market.owed, market.fees, ledger.balances,
            ledger.allowances, market.registry.agents, self.deposits, self.closings, self.by_provider,
            self.gifts,
        ).copy()  # fmt: skip

    def _restore(self, state: State) -> None:
        market, old = self.market, state.copy()
        market.leases, market.accounts, market.leased = old.leases, old.accounts, old.leased
        market.epochs, market.owed, market.fees = old.epochs, old.owed, old.fees
        market.ledger.balances, market.ledger.allowances = old.balances, old.allowances
        market.registry.agents = old.agents
        self.deposits, self.closings, self.by_provider = old.deposits, old.closings, old.by_provider
        self.gifts = old.gifts

    # -------------------------------------------------------------------------------------------------------- blocks

    @property
    def head(self) -> int:
        """Number of the newest block."""
        return self.kernel.now // (BLOCK_S * SECOND)

    @property
    def time(self) -> int:
        """Chain time now: the newest block's."""
        return EPOCH + self.head * BLOCK_S

    def submit(self, transaction: Transaction) -> None:
        """Into the mempool, for the next block."""
        if not transaction.waiting and transaction.block is None:
            transaction.waiting = True
            self.mempool.append(transaction)
            if not self._mining:
                self._mining = True
                self.kernel.at((self.head + 1) * BLOCK_S * SECOND, self._mine)

    def _mine(self) -> None:
        self._mining = False
        if not self.mempool:
            return
        taken, self.mempool = self.mempool, []
        block = Block(self.head, taken, self.blocks[-1].state)
        self.opened = block.opened
        for transaction in taken:
            self._execute(transaction, block.number)
        block.state = self.snapshot()
        self.blocks.append(block)
        del self.blocks[: max(0, self._oldest_needed())]
        self.kernel.note(f"block {block.number}: {len(taken)}")
        self.observer(block)
        deep = (block.number + self.confirmations) * BLOCK_S * SECOND
        self.kernel.at(deep, self.changed.notify)

    def _oldest_needed(self) -> int:
        """How many blocks at the beginning no view and no reorg asks for any more."""
        old = self.head - self.confirmations - KEPT
        return sum(1 for block in self.blocks[1:] if block.number <= old)

    def _execute(self, transaction: Transaction, number: int) -> None:
        transaction.waiting, transaction.block = False, number
        transaction.result = transaction.error = None
        self.transactions += 1
        try:
            transaction.result = transaction.call(self, EPOCH + number * BLOCK_S)
        except ContractError as error:
            transaction.error = error
        what = transaction.error.fact if transaction.error else "done"
        self.kernel.note(f"tx {transaction.sender} {transaction.effect}: {what}")

    def reorg(self, depth: int, forget: float = 0.3) -> None:
        """Take the newest `depth` blocks back; what was in them comes again, in another order, or is forgotten."""
        first = self.head - depth + 1
        undone = [block for block in self.blocks[1:] if block.number >= first]
        self.kernel.note(f"reorg of {depth} blocks, {len(undone)} with transactions")
        if not undone:
            return
        self.blocks = [block for block in self.blocks if block not in undone]
        self._restore(self.blocks[-1].state)
        orphans = [transaction for block in undone for transaction in block.transactions]
        self.kernel.dice.shuffle(orphans)
        for transaction in orphans:
            transaction.block, transaction.result, transaction.error = None, None, None
            if not self.kernel.chance(forget):
                self.submit(transaction)
        self.changed.notify()

    def state_at(self, number: int) -> State:
        """The state after block `number`."""
        for block in reversed(self.blocks):
            if block.number <= number:
                return block.state
        return self.blocks[0].state

    # ---------------------------------------------------------------------------------------------------- as a node

    def _ask(self, node: Node) -> None:
        if self.kernel.now < node.cut_until or self.kernel.chance(node.lies / 2):
            raise RpcUnavailable("no url of the network answers", "see the network's rpc_urls")

    def view(self, node: Node) -> State:
        """The state at depth, as `node` may read it.

        Raises:
            RpcUnavailable: its RPC says nothing.
        """
        self._ask(node)
        return self.state_at(self.head - self.confirmations - node.lag)

    def latest(self, node: Node) -> State:
        """The newest state that `node` is shown; a liar shows it an old one.

        Raises:
            RpcUnavailable: its RPC says nothing.
        """
        self._ask(node)
        old = self.kernel.dice.randrange(30) if self.kernel.chance(node.lies) else 0
        return self.state_at(self.head - node.lag - old)

    async def send(self, node: Node, effect: str, call: Call) -> Transaction:
        """Do something on the chain, once for each effect id of a node; returns at depth.

        Raises:
            ContractError: refused, at once or on the chain.
            RpcUnavailable: not known; call again with the same id.
        """
        sent: Transaction | None = node.transactions.get(effect)
        if sent is None:
            self._ask(node)
            if self.kernel.chance(node.lies / 2):
                raise ContractError("market: transfer failed")
            node.reach("chain.send.planned")
            sent = node.transactions[effect] = Transaction(node.name, effect, call)
            node.reach("chain.send.journaled")
        while not self.deep(sent):
            if sent.block is None and not sent.waiting and self.kernel.now >= node.cut_until:
                self.submit(sent)
            if sent.block is None:
                await self.kernel.sleep(BLOCK_S if sent.waiting else AGAIN_S)
            else:
                await self.kernel.sleep(max(0.5, (sent.block + self.confirmations - self.head) * BLOCK_S))
        if sent.error is not None:
            raise sent.error
        node.reach("chain.send.mined")
        return sent

    def settle(self, node: Node) -> None:
        """Send again what a reorg or a kill dropped."""
        if self.kernel.now >= node.cut_until:
            for transaction in node.transactions.values():
                if transaction.block is None and not transaction.waiting:
                    self.submit(transaction)

    def deep(self, transaction: Transaction) -> bool:
        """Whether it stands at the depth at which it counts."""
        return transaction.block is not None and self.head - transaction.block >= self.confirmations
