"""Boards: caches of what others signed. Anyone runs one, nobody needs to believe it."""
