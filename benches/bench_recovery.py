"""How long a job stands still when its provider dies: death → first log line at the next provider.

Run: `python benches/bench_recovery.py`. Each round starts a job on a network of its own (the embedded chain, a board,
two providers as processes), waits until a checkpoint has left the first provider, kills that provider with everything
it started (SIGKILL), and waits for the first new byte of output. The heartbeat window (`attempt.HEARTBEAT_S`) is what
the client waits for a sign of life: `beyond_window_s` is what is added to it. Aim: p50 ≤ 5 s.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import monotonic, sleep

from harness import save, spread
from minga.cli.config import LOCAL, Settings
from minga.cli.localnet import LocalNetwork, Plan, remove_tree
from minga.cli.mishap import kill_with_all
from minga.client.attempt import HEARTBEAT_S
from minga.client.jobfile import JobSpec

ROUNDS = 5
RUN = """
step=$(cat $MINGA_CHECKPOINT_DIR/step 2>/dev/null || echo 0)
while :; do
  sleep 0.2; step=$((step + 1)); echo "step $step"
  echo $step > $MINGA_CHECKPOINT_DIR/.step; mv $MINGA_CHECKPOINT_DIR/.step $MINGA_CHECKPOINT_DIR/step
done
"""
PATIENCE_S = 120


def until(holds) -> None:
    """Wait until `holds()`."""
    deadline = monotonic() + PATIENCE_S
    while not holds():
        if monotonic() > deadline:
            raise TimeoutError("it took too long")
        sleep(0.002)


def once(network: LocalNetwork, client) -> float:
    """Seconds from the death of a job's provider to the first output of its next attempt."""
    handle = client.submit(JobSpec(run=RUN, budget="1", checkpoint=True))
    folder = client.home.job(handle.id)
    until(lambda: any((folder / "checkpoints").glob("*")) if (folder / "checkpoints").exists() else False)
    name = next(
        record.name for record in network.provider_records() if record.ready["provider"] == handle.status().provider
    )
    process = network.processes.get(name).find()
    died = monotonic()
    kill_with_all(process)
    second = folder / "log.1"
    until(lambda: second.exists() and second.stat().st_size > 0)
    taken = monotonic() - died
    handle.stop()
    handle.wait(PATIENCE_S)
    return taken


def main() -> None:
    """Measure and save."""
    seconds = []
    with tempfile.TemporaryDirectory() as text:
        settings = Settings(Path(text) / "home", LOCAL)
        network = LocalNetwork(settings)
        plan = Plan(providers=2, quantum="5s")
        try:
            for _ in range(ROUNDS):
                network.up(plan, lambda line: print(line, file=sys.stderr))
                with settings.connect() as client:
                    seconds.append(once(network, client))
        finally:
            network.down(lambda line: None)
            remove_tree(network.folder)
    beyond = [value - HEARTBEAT_S for value in seconds]
    save(
        "recovery",
        {"heartbeat_window_s": HEARTBEAT_S, "death_to_log_s": spread(seconds), "beyond_window_s": spread(beyond)},
    )


if __name__ == "__main__":
    main()
