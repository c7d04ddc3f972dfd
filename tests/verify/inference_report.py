"""What follows from the units of the campaign of inference audits: tables, intervals, power curves, the fitted module.

Knows: counts. Does not know: models. Rule: a share is reported with n and its 95 % interval (Clopper–Pearson).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import comb
from typing import Any

from inference_plan import Unit

from minga.verify.inference_limits import Limits, Scores

Told = list[tuple[Unit, Mapping[str, Any]]]

LENGTHS = (32, 64, 96, 128, 192, 256, 384, 480, 512)
"""Tokens at which power curves are given."""
PROMISED_SHARE = 0.99
UNPROMISED = ("int8", "fp8", "warmer", "one-token")
SUMS = ("margin", "far", "near", "logprob")


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name came, sorted."""
    return dict(sorted(Counter(names).items()))


def interval(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact two-sided interval of a share (Clopper–Pearson); one-sided at 0 and at n, where 3/n is the rule."""
    tail = (1 - level) / 2 if 0 < hits < n else 1 - level
    low = 0.0 if hits == 0 else _root(lambda p: 1 - _below(hits - 1, n, p), tail)
    high = 1.0 if hits == n else _root(lambda p: 1 - _below(hits, n, p), 1 - tail)
    return low, high


def _below(hits: int, n: int, p: float) -> float:
    """The probability of at most `hits` successes."""
    if hits > n // 2:
        return 1.0 - sum(comb(n, k) * (1 - p) ** k * p ** (n - k) for k in range(n - hits))
    return sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(hits + 1))


def _root(rising: Any, value: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < value else (low, middle)
    return (low + high) / 2


def summary(units: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Honest and attack tables, one row for each model, numerics and kind of evidence."""
    rows: dict[tuple[str, str, str, str], Told] = {}
    for name, told in units.items():
        unit = Unit.named(name)
        rows.setdefault((unit.model, unit.numerics, unit.evidence, unit.act), []).append((unit, told))
    honest, attacks = {}, {}
    for (model, numerics, evidence, act), found in sorted(rows.items()):
        key = f"{model}/{numerics}/{evidence}"
        if act == "honest":
            honest[key] = honest_row(found)
        else:
            attacks.setdefault(act, {})[key] = attack_row(found)
    return {"honest": honest, "attacks": attacks}


def honest_row(found: Told) -> dict[str, Any]:
    """How many honest audits were flagged, and the worst that honest providers showed, by instruction set."""
    n, flagged = sum(told["n"] for _, told in found), sum(len(told["caught"]) for _, told in found)
    by_isa = {}
    for isa in sorted({unit.isa for unit, _ in found}):
        some = [told for unit, told in found if unit.isa == isa]
        by_isa[isa] = {
            "n": sum(told["n"] for told in some),
            "differing": sum(told["differing"] for told in some),
            **{name: max(told[name] for told in some) for name in ("peak", *(f"mean_{sum_}" for sum_ in SUMS))},
        }
    low, high = interval(flagged, n)
    return {
        "n": n,
        "flagged": flagged,
        "rate_95": [low, high],
        "tokens": sum(t["tokens"] for _, t in found),
        "by_isa": by_isa,
    }


def attack_row(found: Told) -> dict[str, Any]:
    """How many were caught, after how many tokens, and by what."""
    n = sum(told["n"] for _, told in found)
    caught = sorted(tokens for _, told in found for tokens in told["caught"])
    low, high = interval(len(caught), n)
    longest = max(unit.tokens for unit, _ in found)
    reasons: Counter[str] = Counter()
    for _, told in found:
        reasons.update(told["reasons"])
    return {
        "n": n,
        "caught": len(caught),
        "share_95": [low, high],
        "tokens_shown": longest,
        "tokens_median": caught[len(caught) // 2] if caught else None,
        "tokens_last": caught[-1] if caught else None,
        "first_crossed": counted(reasons.elements()),
        "curve": curve(found, longest),
    }


def curve(found: Told, longest: int) -> dict[str, list[float]]:
    """For each length: the share caught within so many tokens, and n, of the units that are so long."""
    points = {}
    for at in (length for length in LENGTHS if length <= longest):
        some = [told for unit, told in found if unit.tokens >= at]
        n = sum(told["n"] for told in some)
        points[str(at)] = [sum(tokens <= at for told in some for tokens in told["caught"]) / n, n]
    return points


def broken(body: Mapping[str, Any]) -> list[str]:
    """What is not as promised: an honest provider flagged, or a promised attack caught in under 99 %."""
    found = [f"honest {key}" for key, row in body["honest"].items() if row["flagged"]]
    for act, rows in body["attacks"].items():
        for key, row in rows.items():
            if act not in UNPROMISED and key.endswith("fp32/activations") and row["caught"] < PROMISED_SHARE * row["n"]:
                found.append(f"{act} {key}")
    return found


# ------------------------------------------------------------------------------------------------------- fitting


def extremes(scores: Scores) -> dict[str, list[float]]:
    """The largest single value and the mean of each sum: all that fitting needs of an audit."""
    return {name: [max(values), sum(values) / len(values)] for name, values in scores.sums().items() if values}


def stand_in(kept: Mapping[str, list[float]]) -> Scores:
    """Two values with the same largest and the same mean as the audit's."""
    values = {name: (top, 2 * mean - top) for name, (top, mean) in kept.items()}
    return Scores(values["margin"], values.get("far", ()), values.get("near", ()), values.get("logprob", ()))


def module_of(limits: Mapping[str, Limits]) -> str:
    """The text of `minga.verify.inference_fitted`."""
    lines = [
        '"""The fitted limits of inference audits, made by `tests/verify/campaign_inference.py --fit`; not by hand."""',
        "",
        "from __future__ import annotations",
        "",
        "from minga.verify.inference_limits import Limits, Line",
        "from minga.verify.inference_record import Numerics",
        "",
        "LIMITS: dict[Numerics, Limits] = {",
    ]
    for name, found in limits.items():
        lines += [f'    "{name}": Limits(', f"        peak={found.peak:.4g},"]
        for part in SUMS:
            line = getattr(found, part)
            lines.append(f"        {part}=Line({line.start:.4g}, {line.slope:.4g}),")
        lines.append("    ),")
    return "\n".join([*lines, "}", ""])


# -------------------------------------------------------------------------------------------------------- reading


def joined(bodies: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One body of several processes that ran parts of the plan with the same sources and limits."""
    first, *others = bodies
    made = {**first, **{part: dict(first[part]) for part in ("units", "cost", "apart")}}
    for other in others:
        assert (other["sources_sha256"], other["limits"]) == (first["sources_sha256"], first["limits"])
        for part in ("units", "cost", "apart"):
            made[part].update(other[part])
    return {**made, **summary(made["units"])}


def tables(body: Mapping[str, Any]) -> str:
    """The tables of docs/inference-audits.md."""
    lines = ["| honest | audits | tokens | flagged | rate, 95 % |", "|---|---|---|---|---|"]
    for key, row in body["honest"].items():
        lines.append(f"| {key} | {row['n']} | {row['tokens']} | {row['flagged']} | ≤ {row['rate_95'][1]:.2%} |")
    for key in sorted({key for rows in body["attacks"].values() for key in rows}):
        lines += ["", f"| {key} | caught | share, 95 % | tokens, median | tokens, last | first seen by |"]
        lines.append("|---|---|---|---|---|---|")
        for act, rows in body["attacks"].items():
            if key in rows:
                row = rows[key]
                by = ", ".join(f"{name} {count}" for name, count in row["first_crossed"].items())
                lines.append(
                    f"| {act} | {row['caught']} of {row['n']} | ≥ {row['share_95'][0]:.1%} | {row['tokens_median']} "
                    f"| {row['tokens_last']} | {by} |"
                )
    return "\n".join(lines)
