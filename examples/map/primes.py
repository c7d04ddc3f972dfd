"""Count primes on other people's machines: a function, three ranges, one job.

Run it where `minga up` runs: `python examples/map/primes.py`.
"""

from __future__ import annotations

import minga


@minga.function(cpus="0.5", memory="128MB", budget="0.10")
def count_primes(span: tuple[int, int]) -> int:
    """Primes in [start, end)."""
    start, end = span
    return sum(number > 1 and all(number % d for d in range(2, int(number**0.5) + 1)) for number in range(start, end))


def main() -> None:
    """Count them there, and check one range here."""
    spans = [(0, 10_000), (10_000, 20_000), (20_000, 30_000)]
    counts = count_primes.map(spans)
    assert counts[0] == count_primes.local(spans[0])
    for (start, end), count in zip(spans, counts, strict=True):
        print(f"{start:>6} … {end:>6}: {count} primes")


if __name__ == "__main__":
    main()
