"""ASGI's extension `http.response.zerocopysend` for uvicorn: the kernel sends a file's bytes, Python never sees them.

An app that finds the extension in its scope may send `{"type": "http.response.zerocopysend", "file", "offset", "count",
"more_body"}` in place of a message with that part of the body. Knows: uvicorn's request
cycle, whose h11 connection is told that the bytes were sent (h11's own way for this). Does not know: which files.
Rule: a body that could not be sent whole closes the connection, so that nobody takes half of it for all.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from minga.transport.memory import App

EXTENSION = "http.response.zerocopysend"


class _Length:
    """Stands for bytes that somebody else sends; h11 asks for nothing but how many."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count


def with_sendfile(app: App) -> App:
    """`app`, whose responses may send files; to be called by uvicorn's h11 protocol alone."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        cycle = getattr(send, "__self__", None)
        if scope["type"] != "http" or not all(hasattr(cycle, name) for name in ("conn", "transport")):
            await app(scope, receive, send)
            return

        async def answer(message: Any) -> None:
            if message["type"] != EXTENSION:
                await send(message)
                return
            await _send(cycle, message)
            if not message.get("more_body", False):
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        extensions = {**scope.get("extensions", {}), EXTENSION: {}}
        await app({**scope, "extensions": extensions}, receive, answer)

    return served


async def _send(cycle: Any, message: Any) -> None:
    import h11

    count, whole = message["count"], False
    try:
        cycle.conn.send_with_data_passthrough(h11.Data(data=cast(bytes, _Length(count))))
        if not cycle.transport.is_closing():
            loop = asyncio.get_running_loop()
            sent = await loop.sendfile(cycle.transport, message["file"], message["offset"], count)
            whole = sent == count
    except (OSError, RuntimeError, h11.LocalProtocolError):
        pass  # the other side hung up, or the file is shorter than it was: the connection is closed below
    finally:
        if not whole:
            cycle.transport.abort()
