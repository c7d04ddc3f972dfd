"""`minga serve` and `minga chat`, as their users meet them: a model on a network of this machine, and a talk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
from networks import Net, eventually

from minga.runtimes.environments import build_ai_environment

sys.path.insert(0, str(Path(__file__).parents[1] / "workloads"))
from tiny_models import make_tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def serving_net() -> Iterator[Net]:
    """A network whose providers have the environment in which AI jobs run; unix sockets need its short path."""
    folder = Path(tempfile.mkdtemp(prefix="minga-"))
    made = Net(folder / "home", folder, build_ai_environment())
    ended = made("up", "--providers", "3", "--quantum", "2s")
    try:
        assert ended.code == 0, ended
        eventually(lambda: len(made.json("offers")) == 3)
        yield made
    finally:
        assert made("down").code == 0
        shutil.rmtree(folder, ignore_errors=True)


def first_lines(process: subprocess.Popen[str], count: int, seconds: float = 240) -> list[str]:
    """The first lines that a process says; when they do not come, what it said instead."""
    assert process.stdout is not None
    late = threading.Timer(seconds, process.kill)
    late.start()
    try:
        lines = [process.stdout.readline().strip() for _ in range(count)]
    finally:
        late.cancel()
    if not all(lines):
        assert process.stderr is not None
        raise AssertionError(process.stderr.read())
    return lines


def test_a_model_is_served_and_talked_to(serving_net: Net) -> None:
    make_tiny_model(serving_net.cwd / "tiny")
    words = ("serve", "tiny", "--replicas", "2", "--budget", "0.2", "--no-probe", "--price-in", "1", "--price-out", "2")
    server = serving_net.popen(*words)
    try:
        lines = first_lines(server, 2)
        said = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        talked = subprocess.run(
            [sys.executable, "-m", "minga", "chat", "--max-tokens", "8", "--seed", "4"],
            input="hello\nand now?\n", capture_output=True, text=True, timeout=90, env=os.environ | said, check=True,
        )  # fmt: skip
        assert talked.stderr.startswith("tiny; an empty line ends the chat\n[8 tokens, ")
        assert len(talked.stdout) > 2
        client = openai.OpenAI(base_url=said["OPENAI_BASE_URL"], api_key=said["OPENAI_API_KEY"], max_retries=0)
        (card,) = client.models.list().data
        assert (card.id, card.pricing) == ("tiny", {"prompt": "0.000001", "completion": "0.000002"})
        asked = {"model": "tiny", "prompt": "the quick", "max_tokens": 5, "temperature": 0}
        texts = {client.completions.create(**asked).choices[0].text for _ in range(4)}
        assert len(texts) == 1, "greedy replies are the same at every replica"
    finally:
        server.send_signal(signal.SIGINT)
        _, err = server.communicate(timeout=120)
    assert "spent $0." in err, err
    assert server.returncode == 0, err
    jobs = serving_net.json("jobs")
    assert {job["phase"] for job in jobs} == {"stopped"}
    for job in jobs:
        bill = serving_net.json("bill", job["job"])
        assert bill["conserved"] is True
        assert bill["locked"] == 0


def test_what_cannot_be_served_is_said_before_anything_is_bought(serving_net: Net) -> None:
    before = len(serving_net.json("jobs"))
    (serving_net.cwd / "empty").mkdir()
    ended = serving_net("serve", "empty", "--budget", "1")
    assert ended.code == 2
    assert "holds no Hugging Face checkpoint" in ended.err
    assert len(serving_net.json("jobs")) == before


def test_a_chat_without_a_gateway_says_so(serving_net: Net) -> None:
    process = serving_net.popen("chat", "--url", "http://127.0.0.1:9/v1", "--key", "mk-x")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5, err
    assert "Traceback" not in err
