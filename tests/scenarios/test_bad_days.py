"""What goes wrong on a bad day, and the test that shows what Minga then does: one clear error, nothing lost.

Each line of `BAD_DAYS` is a failure that people meet and the tests that cover it; those that need a whole network of
processes are here. Money does not move before everything that can be checked was.
"""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from command_line import Ended, Minga, one_error
from machines import NAME, check_books, ended_at, machines, purses, variant
from markets import Stage, ended, spec_of

from fixtures import SystemClock, eventually
from minga.chain.local import open_faucet
from minga.cli.config import WALLET, Settings
from minga.client.home import Network
from minga.core.crypto import PrivateKey
from minga.core.errors import ClockSkew, DiskFull

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(150)]

TESTS = Path(__file__).parent.parent

BAD_DAYS: dict[str, tuple[str, ...]] = {
    "the budget is too small": (
        "cli/test_network.py::test_a_budget_that_buys_nothing_is_refused_before_any_money_moves",
        "client/test_orders.py::test_refusals",
    ),
    "the wallet is empty": ("scenarios/test_bad_days.py::test_an_empty_wallet_buys_nothing",),
    "the provider is out of disk": (
        "provider/test_refusals.py::test_more_disk_than_is_free_is_refused_before_anything_is_accepted",
        "runtimes/test_unpacking.py::test_a_full_disk_leaves_nothing",
        "runtimes/test_bubblewrap.py::test_more_disk_than_there_is_is_refused",
    ),
    "the disk is full while journaling": (
        "store/test_journal.py::test_a_full_disk_acknowledges_nothing",
        "provider/test_refusals.py::test_a_voucher_that_cannot_be_stored_is_not_acknowledged",
        "scenarios/test_bad_days.py::test_a_clients_full_disk_stops_paying_and_the_job_goes_on_later",
    ),
    "a port is in use": (
        "provider/test_refusals.py::test_the_providers_own_configuration_is_checked_before_anything_is_touched",
        "chain/test_local.py::test_a_taken_port_is_one_clear_error",
        "scenarios/test_bad_days.py::test_a_port_in_use_is_one_error",
    ),
    "anvil is missing": (
        "chain/test_anvil.py::test_without_npm_one_line_says_what_to_do",
        "scenarios/test_bad_days.py::test_a_network_without_anvil_is_one_error",
    ),
    "the chain is down while a job runs": (
        "scenarios/test_chain_kills.py::test_a_chain_that_is_down_for_a_while_costs_a_job_nothing",
        "scenarios/test_chain_kills.py::test_a_job_survives_the_death_of_its_chain",
    ),
    "the clock is wrong by an hour": (
        "chain/test_node.py::test_time_is_the_chains_and_a_wrong_clock_is_told",
        "scenarios/test_bad_days.py::test_a_provider_with_a_wrong_clock_offers_nothing",
        "scenarios/test_bad_days.py::test_a_tenant_with_a_wrong_clock_buys_nothing",
    ),
    "the workdir has 100k files": (
        "client/test_bundle.py::test_a_hundred_thousand_files_are_refused_with_the_folder_to_blame",
    ),
    "a symlink leads out of the workdir": ("client/test_bundle.py::test_a_link_out_of_its_tree_is_refused",),
    "an artifact's path is ../../x": (
        "client/test_folder.py::test_a_path_that_leaves_its_folder_is_refused",
        "scenarios/test_bad_days.py::test_a_provider_that_lies_about_paths_writes_nothing",
    ),
    "a log line of 2 GB": ("runtimes/test_bad_jobs.py::test_a_flood_of_two_gigabytes_in_one_line_is_capped",),
    "a job forks without end": ("runtimes/test_bad_jobs.py::test_a_fork_bomb_is_killed_whole",),
    "a job fills the disk": ("runtimes/test_bad_jobs.py::test_the_disk_ends_at_the_limit",),
    "a job exhausts the memory": (
        "runtimes/test_bad_jobs.py::test_a_memory_bomb_is_killed_and_named",
        "provider/test_job.py::test_a_job_over_its_memory_is_told_so",
    ),
}


@pytest.mark.parametrize("day", BAD_DAYS)
def test_every_bad_day_has_its_tests(day: str) -> None:
    assert BAD_DAYS[day]
    for test in BAD_DAYS[day]:
        path, _, name = test.partition("::")
        tree = ast.parse((TESTS / path).read_text())
        named = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in named, f"{test} is not there"


def tenants_home(stage: Stage, home: Path, boards: tuple[str, ...]) -> PrivateKey:
    """Give a home folder the stage's network and a fresh key without anything; returns the key."""
    Network(NAME, stage.network.spec, boards).save(Settings(home).home)
    return Settings(home).open_keys().create_embedded(WALLET, os.urandom(32))


async def run_cli(minga: Minga, *words: str, **more: Any) -> Ended:
    """A command, while this process serves on."""
    return await anyio.to_thread.run_sync(lambda: minga(*words, **more))


async def test_an_empty_wallet_buys_nothing(stage: Stage, minga: Minga, home: Path) -> None:
    words = ("run", "--budget", "2", "--no-workdir", "--", "true")
    async with machines(stage) as (machine,):
        await machine.start()
        key = tenants_home(stage, home, (machine.url,))
        one_error(await run_cli(minga, *words), "insufficient-funds", 2)
        async with open_faucet(stage.network.folder, SystemClock()) as faucet:
            await faucet.fund(stage.network.spec.deployment.token, key.address, f"tokens {key.address}", 0, 5_000_000)
        ended_without_gas = await run_cli(minga, *words)
        one_error(ended_without_gas, "insufficient-funds", 2)
        assert "gas" in ended_without_gas.err
        assert json.loads((await run_cli(minga, "jobs", "--json")).out) == []


async def test_a_port_in_use_is_one_error(stage: Stage, minga: Minga, home: Path) -> None:
    tenants_home(stage, home, ())
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = str(held.getsockname()[1])
        one_error(await run_cli(minga, "board", "--port", port), "port-in-use", 5)
        words = ("--price", "1", "--insecure-process", "--environment", "python=/", "--port", port)
        refused = await run_cli(minga, "provide", *words)
        assert refused.code == 5
        assert refused.err.count("port-in-use: ") == 1
        assert "Traceback" not in refused.err


async def test_a_network_without_anvil_is_one_error(minga: Minga, home: Path, tmp_path: Path) -> None:
    env = {"PATH": str(tmp_path), "MINGA_CACHE": str(tmp_path / "cache")}
    refused = await run_cli(minga, "up", "--driver", "process", "--environment", "python=/", env=env)
    one_error(refused, "missing-prerequisite", 6)
    assert "anvil" in refused.err
    assert "npm" in refused.err
    status = json.loads((await run_cli(minga, "status", "--json")).out)
    assert not [item for item in status["processes"] if item["alive"]]


async def test_a_provider_with_a_wrong_clock_offers_nothing(stage: Stage) -> None:
    async with machines(stage) as (machine,):
        machine.program = variant("hour-ahead")
        refused = await ended_at(machine)
        assert refused.code == "clock-skew"
        assert "36" in refused.fact
        assert not machine.leases()
        async with stage.network.open(stage.folder / "look") as chain:
            assert await chain.rpc.request("eth_getTransactionCount", machine.operator.address, "latest") == "0x0"


class HourAhead(SystemClock):
    """A calendar that is wrong."""

    def now(self) -> int:
        """An hour more than it is."""
        return super().now() + 3600


async def test_a_tenant_with_a_wrong_clock_buys_nothing(stage: Stage) -> None:
    async with machines(stage) as (machine,):
        await machine.start()
        before = await purses(stage, [machine])
        async with stage.client([machine], clock=HourAhead()) as client:
            with pytest.raises(ClockSkew):
                await client.submit(spec_of("true"))
            assert client.jobs() == []
        assert await purses(stage, [machine]) == before


async def test_a_provider_that_lies_about_paths_writes_nothing(stage: Stage) -> None:
    async with machines(stage, 2) as (liar, honest):
        liar.program = variant("lies")
        for machine in (liar, honest):
            await machine.start()
        before = await purses(stage, [liar, honest])
        async with stage.client([liar, honest]) as client:
            handle = await client.submit(spec_of("echo x > $MINGA_OUTPUT_DIR/x"))
            status = await ended(handle)
            assert (status.phase, status.attempts) == ("done", 2)
            assert status.provider == honest.operator.address
            assert [artifact.path for artifact in handle.artifacts()] == ["x"]
            inside = client.home.job(handle.id)
            found = [
                path for path in stage.folder.rglob("x") if path.is_file() and path.is_relative_to(client.home.path)
            ]
            assert all(path.is_relative_to(inside / "artifacts") for path in found), found
            for machine in (liar, honest):
                await machine.stop()
            await check_books(stage, client, handle, [liar, honest], before)


@pytest.fixture
def small_home(stage: Stage) -> Iterator[Path]:
    """A file system of 4 MiB for the tenant's home."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    home = stage.folder / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(home)], check=True)
    yield home
    subprocess.run(["umount", "--lazy", str(home)], check=True)


def fill(path: Path) -> None:
    """Write until there is no room left, to the last byte."""
    with path.open("wb", buffering=0) as handle:
        try:
            while handle.write(bytes(512)):
                pass
        except OSError:
            return


@pytest.mark.root
async def test_a_clients_full_disk_stops_paying_and_the_job_goes_on_later(stage: Stage, small_home: Path) -> None:
    run = "for i in 1 2 3 4 5 6; do sleep 0.5; echo $i; done; echo done > $MINGA_OUTPUT_DIR/result"
    async with machines(stage) as (machine,):
        await machine.start()
        before = await purses(stage, [machine])
        async with stage.client([machine]) as client:
            handle = await client.submit(spec_of(run), key="one")
            await eventually(lambda: handle.status().spent > 0)
            fill(small_home / "filler")
            with pytest.raises(DiskFull):
                await ended(handle)
        (small_home / "filler").unlink()
        async with stage.client([machine]) as client:
            handle = await client.submit(spec_of(run), key="one")
            assert (await ended(handle)).phase == "done"
            await machine.stop()
            await check_books(stage, client, handle, [machine], before)
