"""`minga forward`, as its users meet it: a server in a job, reached from another terminal."""

from __future__ import annotations

import signal
import urllib.request

from networks import Net

JOB = """
name: web
resources: {ports: 8124}
run: |
  echo '<p>from the job</p>' > index.html
  echo listening
  exec python3 -m http.server --bind 127.0.0.1 8124
"""


def test_a_server_in_a_job_is_reached_from_another_terminal(net: Net) -> None:
    (net.cwd / "web.yaml").write_text(JOB)
    runner = net.popen("run", "web.yaml", "--budget", "0.05")
    assert runner.stdout is not None
    assert runner.stdout.readline() == "listening\n"
    door = net.popen("forward", "web", "8124")
    try:
        assert door.stdout is not None
        url = door.stdout.readline().strip()
        assert urllib.request.urlopen(url, timeout=30).read() == b"<p>from the job</p>\n"
    finally:
        door.send_signal(signal.SIGINT)
        _, err = door.communicate(timeout=30)
    assert (door.returncode, err) == (0, "port 8124 of the job is there; Ctrl-C stops it\n")
    assert net.json("stop", "web")["phase"] == "stopped"
    runner.communicate(timeout=30)
    wrong = net("forward", "web", "80")
    assert wrong.code == 2
    assert "not-found: the job names no port 80; its ports: 8124" in wrong.err


def test_a_job_that_is_not_there_is_named(net: Net) -> None:
    ended = net("forward", "nothing", "80")
    assert ended.code == 2
    assert "there is no job 'nothing'" in ended.err
