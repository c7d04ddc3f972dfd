"""The hostile actors of the simulated world, by name: each a story, and the bound that its victims' loss must keep.

| bound     | what a victim loses at most                                                                          |
|-----------|------------------------------------------------------------------------------------------------------|
| nothing   | nothing at all                                                                                       |
| quantum   | one quantum on each lease                                                                            |
| clock     | nobody can see it: what the tenant's own clock allows, never more than its budget; a quantum where   |
|           | the tenant checks checkpoints (`accept:`)                                                            |

Hostile providers stand in `rogue_providers`, tenants in `rogue_tenants`, boards in `rogue_boards`. Rule: an actor does
what a stranger can do: talk, sign with its own keys, send transactions. It cannot read or change another's machine.
"""

from __future__ import annotations

from minga.sim.cast import Actor, Crowd
from minga.sim.rogue_boards import BOARDS
from minga.sim.rogue_providers import PROVIDERS
from minga.sim.rogue_tenants import TENANTS

ACTORS: dict[str, Actor] = {actor.name: actor for actor in (*PROVIDERS, *TENANTS, *BOARDS)}
"""Every actor by its name."""

__all__ = ["ACTORS", "Actor", "Crowd"]
