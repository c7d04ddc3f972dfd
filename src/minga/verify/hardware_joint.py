"""Several units challenged at the same moment, so that one machine cannot pose as each of them in turn.

Knows: a survey for each lease, one promise each. Does not know: whose leases these are; whoever holds leases of all
units that a provider says it has can put them all to work at once. Rule: a joint round is all of their work and lasts
until the last has answered; every try poses challenges to all of them, and what is filled stays filled until all have
walked through their share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

import anyio

from minga.core.spec import Speed
from minga.verify import hardware as hw
from minga.verify.hardware_survey import TRIES, Survey

T = TypeVar("T")
MEMORY_TRIES = 3


class Joint:
    """The surveys of several leases, in one setting and by one clock; `promises` are of each lease's units together."""

    def __init__(self, surveys: Sequence[Survey], promises: Sequence[Speed]) -> None:
        """Nothing is asked yet. Without a survey there is nothing to ask."""
        self.surveys = list(surveys)
        self.promises = list(promises)
        self._best: dict[str, tuple[float, hw.Round, list[hw.Round]]] = {}
        self._clock = surveys[0].clock
        self.setting = surveys[0].setting
        self._opened = 0.0

    @property
    def total(self) -> Speed:
        """What is promised in all."""
        return Speed(**{name: sum(getattr(one, name) for one in self.promises) for name in Speed.model_fields})

    async def run(self) -> hw.Verdict:
        """Compute and memory of all at once, answers checked, judged together.

        Raises:
            what `Survey` raises; then nothing is judged.
        """
        await self._each([survey.open for survey in self.surveys])
        self._opened = self._clock.monotonic()
        total = self.total
        if total.gemm_mops:
            total = total.model_copy(update={"gemm_mops": await self._gemm(total.gemm_mops)})
        if total.memory_mbps:
            await self._memory(total.memory_mbps)
        for survey, promise in zip(self.surveys, self.promises, strict=True):
            survey.speak_for(found for _, _, parts in self._best.values() for found in parts)
            await survey.check(promise)
        await self._each([survey.close for survey in self.surveys])
        wrong = next((survey.wrong for survey in self.surveys if survey.wrong), "")
        counted = total.model_copy(update={"disk_mbps": 0, "link_mbps": 0})
        return hw.judge(counted, [joint for _, joint, _ in self._best.values()], self.setting, wrong)

    async def _gemm(self, mops: int) -> int:
        """Joint rounds of compute until one is enough; returns the promise that can be judged from here."""
        shapes = [
            survey.shape(promise.gemm_mops, hw.ROUND_SECONDS)
            for survey, promise in zip(self.surveys, self.promises, strict=True)
        ]
        judged = sum(
            survey.judgeable(promise.gemm_mops, *shape)
            for survey, promise, shape in zip(self.surveys, self.promises, shapes, strict=True)
        )
        works = [partial(one.gemm_round, *shape) for one, shape in zip(self.surveys, shapes, strict=True)]
        await self._tries("gemm_mops", works, min(mops, judged), TRIES)
        return min(mops, judged)

    async def _memory(self, mbps: int) -> None:
        """Joint fillings until one is enough, then all walks at once."""
        works = [
            partial(one.fill_round, hw.fill_chunks(one.size, one.units, promise.memory_mbps, hw.FILL_SECONDS))
            for one, promise in zip(self.surveys, self.promises, strict=True)
        ]
        await self._tries("memory_mbps", works, mbps, MEMORY_TRIES)
        await self._each([partial(survey.walks, MEMORY_TRIES) for survey in self.surveys])

    async def _tries(
        self, quantity: hw.Quantity, works: Sequence[Callable[[], Awaitable[hw.Round]]], promise: int, tries: int
    ) -> None:
        for _ in range(tries):
            began = self._clock.monotonic()
            parts = await self._each(works)
            joint = hw.joined(parts, max(self._clock.monotonic() - began, 1e-9))
            value = hw.rate(joint, promise, self.setting)
            if quantity not in self._best or value > self._best[quantity][0]:
                self._best[quantity] = value, joint, parts
            if hw.is_enough([joint], quantity, promise, self.setting):
                return
            if self._clock.monotonic() - self._opened > hw.RETRY_UNTIL_SECONDS:
                return

    async def _each(self, works: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """All of them at the same moment; their results in order, or the first failure alone."""
        found: dict[int, T] = {}
        failed: list[Exception] = []

        async def one(place: int, work: Callable[[], Awaitable[T]]) -> None:
            try:
                found[place] = await work()
            except Exception as error:
                failed.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for place, work in enumerate(works):
                group.start_soon(one, place, work)
        if failed:
            raise failed[0]
        return [found[place] for place in range(len(works))]
