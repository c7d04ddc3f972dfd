"""What a job sees and what comes back: layout, set-up, variables, secrets, progress, checkpoints, ports, limits."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest
from tenants import MIB, SIZE, Market0, Tenant, needs_sandbox, running, tar

from minga.core.checkpoint import CheckpointManifest
from minga.core.crypto import blake3_hex
from minga.core.errors import Conflict, NotFound
from minga.core.seal import seal
from minga.provider.prepare import secrets_info

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(40)]


@pytest.fixture(params=["bubblewrap", "process"])
def driver(request: pytest.FixtureRequest) -> str:
    """Each driver that can run here."""
    if request.param == "bubblewrap":
        needs_sandbox()
    return str(request.param)


async def run_to_end(tenant: Tenant, run: str, **changes) -> str:
    """Run a job to its end; its output."""
    await tenant.start(run, **changes)
    await tenant.until("artifacts")
    return (await tenant.ask("GET", "/logs")).decode()


async def test_the_jobs_folders_and_variables(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        script = """
            cat hello.txt
            test "$PWD" = "$(cd ../work && pwd)" && test -d "$HOME" && test -d "$MINGA_OUTPUT_DIR"
            test -d "$MINGA_CHECKPOINT_DIR" && cat "$MINGA_CHECKPOINT_DIR/state"
            echo "$MINGA_ATTEMPT $MINGA_CPUS $OMP_NUM_THREADS $OWN $SKYPILOT_NODE_RANK $SKYPILOT_NUM_NODES"
            echo "$MINGA_JOB"
        """
        inputs = {"/job/work": tar({"hello.txt": b"hello\n"}), "/job/checkpoint": tar({"state": b"step 5\n"})}
        text = await run_to_end(tenant, script, inputs=inputs, envs={"OWN": "mine", "OMP_NUM_THREADS": "7"})
        assert text == f"hello\nstep 5\n0 1 7 mine 0 1\n{tenant.job}\n"


async def test_set_up_runs_first_in_the_same_place_and_is_free(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        text = await run_to_end(tenant, "cat made; echo run", setup="echo set up; sleep 1.5; echo made > made")
        assert text == "set up\nmade\nrun\n"
        status = await tenant.status()
        assert (status["exit_code"], status["working_s"]) == (0, 0)


async def test_a_failed_set_up_ends_the_job_with_its_code_and_costs_nothing(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        assert await run_to_end(tenant, "echo never", setup="echo trying; exit 9") == "trying\n"
        status = await tenant.status()
        assert (status["phase"], status["exit_code"], status["working_s"]) == ("exited", 9, 0)
        assert status["reason"] == "the set-up ended with code 9"


async def test_secrets_reach_the_job_and_nothing_that_is_kept(market: Market0, folder: Path, driver: str):
    home = folder / "home"
    async with running(market.config(home, driver=driver)) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        await tenant.login()
        secret = "s3cr3t-value-of-the-tenant"
        plain = json.dumps({"TOKEN": secret}).encode()
        sealed = seal(plain, tenant.bundle.terms.transport_key, secrets_info(tenant.channel)).hex()
        run = 'printf "%s" "$TOKEN" | md5sum | cut -c1-32; sleep 0.3'
        await tenant.send(run, secrets=sealed)
        await tenant.ask("POST", "/start")
        await tenant.until("artifacts")
        assert await tenant.ask("GET", "/logs") == hashlib.md5(secret.encode()).hexdigest().encode() + b"\n"
        await tenant.ask("POST", "/close")
        await tenant.closed()
    assert files_with(folder, secret.encode()) == []
    assert secret not in str(provider.told)


def files_with(folder: Path, text: bytes) -> list[Path]:
    """Files beneath a folder that hold `text`."""
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.mark.parametrize("plain", [b"[1]", b'{"A":1}', b"not json", b'{"A B":"x"}', b'{"A":"nul\\u0000"}'])
async def test_secrets_that_are_not_a_map_fail_the_start_without_being_shown(
    market: Market0, folder: Path, plain: bytes
):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        await tenant.login()
        sealed = seal(plain, tenant.bundle.terms.transport_key, secrets_info(tenant.channel)).hex()
        await tenant.send("true", secrets=sealed)
        await tenant.ask("POST", "/start")
        seen = await tenant.until("phase", phase="failed")
        assert plain.decode() not in str(seen)
        assert "invalid-input" in seen[-1]["data"]["reason"]


async def test_secrets_sealed_for_another_lease_cannot_be_opened(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.open()
        await tenant.login()
        sealed = seal(b"{}", tenant.bundle.terms.transport_key, secrets_info("0x" + "00" * 32)).hex()
        await tenant.send("true", secrets=sealed)
        await tenant.ask("POST", "/start")
        seen = await tenant.until("phase", phase="failed")
        assert "cannot be opened" in seen[-1]["data"]["reason"]


async def test_progress_lines_become_events(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        script = """
            echo '{"step": 1, "total": 2, "loss": 4.25}' >> $MINGA_PROGRESS; sleep 0.7
            echo 'no json' >> $MINGA_PROGRESS
            echo '{"step": 2, "total": 2, "text": "done"}' >> $MINGA_PROGRESS
        """
        await tenant.start(script)
        seen = [event["data"] for event in await tenant.until("artifacts") if event["kind"] == "progress"]
        assert seen == [{"step": 1, "total": 2, "loss": "4.25"}, {"step": 2, "total": 2, "text": "done"}]


async def test_complete_checkpoints_leave_while_the_job_runs_and_the_last_two_stay(
    market: Market0, folder: Path, driver: str
):
    async with (
        running(market.config(folder / "home", driver=driver, quantum=60)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        script = """
            cd $MINGA_CHECKPOINT_DIR
            for step in 1 2 3; do
                echo "state $step" > .state; echo junk > half.tmp; mv .state state; sleep 1.6
            done
            sleep 30
        """
        await tenant.start(script, checkpoint=True)
        seen = [e["data"] for e in await tenant.until("checkpoint", number=3) if e["kind"] == "checkpoint"]
        assert [item["number"] for item in seen] == [1, 2, 3]
        names = [blake3_hex(f"state {step}\n".encode()) for step in (1, 2, 3)]
        assert [(item["bytes"], item["files"]) for item in seen] == [(8, 1)] * 3
        manifest = CheckpointManifest.read(await tenant.ask("GET", f"/blobs/{seen[2]['manifest']}"))
        assert [(file.path, file.chunks) for file in manifest.files] == [("state", [names[2]])]
        assert manifest.parent == seen[1]["manifest"]
        assert await tenant.ask("GET", f"/chunks?names={names[1]},{names[2]}") == b"state 2\nstate 3\n"
        assert await tenant.ask("GET", f"/blobs/{names[2]}") == b"state 3\n"
        assert await tenant.ask("GET", f"/blobs/{names[1]}", headers={"range": "bytes=6-"}) == b"2\n"
        with pytest.raises(NotFound):
            await tenant.ask("GET", f"/blobs/{names[0]}")
        await tenant.ask("POST", "/stop", json={"grace_s": 0})


async def test_a_checkpoint_written_on_the_way_out_is_kept_too(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        script = "trap 'echo last > $MINGA_CHECKPOINT_DIR/s; exit 143' TERM; echo up; while :; do sleep 0.05; done"
        await tenant.start(script, checkpoint=True)
        while b"up" not in await tenant.ask("GET", "/logs"):
            pass
        await tenant.ask("POST", "/stop", json={"reason": "moving"})
        seen = await tenant.until("artifacts")
        (taken,) = [e["data"] for e in seen if e["kind"] == "checkpoint"]
        manifest = CheckpointManifest.read(await tenant.ask("GET", f"/blobs/{taken['manifest']}"))
        assert manifest.sizes() == {blake3_hex(b"last\n"): 5}
        status = await tenant.status()
        assert (status["exit_code"], status["reason"]) == (143, "moving")


async def test_a_port_of_the_job_is_reached_through_the_provider(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver, quantum=60)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        server = (
            "import http.server as h\n"
            "class S(h.BaseHTTPRequestHandler):\n"
            "  def do_POST(s):\n"
            "    b=s.rfile.read(int(s.headers['content-length']))\n"
            "    s.send_response(201); s.send_header('x-seen', s.headers.get('authorization','none'))\n"
            "    s.end_headers()\n"
            "    s.wfile.write(s.path.encode()+b' '+b)\n"
            "h.HTTPServer(('127.0.0.1', 18765), S).serve_forever()\n"
        )
        await tenant.start(
            "exec /usr/bin/python3 s.py", inputs={"/job/work": tar({"s.py": server.encode()})}, ports=[18765]
        )
        path = f"{tenant.path}/ports/18765/v1/a%2Fb%20c?q=1"
        while (answer := await tenant.http.post(path, content=b"body")).status_code == 409:
            assert answer.json()["error"]["code"] == "conflict"
        assert (answer.status_code, answer.content) == (201, b"/v1/a%2Fb%20c?q=1 body")
        assert answer.headers["x-seen"] == "none"
        with pytest.raises(NotFound):
            await tenant.ask("POST", "/ports/18766/")
        await tenant.ask("POST", "/stop", json={"grace_s": 0})
        await tenant.until("artifacts")
        with pytest.raises((NotFound, Conflict)):
            await tenant.ask("POST", "/ports/18765/")


async def test_hostile_outputs_come_back_without_their_tricks(market: Market0, folder: Path, driver: str):
    async with (
        running(market.config(folder / "home", driver=driver)) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        script = """
            cd $MINGA_OUTPUT_DIR
            ln -s /etc/passwd link; ln -s / root; mkfifo pipe; mkdir -p deep/er; echo ok > deep/er/file
            echo new > "$(printf 'line\\nbreak')"; echo tool > tool; chmod 755 tool
            ln -s $MINGA_OUTPUT_DIR/../../../.. up
        """
        await run_to_end(tenant, script)
        files = (await tenant.ask("GET", "/artifacts"))["files"]
        assert [(item["path"], item["executable"]) for item in files] == [("deep/er/file", False), ("tool", True)]


async def test_a_job_over_its_memory_is_told_so(market: Market0, folder: Path):
    needs_sandbox()
    async with (
        running(market.config(folder / "home", driver="bubblewrap")) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        await run_to_end(tenant, "exec tail /dev/zero", size=SIZE.model_copy(update={"memory_bytes": 32 * MIB}))
        assert (await tenant.status())["reason"] == "the job needed more memory than it ordered"


async def test_a_broken_archive_fails_the_start_as_the_tenants_fault(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("true", inputs={"/job/work": b"no tar" * 200})
        seen = await tenant.until("phase", phase="failed")
        assert "not a tar" in seen[-1]["data"]["reason"]
        assert [event["data"]["code"] for event in seen if event["kind"] == "warning"] == ["invalid-input"]
        assert list((folder / "home" / "leases").rglob("stage")) == []


async def test_events_go_on_after_a_number_and_end_when_the_lease_is_closed(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("true")
        seen = await tenant.until("artifacts")
        await tenant.ask("POST", "/close")
        later = [event async for event in tenant.events(after=len(seen))]
        assert [event["number"] for event in later] == list(range(len(seen) + 1, len(seen) + len(later) + 1))
        assert later[-1]["data"]["phase"] == "closed"
        everything = [event async for event in tenant.events()]
        assert everything[: len(seen)] == seen
        with sqlite3.connect(folder / "home" / "journal.sqlite") as db:
            assert db.execute("SELECT COUNT(*) FROM record WHERE stream = ?", (tenant.channel,)).fetchone()[0] > 8


async def test_a_followed_log_ends_with_the_job_and_can_begin_anywhere(market: Market0, folder: Path):
    async with running(market.config(folder / "home")) as provider, Tenant(market, provider.url) as tenant:
        await tenant.start("for i in 1 2 3; do echo line $i; sleep 0.2; done")
        whole = await tenant.ask("GET", "/logs?follow=1")
        assert whole == b"line 1\nline 2\nline 3\n"
        assert await tenant.ask("GET", "/logs?offset=7&follow=1") == b"line 2\nline 3\n"
        assert await tenant.ask("GET", "/logs?offset=999") == b""


async def test_inputs_stand_where_the_manifest_says_and_mounts_are_read_only(market: Market0, folder: Path):
    needs_sandbox()
    async with (
        running(market.config(folder / "home", driver="bubblewrap")) as provider,
        Tenant(market, provider.url) as tenant,
    ):
        script = """
            cat /job/work/a /job/work/sub/b /data/set/c; pwd
            echo x > /data/set/new && echo writable
            echo out > /job/out/here
        """
        inputs = {
            "/job/work": tar({"a": b"one\n"}),
            "/job/work/sub": tar({"b": b"two\n"}),
            "/data/set": tar({"c": b"three\n"}),
        }
        text = await run_to_end(tenant, script, inputs=inputs)
        assert text.startswith("one\ntwo\nthree\n/job/work\n")
        assert "writable" not in text
        assert [item["path"] for item in (await tenant.ask("GET", "/artifacts"))["files"]] == ["here"]


async def test_a_job_reaches_only_the_hosts_that_it_and_the_terms_name(market: Market0, folder: Path):
    needs_sandbox()
    config = market.config(folder / "home", driver="bubblewrap", egress=("example.org", "example.net"))
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        script = """
            exec /usr/bin/python3 - <<'END'
            import os, socket
            s = socket.create_connection(("127.0.0.1", int(os.environ["https_proxy"].rsplit(":", 1)[1])))
            s.sendall(b"CONNECT example.net:443 HTTP/1.1\\r\\n\\r\\n")
            print(s.recv(100).split(b"\\r\\n")[0].decode())
            END
        """
        lines = [line.removeprefix(" " * 12) for line in script.splitlines()]
        text = await run_to_end(tenant, "\n".join(lines), egress=["example.org"])
        assert " 403 " in text


@pytest.fixture
def environment(folder: Path) -> Path:
    """A Python environment for jobs, with one module of its own."""
    path = folder / "env"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", str(path)], check=True)
    (next((path / "lib").glob("python3*")) / "site-packages" / "below.py").write_text("name = 'below'\n")
    return path


async def test_set_up_installs_on_top_of_the_environment_where_egress_is_allowed(
    market: Market0, folder: Path, environment: Path
):
    needs_sandbox()
    config = market.config(
        folder / "home", driver="bubblewrap", egress=("example.org",), environments={"python": environment}
    )
    async with running(config) as provider, Tenant(market, provider.url) as tenant:
        setup = """python -c "
import sysconfig
open(sysconfig.get_path('purelib') + '/above.py', 'w').write('name = 1')" """
        run = "python -c 'import above, below, sys; print(above.name, below.name, sys.prefix)'"
        text = await run_to_end(tenant, run, setup=setup, egress=["example.org"])
        assert text == "1 below /job/venv\n"
