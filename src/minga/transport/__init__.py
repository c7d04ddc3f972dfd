"""How HTTP requests travel: real HTTP(S), or memory. An `httpx` client on one side, an ASGI app on the other."""
