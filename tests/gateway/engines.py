"""Engines for tests: one that says what it is told to and breaks off on demand, and real ones as processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import minga.workloads
from minga.transport.http import serve

ENGINES = Path(minga.workloads.__file__).parent


@dataclass
class Script:
    """What an engine does: says `words`; breaks off after `breaks_after` of them; answers `status`; stands still."""

    words: list[str] = field(default_factory=lambda: ["once ", "upon ", "a ", "time"])
    breaks_after: int | None = None
    status: int = 200
    body: dict[str, Any] | None = None
    hangs: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/chat/completions", self.chat, methods=["POST"]),
                Route("/v1/embeddings", self.embed, methods=["POST"]),
            ]
        )

    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": 3, "completion_tokens": len(self.words), "total_tokens": 3 + len(self.words)}

    async def embed(self, request: Request) -> Response:
        self.asked.append(await request.json())
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        return JSONResponse({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 4}})

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.status != 200:
            return JSONResponse(self.body, self.status)
        if body.get("stream"):
            return StreamingResponse(self.events(), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(self.words)}, "finish_reason": "stop"}
        head = {"id": "x", "object": "chat.completion", "created": 1, "model": "m"}
        return JSONResponse({**head, "choices": [choice], "usage": self.usage()})

    async def events(self) -> AsyncIterator[bytes]:
        def line(choices: list[dict[str, Any]], **more: Any) -> bytes:
            head = {"id": f"x{len(self.asked)}", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"

        try:
            yield line([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
            for number, word in enumerate(self.words):
                if number == self.breaks_after:
                    if self.hangs:
                        await asyncio.Event().wait()
                    raise ConnectionResetError
                yield line([{"index": 0, "delta": {"content": word}, "finish_reason": None}])
            yield line([{"index": 0, "delta": {}, "finish_reason": "stop"}])
            yield line([], usage=self.usage())
            yield b"data: [DONE]\n\n"
        except (asyncio.CancelledError, GeneratorExit):
            self.left += 1
            raise


@asynccontextmanager
async def scripted(*scripts: Script) -> AsyncIterator[list[str]]:
    """The urls of engines that do as their scripts say."""
    if not scripts:
        yield []
        return
    async with serve(scripts[0].app(), "127.0.0.1", 0) as server, scripted(*scripts[1:]) as others:
        yield [server.url, *others]


class Nursery:
    """Real engines, each a process of its own: one loads the model, the others are forked from it when asked for."""

    def __init__(self, model: Path) -> None:
        command = [sys.executable, str(Path(__file__).parent / "nursery.py"), str(model)]
        environment = os.environ | {"PYTHONPATH": str(ENGINES), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.alive: set[int] = set()

    def engine(self) -> tuple[int, str]:
        """Process id and url of a new engine."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("engine", file=self.process.stdin, flush=True)
        pid, port = self.process.stdout.readline().split()
        self.alive.add(int(pid))
        return int(pid), f"http://127.0.0.1:{port}"

    def kill(self, pid: int) -> None:
        """End an engine at once, as a machine whose cable was pulled."""
        self.alive.discard(pid)
        os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        """End them all."""
        for pid in sorted(self.alive):
            self.kill(pid)
        self.process.communicate()
