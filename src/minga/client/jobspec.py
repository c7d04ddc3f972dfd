"""What a job is, whoever describes it: a job file, flags or a program. Values alone; `jobfile` reads files.

Dollars are text (exact), sizes bytes, times seconds, paths local. Rule: a field that is not given asks for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from minga.core.work import Determinism
from minga.protocol.matching import CLOSE_WINDOW_MAX, Requirements

SETUP_WAIT_S = 1800
ACCEPT_TIMEOUT_S = 600

NO_NEEDS = Requirements()


@dataclass(frozen=True)
class Retry:
    """`attempts`: leases at most; `failures`: how often the job's own failure is tried again; `wait_s`: for offers."""

    attempts: int = 32
    failures: int = 0
    wait_s: int = 600


RETRY = Retry()


@dataclass(frozen=True)
class Accept:
    """The tenant's own check of a checkpoint: shell text that the runner runs here, in `folder`, on each new one.

    It finds the checkpoint in `$MINGA_CHECKPOINT_DIR`; exit code 0 accepts. `every_s`: how far apart the job's
    checkpoints are at most (0: not said), so that an offer's quantum must be as long.
    """

    run: str
    folder: Path
    every_s: int = 0
    timeout_s: int = ACCEPT_TIMEOUT_S


Mode = Literal["none", "audit", "replicate"]
"""none: the provider's word. audit: it commits to a trace that others may check. replicate: another one does it too."""

HOLD_BPS = 1000


@dataclass(frozen=True)
class Verify:
    """How the work is verified: its class of determinism, the part of the pay that is held back (basis points), steps
    between two leaves of the trace, and leaves between two states that are kept whole.
    """

    mode: Mode = "none"
    determinism: Determinism = "D0"
    hold_bps: int = HOLD_BPS
    every: int = 1
    keep: int = 50


NO_VERIFY = Verify()


@dataclass(frozen=True)
class JobSpec:
    """What to run, on what, for how much.

    `egress` None takes whatever the provider's terms allow; `secrets` never leave this object except sealed.
    `duration_s` is what the work takes on the reference machine, for quotes alone. `checkpoint_to` is a bucket
    (`s3://bucket/prefix`, reached at `checkpoint_endpoint`) instead of this machine's disk. `max_idle_s`: stop after
    so long without progress. `probe` False takes a machine at its word. `close_window_s`: how long a vanished
    provider may lock a deposit. `setup_wait_s`: how long set-up may take. `verify`: who can check the work.
    """

    run: str
    name: str = "job"
    requirements: Requirements = NO_NEEDS
    workdir: Path | None = None
    file_mounts: Mapping[str, Path] = field(default_factory=dict)
    setup: str = ""
    envs: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    outputs: tuple[str, ...] = ()
    checkpoint: bool = False
    budget: str | None = None
    per_hour: str | None = None
    deadline_s: int | None = None
    retry: Retry = RETRY
    ports: tuple[int, ...] = ()
    egress: tuple[str, ...] | None = None
    environment: str = "python"
    grace_s: int = 30
    duration_s: int | None = None
    checkpoint_every_s: int | None = None
    checkpoint_to: str = ""
    checkpoint_endpoint: str = ""
    max_idle_s: int | None = None
    accept: Accept | None = None
    probe: bool = True
    close_window_s: int = CLOSE_WINDOW_MAX
    setup_wait_s: int = SETUP_WAIT_S
    verify: Verify = NO_VERIFY


__all__ = [
    "ACCEPT_TIMEOUT_S", "HOLD_BPS", "NO_NEEDS", "NO_VERIFY", "RETRY", "SETUP_WAIT_S", "Accept", "JobSpec", "Mode",
    "Retry", "Verify",
]  # fmt: skip
