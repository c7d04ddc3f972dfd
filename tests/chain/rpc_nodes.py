"""RPC servers on loopback that behave as told: late, wrong, lying, forgetful; or in front of a real node."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anyio
import httpx

from fixtures import SystemClock


class RpcFault(Exception):
    """Answer a call with this JSON-RPC error."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({"data": data} if data else {})


class Node:
    """A server; `answer(method, params)` gives a result. `mode` is ok, http500, garbage, deep, hang or nobatch."""

    def __init__(self, answer: Callable[[str, list[Any]], Any]) -> None:
        self.answer = answer
        self.mode = "ok"
        self.asked: list[str] = []
        self.released = threading.Event()
        self.url = ""

    def respond(self, body: Any) -> Any:
        """The JSON-RPC answer to one call or a batch."""
        if isinstance(body, list):
            if self.mode == "nobatch":
                return {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "no batches"}}
            return [self.respond(call) for call in reversed(body)]  # order is free in JSON-RPC
        self.asked.append(body["method"])
        answer = {"jsonrpc": "2.0", "id": body["id"]}
        try:
            return answer | {"result": self.answer(body["method"], body["params"])}
        except RpcFault as fault:
            return answer | {"error": fault.body}


@contextmanager
def serving(answer: Callable[[str, list[Any]], Any]) -> Iterator[Node]:
    """A running `Node` on a free port."""
    node = Node(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if node.mode == "hang":
                node.released.wait(30)
            wrong = {"garbage": b"<html>", "deep": b"[" * 200_000}
            data = wrong.get(node.mode) or json.dumps(node.respond(body)).encode()
            self.send_response(500 if node.mode == "http500" else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that gave up is what some tests are about

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    node.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield node
    finally:
        node.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def forwarding(url: str) -> Callable[[str, list[Any]], Any]:
    """An `answer` that asks the real node at `url`."""
    client = httpx.Client(trust_env=False)

    def answer(method: str, params: list[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = client.post(url, json=body).json()
        if "error" in reply:
            raise RpcFault(reply["error"]["code"], reply["error"]["message"], reply["error"].get("data"))
        return reply["result"]

    return answer


def blocks(count: int, salt: str = "a", chain_id: int = 7) -> Callable[[str, list[Any]], Any]:
    """An `answer` that knows `count` empty blocks of a branch named by one hex digit, `salt`."""

    def block(number: int) -> dict[str, str] | None:
        if not 0 <= number < count:
            return None
        return {
            "number": hex(number),
            "hash": f"0x{salt}{number:063x}",
            "parentHash": f"0x{salt}{max(0, number - 1):063x}",
            "timestamp": hex(1000 + number),
        }

    def answer(method: str, params: list[Any]) -> Any:
        match method:
            case "eth_chainId":
                return hex(chain_id)
            case "eth_blockNumber":
                return hex(count - 1)
            case "eth_getBlockByNumber":
                return block(count - 1 if params[0] == "latest" else int(params[0], 16))
        raise RpcFault(-32601, f"no method {method}")

    return answer


class FastClock(SystemClock):
    """A clock on which a second takes a fiftieth of one: for time limits, never for order."""

    RATE = 50.0

    def monotonic(self) -> float:
        """Fast seconds."""
        return super().monotonic() * self.RATE

    async def sleep(self, seconds: float) -> None:
        """Wait for fast seconds."""
        await anyio.sleep(seconds / self.RATE)
