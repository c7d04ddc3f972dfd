"""The engine's HTTP server: OpenAI's shapes, whole or streamed. Knows nothing of how a reply is computed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .asks import Ask, Refused, ask_of
from .model import Engine, Reply

BODY_BYTES_MAX = 8 << 20


def head_of(engine: Engine, ask: Ask, stream: bool) -> dict[str, Any]:
    """What every object of one answer begins with."""
    kind = ("chat.completion.chunk" if stream else "chat.completion") if ask.chat else "text_completion"
    prefix = "chatcmpl" if ask.chat else "cmpl"
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": engine.name,
        "system_fingerprint": f"{engine.torch.__version__}/{engine.model.dtype}",
    }


def logprobs_of(entries: list[dict[str, Any]], chat: bool) -> dict[str, Any]:
    """Log-probabilities in the shape of the route."""
    if chat:
        return {"content": entries}
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{item["token"]: item["logprob"] for item in entry["top_logprobs"]} for entry in entries],
    }


def choice(ask: Ask, text: str, ended: str, logprobs: list[dict[str, Any]], piece: bool) -> dict[str, Any]:
    """The one choice of an answer, or of a piece of it."""
    body: dict[str, Any] = {"index": 0, "finish_reason": ended or None, "logprobs": None}
    if ask.top_logprobs is not None:
        body["logprobs"] = logprobs_of(logprobs, ask.chat)
    if not ask.chat:
        return {**body, "text": text}
    return (
        {**body, "delta": {"content": text}} if piece else {**body, "message": {"role": "assistant", "content": text}}
    )


class Handler(BaseHTTPRequestHandler):
    """One connection; a server's `engine` answers."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Health and the model's card."""
        engine = self.server.engine
        if self.path == "/health":
            self.answer(200, {"ok": True, "waiting": engine.waiting})
        elif self.path == "/v1/models":
            self.answer(200, {"object": "list", "data": [engine.card()]})
        else:
            self.refuse(Refused(f"there is no {self.path[:80]}", status=404))

    def do_POST(self) -> None:
        """A reply."""
        routes = {"/v1/chat/completions": True, "/v1/completions": False}
        try:
            body = self.body()  # read whatever the route, or it would be taken for the next request
            if self.path not in routes:
                raise Refused(f"there is no {self.path[:80]}", status=404)
            engine = self.server.engine
            self.reply(ask_of(body, routes[self.path], engine.name, engine.prompt_of))
        except Refused as error:
            self.refuse(error)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # nobody reads on: the rest is not computed

    def body(self) -> Any:
        """The request's JSON.

        Raises:
            Refused: too large, or not JSON.
        """
        length = self.headers.get("content-length", "")
        if not length.isdigit() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise Refused(f"the body must be at most {BODY_BYTES_MAX} bytes, with its length", status=413)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused("the body is not JSON") from None

    def reply(self, ask: Ask) -> None:
        """Compute and send, when it is this request's turn."""
        engine = self.server.engine
        ids, reply, most = engine.begin(ask)
        head = head_of(engine, ask, ask.stream)
        engine.waiting += 1
        with engine.lock:
            try:
                if ask.stream:
                    self.stream(ask, head, reply, engine.generate(ask, ids, reply, most))
                else:
                    text = "".join(engine.generate(ask, ids, reply, most))
                    whole_choice = choice(ask, text, reply.ended, reply.logprobs, False)
                    self.answer(200, {**head, "choices": [whole_choice], "usage": reply.usage()})
            finally:
                engine.waiting -= 1

    def stream(self, ask: Ask, head: dict[str, Any], reply: Reply, pieces: Iterator[str]) -> None:
        """Send the reply piece by piece."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if ask.chat:
            first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None, "logprobs": None}
            self.event({**head, "choices": [first]})
        told = 0
        for text in pieces:
            new = reply.logprobs[told:]
            if text or reply.ended:
                self.event({**head, "choices": [choice(ask, text, reply.ended, new, True)]})
                told = len(reply.logprobs)
        if ask.usage_in_stream:
            self.event({**head, "choices": [], "usage": reply.usage()})
        self.chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def event(self, value: dict[str, Any]) -> None:
        """One server-sent event."""
        self.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        """One chunk of the body."""
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def refuse(self, error: Refused) -> None:
        """Send an error in OpenAI's shape."""
        self.answer(error.status, error.body())

    def answer(self, status: int, value: dict[str, Any]) -> None:
        """Send JSON."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the job's log is for what went wrong."""


class Server(ThreadingHTTPServer):
    """A thread a connection; one of them computes."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, engine: Engine) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.engine = engine
