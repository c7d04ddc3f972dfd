"""What a gateway counts, for people and for Prometheus (text format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from minga.gateway.relay import Pool

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


@dataclass
class Meter:
    """Counts since the gateway's start, by model; seconds from a request to its first byte as a histogram."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    prompt_tokens: Counter[str] = field(default_factory=Counter)
    completion_tokens: Counter[str] = field(default_factory=Counter)
    charged: Counter[str] = field(default_factory=Counter)
    first_byte: Counter[tuple[str, float]] = field(default_factory=Counter)
    first_byte_s: Counter[str] = field(default_factory=Counter)

    def answered(self, model: str, status: int, prompt: int = 0, completion: int = 0, charged: int = 0) -> None:
        """A request ended: its status, tokens, and nanodollars."""
        self.requests[model, status] += 1
        self.prompt_tokens[model] += prompt
        self.completion_tokens[model] += completion
        self.charged[model] += charged

    def began(self, model: str, seconds: float) -> None:
        """The first byte of an answer left after so many seconds."""
        for bound in (*BUCKETS, float("inf")):
            if seconds <= bound:
                self.first_byte[model, bound] += 1
        self.first_byte_s[model] += round(seconds * 10**6)

    def text(self, pools: dict[str, Pool]) -> str:
        """The exposition."""
        lines: list[str] = []

        def family(name: str, kind: str, rows: Iterable[tuple[str, float]]) -> None:
            lines.append(f"# TYPE minga_gateway_{name} {kind}")
            lines.extend(f"minga_gateway_{name}{labels} {value}" for labels, value in rows)

        requests = [(_labels(model=m, status=str(s)), n) for (m, s), n in sorted(self.requests.items())]
        family("requests_total", "counter", requests)
        for name, counts in (("prompt_tokens", self.prompt_tokens), ("completion_tokens", self.completion_tokens)):
            family(f"{name}_total", "counter", [(_labels(model=model), n) for model, n in sorted(counts.items())])
        dollars = [(_labels(model=model), amount / 10**9) for model, amount in sorted(self.charged.items())]
        family("charged_dollars_total", "counter", dollars)
        lines.append("# TYPE minga_gateway_first_byte_seconds histogram")
        for model, total in sorted(self.first_byte_s.items()):
            for bound in (*BUCKETS, float("inf")):
                labels = _labels(model=model, le="+Inf" if bound == float("inf") else str(bound))
                lines.append(f"minga_gateway_first_byte_seconds_bucket{labels} {self.first_byte[model, bound]}")
            lines.append(f"minga_gateway_first_byte_seconds_sum{_labels(model=model)} {total / 10**6}")
            count = self.first_byte[model, float("inf")]
            lines.append(f"minga_gateway_first_byte_seconds_count{_labels(model=model)} {count}")
        family("failovers_total", "counter", [(_labels(model=m), pool.failovers) for m, pool in sorted(pools.items())])
        under_way = [
            (_labels(model=model, replica=item.name), item.under_way)
            for model, pool in sorted(pools.items())
            for item in pool.standings.values()
        ]
        family("under_way", "gauge", under_way)
        return "\n".join(lines) + "\n"


def _labels(**values: str) -> str:
    def safe(text: str) -> str:
        return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

    return "{" + ",".join(f'{name}="{safe(value)}"' for name, value in values.items()) + "}"
