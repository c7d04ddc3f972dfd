"""What was ordered, so that anybody can do it again: what decides the result of a manifest, and how it is traced.

Tenant and provider both sign its hash: the tenant's session signer before the start, the provider by committing to the
trace. So neither can later say that another program, other data or other initial weights were meant. Job, attempt, name
and outputs are not in it, because they change nothing; secrets cannot be, because a referee must be able to run it.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field

from minga.core.errors import InvalidInput
from minga.core.spec import ENVS_MAX, Bundle, EnvName, Manifest, Model, Name

Determinism = Literal["D0", "D1", "D2"]
"""D0: bit-exact on the same image and hardware class. D1: bit-exact on any hardware. D2: equal within a bound."""


class Trace(Model):
    """How a job is traced: `every` steps a leaf, and every `keep` leaves the whole state is kept beside the hashes."""

    determinism: Determinism = "D0"
    every: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    keep: Annotated[int, Field(ge=1, le=1_000_000)] = 50


class Work(Model):
    """See the module. Its hash is keccak-256 of its canonical JSON, like that of every model."""

    version: Literal[1] = 1
    environment: Name
    setup: Annotated[str, Field(max_length=65536)] = ""
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    envs: dict[EnvName, Annotated[str, Field(max_length=32768)]] = Field(default={}, max_length=ENVS_MAX)
    inputs: list[Bundle] = Field(default=[], max_length=64)
    trace: Trace

    @classmethod
    def of(cls, manifest: Manifest, trace: Trace) -> Self:
        """The work that `manifest` orders.

        Raises:
            InvalidInput: it has secrets.
        """
        if manifest.secrets:
            raise InvalidInput("a verified job has secrets", "take them out: whoever checks the work must run it too")
        return cls(
            environment=manifest.environment,
            setup=manifest.setup,
            run=manifest.run,
            envs=manifest.envs,
            inputs=manifest.inputs,
            trace=trace,
        )
