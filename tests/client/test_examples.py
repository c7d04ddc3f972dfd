"""The client's examples run: the job file through the runner, the function through a real job."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import anyio
import pytest
from markets import Stage, ended

from fixtures import SeededDice, SystemClock
from minga.client.functions import Options, RemoteFunction
from minga.client.home import Home, Network
from minga.client.jobfile import load_job_file
from minga.client.session import Client

pytestmark = [pytest.mark.anyio, pytest.mark.root]

EXAMPLES = Path(__file__).parents[2] / "examples"


async def test_hello(stage: Stage) -> None:
    spec = load_job_file(EXAMPLES / "hello" / "job.yaml").spec
    async with stage.providers(price_per_hour=100_000) as providers, stage.client(providers) as client:
        handle = await client.submit(spec)
        assert (await ended(handle)).phase == "done"
        assert b"Hello from" in b"".join([chunk async for chunk in handle.logs()])
        assert [artifact.path for artifact in handle.artifacts()] == ["hello.txt"]


async def test_map_through_the_client_for_ordinary_programs(stage: Stage) -> None:
    found = spec_from_file_location("primes", EXAMPLES / "map" / "primes.py")
    module = module_from_spec(found)
    sys.modules["primes"] = module
    found.loader.exec_module(module)
    if sys.version_info[:2] != (3, 11):
        pytest.skip("the providers of these tests run the system's Python, which must be this one")
    async with stage.providers(price_per_hour=100_000, environments={"python": Path("/")}) as providers:
        network = Network("stage", stage.network.spec, tuple(provider.url for provider in providers))

        def program() -> tuple[list[int], bool]:
            home = Home(stage.folder / "sync")
            values = {"clock": SystemClock(), "dice": SeededDice("sync"), "key": lambda: stage.tenant}
            with Client(home, network, allow_process=True, **values) as client:
                original = module.count_primes
                options = Options(original._options.spec, "data", lambda: client)
                counts = RemoteFunction(original._function, options).map([(0, 100), (100, 200)], jobs=2)
                (first, second) = client.jobs()
                handle = client.attach(first.job)
                assert [event.kind for event in handle.events()][-1] == "end"
                assert handle.bill().conserved
                return counts, first.phase == second.phase == "done"

        counts, both_done = await anyio.to_thread.run_sync(program)
        assert counts == [25, 21]
        assert both_done
