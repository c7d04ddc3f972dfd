"""Submit → first log line, ours against Ray Jobs and a bare subprocess, in turns in one run.

Run: `make peers && python benches/bench_submit.py`. Ours is the whole way: fund a wallet, quote, open a lease on chain,
send, sandbox, run; Ray's is `JobSubmissionClient.submit_job` on a head that is up. Both poll as their own clients do:
ours follows the log, Ray's log is asked for every 10 ms. Aims: ≤ 0.35 s, and at most a quarter of Ray's.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic, perf_counter

from harness import save, spread
from minga.cli.config import LOCAL, Settings
from minga.cli.localnet import LocalNetwork, Plan, remove_tree
from minga.client.jobfile import JobSpec
from minga.core.errors import MissingPrerequisite

ROUNDS = 9
PEERS = Path(__file__).parent.parent / ".venv-peers" / "bin"
RAY_CLIENT = """
import sys, time
from ray.job_submission import JobSubmissionClient
deadline = time.monotonic() + 120
while True:
    try:
        client = JobSubmissionClient(sys.argv[1])
        break
    except Exception:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.2)
print("ready", flush=True)
for _ in sys.stdin:
    begin = time.perf_counter()
    job = client.submit_job(entrypoint="echo first")
    while "first" not in client.get_job_logs(job):
        time.sleep(0.01)
    print(time.perf_counter() - begin, flush=True)
"""


def free_port() -> int:
    """A port below Ray's own range of worker ports."""
    for port in range(8300, 9900):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise MissingPrerequisite("no free port for Ray", "stop something")


class Ray:
    """A Ray head with a home of its own, and a client process that submits once for each line that it reads."""

    def __init__(self, folder: Path) -> None:
        if not (PEERS / "ray").exists():
            raise MissingPrerequisite("Ray is not installed", "make peers")
        port = free_port()
        env = os.environ | {"HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0"}
        words = ["start", "--head", "--block", "--port=0", f"--dashboard-port={port}", "--dashboard-host=127.0.0.1"]
        words += ["--node-ip-address=127.0.0.1", "--num-cpus=2", f"--temp-dir={folder}/r"]
        quiet = subprocess.DEVNULL
        self.head = subprocess.Popen(
            [PEERS / "ray", *words], env=env, stdout=quiet, stderr=quiet, start_new_session=True
        )
        self.client = subprocess.Popen(
            [PEERS / "python", "-c", RAY_CLIENT, f"http://127.0.0.1:{port}"],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, text=True,
        )  # fmt: skip
        assert self.client.stdout is not None
        if self.client.stdout.readline() != "ready\n":
            self.stop()
            raise MissingPrerequisite("Ray's head did not start", "try again with fewer programs running")

    def once(self) -> float:
        """Seconds from submit to the first log line."""
        assert self.client.stdin is not None
        assert self.client.stdout is not None
        self.client.stdin.write("go\n")
        self.client.stdin.flush()
        return float(self.client.stdout.readline())

    def stop(self) -> None:
        """End what was started here."""
        self.client.kill()
        self.head.terminate()
        try:
            self.head.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.head.pid, signal.SIGKILL)


def bare() -> float:
    """Seconds until a shell of this process prints."""
    begin = perf_counter()
    with subprocess.Popen(["bash", "-c", "echo first"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return perf_counter() - begin


def ours(client) -> tuple[float, float]:
    """Seconds until the first log line, and until the job is settled."""
    begin = perf_counter()
    handle = client.submit(JobSpec(run="echo first", budget="0.05"))
    for chunk in handle.logs(follow=True):
        if b"first" in chunk:
            break
    first = perf_counter() - begin
    handle.wait()
    return first, perf_counter() - begin


def command_line(home: Path) -> float:
    """Seconds from starting `minga run` to its first log line on the terminal."""
    words = [sys.executable, "-m", "minga", "--home", str(home), "run", "--no-workdir", "--budget", "0.05"]
    begin = perf_counter()
    with subprocess.Popen([*words, "--", "echo first"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while b"first" not in process.stdout.readline():
            if monotonic() - begin > 60:
                raise TimeoutError
        return perf_counter() - begin


def main() -> None:
    """Measure all sides in turns and save medians and ratios."""
    times: dict[str, list[float]] = {"minga": [], "minga_settled": [], "minga_command": [], "ray": [], "bare": []}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        settings = Settings(folder / "home", LOCAL)
        network = LocalNetwork(settings)
        ray = Ray(folder / "ray")
        try:
            network.up(Plan(providers=1, quantum="5s"), lambda line: print(line, file=sys.stderr))
            with settings.connect() as client:
                ours(client)
                ray.once()
                for _ in range(ROUNDS):
                    first, settled = ours(client)
                    times["minga"].append(first)
                    times["minga_settled"].append(settled)
                    times["minga_command"].append(command_line(folder / "home"))
                    times["ray"].append(ray.once())
                    times["bare"].append(bare())
        finally:
            network.down(lambda line: None)
            ray.stop()
            remove_tree(network.folder)
    seconds = {name: spread(values) for name, values in times.items()}
    ours_s = seconds["minga"]["median"]
    ratios = {"to_ray": ours_s / seconds["ray"]["median"], "to_bare": ours_s / seconds["bare"]["median"]}
    save("submit", {"driver": "bubblewrap", "seconds": seconds, "ratio": ratios})


if __name__ == "__main__":
    main()
