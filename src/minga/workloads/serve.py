"""A model served by replicas that are jobs: each survives its provider, and a gateway hides which one answers.

Knows: the client, the gateway, the engine's folder. Does not know: terminals. Rule: each replica has a budget of its
own that cannot be broken, and is stopped and settled when serving ends.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio

import minga.workloads.engine
from minga.client.handle import AsyncHandle
from minga.client.jobspec import JobSpec
from minga.client.tenant import AsyncClient
from minga.core.effects import Clock
from minga.core.errors import InvalidInput, JobFailed, MingaError, NotFound
from minga.gateway.relay import TROUBLE, Pool
from minga.gateway.replicas import JobReplica
from minga.gateway.requests import Model
from minga.protocol.matching import Requirements

PORT = 8000
LOOK_S = 0.5
STOPPING_S = 120.0

Tell = Callable[[str], None]
"""Receives one line of progress."""


@dataclass(frozen=True)
class Plan:
    """What to serve, and for how much.

    `folder` holds a Hugging Face checkpoint; `budget` dollars for each replica in all, `per_hour` at most; prices are
    nanodollars per million tokens, charged to the gateway's keys.
    """

    folder: Path
    name: str
    replicas: int
    budget: str
    needs: Requirements
    per_hour: str | None = None
    price_in: int = 0
    price_out: int = 0
    probe: bool = True

    def __post_init__(self) -> None:
        """Check what can be checked before anything is bought.

        Raises:
            NotFound: the folder holds no checkpoint.
            InvalidInput: no replica, or a name that no request could say.
        """
        if not (self.folder / "config.json").is_file() or not any(self.folder.glob("*.safetensors")):
            remedy = "give a folder with config.json, a tokenizer and *.safetensors"
            raise NotFound(f"{self.folder} holds no Hugging Face checkpoint", remedy)
        if not 1 <= self.replicas <= 64:
            raise InvalidInput(f"{self.replicas} replicas", "use 1 to 64")
        if not self.name or not self.name.isprintable() or " " in self.name:
            raise InvalidInput(f"{self.name[:80]!r} is no model's name", "use letters, digits, '-', '.' and '/'")

    def spec(self, number: int, code: Path) -> JobSpec:
        """The job of one replica; `code` is the folder that is sent along."""
        words = f"--model model --name '{_quoted(self.name)}' --port {PORT + number}"
        return JobSpec(
            run=f"exec python -m engine {words}",
            name=f"serve-{number}",
            requirements=self.needs,
            workdir=code,
            file_mounts={"/job/work/model": self.folder},
            envs={"OMP_NUM_THREADS": str(max(1, self.needs.cpu_milli // 1000)), "TOKENIZERS_PARALLELISM": "false"},
            budget=self.budget,
            per_hour=self.per_hour,
            ports=(PORT + number,),
            probe=self.probe,
        )


@dataclass
class Replicas:
    """The jobs of a plan while it is served; `pool` has those that run or may run again."""

    plan: Plan
    clock: Clock
    pool: Pool
    tell: Tell
    handles: dict[str, AsyncHandle] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)

    @classmethod
    async def start(cls, client: AsyncClient, plan: Plan, scratch: Path, tell: Tell) -> Replicas:
        """Order every replica.

        Args:
            client: runs the jobs.
            plan: what to serve.
            scratch: a folder of our own for what is sent along.
            tell: told what is ordered.

        Raises:
            MingaError: a replica cannot be ordered; those before it are stopped.
        """
        made = cls(plan, client.clock, Pool([], client.clock), tell)
        code = engine_folder(scratch)
        try:
            for number in range(plan.replicas):
                handle = await client.submit(plan.spec(number, code))
                made.handles[handle.id] = handle
                made.pool.add(JobReplica(handle.id, handle.door(PORT + number)))
                tell(f"replica {number}: job {handle.id}")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await made.stop()
            raise
        return made

    async def ready(self) -> Model:
        """Wait until a replica answers; the model as the engine describes it.

        Raises:
            JobFailed: every replica ended instead.
        """
        while True:
            for replica in list(self.pool.replicas):
                try:
                    async with replica.ask("GET", "/v1/models", b"") as answer:
                        card = json.loads(await answer.aread())["data"][0]
                        return self._model(card)
                except (*TROUBLE, MingaError, ValueError, KeyError, IndexError, TypeError):
                    pass  # not yet
            self.look()
            if not self.pool.replicas:
                raise JobFailed("every replica ended before it served", "see `minga jobs` and `minga logs`")
            await self.clock.sleep(LOOK_S)

    def _model(self, card: dict[str, Any]) -> Model:
        return Model(
            name=self.plan.name,
            price_in=self.plan.price_in,
            price_out=self.plan.price_out,
            context=int(card["context_length"]),
            quantization=str(card.get("quantization", "unknown"))[:32],
            parameters=int(card["parameters"]),
            created=int(card["created"]),
        )

    def look(self) -> None:
        """Say what became of each replica, and take those whose jobs have ended out of the pool."""
        for replica in list(self.pool.replicas):
            status = self.handles[replica.name].status()
            if self._told.get(replica.name) != status.phase:
                self._told[replica.name] = status.phase
                self.tell(f"{status.name} is {status.phase}" + (f": {status.reason}" if status.reason else ""))
            if status.terminal:
                self.pool.remove(replica.name)

    async def watch(self) -> None:
        """Return when the last replica has ended."""
        while self.pool.replicas:
            await self.clock.sleep(LOOK_S)
            self.look()

    async def stop(self) -> None:
        """Stop every replica and wait until its money is settled or on its way."""
        for handle in self.handles.values():
            handle.stop("serving ended")
        for handle in self.handles.values():
            await handle.wait(STOPPING_S)
        for replica in self.pool.replicas:
            await replica.aclose()

    def spent(self) -> int:
        """Token units that the replicas cost so far."""
        return sum(handle.status().spent for handle in self.handles.values())


def engine_folder(scratch: Path) -> Path:
    """A folder with the engine and nothing else, to send along."""
    source = Path(minga.workloads.engine.__file__).parent
    target = scratch / "engine"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.py")):
        shutil.copyfile(path, target / path.name)
    return scratch


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")
