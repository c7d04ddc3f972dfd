"""Selling time on this machine: a pure agent per lease, a thin loop, an HTTP API, signed offers."""
