"""Check the demo's reports: the money adds up, the job ended well, the model learned, and it did not take too long.

    check_report.py DISTURBED UNDISTURBED

The first is of a run whose first provider was killed: it must have taken two attempts, list unpaid seconds, and have
the other's validation loss within 1 %. Knows only the reports' JSON. Prints each rule that is broken and exits 1;
prints one line and exits 0 otherwise.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOSS_MAX = 4.3
LOSS_APART = 0.01
SECONDS_MAX = 300
EXPECTED_FILES = ("model.safetensors", "result.json", "loss.csv")
TIMES = ("order_to_first_log_s", "working_s", "unpaid_s")
AMOUNTS = ("deposited", "paid", "fee", "held", "refunded", "locked")


def broken(report: dict[str, Any], attempts: int) -> Iterator[str]:
    """Yield one sentence for each rule that `report`, of a job of so many attempts, breaks.

    Raises:
        KeyError: a field is missing.
    """
    job, bill, timing, result = report["job"], report["bill"], report["timing"], report["result"]
    if job["status"] != "done" or job["exit_code"] != 0:
        yield f"the job is {job['status']!r} with exit code {job['exit_code']!r}, not done with 0"
    if job["attempts"] != attempts:
        yield f"{job['attempts']} attempts, not {attempts}"
    yield from broken_bill(bill)
    if min(timing[name] for name in TIMES) < 0 or not 0 < timing["working_s"] + timing["unpaid_s"] <= SECONDS_MAX:
        yield f"times below 0 or above {SECONDS_MAX} s: {timing}"
    if report["chain"]["transactions"] < 3 or min(report["chain"]["gas"][name] for name in ("open", "close")) <= 0:
        yield f"fewer transactions or less gas than one job needs: {report['chain']}"
    yield from broken_artifacts(report["artifacts"])
    if not 0 < float(result["val_loss"]) < LOSS_MAX:
        yield f"validation loss {result['val_loss']}, not below {LOSS_MAX}"
    if not result["sample"].strip():
        yield "the model wrote nothing"


def apart(disturbed: dict[str, Any], undisturbed: dict[str, Any]) -> Iterator[str]:
    """Yield what a killed provider changed beyond time.

    Raises:
        KeyError: a field is missing.
    """
    if disturbed["timing"]["unpaid_s"] <= 0:
        yield "no unpaid seconds are listed, though a provider died"
    ours, theirs = (float(report["result"]["val_loss"]) for report in (disturbed, undisturbed))
    if abs(ours - theirs) > LOSS_APART * theirs:
        yield f"validation loss {ours} after the death of a provider, {theirs} without: more than 1 % apart"


def broken_bill(bill: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the money: every amount an integer, and every unit of the deposit accounted for."""
    odd = [name for name in AMOUNTS if type(bill[name]) is not int or bill[name] < 0]
    if odd:
        yield f"amounts that are not integers of token units: {odd}"
        return
    if bill["deposited"] != bill["paid"] + bill["fee"] + bill["held"] + bill["refunded"] + bill["locked"]:
        yield f"deposited is not paid + fee + held + refunded + locked: {bill}"
    if bill["conserved"] is not True or bill["locked"] != 0:
        yield f"the bill is not settled: {bill}"
    if bill["paid"] <= 0:
        yield "the provider earned nothing"


def broken_artifacts(artifacts: list[dict[str, Any]]) -> Iterator[str]:
    """Yield each expected file that is missing, and each file without a proper hash and size."""
    names = {Path(artifact["path"]).name for artifact in artifacts}
    missing = [name for name in EXPECTED_FILES if name not in names]
    if missing:
        yield f"artifacts missing: {missing}"
    for artifact in artifacts:
        if not re.fullmatch(r"[0-9a-f]{64}", artifact["blake3"]) or artifact["bytes"] < 0:
            yield f"artifact without a proper hash or size: {artifact}"


def main(argv: list[str]) -> int:
    """Check the two reports that the arguments name."""
    try:
        disturbed, undisturbed = (json.loads(Path(name).read_text()) for name in argv[1:3])
        found = [*broken(disturbed, 2), *broken(undisturbed, 1), *apart(disturbed, undisturbed)]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        found = [f"the reports cannot be read: {type(error).__name__}: {error}"]
    for sentence in found:
        print(f"demo report: {sentence}", file=sys.stderr)
    if not found:
        print("demo reports: the money adds up, the model learned, a provider's death changed nothing but the time")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
