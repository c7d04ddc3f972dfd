"""What the campaign of inference audits runs, batch by batch, most important first.

A unit says all that decides its outcome and its name is all it says, so a plan may grow while a campaign is under way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import inference_attacks as attacks

KINDS = [(isa, threads) for isa in ("avx512", "avx2", "sse") for threads in (1, 2)]
"""Instruction sets and threads, which stand for other hardware; the first is the auditor's."""
WAYS = ((800, 950), (700, 900), (1000, 1000), (0, 1000), (1300, 980))
"""Temperature and nucleus (thousandths) that honest jobs ask for, in turn."""


LENGTHS = {"prefill-replay": 480}
"""Tokens of attacks on the tiny model that take more than 96 to be seen."""


@dataclass(frozen=True)
class Unit:
    """One batch of one provider: `seed` names its prompts and its sampling seeds."""

    model: str
    numerics: str
    part: str
    act: str
    seed: int
    count: int
    tokens: int
    isa: str = "avx512"
    threads: int = 1
    temperature: int = 800
    top_p: int = 950
    evidence: str = "activations"

    @property
    def name(self) -> str:
        """Its key in the result file."""
        return "/".join(str(value) for value in asdict(self).values())

    @classmethod
    def named(cls, name: str) -> Unit:
        """The unit with this key."""
        made = [int(part) if part.isdigit() else part for part in name.split("/")]
        return cls(*made)  # type: ignore[arg-type]


def blocks(total: int, batch: int, **fields: Any) -> Iterator[Unit]:
    """Units of `batch` replies, seeds counted from `seed`."""
    seed = fields.pop("seed", 0)
    for at in range(-(-total // batch)):
        yield Unit(seed=seed + at, count=min(batch, total - at * batch), **fields)


def variants(
    total: int, batches: Sequence[int], seed: int = 0, kinds: Sequence[tuple[str, int]] = KINDS, **fields: Any
) -> Iterator[Unit]:
    """Honest units in turn over instruction sets, threads, batch sizes and ways of sampling."""
    for at, (isa, threads) in enumerate(kinds):
        left, turn = total // len(kinds), 0
        while left > 0:
            count = min(left, batches[turn % len(batches)])
            temperature, top_p = WAYS[(turn + turn // len(batches)) % len(WAYS)]
            yield Unit(
                act="honest", seed=seed + 1000 * at + turn, count=count, isa=isa, threads=threads,
                temperature=temperature, top_p=top_p, **fields,
            )  # fmt: skip
            left, turn = left - count, turn + 1


def fitting() -> list[Unit]:
    """What limits are fitted on, by instruction set."""
    tiny: dict[str, Any] = {"model": "tiny", "part": "fit", "tokens": 256}
    smol: dict[str, Any] = {"model": "smollm2", "part": "fit", "tokens": 64}
    wide = [kind for kind in KINDS if kind[0] != "sse"]
    plan = [
        *variants(180, (15, 8, 5, 1, 1), numerics="fp32", **tiny),
        *variants(180, (15, 8, 5, 1, 1), numerics="bf16", **tiny),
        *variants(60, (10,), numerics="fp32", evidence="logprobs", **tiny),
        *variants(24, (4,), numerics="fp32", **smol),
        *variants(24, (6,), numerics="bf16", kinds=wide, **smol),
    ]
    return sorted(plan, key=lambda unit: unit.isa)


def reporting() -> list[Unit]:
    """What is reported."""
    tiny: dict[str, Any] = {"model": "tiny", "part": "report"}
    smol: dict[str, Any] = {"model": "smollm2", "part": "report"}
    every = {**attacks.PROMISED, **attacks.CURVES}
    narrow = [kind for kind in KINDS if kind[0] != "sse"]
    plan: list[Unit] = []
    for act in every:
        plan += blocks(60, 60, act=act, numerics="fp32", tokens=LENGTHS.get(act, 96), **tiny)
        plan += blocks(12, 12, act=act, numerics="fp32", tokens=64, **smol)
    plan += variants(48, (8,), numerics="fp32", tokens=64, **smol)
    plan += variants(2400, (80, 40, 60, 1, 19), numerics="fp32", tokens=64, **tiny)
    plan += variants(600, (50, 30, 1, 19), seed=20_000, numerics="fp32", tokens=128, **tiny)
    for act in every:
        plan += blocks(30, 30, act=act, numerics="bf16", tokens=96, **tiny)
    plan += variants(300, (50,), numerics="bf16", tokens=128, **tiny)
    for act in attacks.CURVES:
        plan += blocks(40, 40, act=act, numerics="fp32", tokens=480, seed=500, **tiny)
    for act in ("int8", "fp8"):
        plan += blocks(40, 40, act=act, numerics="bf16", tokens=480, seed=500, **tiny)
        plan += blocks(6, 6, act=act, numerics="bf16", tokens=128, **smol)
    plan += variants(60, (10,), seed=50_000, numerics="fp32", tokens=480, **tiny)
    plan += variants(60, (10,), numerics="fp32", tokens=128, evidence="logprobs", **tiny)
    for act in every:
        plan += blocks(20, 20, act=act, numerics="fp32", tokens=96, evidence="logprobs", **tiny)
    for act in every:
        plan += blocks(240, 60, act=act, numerics="fp32", tokens=LENGTHS.get(act, 96), seed=1, **tiny)
    plan += variants(16, (4,), numerics="bf16", tokens=64, kinds=narrow, **smol)
    plan += blocks(4, 4, act="honest", numerics="fp32", tokens=512, seed=90_000, **smol)
    for turn in range(1, 30):
        for act in every:
            plan += blocks(12, 12, act=act, numerics="fp32", tokens=64, seed=turn, **smol)
        plan += variants(48, (8,), seed=turn * 50, numerics="fp32", tokens=64, **smol)
    return plan
