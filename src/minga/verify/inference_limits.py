"""Where honest numbers end: the limits of an audit, and how they are fitted.

An audit goes through a reply token by token and adds up what differs. Each sum has a line that grows with the length,
so one set of limits serves every length and says after how many tokens a cheat is seen:

| what    | from                                                     | limit                   |
|---------|----------------------------------------------------------|-------------------------|
| peak    | the largest margin of one token, nats                    | one number              |
| margin  | the sum of margins, nats                                 | start + slope · tokens  |
| far     | the sum of far points of fingerprints                    | start + slope · chunks  |
| near    | the sum of near errors of fingerprints, bfloat16 steps   | start + slope · chunks  |
| logprob | the sum of absolute differences of log-probabilities     | start + slope · tokens  |

Fitted: slope = 3 × the largest mean, start = 3 × the largest single value, over all audits of the fitting set; never
below a floor, so that a set that happens to be bit-exact does not forbid a rounding error elsewhere. The factor 3 is a
choice. The results for the two numerics are in `inference_fitted`, fitted on one set by the campaign in
`tests/verify/campaign_inference.py` and reported on another in `benches/results/inference.json`; a validator of another
engine or device fits its own.

Knows: numbers of audits. Does not know: models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from minga.verify.inference_record import CHUNK

FACTOR = 3.0
FLOOR_PEAK = 0.01
FLOOR_START = {"margin": 0.02, "far": 4.0, "near": 0.2, "logprob": 0.02}
FLOOR_SLOPE = {"margin": 1e-4, "far": 0.1, "near": 0.02, "logprob": 2e-3}
SLACK = {"fp32": 1e-4, "bf16": 0.02}
"""Mass of the nucleus's edge that is the provider's benefit of the doubt, for each numerics; a choice."""


@dataclass(frozen=True)
class Scores:
    """What one audit found: a margin a token; far points and near errors a chunk, or a difference a token."""

    margins: tuple[float, ...]
    far: tuple[float, ...] = ()
    near: tuple[float, ...] = ()
    logprob: tuple[float, ...] = ()

    def sums(self) -> dict[str, tuple[float, ...]]:
        """The values that are added up, by name."""
        return {"margin": self.margins, "far": self.far, "near": self.near, "logprob": self.logprob}


@dataclass(frozen=True)
class Line:
    """The largest sum that is honest after n values: start + slope · n."""

    start: float
    slope: float


@dataclass(frozen=True)
class Limits:
    """See the module's table."""

    peak: float
    margin: Line
    far: Line
    near: Line
    logprob: Line

    def crossed(self, scores: Scores) -> tuple[int, str] | None:
        """After how many tokens a limit is first crossed, and which; None: never."""
        found: list[tuple[int, str]] = []
        for at, value in enumerate(scores.margins):
            if value > self.peak:
                found.append((at + 1, "peak"))
                break
        for name, values in scores.sums().items():
            line: Line = getattr(self, name)
            step = CHUNK if name in ("far", "near") else 1
            total = 0.0
            for at, value in enumerate(values):
                total += value
                if total > line.start + line.slope * (at + 1):
                    found.append((min((at + 1) * step, len(scores.margins)), name))
                    break
        return min(found, default=None)


def fit(audits: Sequence[Scores]) -> Limits:
    """Limits from audits of honest replies; see the module. At least one audit; a sum that none has gets its floor."""
    lines = {}
    for name in FLOOR_START:
        each = [values for audit in audits if (values := audit.sums()[name])]
        single = max((max(values) for values in each), default=0.0)
        mean = max((sum(values) / len(values) for values in each), default=0.0)
        lines[name] = Line(max(FLOOR_START[name], FACTOR * single), max(FLOOR_SLOPE[name], FACTOR * mean))
    peak = max(max(audit.margins) for audit in audits)
    return Limits(peak=max(FLOOR_PEAK, FACTOR * peak), **lines)
