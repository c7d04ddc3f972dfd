"""Top 20 of a million offers: our index against SQLite with an index, same rows, same queries, same run.

Writes `results/offers.json`: machine, commit, seed, and for each query the median and p95 of both in milliseconds.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sqlite3
import subprocess
import time
from pathlib import Path

from minga.protocol.accelerators import normalise_gpu
from minga.protocol.search import NUMBERS, OfferIndex, Row, parse_query

GB = 10**9
CARDS = (
    ("H100-80GB", 80, 2_200_000), ("A100-80GB", 80, 1_300_000), ("A100-40GB", 40, 900_000), ("RTX4090", 24, 380_000),
    ("RTX3090", 24, 200_000), ("L40S", 48, 800_000), ("L4", 24, 450_000), ("T4", 16, 150_000), ("A10G", 24, 500_000),
    ("RTXA6000", 48, 480_000), ("H200-141GB", 141, 3_300_000), ("MI300X", 192, 2_500_000), ("V100-16GB", 16, 210_000),
)  # fmt: skip
REGIONS = ("eu-de", "eu-fr", "us-east", "us-west", "asia-jp", "sa-ec")

QUERIES = {
    "gpu=H100 vram>=80 price<2 reliability>0.98": (
        "gpu = 'H100-80GB' AND vram >= 80000000000 AND price < 2000000 AND reliability > 980000"
    ),
    "gpu=RTX4090 gpus>=4 region=eu": "gpu = 'RTX4090' AND gpus >= 4 AND region LIKE 'eu-%'",
    "vram>=48 price<1": "vram >= 48000000000 AND price < 1000000",
    "cpus>=16 memory>=64 disk>=500": "cpus >= 16000 AND memory >= 64000000000 AND disk >= 500000000000",
    "": "1",
    "gpu=T4 vram>=80": "gpu = 'T4' AND vram >= 80000000000",
}


def rows(count: int, seed: int):
    """Random offers that look like the market's."""
    dice = random.Random(seed)
    names = {name: normalise_gpu(name) for name, _, _ in CARDS}
    for number in range(count):
        name, vram, price = dice.choice(CARDS)
        numbers = (
            int(price * dice.lognormvariate(0, 0.25)), vram * GB, dice.choice((1, 1, 1, 2, 4, 8)),
            dice.choice((4, 8, 16, 32)) * 1000, dice.choice((16, 32, 64, 128)) * GB, dice.choice((100, 500, 2000)) * GB,
            dice.randint(1, 8), 60, 4, min(1_000_000, int(1_000_000 * dice.betavariate(40, 1))), 2**40,
        )  # fmt: skip
        texts = ((dice.choice(REGIONS),), ("bubblewrap",), ("python",), (), (f"0x{number:040x}",), ("m",), ("x86_64",))
        yield str(number), Row(names[name], numbers, texts), name


def percentiles(times: list[float]) -> dict[str, float]:
    """Median and p95 in milliseconds."""
    ordered = sorted(times)
    return {
        "p50_ms": round(ordered[len(ordered) // 2] * 1000, 4),
        "p95_ms": round(ordered[len(ordered) * 95 // 100] * 1000, 4),
    }


def measure(call, repeats: int) -> tuple[list[float], list]:
    """Times of `repeats` calls, and the last result."""
    times, result = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return times, result


def main() -> None:
    """Run and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "offers.json")
    options = parser.parse_args()
    made = list(rows(options.count, options.seed))
    index = OfferIndex()
    start = time.perf_counter()
    index.add_many((ref, row) for ref, row, _ in made)
    build_s = time.perf_counter() - start
    database = fill_sqlite(made)
    found = {}
    for text, where in QUERIES.items():
        query = parse_query(text)
        ours, refs = measure(lambda query=query: index.search(query, 20, 1), options.repeats)
        sql = f"SELECT ref FROM offer WHERE {where} ORDER BY price LIMIT 20"
        theirs, theirs_refs = measure(lambda sql=sql: database.execute(sql).fetchall(), max(5, options.repeats // 10))
        prices = {ref: row.numbers[0] for ref, row, _ in made}
        same = [prices[ref] for ref in refs] == [prices[ref] for (ref,) in theirs_refs]
        a, b = percentiles(ours), percentiles(theirs)
        ratio = round(b["p50_ms"] / a["p50_ms"], 2)
        found[text or "(everything)"] = {"ours": a, "sqlite": b, "sqlite_over_ours": ratio, "same_prices": same}
    insert = [measure(lambda ref=ref, row=row: index.add(ref, row), 1)[0][0] for ref, row, _ in made[:500]]
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    result = {
        "what": "top 20 of offers by price, in-process, one thread",
        "machine": f"{platform.machine()}, {platform.platform()}, Python {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "commit": commit or "uncommitted",
        "seed": options.seed,
        "offers": options.count,
        "columns": len(NUMBERS),
        "build_s": round(build_s, 2),
        "replace_one": percentiles(insert),
        "queries": found,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def fill_sqlite(made: list) -> sqlite3.Connection:
    """The same rows in memory, with the indexes that these queries want."""
    database = sqlite3.connect(":memory:")
    columns = ", ".join(f"{name} INTEGER" for name in NUMBERS)
    database.execute(f"CREATE TABLE offer (ref TEXT, gpu TEXT, region TEXT, {columns})")
    marks = ", ".join("?" * (3 + len(NUMBERS)))
    values = ((ref, name, row.texts[0][0], *row.numbers) for ref, row, name in made)
    database.executemany(f"INSERT INTO offer VALUES ({marks})", values)
    database.execute("CREATE INDEX by_gpu ON offer (gpu, price)")
    database.execute("CREATE INDEX by_price ON offer (price)")
    database.execute("ANALYZE")
    return database


if __name__ == "__main__":
    main()
