"""A port of a running job on the tenant's loopback: requests, streams, refusals, a job that moves."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from markets import Stage, ended, spec_of

from minga.core.errors import NotFound

pytestmark = pytest.mark.anyio

PORT = 8123
SERVER = r"""
import http.server, json, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length).decode()
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"6\r\nfirst \r\n")
            self.wfile.flush()
            while not os.path.exists("go"):
                time.sleep(0.01)
            self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")
            return
        if self.path == "/go":
            open("go", "w").close()
        said = json.dumps({
            "method": self.command, "path": self.path, "body": body, "pid": os.getpid(),
            "headers": {name.lower(): value for name, value in self.headers.items()},
        }).encode()
        status = 401 if self.path == "/closed" else 200
        self.send_response(status)
        self.send_header("content-length", str(len(said)))
        self.send_header("x-from", "job")
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_DELETE = answer

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 8123), Handler)
print("listening", flush=True)
server.serve_forever()
"""
RUN = f"cat > server.py <<'END'\n{SERVER}\nEND\nexec python3 server.py"


async def answering(here: httpx.AsyncClient, wanted: Callable[[Any], bool] = lambda said: True) -> httpx.Response:
    """The first answer that is the job's own and `wanted`."""
    with anyio.fail_after(40):
        while True:
            answer = await here.get("/")
            if answer.headers.get("x-from") == "job" and wanted(answer.json()):
                return answer
            assert answer.status_code in (200, 409, 502, 503), answer.text
            await anyio.sleep(0.05)  # between two looks, with a deadline


async def test_a_server_in_a_job_is_reached_from_here(stage: Stage):
    async with stage.providers(1) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(RUN, ports=(PORT,)))
        async with handle.forward(PORT) as url, httpx.AsyncClient(base_url=url, trust_env=False) as here:
            await answering(here)
            sent = await here.post("/v1/x%2Fy?q=a%20b", content=b"hello", headers={"authorization": "Bearer secret"})
            said = sent.json()
            assert (said["method"], said["path"], said["body"]) == ("POST", "/v1/x%2Fy?q=a%20b", "hello")
            assert "secret" not in sent.text, "the caller's credentials stay on this machine"
            assert (await here.get("/closed")).status_code == 401, "the job's own refusal goes through"
            async with here.stream("GET", "/stream") as stream:
                pieces = stream.aiter_raw()
                assert await anext(pieces) == b"first ", "the first words come before the last are known"
                await here.get("/go")
                assert b"".join([piece async for piece in pieces]) == b"last"
        handle.stop()
        assert (await ended(handle)).terminal


async def test_a_request_follows_the_job_to_another_provider(stage: Stage):
    async with stage.providers(2) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of(RUN, ports=(PORT,)))
        async with handle.forward(PORT) as url, httpx.AsyncClient(base_url=url, trust_env=False) as here:
            first = (await answering(here)).json()["pid"]
            running = next(item for item in providers if item.config.operator.address == handle.status().provider)
            running.vanish()
            os.kill(first, signal.SIGKILL)  # the machine is gone, and with it the port that both would share here
            assert (await answering(here, lambda said: said["pid"] != first)).status_code == 200
        handle.stop()
        assert (await ended(handle)).attempts == 2


async def test_what_is_refused(stage: Stage):
    async with stage.providers(1) as providers, stage.client(providers) as client:
        handle = await client.submit(spec_of("true", ports=(PORT,)))
        with pytest.raises(NotFound, match=f"no port 80; its ports: {PORT}"):
            async with handle.forward(80):
                pass
        await ended(handle)
        async with handle.forward(PORT) as url, httpx.AsyncClient(base_url=url, trust_env=False) as here:
            answer = await here.get("/")
        assert answer.status_code == 409
        assert answer.json()["error"]["fact"] == "the job is done"
