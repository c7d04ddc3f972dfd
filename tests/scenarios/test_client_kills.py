"""`minga run` dies by SIGKILL at each named point of the client; the same command again ends the job, once and exactly.

Everything is real and a process of its own: chain, board, providers, the command. Money is counted on the chain: what
the tenant's wallet holds at the end is what it held, less what the bill says was paid and kept as fee.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import UP, Net

from minga.cli.world import FAULT, FAULT_MARK
from minga.client.points import POINTS
from traces import tracing

pytestmark = [pytest.mark.slow]

RUN = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
while [ $step -lt 3 ]; do
  sleep 0.5; step=$((step + 1)); echo "step $step"
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
done
echo done > $MINGA_OUTPUT_DIR/result
"""

VERIFIED = {"client.send.order", "client.commitment.checked"}
"""Points that only a job comes by whose work is verified."""

TRACE = tracing([b"a" * 32] * 2)
TRACED = ["trace/leaves.bin", "trace/states/00000000.state", "trace/trace.json"]

ELSEWHERE = {
    "client.hold.seen": "a hold lasts longer than this job",
    "client.verdict.carried-out": "nobody disputes this job",
    "client.topup.mined": "this job's first deposit is enough",
    "client.probe.judged": "its provider has no sandbox, so it promises no speed",
    "client.stop.asked": "nobody stops this job",
    "client.reclaim.started": "its provider closes in time",
    "client.reclaim.finished": "its provider closes in time",
}
"""Points that this job does not come by, and why; tests/client reaches them without a death."""


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, jobs_python: Path) -> Iterator[Net]:
    """A network with one provider and no sandbox, so that no root is needed."""
    folder = tmp_path_factory.mktemp("client-kills")
    made = Net(folder / "home", folder, jobs_python)
    (folder / "data").mkdir()
    (folder / "data" / "input").write_text("x")
    ended = made(*UP, "--providers", "1", "--stake", "20", "--environment", f"python={jobs_python}")
    try:
        assert ended.code == 0, ended
        yield made
    finally:
        assert made("down").code == 0


def tokens(net: Net) -> int:
    """Token units in the tenant's wallet."""
    return int(net.json("wallet", "balance")["tokens"])


@pytest.mark.parametrize("point", sorted(POINTS.keys() - ELSEWHERE))
def test_a_command_that_is_killed_here_is_finished_by_the_next(
    net: Net, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--budget", "0.05", "--workdir", str(net.cwd / "data"), "--checkpoint", "--key", point)
    verify = ("--verify", "audit") if point in VERIFIED else ()
    words = (*words, "--name", point.rpartition(".")[2], *verify, "--json", "--", TRACE + RUN if verify else RUN)
    before = tokens(net)
    mark = net.cwd / f"{point}.killed"
    killed = net.popen(*words, extra={FAULT: point, FAULT_MARK: str(mark)})
    killed.communicate(timeout=90)
    assert killed.returncode == -signal.SIGKILL, f"{point} was not reached"
    assert mark.exists()

    report = net.json(*[word for word in words if word != "--json"])
    assert report["job"]["status"] == "done"
    assert [item["path"] for item in report["artifacts"]] == ["result", *(TRACED if verify else [])]
    bill = report["bill"]
    assert bill["conserved"]
    assert bill["locked"] == 0
    assert bill["deposited"] == bill["paid"] + bill["fee"] + bill["held"] + bill["refunded"]
    assert (bill["held"] > 0) == bool(verify)
    assert [job["job"] for job in net.json("jobs") if job["job"] == report["job"]["id"]] == [report["job"]["id"]]
    assert tokens(net) == before - bill["paid"] - bill["fee"] - bill["held"]


def test_every_point_is_walked_or_explained() -> None:
    assert ELSEWHERE.keys() <= POINTS.keys()
    assert len(POINTS) - len(ELSEWHERE) >= 29
