"""Gas of every call, from receipts: benches/gas.json.

    python benches/bench_gas.py             measure on anvil (py-evm transactions where anvil is missing) and write
    python benches/bench_gas.py --print     measure and print, write nothing

A change shows as a diff of gas.json; `tests/contracts/test_gas.py` holds the figures within 24 gas on py-evm.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "contracts"))

import gas_scenes  # noqa: E402
import httpx  # noqa: E402
from evm import CHAIN_ID, NOBODY, START, Log, PyEvm, Reverted  # noqa: E402

from minga.chain.anvil import VERSION, find_anvil  # noqa: E402
from minga.core.errors import MissingPrerequisite  # noqa: E402

PATH = ROOT / "benches" / "gas.json"
GAS_LIMIT = 10_000_000
DEADLINE_SECONDS = 20.0


class Anvil:
    """A fresh anvil as a `Machine`: each call of a party is a mined transaction, each of nobody a read."""

    def __init__(self, program: Path) -> None:
        self.now, self.number, self.gas_used = START, 1, 0
        self._receipt: dict[str, Any] = {}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [str(program), "--silent", "--port", str(port), "--auto-impersonate", "--chain-id", str(CHAIN_ID)]
        command += ["--hardfork", "cancun", "--timestamp", str(START), "--base-fee", "0", "--gas-price", "0"]
        self._process = subprocess.Popen(command)
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE_SECONDS)
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                assert int(self._rpc("eth_chainId"), 16) == CHAIN_ID
                return
            except httpx.ConnectError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise

    def close(self) -> None:
        """Stop it."""
        self._http.close()
        self._process.terminate()
        self._process.wait(DEADLINE_SECONDS)

    def _rpc(self, method: str, *params: Any) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = self._http.post("/", json=body).json()
        if "error" in answer:
            data = answer["error"].get("data")
            raise Reverted(bytes.fromhex(data[2:]) if isinstance(data, str) else b"", str(answer["error"]))
        return answer["result"]

    def _transact(self, sender: str, to: str | None, data: bytes) -> dict[str, Any]:
        self.now += 1
        self._rpc("evm_setNextBlockTimestamp", self.now)
        call = {"from": sender, "data": "0x" + data.hex(), "gas": hex(GAS_LIMIT), "gasPrice": "0x0"}
        transaction = self._rpc("eth_sendTransaction", call | ({"to": to} if to else {}))
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (receipt := self._rpc("eth_getTransactionReceipt", transaction)) is None:
            assert time.monotonic() < deadline, "anvil mined nothing"
        self._receipt = dict(receipt)
        self.gas_used = int(receipt["gasUsed"], 16)
        if receipt["status"] != "0x1":
            raise Reverted(b"", f"transaction {transaction} failed")
        return self._receipt

    def deploy_code(self, sender: str, code: bytes) -> str:
        """Deploy init code; the address."""
        return str(self._transact(sender, None, code)["contractAddress"]).lower()

    def message(self, sender: str, to: str, data: bytes, gas: int | None = None) -> bytes:
        """A read of nobody's, or a mined transaction (which gives no return data)."""
        if sender == NOBODY:
            return bytes.fromhex(self._rpc("eth_call", {"to": to, "data": "0x" + data.hex()}, "latest")[2:])
        self._transact(sender, to, data)
        return b""

    def logs(self) -> list[Log]:
        """The events of the last transaction."""
        return [
            Log(
                log["address"].lower(),
                tuple(bytes.fromhex(topic[2:]) for topic in log["topics"]),
                bytes.fromhex(log["data"][2:]),
            )
            for log in self._receipt["logs"]
        ]

    def set_time(self, now: int) -> None:
        """The time of the next transaction, at least."""
        self.now = now

    def set_block(self, number: int) -> None:
        """Make blocks until there are so many."""
        self.number = int(self._rpc("eth_blockNumber"), 16)
        if number > self.number:
            self._rpc("anvil_mine", hex(number - self.number))
            self.number = number

    def mark(self) -> Any:
        """Not needed here."""
        raise NotImplementedError("scenes go forward only")

    def back_to(self, mark: Any) -> None:
        """Not needed here."""
        raise NotImplementedError("scenes go forward only")


def measure() -> tuple[str, dict[str, int]]:
    """Where it was measured, and gas by scene."""
    try:
        program = find_anvil(os.environ)
    except MissingPrerequisite as error:
        print(f"{error}; measuring with py-evm transactions instead")
        return "py-evm transactions", gas_scenes.measure(lambda: PyEvm(receipts=True))
    started: list[Anvil] = []

    def fresh() -> Anvil:
        started.append(Anvil(program))
        return started[-1]

    try:
        return f"anvil {VERSION} receipts", gas_scenes.measure(fresh)
    finally:
        for machine in started:
            machine.close()


def main(arguments: list[str]) -> int:
    """Measure; write unless told otherwise."""
    where, gas = measure()
    text = json.dumps({"measured_on": where} | gas, indent=1) + "\n"
    print(text, end="")
    if arguments != ["--print"]:
        PATH.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
